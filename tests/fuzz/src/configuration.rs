//! Files that describe a configuration: of other balancers, and ours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use libilb::document::{self, Document};
use libilb::import::{Mark, Memory, Options, Source, lines};
use libilb::model::Configuration;
use libilb::server::ServerSpec;
use libilb::{export, import};

/// Longest file that is looked at, in bytes: more takes longer and finds nothing else.
const LONGEST: usize = 8 << 10;

fn text(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    (text.len() <= LONGEST).then_some(text)
}

/// Files of ipvsadm-save and keepalived, and lines of commands: reading them ends, what comes of them is valid, and as a
/// document it makes the same on an empty node.
pub fn import(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    if let Ok(lines) = lines::split(text) {
        for word in lines.iter().flat_map(|line| &line.words) {
            // Specifications of servers are words of commands; what is one can be written and read again.
            for spec in ServerSpec::parse(word).unwrap_or_default() {
                let again = ServerSpec::parse(&spec.to_string());
                assert_eq!(again, Ok(vec![spec]), "{word:?}");
            }
        }
    }
    let files: BTreeMap<PathBuf, String> = [
        (
            "/etc/more.conf",
            "virtual_server 192.0.2.99 80 {\n real_server 10.0.9.9 80 { TCP_CHECK }\n}\n",
        ),
        ("/etc/loop.conf", "include loop.conf\n"),
    ]
    .map(|(path, text)| (path.into(), text.to_owned()))
    .into();
    let files = Memory(files);
    let mut options = Options {
        config_id: Some("one".to_owned()),
        ..Options::default()
    };
    options.add_proxy_src("192.0.2.250").expect("an address");
    options.add_mark(Mark::parse("1=tcp:192.0.2.251:80").expect("a mark"));
    for source in [Source::Ipvsadm, Source::Keepalived] {
        let read = import::import(source, text, "/etc/file", &files, &options);
        let Ok(read) = read else {
            continue;
        };
        assert_eq!(read.configuration.validate(), Ok(()));
        for entry in &read.report.entries {
            assert!(!entry.to_string().is_empty());
        }
        export::commands(&read.configuration, "1");
        let toml = read.document().to_toml();
        let plan = document::plan(&toml, &Configuration::default(), false);
        let plan = plan.unwrap_or_else(|mistakes| panic!("{mistakes}\n{toml}"));
        assert_eq!(
            Document::of(&plan.configuration),
            Document::of(&read.configuration)
        );
    }
}

/// A document: mistakes with words, or a valid configuration whose own document changes nothing.
pub fn document(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let present = present();
    for merge in [false, true] {
        match document::plan(text, &present, merge) {
            Ok(plan) => {
                let next = &plan.configuration;
                assert_eq!(next.validate(), Ok(()));
                let own = Document::of(next).to_toml();
                let again = document::plan(&own, next, false);
                let again = again.unwrap_or_else(|mistakes| panic!("{mistakes}\n{own}"));
                assert!(again.report.is_empty(), "{}\n{own}", again.report);
                assert_eq!(&again.configuration, next);
            }
            Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
        }
    }
}

/// A small configuration with a gap among ids and places.
fn present() -> Configuration {
    let text = "group.web.servers = ['10.0.0.1', '10.0.0.2:8080', { address = '10.0.0.3', weight = 3, id = '_web.7' }]\n\
                [rule.www]\nvip = '192.0.2.1'\nport = 80\nalgorithm = 'mh'\ntopology = 'HALF-NAT'\ngroup = 'web'\n";
    let plan = document::plan(text, &Configuration::default(), false);
    let mut present = plan.expect("it has no mistakes").configuration;
    present
        .remove_servers("web", &["10.0.0.1"])
        .expect("it is there");
    present
}
