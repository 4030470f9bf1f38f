//! The Debian package as an administrator meets it: installed, configured, upgraded while it works, removed, purged. In a
//! small system with a systemd and a package database of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ilb_tests::lab::node::programs;
use ilb_tests::lab::system::{SETTINGS, System};
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::{Family, Topology, shell};

/// Builds a package of the programs under test.
#[track_caller]
fn build(folder: &Path, version: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = folder.join(version);
    let mut make = Command::new("make");
    make.args(["-s", "-C"]).arg(&sources).arg("deb").args([
        format!("DEB={}", folder.display()),
        format!("VERSION={version}"),
        format!("BUILT={}", programs().display()),
    ]);
    let said = shell::run(make).ok();
    let last = said.lines().last().expect("it says where the package is");
    PathBuf::from(last)
}

/// Everything of ilb that is on the system, but for what it is tested with.
fn traces(system: &System) -> String {
    system
        .shell(
            "find /etc /usr /lib /var /run /sys/fs/bpf -xdev -name '*ilb*' ! -path '*/libilb*' ! -path '/var/lib/dpkg/*' \
             ! -path '/var/cache/*' ! -path '/var/log/*' 2>/dev/null | grep -E '(^|/|\\.)(org\\.)?ilb([-./]|$)|dbus-org.ilb'; \
             ls -d /sys/fs/bpf/ilb 2>/dev/null; ip -br address show | grep -c 10.1.0.100; ip link show | grep -c xdp",
        )
        .stdout
}

#[test]
fn it_installs_upgrades_removes_and_purges() {
    let lab = Lab::new(Spec::default());
    let (old, new) = (
        build(lab.directory(), "0.1.0"),
        build(lab.directory(), "0.1.1"),
    );
    let mut lintian = Command::new("lintian");
    lintian
        .args([
            "--allow-root",
            "--fail-on",
            "error",
            "--suppress-tags",
            "bogus-mail-host",
        ])
        .arg(&old);
    shell::run(lintian).ok();

    let system = System::boot(&lab, "true");
    for package in [&old, &new] {
        let name = package.file_name().expect("a file").to_string_lossy();
        std::fs::copy(package, system.path(&format!("/root/{name}"))).expect("room for a package");
    }
    let dpkg = |what: &str, package: &Path| {
        let name = package.file_name().expect("a file").to_string_lossy();
        system
            .shell(&format!(
                "DEBIAN_FRONTEND=noninteractive dpkg {what} /root/{name}"
            ))
            .ok()
    };
    let running = || system.run("systemctl is-active ilb ilb-fastpath").stdout;

    dpkg("--install", &old);
    assert_eq!(
        running(),
        "inactive\ninactive\n",
        "given a new package, then nothing runs before somebody says on which interfaces"
    );
    for user in ["ilb", "ilb-fastpath"] {
        system.run(&format!("id {user}")).ok();
    }
    system.write("/etc/ilb/ilb.toml", SETTINGS);
    system.run("systemctl enable ilb").ok();
    system.start_ilb();
    let service = Service::http(0, Topology::Nat, Family::V4);
    system.lbadm(&service.group_line(&lab));
    system.lbadm(&service.rule_line(&lab));
    let target = SocketAddr::new(lab.vip(Family::V4, 0), 80);
    let served = |when: &str| {
        let given = format!("given the package, {when}");
        Load::new(target, 30).run(lab.at("c1")).none_failed(&given);
    };
    served("when it is installed");

    let expected = sha256_of(&big_file(lab.directory()));
    let downloads = Downloads::start(lab.at("c1"), target, "/paced/big?rate=1000000", 10);
    let before = [system.pid("ilb"), system.pid("ilb-fastpath")];
    dpkg("--install", &new);
    system.wait_ready();
    let after = [system.pid("ilb"), system.pid("ilb-fastpath")];
    assert!(
        before[0] != after[0] && before[1] != after[1],
        "given an upgrade, then both run anew: {before:?}, {after:?}"
    );
    assert_eq!(
        system.read("/etc/ilb/ilb.toml"),
        SETTINGS,
        "given an upgrade, then the settings are the administrator's"
    );
    served("when it is upgraded");
    downloads.none_broken(&expected, "given downloads, when the package is upgraded");

    system.run("dpkg --remove ilb").ok();
    let left = traces(&system);
    assert_eq!(
        // That it is enabled is remembered until a purge, as with every package.
        left.lines()
            .filter(|line| !line.contains("/systemd/"))
            .collect::<Vec<_>>(),
        [
            "/etc/ilb",
            "/etc/ilb/ilb.toml",
            "/var/lib/ilb",
            "/run/ilb-svcmgr",
            "/run/ilb",
            "0",
            "0"
        ],
        "given a package that was removed, then configuration and state are left, no address, and no XDP program"
    );
    dpkg("--install", &new);
    system.start_ilb();
    served("when it is installed again");

    system.run("dpkg --purge ilb").ok();
    let left = traces(&system);
    assert_eq!(
        left.lines().collect::<Vec<_>>(),
        ["0", "0"],
        "given a package that was purged, then nothing is left but its users"
    );
}
