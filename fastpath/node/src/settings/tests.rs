use super::*;

const EXAMPLE: &str = include_str!("../../../../etc/ilb.toml");

fn messages(text: &str) -> Vec<String> {
    Settings::parse(text)
        .expect_err("the text has mistakes")
        .iter()
        .map(Mistake::to_string)
        .collect()
}

fn with_fastpath(line: &str) -> String {
    format!("[fastpath]\ninterfaces = [\"eth0\"]\n{line}\n")
}

#[test]
fn the_example_is_valid_and_says_the_defaults() {
    let settings = Settings::parse(EXAMPLE).unwrap();
    assert_eq!(settings.fastpath, Fastpath::new(vec!["eth0".into()]));
    assert_eq!(settings.node, Node::default());
    assert_eq!(settings.manager, Manager::default());

    // What the comments call defaults are the defaults.
    let spelled_out: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(spelled_out.contains("\ntable-size = 1048576\n"));
    assert_eq!(Settings::parse(&spelled_out).unwrap(), settings);
}

#[test]
fn every_key_is_read() {
    let settings = Settings::parse(
        r#"
        [node]
        runtime-dir = "/tmp/r"
        state-dir = "/tmp/s"
        bpf-dir = "/tmp/b"
        [fastpath]
        interfaces = ["lan0", "wan-1.2@x"]
        queues = 4
        table-size = 0x1_0000
        mode = "generic"
        zero-copy = "never"
        ring-size = 64
        frames = 128
        busy-poll = true
        [manager]
        manage-addresses = false
        [pair]
        address = "192.0.2.1"
        port = 5000
        [metrics]
        listen = "[::1]:9749"
        per-server = false
        "#,
    )
    .unwrap();
    assert_eq!(
        settings.fastpath,
        Fastpath {
            interfaces: vec!["lan0".into(), "wan-1.2@x".into()],
            queues: Queues::Count(4),
            table_size: 65536,
            mode: Mode::Generic,
            zero_copy: ZeroCopy::Never,
            ring_size: 64,
            frames: 128,
            busy_poll: true,
        }
    );
    assert!(!settings.manager.manage_addresses);
    assert_eq!(
        settings.pair,
        Pair {
            address: Some("192.0.2.1".parse().unwrap()),
            port: 5000,
        }
    );
    assert_eq!(
        settings.metrics,
        Metrics {
            listen: Some("[::1]:9749".parse().unwrap()),
            per_server: false,
        }
    );
    assert_eq!(settings.control_socket(), Path::new("/tmp/r/fastpath.sock"));
    assert_eq!(settings.table_file(), Path::new("/tmp/r/connections"));
    assert_eq!(settings.database(), Path::new("/tmp/s/db"));
    assert_eq!(settings.snapshots(), Path::new("/tmp/s/snapshots"));
    assert_eq!(settings.node.bpf_dir, Path::new("/tmp/b"));
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once() {
    let text = r#"[nod]
[node]
state-dir = "var/lib/ilb"
table-size = 5
[fastpath]
interfaces = ["eth0", "a b", "eth0", 7]
queues = "al"
table_size = 100
mode = "nativ"
zero-copy = true
ring-size = 1000
frames = -4
busy-poll = "yes"
[manager]
manage-adresses = true
"#;
    let expected = [
        "line 1, column 2: unknown section [nod]; sections are node, fastpath, manager, pair, metrics and limits; did you mean \"node\"?",
        "line 3, column 13: node.state-dir: \"var/lib/ilb\" is not allowed; allowed is an absolute path such as \"/var/lib/ilb\"",
        "line 4, column 1: node.table-size: unknown key; allowed are runtime-dir, state-dir and bpf-dir; table-size belongs in [fastpath]",
        "line 6, column 23: fastpath.interfaces: \"a b\" is not the name of an interface; allowed are 1 to 15 bytes without spaces, '/' and ':', not \".\" or \"..\"",
        "line 6, column 30: fastpath.interfaces: \"eth0\" is there twice; name each interface once",
        "line 6, column 38: fastpath.interfaces: 7 is not the name of an interface; allowed are 1 to 15 bytes without spaces, '/' and ':', not \".\" or \"..\"",
        "line 7, column 10: fastpath.queues: \"al\" is not allowed; allowed are \"all\" and whole numbers from 1 to 64",
        "line 8, column 1: fastpath.table_size: unknown key; allowed are interfaces, queues, table-size, mode, zero-copy, ring-size, frames and busy-poll; did you mean \"table-size\"?",
        "line 9, column 8: fastpath.mode: \"nativ\" is not allowed; allowed are \"auto\", \"native\" and \"generic\"; did you mean \"native\"?",
        "line 10, column 13: fastpath.zero-copy: true is not allowed; allowed are \"auto\", \"never\" and \"require\"",
        "line 11, column 13: fastpath.ring-size: 1000 is not allowed; allowed is a power of two from 64 to 32768; the nearest are 512 and 1024",
        "line 12, column 10: fastpath.frames: -4 is not allowed; allowed is a power of two from 64 to 1048576",
        "line 13, column 13: fastpath.busy-poll: \"yes\" is not allowed; allowed are true and false",
        "line 15, column 1: manager.manage-adresses: unknown key; allowed are manage-addresses; did you mean \"manage-addresses\"?",
    ];
    let found = messages(text);
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn single_mistakes_have_their_message() {
    let cases = [
        (
            String::new(),
            "line 1, column 1: fastpath.interfaces: missing; it is required: a list of 1 to 64 names, such as [\"eth0\", \"eth1\"]",
        ),
        (
            "[node]\n[fastpath]\nqueues = 2".into(),
            "line 2, column 2: fastpath.interfaces: missing; it is required: a list of 1 to 64 names, such as [\"eth0\", \"eth1\"]",
        ),
        (
            "[fastpath]\ninterfaces = []".into(),
            "line 2, column 14: fastpath.interfaces: a list of 0 is not allowed; allowed is a list of 1 to 64 names, such as [\"eth0\", \"eth1\"]",
        ),
        (
            "[fastpath]\ninterfaces = \"eth0\"".into(),
            "line 2, column 14: fastpath.interfaces: \"eth0\" is not allowed; allowed is a list of 1 to 64 names, such as [\"eth0\", \"eth1\"]",
        ),
        (
            with_fastpath("queues = 65"),
            "line 3, column 10: fastpath.queues: 65 is not allowed; allowed are \"all\" and whole numbers from 1 to 64",
        ),
        (
            with_fastpath("table-size = 99999999999999999999"),
            "line 3, column 14: fastpath.table-size: 99999999999999999999 is not allowed; allowed is a whole number from 64 to 268435456",
        ),
        (
            with_fastpath("table-size = 1e6"),
            "line 3, column 14: fastpath.table-size: 1e6 is not allowed; allowed is a whole number from 64 to 268435456",
        ),
        (
            with_fastpath("ring-size = 4096\nframes = 2048"),
            "line 4, column 10: fastpath.frames: 2048 frames cannot fill a ring of 4096; allowed is at least ring-size",
        ),
        (
            with_fastpath("mode = \"generic\"\nzero-copy = \"require\""),
            "line 4, column 13: fastpath.zero-copy: \"require\" contradicts mode = \"generic\", which always copies; use mode = \"auto\" or \"native\"",
        ),
        (
            format!("queues = 1\n{}", with_fastpath("")),
            "line 1, column 1: unknown key queues outside of any section; sections are node, fastpath, manager, pair, metrics and limits; queues belongs in [fastpath]",
        ),
        (
            format!("node = 1\n{}", with_fastpath("")),
            "line 1, column 8: node: 1 is not a section; write [node] on a line of its own",
        ),
        (
            format!(
                "[node]\nruntime-dir = \"/{}\"\n{}",
                "x".repeat(93),
                with_fastpath("")
            ),
            &format!(
                "line 2, column 15: node.runtime-dir: the control socket's path /{}/fastpath.sock would have 108 bytes; allowed are 107",
                "x".repeat(93)
            ),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(messages(&text), [expected], "{text}");
    }
}

#[test]
fn syntax_errors_have_a_place_and_hide_no_other_mistake() {
    let found = messages("[fastpath]\ninterfaces = [\"eth0\"]\nmode = \nqueues = 0\n");
    assert!(found[0].starts_with("line 3, column "), "{found:#?}");
    assert!(found[0].contains("not TOML: "), "{found:#?}");
    assert!(
        found
            .iter()
            .any(|m| m.contains("fastpath.queues: 0 is not allowed")),
        "{found:#?}"
    );
}

#[test]
fn a_larger_ring_gets_enough_frames_by_default() {
    let settings = Settings::parse(&with_fastpath("ring-size = 8192")).unwrap();
    assert_eq!(settings.fastpath.frames, 8192);
}

#[test]
fn load_names_the_file() {
    let missing = Path::new("/nonexistent/ilb.toml");
    let error = Settings::load(missing).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the node settings /nonexistent/ilb.toml: "),
        "{error}"
    );
    let file = std::env::temp_dir().join(format!("ilb-settings-{}.toml", std::process::id()));
    std::fs::write(&file, "[fastpath]\n").unwrap();
    let error = Settings::load(&file).unwrap_err().to_string();
    std::fs::remove_file(&file).unwrap();
    assert!(
        error.starts_with(&format!(
            "the node settings {} have 1 mistake:\n  line 1, column 2: ",
            file.display()
        )),
        "{error}"
    );
}

#[test]
fn a_pair_listens_on_an_address_of_the_node_or_on_all() {
    let with = |line: &str| with_fastpath(&format!("[pair]\n{line}"));
    let of = |line: &str| Settings::parse(&with(line)).unwrap().pair;
    let (address, port) = (None, PAIR_PORT);
    assert_eq!(of(""), Pair { address, port });
    assert_eq!(of("address = \"all\""), Pair { address, port });
    let address = Some("2001:db8::1".parse().unwrap());
    assert_eq!(of("address = \"2001:db8::1\""), Pair { address, port });
    for (wrong, words) in [
        ("address = \"lb1\"", "pair.address"),
        ("address = \"0.0.0.0\"", "an address of this node"),
        ("address = 7", "an address of this node"),
        ("port = 0", "pair.port"),
        ("port = 65536", "from 1 to 65535"),
    ] {
        let mistakes = Settings::parse(&with(wrong)).unwrap_err();
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(
            said.len() == 1 && said[0].contains(words),
            "{wrong}: {said:?}"
        );
    }
}

#[test]
fn an_endpoint_has_an_address_and_a_port_or_is_off() {
    let with = |listen: &str| with_fastpath(&format!("[metrics]\nlisten = {listen}"));
    let off = Settings::parse(&with("\"off\"")).unwrap();
    assert_eq!(off.metrics.listen, None);
    for wrong in [
        "\"127.0.0.1\"",
        "\"127.0.0.1:0\"",
        "\"lo:9749\"",
        "9749",
        "\"on\"",
    ] {
        let said = messages(&with(wrong)).join("\n");
        assert!(
            said.contains("metrics.listen") && said.contains("an address with a port"),
            "{said}"
        );
    }
}
