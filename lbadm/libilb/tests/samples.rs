//! The samples of keepalived's own documentation import. They are under the GPL and not here: they come from the Debian
//! package, installed or downloaded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use libilb::import::{Kind, Mark, Options, Source, System, import};

/// Samples without VRRP that are read whole: nothing is left out. The others have parts that ilb cannot express.
const WHOLE: &[&str] = &[
    "HTTP_GET.port",
    "IPv6",
    "PING_CHECK",
    "UDP_CHECK",
    "fwmark",
    "inhibit",
    "misc_check",
    "misc_check_arg",
    "quorum",
    "status_code",
    "virtualhost",
];

/// Samples with something that is wrong in them: a real server that is its own virtual one.
const WRONG: &[&str] = &["virtual_server_group"];

/// Where the samples are; the package is downloaded if it is not installed.
fn samples() -> PathBuf {
    let installed = Path::new("/usr/share/doc/keepalived/samples");
    if installed.join("keepalived.conf.sample").exists() {
        return installed.to_path_buf();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keepalived");
    let unpacked = folder.join("x/usr/share/doc/keepalived/samples");
    if !unpacked.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let script = "apt-get download -q keepalived && dpkg-deb -x keepalived_*.deb x";
        let done = Command::new("sh")
            .args(["-c", script])
            .current_dir(&folder)
            .output();
        let done = done.expect("apt-get and dpkg-deb of Debian are needed");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            done.status.success(),
            "the package keepalived cannot be had: {said}"
        );
    }
    unpacked
}

#[test]
fn the_samples_of_keepalived_import() {
    let folder = samples();
    let mut options = Options {
        config_id: Some("high".to_string()),
        ..Options::default()
    };
    options.add_mark(Mark::parse("1=tcp:192.0.2.1:80").unwrap());
    options.add_mark(Mark::parse("2=tcp:192.0.2.2:80").unwrap());
    let mut read = 0;
    let mut whole = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name
            .strip_prefix("keepalived.conf.")
            .filter(|n| !n.ends_with(".gz"))
        else {
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(Source::recognise(&text), Ok(Source::Keepalived), "{name}");
        let import = import(Source::Keepalived, &text, name, &System, &options).unwrap();
        let report = &import.report;
        // Of these most are sketches: instances without addresses, or with authentication.
        let instances = text.contains("vrrp_instance");
        if !instances && report.count(Kind::Wrong) > 0 {
            wrong.insert(name.to_string());
        }
        if !instances && report.is_complete() {
            whole.insert(name.to_string());
        }
        assert_eq!(import.configuration.validate(), Ok(()), "{name}");
        let servers = |text: &str, word: &str| {
            let lines = text.lines().filter(|l| l.trim_start().starts_with(word));
            lines.count()
        };
        assert_eq!(
            import.configuration.rules.len(),
            servers(&text, "virtual_server ").min(99),
            "{name}"
        );
        let kept = import
            .failover
            .get("instance")
            .map_or(0, |all| all.as_object().map_or(0, |o| o.len()));
        let instances = kept + import.configuration.vrrp.len();
        assert_eq!(instances, servers(&text, "vrrp_instance "), "{name}");
        read += 1;
    }
    let set = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    };
    assert_eq!((wrong, whole), (set(WRONG), set(WHOLE)));
    assert!(read >= 20, "{read} samples in {}", folder.display());
}
