//! Files of other balancers become what is written down beside them, and whatever stands in a file, reading it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libilb::export;
use libilb::import::{Failure, Import, Mark, Memory, Options, Source, import};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// Every file, by its path below the folder.
fn files() -> Memory {
    fn walk(folder: &Path, below: &Path, all: &mut BTreeMap<PathBuf, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = below.join(path.file_name().unwrap());
            match path.is_dir() {
                true => walk(&path, &name, all),
                false => {
                    all.insert(name, std::fs::read_to_string(path).unwrap());
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(&folder(), Path::new(""), &mut all);
    Memory(all)
}

/// The files that are imported: name, text.
fn samples(files: &Memory) -> Vec<(String, String)> {
    let wanted = |path: &&PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str());
        path.components().count() == 1 && matches!(extension, Some("ipvsadm" | "conf"))
    };
    let found = files.0.keys().filter(wanted);
    found
        .map(|path| (path.display().to_string(), files.0[path].clone()))
        .collect()
}

/// What the line `# options:` says.
fn options(text: &str) -> Options {
    let mut options = Options::default();
    let line = text.lines().find_map(|l| l.strip_prefix("# options: "));
    let words: Vec<&str> = line.unwrap_or_default().split(' ').collect();
    for pair in words.chunks(2) {
        match pair {
            ["--proxy-src", value] => options.add_proxy_src(value).unwrap(),
            ["--fwmark", value] => options.add_mark(Mark::parse(value).unwrap()),
            ["--config-id", value] => options.config_id = Some((*value).to_string()),
            [""] => {}
            other => panic!("no such option: {other:?}"),
        }
    }
    options
}

fn read(name: &str, text: &str, files: &Memory) -> Result<Import, Failure> {
    import(Source::recognise(text)?, text, name, files, &options(text))
}

fn shown(import: &Import) -> String {
    let mut text = format!(
        "{}: {}{}\n\n{}\n{}",
        import.source,
        import.report.summary(),
        if import.report.is_complete() {
            ""
        } else {
            "; not complete"
        },
        import.report,
        export::commands(&import.configuration, "X"),
    );
    if !import.failover.is_empty() {
        text.push('\n');
        text.push_str(&serde_json::to_string_pretty(&import.failover).unwrap());
        text.push('\n');
    }
    text
}

#[test]
fn files_become_what_is_written_down() {
    let files = files();
    let mut wrong = String::new();
    let all = samples(&files);
    assert!(all.len() >= 11, "{}", all.len());
    for (name, text) in all {
        let import = read(&name, &text, &files).unwrap_or_else(|e| panic!("{name}: {e}"));
        import
            .configuration
            .validate()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = shown(&import);
        let expected = PathBuf::from(format!("{name}.expected"));
        if std::env::var_os("ILB_BLESS").is_some() {
            std::fs::write(folder().join(&expected), &got).unwrap();
        } else if files.0.get(&expected) != Some(&got) {
            wrong.push_str(&format!("==== {name}\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "these give something else:\n{wrong}");
}

#[test]
fn formats_are_recognised() {
    for (text, expected) in [
        ("# c\nlbadm create-servergroup web\n", Ok(Source::Lbadm)),
        ("create-servergroup web\n", Ok(Source::Ilbadm)),
        (
            "ilbadm add-srv -s server=192.0.2.1 web\n",
            Ok(Source::Ilbadm),
        ),
        ("/usr/sbin/ilbadm create-sg web", Ok(Source::Ilbadm)),
        ("-A -t 192.0.2.80:80 -s rr\n", Ok(Source::Ipvsadm)),
        ("#!/bin/sh\nipvsadm -C", Ok(Source::Ipvsadm)),
        ("--set 1 2 3", Ok(Source::Ipvsadm)),
        ("! c\n\nglobal_defs{\n}", Ok(Source::Keepalived)),
        ("$A=1\nvrrp_instance x {\n}", Ok(Source::Keepalived)),
        (
            "unheard of\nvirtual_server 192.0.2.1 80 {\n}",
            Ok(Source::Keepalived),
        ),
        ("[group.web]\nservers = []", Err(Failure::Document)),
        ("{ \"group\": {} }", Err(Failure::Document)),
        ("group.web.servers = []", Err(Failure::Document)),
        ("", Err(Failure::Unknown)),
        ("# nothing", Err(Failure::Unknown)),
        ("hello world", Err(Failure::Unknown)),
    ] {
        assert_eq!(Source::recognise(text), expected, "{text}");
    }
}

#[test]
fn what_has_no_end_is_no_file() {
    let files = Memory::default();
    for (text, words) in [
        (
            "-A -t '192.0.2.80:80\n",
            "f:1: a quote ' is opened here and has no end",
        ),
        (
            "virtual_server 192.0.2.80 80 {\n\n",
            "f:1: the block 'virtual_server 192.0.2.80 80' that begins here has no }",
        ),
        (
            "global_defs {\n}\n}\n",
            "f:3: there is no block that } could end",
        ),
    ] {
        assert_eq!(read("f", text, &files).unwrap_err().to_string(), words);
    }
    let large = format!("global_defs {{\n}}\n{}", "#".repeat(17 << 20));
    assert!(matches!(
        read("f", &large, &files),
        Err(Failure::TooMuch { .. })
    ));
}

#[test]
fn ten_thousand_services_are_read_at_once() {
    let mut text = String::new();
    for n in 0..10_000u32 {
        let vip = std::net::Ipv4Addr::from_bits(0xc000_0000 + n);
        text.push_str(&format!("-A -t {vip}:80 -s rr\n"));
        for server in 1..=10 {
            text.push_str(&format!("-a -t {vip}:80 -r 10.0.0.{server}:80 -m -w 1\n"));
        }
    }
    let import = read("large", &text, &Memory::default()).unwrap();
    assert_eq!(import.configuration.rules.len(), 10_000);
    assert!(import.report.is_complete());
}

/// A change to a text: what is at a place is removed, or something is put there.
fn mutated(text: &str, changes: &[(prop::sample::Index, usize, String)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, remove, insert) in changes {
        let at = at.index(chars.len() + 1);
        let end = (at + remove).min(chars.len());
        chars.splice(at..end, insert.chars());
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is done to a file: reading it ends without panic, and what comes of it is a valid configuration.
    #[test]
    fn no_file_makes_it_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..40, "[ \n{}\"'\\\\#!@$~(),:./a-z0-9-]{0,6}"),
            1..6,
        ),
    ) {
        let files = files();
        let all = samples(&files);
        let (name, text) = &all[which.index(all.len())];
        let options = options(text);
        let text = mutated(text, &changes);
        let source = match name.ends_with("ipvsadm") {
            true => Source::Ipvsadm,
            false => Source::Keepalived,
        };
        if let Ok(import) = import(source, &text, name, &files, &options) {
            prop_assert_eq!(import.configuration.validate(), Ok(()));
        }
    }
}
