//! Files that other balancers wrote, through lbadm and the manager: imported, exported, and imported into another node, which
//! has the same configuration then, with ids and places of servers, on which hashes go.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Bus, Folder, Node, Process};
use libilb::client::Client;
use libilb::describe::Description;

/// `lbadm` lies beside the manager when the workspace is built.
fn lbadm(bus: &Bus, words: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_ilb-svcmgr")).with_file_name("lbadm");
    assert!(
        program.exists(),
        "{} is not there: run `cargo build --workspace --bins` first",
        program.display()
    );
    Command::new(program)
        .args(words)
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
        .output()
        .expect("lbadm can be run")
}

/// What it printed; it must succeed.
fn told(bus: &Bus, words: &[&str]) -> String {
    let output = lbadm(bus, words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "lbadm {words:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// A node that simulates its fast path.
struct Manager {
    // It ends before its folder and its bus go.
    _process: Process,
    client: Client,
    _node: Node,
    bus: Bus,
}

impl Manager {
    async fn start() -> Manager {
        let (bus, node) = (Bus::start(), Node::new());
        let (process, client) = node.start_sim(&bus).await;
        Manager {
            bus,
            _node: node,
            _process: process,
            client,
        }
    }

    fn lbadm(&self, words: &[&str]) -> String {
        told(&self.bus, words)
    }

    async fn describe(&self) -> Description {
        self.client.describe().await.expect("the manager answers")
    }
}

/// Files of every format, with what a person says about them.
fn samples() -> Vec<(PathBuf, Vec<&'static str>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (files, own) = (
        root.join("lbadm/libilb/tests/import"),
        root.join("lbadm/src/config/files"),
    );
    let source = ["--proxy-src", "192.0.2.1"];
    let marked = [
        &source[..],
        &["--fwmark", "7=tcp:192.0.2.87:80,tcp:192.0.2.87:443"],
    ]
    .concat();
    let node = ["--config-id", "high", "--partial"];
    vec![
        (own.join("export.ilbadm"), vec![]),
        (own.join("manual.ilbadm"), vec!["--partial"]),
        (own.join("commands.lbadm"), vec!["--partial"]),
        (
            files.join("save.ipvsadm"),
            [&marked[..], &["--partial"]].concat(),
        ),
        (files.join("commands.ipvsadm"), vec!["--partial"]),
        (files.join("web.conf"), node.to_vec()),
        (files.join("groups.conf"), node.to_vec()),
        (files.join("checks.conf"), node.to_vec()),
        (files.join("tunnels.conf"), [&source[..], &node].concat()),
        (files.join("advanced.conf"), node.to_vec()),
    ]
}

/// A group, how many places it has, and its servers with their places.
type Placed = (String, u32, Vec<(String, u32)>);

/// Groups with ids and places of their servers, in their order.
fn servers(node: &Description) -> Vec<Placed> {
    node.groups
        .iter()
        .map(|group| {
            let servers = group.servers.iter().filter(|server| !server.removed);
            let servers = servers.map(|s| (s.server.id.clone(), s.server.place));
            (group.name.clone(), group.places, servers.collect())
        })
        .collect()
}

#[tokio::test]
async fn what_is_imported_is_exported_and_the_same_in_another_node() {
    let (first, second) = (Manager::start().await, Manager::start().await);
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (commands, document, empty) = (path("commands"), path("document.toml"), path("empty.toml"));
    fs::write(&empty, "").expect("the test's folder can be written");
    for (file, options) in samples() {
        let name = file.display().to_string();
        let words = [&["import-config"][..], &options, &[&name]].concat();
        first.lbadm(&words);
        // One goes, so that ids and places have gaps.
        let before = first.describe().await;
        let of_several = before.groups.iter().find(|g| g.servers.len() > 2);
        if let Some(group) = of_several {
            let id = format!("server={}", group.servers[0].server.id);
            first.lbadm(&["remove-server", "-s", &id, &group.name]);
        }
        let wanted = first.describe().await;
        assert!(
            !wanted.rules.is_empty(),
            "given {name}, then there are rules"
        );
        let exported = first.lbadm(&["export-config"]);
        first.lbadm(&["export-config", &commands]);
        first.lbadm(&["export-config", "--toml", &document]);

        for restore in [
            &["import-config", commands.as_str()][..],
            &["apply", document.as_str()],
        ] {
            second.lbadm(&["apply", &empty]);
            second.lbadm(restore);
            let got = second.describe().await;
            let case = format!("given {name}, when another node does {restore:?}");
            assert_eq!(second.lbadm(&["export-config"]), exported, "{case}");
            assert_eq!(servers(&got), servers(&wanted), "{case}");
            let same = lbadm(&second.bus, &["diff", &document]);
            assert_eq!(same.status.code(), Some(0), "{case}");
        }
    }
}

#[tokio::test]
async fn nothing_of_a_file_is_taken_unless_all_of_it_is_understood() {
    let node = Manager::start().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    node.lbadm(&["create-servergroup", "-s", "server=192.0.2.1", "before"]);
    let before = node.describe().await;
    for (file, says) in [
        (
            "lbadm/libilb/tests/import/mistakes.ipvsadm",
            "nothing is changed",
        ),
        (
            "lbadm/libilb/tests/import/mistakes.conf",
            "nothing is changed",
        ),
        ("lbadm/src/config/files/manual.ilbadm", "nothing is changed"),
        ("lbadm/libilb/tests/import/none.conf", "cannot read"),
    ] {
        let name = root.join(file).display().to_string();
        let output = lbadm(&node.bus, &["import-config", &name]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{file}: {error}");
        assert!(error.contains(says), "{file}: {error}");
        assert_eq!(node.describe().await, before, "{file}");
    }
}
