//! Clients that are not ours: busctl, gdbus and python3-dbus create, change, watch and delete.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use common::{Bus, Node, wait_until};
use libilb::dbus::{BUS_NAME, ROOT_PATH};

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A client that prints what happens on the bus, and what it printed so far.
struct Watcher {
    child: Child,
    lines: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Watcher {
    fn start(command: &mut Command) -> Watcher {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let lines = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let copy = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut lines = copy.lock().unwrap();
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        Watcher { child, lines }
    }

    fn saw(&self, words: &str) {
        wait_until(&format!("{words} is seen"), || {
            self.lines.lock().unwrap().contains(words)
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn busctl_creates_changes_watches_and_deletes() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, _client) = node.start_sim(&bus).await;
    let watcher = Watcher::start(
        Command::new("busctl")
            .arg(format!("--address={}", bus.address()))
            .args(["--json=short", "monitor", BUS_NAME]),
    );
    // A monitor says nothing of when it began: what it sees first is asked for until it does.
    wait_until("the monitor has begun", || {
        bus.busctl(&[
            "call",
            BUS_NAME,
            ROOT_PATH,
            "org.freedesktop.DBus.Peer",
            "Ping",
        ]);
        watcher.lines.lock().unwrap().contains("Ping")
    });
    let manager = ["call", BUS_NAME, ROOT_PATH, "org.ilb.Ilb1.Manager"];
    let rule = [
        "call",
        BUS_NAME,
        "/org/ilb/Ilb1/rule/busctl",
        "org.ilb.Ilb1.Rule",
    ];
    let create = [
        "CreateRule",
        "sa{sv}",
        "busctl",
        "6",
        "vip",
        "s",
        "198.51.100.10",
        "port",
        "s",
        "80",
        "algorithm",
        "s",
        "roundrobin",
        "topology",
        "s",
        "half-nat",
        "servergroup",
        "s",
        "busctl",
        "enabled",
        "b",
        "true",
    ];
    let steps: &[(&[&str], &[&str], &str)] = &[
        (
            &manager,
            &[
                "CreateServerGroup",
                "sas",
                "busctl",
                "2",
                "192.0.2.10",
                "192.0.2.11:8080",
            ],
            "o \"/org/ilb/Ilb1/servergroup/busctl\"",
        ),
        (&manager, &create, "o \"/org/ilb/Ilb1/rule/busctl\""),
        (
            &manager,
            &[
                "ModifyRule",
                "sa{sv}",
                "busctl",
                "1",
                "conn-drain",
                "u",
                "7",
            ],
            "b true",
        ),
        (&rule, &["Disable"], "b true"),
        (&rule, &["Delete"], ""),
        (
            &manager,
            &["DeleteServerGroups", "as", "1", "busctl"],
            "as 1 \"busctl\"",
        ),
    ];
    for (to, arguments, then) in steps {
        let all: Vec<&str> = to.iter().chain(*arguments).copied().collect();
        let (out, error) = text(&bus.busctl(&all));
        assert_eq!((out.trim(), error.as_str()), (*then, ""), "{arguments:?}");
    }
    for words in [
        r#""member":"InterfacesAdded","payload":{"type":"oa{sa{sv}}","data":["/org/ilb/Ilb1/rule/busctl""#,
        r#"{"ConnDrain":{"type":"u","data":7}}"#,
        r#"{"Enabled":{"type":"b","data":false}}"#,
        r#""member":"InterfacesRemoved","payload":{"type":"oas","data":["/org/ilb/Ilb1/rule/busctl""#,
    ] {
        watcher.saw(words);
    }
    // The tree is found from its root.
    let (tree, _) = text(&bus.busctl(&["--list", "tree", BUS_NAME]));
    assert!(tree.lines().any(|line| line == ROOT_PATH), "{tree}");
}

#[tokio::test]
async fn gdbus_creates_changes_watches_and_deletes() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, _client) = node.start_sim(&bus).await;
    let gdbus = |arguments: &[&str]| {
        let mut command = Command::new("gdbus");
        command
            .args([arguments[0], "--address", &bus.address()])
            .args(&arguments[1..]);
        command
    };
    let watcher = Watcher::start(&mut gdbus(&["monitor", "--dest", BUS_NAME]));
    watcher.saw("is owned by");
    let call = |path: &str, method: &str, arguments: &[&str]| {
        let call = [
            "call",
            "--dest",
            BUS_NAME,
            "--object-path",
            path,
            "--method",
            method,
        ];
        let output = gdbus(&call)
            .args(arguments)
            .output()
            .expect("gdbus can be run");
        text(&output)
    };
    let settings = "{'vip': <'198.51.100.20'>, 'port': <'80'>, 'algorithm': <'rr'>, 'topology': <'n'>, 'proxy-src': \
                    <['198.51.100.21']>, 'servergroup': <'gdbus'>, 'enabled': <true>}";
    let rule = "/org/ilb/Ilb1/rule/gdbus";
    let steps: &[(&str, &str, &[&str], &str)] = &[
        (
            ROOT_PATH,
            "org.ilb.Ilb1.Manager.CreateServerGroup",
            &["gdbus", "['192.0.2.20', 'x y']"],
            "",
        ),
        (
            ROOT_PATH,
            "org.ilb.Ilb1.Manager.CreateServerGroup",
            &["gdbus", "['192.0.2.20', '192.0.2.21:8080']"],
            "(objectpath '/org/ilb/Ilb1/servergroup/gdbus',)",
        ),
        (
            ROOT_PATH,
            "org.ilb.Ilb1.Manager.CreateRule",
            &["gdbus", settings],
            "(objectpath '/org/ilb/Ilb1/rule/gdbus',)",
        ),
        (
            ROOT_PATH,
            "org.ilb.Ilb1.Manager.ModifyRule",
            &["gdbus", "{'max-new-flows': <uint32 9>}"],
            "(true,)",
        ),
        (rule, "org.ilb.Ilb1.Rule.Disable", &[], "(true,)"),
        (
            rule,
            "org.freedesktop.DBus.Properties.Get",
            &["org.ilb.Ilb1.Rule", "MaxNewFlows"],
            "(<uint32 9>,)",
        ),
        (rule, "org.ilb.Ilb1.Rule.Delete", &[], "()"),
        (
            "/org/ilb/Ilb1/servergroup/gdbus",
            "org.ilb.Ilb1.ServerGroup.Delete",
            &[],
            "()",
        ),
    ];
    for (path, method, arguments, then) in steps {
        let (out, error) = call(path, method, arguments);
        assert_eq!(out.trim(), *then, "{method}: {error}");
        // What is refused has a name and words.
        let named = error.contains("GDBus.Error:org.ilb.Ilb1.Error.InvalidArgument: ");
        assert_eq!(named, then.is_empty(), "{method}: {error}");
    }
    for words in [
        "InterfacesAdded (objectpath '/org/ilb/Ilb1/rule/gdbus'",
        "PropertiesChanged ('org.ilb.Ilb1.Rule', {'MaxNewFlows': <uint32 9>}",
        "PropertiesChanged ('org.ilb.Ilb1.Rule', {'Enabled': <false>}",
        "InterfacesRemoved (objectpath '/org/ilb/Ilb1/rule/gdbus'",
    ] {
        watcher.saw(words);
    }
    // Its parser reads what is said of every object.
    let introspect = [
        "introspect",
        "--dest",
        BUS_NAME,
        "--object-path",
        "/",
        "--recurse",
    ];
    let (out, error) = text(&gdbus(&introspect).output().expect("gdbus can be run"));
    assert!(
        out.contains("interface org.ilb.Ilb1.Manager {"),
        "{out}{error}"
    );
}

#[tokio::test]
async fn python_creates_changes_watches_and_deletes() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, _client) = node.start_sim(&bus).await;
    let mut child = Command::new("/usr/bin/python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/other.py"
        ))
        .arg(bus.address())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 can be run");
    let (mut out, mut error) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{out}{error}");
    let wanted = "created /org/ilb/Ilb1/servergroup/python /org/ilb/Ilb1/rule/python\n\
                  modified wlc\n\
                  disabled False\n\
                  refused org.ilb.Ilb1.Error.AlreadyExists a rule named 'python' exists already: choose another name, or \
                  delete it first\n\
                  described ['python']\n\
                  deleted\n";
    assert_eq!(out, wanted);
}
