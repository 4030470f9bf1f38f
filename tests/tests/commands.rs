//! `lbadm`: each mistake gets its message and exit code and changes nothing.

use std::process::Command;
use std::time::Duration;

use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, shell};

/// Everything that there is to see.
fn everything(lab: &Lab) -> String {
    let shown =
        ["show-rule -f", "show-servergroup", "show-server"].map(|command| lab.node.lbadm(command));
    let generation = lab.node.property("Generation").ok();
    let addresses = lab.at("lb").run("ip -o addr show");
    // Only device and address: lifetimes tick, and flags say how far the kernel is.
    let addresses: Vec<String> = addresses
        .lines()
        .map(|line| {
            line.split_whitespace()
                .take(4)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    format!(
        "{}\n{generation}\n{}",
        shown.join("\n"),
        addresses.join("\n")
    )
}

/// (words after `lbadm`, exit code, what standard error must hold)
const MISTAKES: &[(&str, i32, &[&str])] = &[
    // Usage: wrong in itself.
    ("creat-rule x", 2, &["creat-rule", "create-rule"]),
    (
        "create-rule -i vipp=10.1.0.120,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["vipp", "vip"],
    ),
    (
        "create-rule -i vip=10.1.0.300,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["10.1.0.300"],
    ),
    (
        "create-rule -i vip=127.0.0.1,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["127.0.0.1", "loopback"],
    ),
    (
        "create-rule -i vip=224.0.0.1,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["224.0.0.1", "multicast"],
    ),
    (
        "create-rule -i vip=0.0.0.0,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["0.0.0.0", "unspecified"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=70000 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["70000", "65535"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=90-80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["90-80"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80,protocol=tpc -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["tpc", "tcp"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=roundrobbin,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["roundrobbin", "roundrobin"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=HALFNAT -o servergroup=group0 x",
        2,
        &["HALFNAT", "HALF-NAT"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=NAT,proxy-src=10.2.0.999 -o servergroup=group0 x",
        2,
        &["10.2.0.999"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr -o servergroup=group0 x",
        2,
        &["type"],
    ),
    (
        "create-rule -i vip=10.1.0.120 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        2,
        &["port"],
    ),
    (
        "create-servergroup -s server=10.2.0.0-10.2.5.0 x",
        2,
        &["256"],
    ),
    ("create-servergroup -s server=10.2.0.11:0 x", 2, &["port"]),
    ("show-rule -p", 2, &["-o"]),
    ("show-rule -p -o rulname", 2, &["rulname"]),
    // Contradictions to what is configured.
    (
        "create-rule -i vip=10.1.0.100,port=80-80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 x",
        1,
        &["rule0", "10.1.0.100"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group0 RULE0",
        1,
        &["exists"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=group1 x",
        1,
        &["group1"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=HALF-NAT -o servergroup=grup0 x",
        1,
        &["grup0", "group0"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=DSR -o servergroup=group9 x",
        1,
        &["group9", "DSR"],
    ),
    (
        "create-servergroup -s server=10.2.0.11 group0",
        1,
        &["group0", "exists"],
    ),
    ("delete-servergroup group0", 1, &["group0", "rule0"]),
    ("delete-servergroup nosuch", 1, &["nosuch"]),
    ("delete-rule nosuch", 1, &["nosuch"]),
    ("delete-rule rule0 nosuch", 1, &["nosuch"]),
    ("enable-rule rule0 nosuch", 1, &["nosuch"]),
    ("disable-rule rul0", 1, &["rul0", "rule0"]),
    ("disable-server _group0.99", 1, &["_group0.99"]),
    ("disable-server _group0.0 _group0.99", 1, &["_group0.99"]),
    (
        "add-server -s server=10.2.0.11 group0",
        1,
        &["10.2.0.11", "group0"],
    ),
    (
        "add-server -s server=[fd02::11] group0",
        1,
        &["fd02::11", "group0"],
    ),
    (
        "add-server -s server=10.2.0.14,10.2.0.11 group0",
        1,
        &["10.2.0.11"],
    ),
    (
        "remove-server -s server=10.2.0.99 group0",
        1,
        &["10.2.0.99"],
    ),
    (
        "remove-server -s server=_group0.99 group0",
        1,
        &["_group0.99"],
    ),
    (
        "remove-server -s server=10.2.0.11,10.2.0.99 group0",
        1,
        &["10.2.0.99"],
    ),
    ("show-rule nosuch", 1, &["nosuch"]),
    // Part of the plan, not of this version.
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=HALF-NAT,pmask=/33 -o servergroup=group0 x",
        2,
        &["/33", "/32"],
    ),
    (
        "create-rule -i vip=10.1.0.120,port=80 -m lbalg=rr,type=HALF-NAT -h hc-name=h -o servergroup=group0 x",
        1,
        &["health check", "'h'"],
    ),
    ("create-healthcheck -h hc-test=tpc h", 2, &["tpc", "tcp"]),
    (
        "create-healthcheck -h hc-test=tcp,hc-interval=soon h",
        2,
        &["interval", "soon"],
    ),
    ("delete-healthcheck h", 1, &["'h'"]),
    ("import-config /nonexistent/file", 1, &["/nonexistent/file"]),
];

#[test]
fn each_mistake_has_its_message_and_exit_code_and_changes_nothing() {
    let lab = Lab::with_ilb(Spec::default());
    Service::http(0, Topology::HalfNat, Family::V4).create(&lab);
    // IPv6 servers, for a rule of the wrong family; other ports, for DSR.
    lab.node
        .lbadm("create-servergroup -s server=[fd02::11],[fd02::12] group1");
    lab.node
        .lbadm("create-servergroup -s server=10.2.0.11:8080 group9");
    let before = everything(&lab);
    let mut wrong = Vec::new();
    for (line, code, fragments) in MISTAKES {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = lab.node.try_lbadm(&words);
        let missing: Vec<&&str> = fragments
            .iter()
            .filter(|fragment| !answer.stderr.contains(**fragment))
            .collect();
        if answer.code != *code || !missing.is_empty() || !answer.stdout.is_empty() {
            wrong.push(format!(
                "expected exit code {code}, no output, and {missing:?} in the message\n{answer}"
            ));
        }
        if !answer.stderr.starts_with("lbadm: ") || answer.stderr.trim_end().lines().count() > 2 {
            wrong.push(format!(
                "expected one message that begins with `lbadm: `\n{answer}"
            ));
        }
        assert_eq!(
            everything(&lab),
            before,
            "given `lbadm {line}`, when it is refused, then nothing has changed"
        );
    }
    assert!(
        wrong.is_empty(),
        "given mistakes, then each has its message and exit code; {} of {} do not:\n{}",
        wrong.len(),
        MISTAKES.len(),
        wrong.join("\n")
    );
    Load::new((lab.vip(Family::V4, 0), 80).into(), 30)
        .run(lab.at("c1"))
        .none_failed("given all these mistakes, when requests come");
}

#[test]
fn not_running_is_exit_code_3() {
    let lab = Lab::new(Spec::default());
    for line in ["show-rule", "delete-rule x", "show-statistics"] {
        let answer = lab
            .node
            .try_lbadm(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            answer.code, 3,
            "given no manager, when `lbadm {line}` is typed, then it exits with 3\n{answer}"
        );
        assert!(
            answer.stderr.contains("ilb") && answer.stderr.contains("not running"),
            "given no manager, then the message says so\n{answer}"
        );
    }
    let mut command = lab.node.lbadm_command();
    command
        .arg("show-rule")
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let answer = shell::run(command);
    assert_eq!(
        answer.code, 3,
        "given no bus at all, then lbadm exits with 3\n{answer}"
    );
}

#[test]
fn only_root_may_change_things_and_everybody_may_look() {
    let lab = Lab::with_ilb(Spec::default());
    Service::http(0, Topology::HalfNat, Family::V4).create(&lab);
    let before = everything(&lab);
    for line in [
        "create-servergroup -s server=10.2.0.11 mine",
        "delete-rule rule0",
        "delete-rule -a",
        "disable-rule rule0",
        "disable-server _group0.0",
        "add-server -s server=10.2.0.14 group0",
        "remove-server -s server=10.2.0.11 group0",
        "delete-servergroup group0",
    ] {
        let answer = lab.node.lbadm_as_nobody(line);
        assert_eq!(
            answer.code, 4,
            "given the user nobody, when `lbadm {line}` is typed, then it exits with 4\n{answer}"
        );
        assert!(
            answer.stderr.contains("may not"),
            "given the user nobody, when `lbadm {line}` is typed, then the message says so\n{answer}"
        );
        assert_eq!(
            everything(&lab),
            before,
            "given `lbadm {line}` by nobody, then nothing has changed"
        );
    }
    for line in [
        "show-rule",
        "show-server",
        "show-servergroup",
        "show-statistics",
    ] {
        let answer = lab.node.lbadm_as_nobody(line);
        assert_eq!(
            answer.code, 0,
            "given the user nobody, when `lbadm {line}` is typed, then it answers\n{answer}"
        );
    }
}

/// The whole life of a configuration, as PARITY has it, seen through the machine-readable output.
#[test]
fn commands_and_their_aliases_do_what_they_say() {
    let lab = Lab::with_ilb(Spec::default());
    let node = &lab.node;
    node.lbadm("create-sg -s server=10.2.0.11,10.2.0.12 web");
    node.lbadm("add-srv -s servers=10.2.0.13:80 web");
    node.lbadm("CREATE-RL -i VIP=10.1.0.100,PORT=http,PROT=TCP -m ALGO=RR,TOPO=H -o SG=WEB First");
    assert_eq!(
        node.lbadm("show-rl -p -o rulename,status,lbalg,type,protocol,vip,port"),
        "First:disabled:roundrobin:HALF-NAT:tcp:10.1.0.100:80\n",
        "given a rule made with aliases in capitals, then it is shown by its usual words, and disabled"
    );
    node.lbadm("enable-rl");
    assert_eq!(
        node.lbadm("show-rule -p -o status first"),
        "enabled\n",
        "given enable-rule without names, then all are"
    );
    assert_eq!(
        node.lbadm("show-servergroup -p -o sgname,serverid,ip_address"),
        "web:_web.0:10.2.0.11\nweb:_web.1:10.2.0.12\nweb:_web.2:10.2.0.13\n",
        "given three servers, then they have ids of the form _<group>.<n>"
    );
    node.lbadm("disable-server _web.1");
    let tally = Load::new((lab.vip(Family::V4, 0), 80).into(), 100).run(lab.at("c1"));
    tally.none_failed("given a disabled server, when requests come");
    assert_eq!(
        (tally.of("s1"), tally.of("s2"), tally.of("s3")),
        (50, 0, 50),
        "given a disabled server: {tally}"
    );
    // It is draining until the fast path has reported that it has no connection.
    let disabled = shell::wait_for(Duration::from_secs(150), || {
        let shown = node.lbadm("show-server -p -o serverid,status first");
        (!shown.contains("draining")).then_some(())
    });
    assert!(
        disabled.is_some(),
        "given a disabled server, when its connections are over, then it drains no more"
    );
    assert_eq!(
        node.lbadm("show-server -p -o serverid,address,rulename,status,servergroup first"),
        "_web.0:10.2.0.11:First:enabled:web\n_web.1:10.2.0.12:First:disabled:web\n_web.2:10.2.0.13:First:enabled:web\n",
        "given a disabled server, then show-server says so"
    );
    node.lbadm("remove-server -s server=_web.1 web");
    node.lbadm("add-server -s server=10.2.0.12 web");
    assert!(
        node.lbadm("show-servergroup -p -o serverid")
            .lines()
            .any(|id| id == "_web.3"),
        "given a server that was removed, when it is added again, then its id is a new one"
    );
    let statistics = node.lbadm("show-statistics -v -p -o pkt_p,newconn");
    let counted: Vec<u64> = statistics
        .trim()
        .split(':')
        .map(|count| count.parse().unwrap_or_default())
        .collect();
    assert!(
        counted[0] >= 800 && counted[1] >= 100,
        "given the hundred requests above, then show-statistics shows them:\n{statistics}"
    );
    node.lbadm("delete-rule -a");
    node.lbadm("delete-servergroup web");
    // A deleted rule is shown, as draining, until its connections are over.
    let gone = shell::wait_for(Duration::from_secs(20), || {
        node.lbadm("show-rule -p -o rulename")
            .is_empty()
            .then_some(())
    });
    assert!(
        gone.is_some(),
        "given delete-rule -a, when connections are over, then there are no rules"
    );
}

/// The bus interface is usable without lbadm.
#[test]
fn plain_d_bus_is_enough() {
    let lab = Lab::with_ilb(Spec::default());
    let bus = format!("--bus={}", lab.node.bus());
    let send = |words: &[&str]| {
        let mut command = Command::new("dbus-send");
        command
            .args([bus.as_str(), "--print-reply", "--dest=org.ilb.Ilb1"])
            .args(words);
        shell::run(command)
    };
    let made = send(&[
        "/org/ilb/Ilb1",
        "org.ilb.Ilb1.Manager.CreateServerGroup",
        "string:web",
        "array:string:10.2.0.11,10.2.0.12",
    ])
    .ok();
    assert!(
        made.contains("/org/ilb/Ilb1/servergroup/web"),
        "given CreateServerGroup, then it returns a path:\n{made}"
    );
    let objects = send(&[
        "/org/ilb/Ilb1",
        "org.freedesktop.DBus.ObjectManager.GetManagedObjects",
    ])
    .ok();
    for wanted in [
        "/org/ilb/Ilb1/servergroup/web",
        "org.ilb.Ilb1.ServerGroup",
        "org.ilb.Ilb1.Server",
    ] {
        assert!(
            objects.contains(wanted),
            "given a group of two, then GetManagedObjects has {wanted}:\n{objects}"
        );
    }
    let refused = send(&[
        "/org/ilb/Ilb1",
        "org.ilb.Ilb1.Manager.DeleteServerGroups",
        "array:string:nosuch",
    ]);
    assert!(
        refused.code != 0
            && refused.stderr.contains("org.ilb.Ilb1.Error.NotFound")
            && refused.stderr.contains("nosuch"),
        "given an unknown group, then the D-Bus error names class and value\n{refused}"
    );
    let described = lab.node.call("Describe", &[]).ok();
    assert!(
        described.contains("\"groups\""),
        "given Describe, then it returns JSON:\n{described}"
    );
}

/// A wrong settings file: every mistake at once, with its line; the daemon does not start.
#[test]
fn every_mistake_of_the_settings_file_is_reported_at_once() {
    let lab = Lab::new(Spec::default());
    let path = lab.directory().join("wrong.toml");
    std::fs::write(
        &path,
        "[node]\nruntime-dri = \"/run/ilb\"\n[fastpath]\ninterfaces = []\nqueues = 65\nring-size = 1000\nmode = \"nativ\"\n",
    )
    .expect("cannot write into the lab's directory");
    for program in ["ilb-fastpath", "ilb-svcmgr"] {
        let mut command = lab
            .at("lb")
            .command(ilb_tests::lab::node::programs().join(program));
        command
            .arg("--config")
            .arg(&path)
            .env("DBUS_SYSTEM_BUS_ADDRESS", lab.node.bus());
        let answer = shell::run(command);
        let said = format!("{}{}", answer.stdout, answer.stderr);
        assert_ne!(
            answer.code, 0,
            "given a wrong settings file, then {program} does not start\n{answer}"
        );
        for wanted in [
            "runtime-dri",
            "runtime-dir",
            "interfaces",
            "65",
            "1000",
            "nativ",
            "2",
            "4",
            "5",
            "6",
            "7",
        ] {
            assert!(
                said.contains(wanted),
                "given a settings file with five mistakes, then {program} names each with its line; `{wanted}` is missing\n{answer}"
            );
        }
    }
}

/// What the fast path knows of single connections and packets, next to what clients see.
#[test]
fn connections_are_shown_and_explanations_are_true() {
    let lab = Lab::with_ilb(Spec::default());
    let target = Service::http(0, Topology::HalfNat, Family::V4)
        .algorithm("hash-ip")
        .create(&lab);
    let (node, vip, client) = (&lab.node, target.ip(), lab.client(Family::V4, 1));
    assert_eq!(
        node.lbadm("show-connections"),
        "there are no connections\n",
        "given no traffic, then there is nothing to show"
    );

    let explain = |more: &str, port: u16| {
        node.lbadm(&format!("explain {more} tcp {client}:40000 {vip}:{port}"))
    };
    let said = explain("", 80);
    for fragment in [
        "connection: none: the packet begins one",
        "rule:       rule0",
        "outcome:    sent",
    ] {
        assert!(
            said.contains(fragment),
            "given a SYN to the VIP, then its explanation has {fragment:?}:\n{said}"
        );
    }
    let server = said
        .split_once("goes to ")
        .and_then(|(_, rest)| rest.split_once(' '))
        .map(|(id, _)| id.to_owned())
        .expect("it goes to a server");
    let number: usize = server
        .rsplit_once('.')
        .and_then(|(_, n)| n.parse().ok())
        .expect("an id ends in a number");
    assert_eq!(
        node.lbadm("show-connections"),
        "there are no connections\n",
        "given an explanation, then nothing has changed by it"
    );
    let tally = Load::new(target, 12).run(lab.at("c1"));
    tally.none_failed("given an enabled rule, when requests come");
    assert_eq!(
        tally.of(&format!("s{}", number + 1)),
        12,
        "given that {server} was said to get a client's connections, then it got them: {tally:?}"
    );

    let shown = node.lbadm("show-connections -p -o rulename,protocol,serverid -r RULE0");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines.len() == 12
            && lines
                .iter()
                .all(|line| *line == format!("rule0:tcp:{server}")),
        "given 12 connections to {server}, then they are shown:\n{shown}"
    );
    for (filter, count) in [
        ("--limit 5", 5),
        ("--client 10.1.0.0/24", 12),
        ("--client 10.9.0.0/24", 0),
        ("--protocol udp", 0),
    ] {
        let shown = node.lbadm(&format!("show-connections -p -o client {filter}"));
        assert_eq!(
            shown.lines().count(),
            count,
            "given 12 connections of {client}, then {filter} shows {count}:\n{shown}"
        );
    }

    for (more, port, fragment) in [
        ("", 81, "another port"),
        ("--flags ack", 80, "no-connection"),
    ] {
        let said = explain(more, port);
        assert!(
            said.contains(fragment),
            "given {more:?} to port {port}, then its explanation has {fragment:?}:\n{said}"
        );
    }
    node.lbadm("modify-rule -p rule0");
    Load::new(target, 3)
        .run(lab.at("c1"))
        .none_failed("given a persistent rule, when requests come");
    let kept = node.lbadm("show-connections --persistence -p -o rulename,client,serverid");
    assert_eq!(
        kept,
        format!("rule0:{client}:{server}\n"),
        "given a persistent rule and a client, then it is shown once"
    );
    let said = explain("", 80);
    let claim = format!("claim:      {client} is kept on {server}, idle for ");
    assert!(
        said.contains(&claim),
        "given a client that is kept on a server, then an explanation names its claim:\n{said}"
    );
    node.lbadm("disable-rule rule0");
    let said = explain("", 80);
    assert!(
        said.contains("rule:       none") && said.contains("the rule is disabled or deleted"),
        "given a disabled rule, then the explanation says so:\n{said}"
    );
}
