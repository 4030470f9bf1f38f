//! The catalogue and the table in the documentation are what the programs know (`make journal-docs` writes both anew), and the
//! real `journalctl` understands the catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ilb_node::journal::catalog;
use ilb_node::journal::events::ALL;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the test's folder can be deleted");
    }
}

/// Compares a file with what it should hold, or writes it with `ILB_WRITE=1`.
fn settle(path: &Path, wanted: &str) {
    if std::env::var_os("ILB_WRITE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a file is in a folder")).unwrap();
        fs::write(path, wanted).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is not what the programs know: `make journal-docs` writes it anew",
        path.display()
    );
}

#[test]
fn catalogue_and_documentation_are_what_the_programs_know() {
    settle(
        &project("packaging/journal/ilb.catalog"),
        &catalog::catalog(),
    );
    let path = project("docs/operations.md");
    let mut text = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- begin events -->\n", "<!-- end events -->");
    let from = text.find(begin).expect("a place for the table") + begin.len();
    let to = from + text[from..].find(end).expect("the place has an end");
    text.replace_range(from..to, &catalog::table());
    settle(&path, &text);
}

#[test]
fn events_can_be_told_apart_and_say_only_what_they_have() {
    let ids: BTreeSet<&str> = ALL.iter().map(|event| event.id).collect();
    let names: BTreeSet<&str> = ALL.iter().map(|event| event.name).collect();
    assert_eq!((ids.len(), names.len()), (ALL.len(), ALL.len()));
    for event in ALL {
        let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(
            event.id.len() == 32 && event.id.chars().all(hexadecimal),
            "{}: {} is no id of 128 bits",
            event.name,
            event.id
        );
        for field in event.subject.split('@').skip(1).step_by(2) {
            assert!(
                event.fields.contains(&field),
                "{}: there is no {field}",
                event.name
            );
        }
        assert!(event.fields.iter().all(|field| field.starts_with("ILB_")));
    }
}

#[test]
fn the_real_journalctl_understands_the_catalogue() {
    let root = Folder(std::env::temp_dir().join(format!("ilb-catalog-{}", std::process::id())));
    let folder = root.0.join("usr/lib/systemd/catalog");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(root.0.join("var/lib/systemd/catalog")).unwrap();
    fs::write(folder.join("ilb.catalog"), catalog::catalog()).unwrap();
    let journalctl = |arguments: &[&str]| {
        let output = Command::new("journalctl")
            .arg(format!("--root={}", root.0.display()))
            .args(arguments)
            .output()
            .expect("journalctl can be run");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert_eq!(errors, "", "{arguments:?} has nothing to complain of");
        String::from_utf8(output.stdout).unwrap()
    };
    journalctl(&["--update-catalog"]);
    let list = journalctl(&["--list-catalog"]);
    assert_eq!(list.lines().count(), ALL.len(), "{list}");
    for event in ALL {
        let line = format!("{} ilb: {}", event.id, event.subject);
        assert!(list.lines().any(|found| found == line), "{line}\n{list}");
    }
    let dump = journalctl(&["--dump-catalog", ALL[0].id]);
    assert!(dump.contains("show-hc-result"), "{dump}");
}
