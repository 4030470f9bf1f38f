//! The program on real interfaces: a veth pair in a namespace that nobody else sees.

mod common;
#[path = "common/net.rs"]
mod net;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::frames::address;
use common::{Pins, TCP};
use net::{Network, OURS};
use xdp_redirect::{Error, Mode, Redirect, Steering};

/// The port of our service, and one that is not ours. Nobody listens on either.
const SERVICE: u16 = 80;
const OTHER: u16 = 81;

/// The example `steer` as a process of its own, killed when the test ends.
struct Steer {
    child: Child,
    lines: Receiver<String>,
}

impl Steer {
    fn start(pins: &Pins, mode: &str) -> Steer {
        Steer::start_as(&[], pins, mode)
    }

    /// Starts it behind another command, which sets its privileges.
    fn start_as(wrapper: &[&str], pins: &Pins, mode: &str) -> Steer {
        let program = example("steer");
        let mut words: Vec<&str> = wrapper.to_vec();
        words.push(program.to_str().expect("a path in UTF-8"));
        let pin_dir = pins.path().to_str().expect("a path in UTF-8");
        let port = SERVICE.to_string();
        words.extend([pin_dir, Network::OURS, mode, OURS, &port]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let lines = read_lines(child.stdout.take().expect("the pipe was asked for"));
        Steer { child, lines }
    }

    /// The next line that it writes.
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(20));
        line.expect("steer goes on (see its message above)")
    }

    /// Whether it writes nothing for a while.
    fn is_silent(&self) -> bool {
        self.lines.recv_timeout(Duration::from_millis(300)).is_err()
    }

    fn kill(mut self) {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Steer {
    fn drop(&mut self) {
        // Fails only for one that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(out: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// cargo builds examples along with the tests, next to their directory.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its program");
    let target = test
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps/<test>");
    target.join("examples").join(name)
}

fn service() -> Steering {
    let mut steering = Steering::new();
    steering
        .add_destination(address(OURS), TCP, SERVICE, SERVICE)
        .expect("allowed");
    steering
}

fn pinned_links(pins: &Pins) -> Vec<String> {
    let names = fs::read_dir(pins.path()).expect("the pin directory is there");
    let names = names.map(|entry| entry.expect("it can be read").file_name());
    let mut links: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("link-"))
        .collect();
    links.sort();
    links
}

/// A dead process is silent, not deadly: while it runs it gets its packets, when it is killed they are dropped, the next
/// one takes over, and after decommissioning the kernel has everything back. Other packets never notice.
fn life_and_death(mode: &str) {
    Network::with(|network| {
        let pins = Pins::new();
        let others_pass = || {
            assert!(
                network.kernel_refuses(OTHER),
                "another port is the kernel's"
            );
            assert!(network.kernel_answers_ping(), "ping is the kernel's");
        };
        assert!(
            network.kernel_refuses(SERVICE),
            "without the program, the kernel answers"
        );

        let first = Steer::start(&pins, mode);
        assert_eq!(first.line(), format!("attached {mode} adopted=false"));
        assert!(!network.kernel_refuses(SERVICE), "the packet is ours");
        assert_eq!(first.line(), "received 1: 54 bytes");
        others_pass();
        assert!(first.is_silent(), "nothing else is ours");

        first.kill();
        let unserved = || pins.load().counters().expect("counters").unserved;
        let before = unserved();
        assert!(
            !network.kernel_refuses(SERVICE),
            "nobody serves it, and nobody answers"
        );
        assert_eq!(unserved() - before, 1);
        others_pass();

        let second = Steer::start(&pins, mode);
        assert_eq!(second.line(), format!("attached {mode} adopted=true"));
        assert!(!network.kernel_refuses(SERVICE), "the packet is ours again");
        assert_eq!(second.line(), "received 1: 54 bytes");
        others_pass();

        second.kill();
        Redirect::detach_all(pins.path()).expect("everything goes");
        assert!(
            network.kernel_refuses(SERVICE),
            "after decommissioning, the kernel answers"
        );
    });
}

#[test]
fn life_and_death_in_native_mode() {
    life_and_death("native");
}

#[test]
fn life_and_death_in_generic_mode() {
    life_and_death("generic");
}

/// See "Privileges" in the crate's documentation; CAP_NET_RAW is for the socket.
#[test]
fn no_more_capabilities_than_said() {
    Network::with(|network| {
        let pins = Pins::new();
        // Mounting the BPF file system is the one thing that needs more; loading does it here, before.
        drop(pins.load());
        let drop_others = [
            "setpriv",
            "--bounding-set=-all,+bpf,+net_admin,+net_raw",
            "--no-new-privs",
        ];
        let first = Steer::start_as(&drop_others, &pins, "native");
        assert_eq!(first.line(), "attached native adopted=false");
        assert!(!network.kernel_refuses(SERVICE));
        assert_eq!(first.line(), "received 1: 54 bytes");
        first.kill();
        let second = Steer::start_as(&drop_others, &pins, "native");
        assert_eq!(second.line(), "attached native adopted=true");
    });
}

#[test]
fn another_mode_replaces_the_link() {
    Network::with(|network| {
        let pins = Pins::new();
        let mut redirect = pins.steer(&service());
        let mut attach = |mode| {
            redirect
                .attach(Network::OURS, mode)
                .expect("veth has both modes")
        };
        let first = attach(Mode::Generic);
        assert_eq!((first.mode_used, first.adopted), (Mode::Generic, false));
        let same = attach(Mode::Auto);
        assert_eq!((same.mode_used, same.adopted), (Mode::Generic, true));
        assert!(same.reason.is_some(), "why it is not native");
        let native = attach(Mode::Native);
        assert_eq!(
            (native.mode_used, native.adopted, native.reason),
            (Mode::Native, false, None)
        );
        let same = attach(Mode::Auto);
        assert_eq!(
            (same.mode_used, same.adopted, same.reason),
            (Mode::Native, true, None)
        );
        assert_eq!(
            pinned_links(&pins),
            [format!("link-ours-{}", first.ifindex)]
        );
        assert!(!network.kernel_refuses(SERVICE));
    });
}

#[test]
fn a_driver_without_native_mode_gets_generic() {
    Network::with(|_network| {
        let pins = Pins::new();
        let mut redirect = pins.steer(&service());
        let error = redirect
            .attach("lo", Mode::Native)
            .expect_err("loopback has no native mode");
        assert!(
            error.to_string().contains("the driver has no native XDP"),
            "{error}"
        );
        let attached = redirect
            .attach("lo", Mode::Auto)
            .expect("generic mode is everywhere");
        assert_eq!(attached.mode_used, Mode::Generic);
        let reason = attached.reason.expect("why it is not native");
        assert!(reason.contains("the driver has no native XDP"), "{reason}");
    });
}

#[test]
fn another_program_is_named() {
    Network::with(|_network| {
        let (pins, others) = (Pins::new(), Pins::new());
        let mut other = others.load();
        other
            .attach(Network::OURS, Mode::Native)
            .expect("nobody is there");
        for mode in [Mode::Auto, Mode::Native, Mode::Generic] {
            let error = pins
                .load()
                .attach(Network::OURS, mode)
                .expect_err("somebody is there");
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            assert!(error.to_string().contains("ilb_steer"), "{error}");
        }
        let error = pins
            .load()
            .attach("nothing", Mode::Auto)
            .expect_err("no such interface");
        assert!(
            error.to_string().contains("no network interface nothing"),
            "{error}"
        );
    });
}

#[test]
fn a_new_interface_of_the_same_name_gets_a_new_link() {
    Network::with(|_network| {
        let pins = Pins::new();
        let first = pins
            .load()
            .attach(Network::OURS, Mode::Auto)
            .expect("it attaches");
        net::ip(&format!("link del {}", Network::OURS));
        net::make_pair();
        let second = pins
            .load()
            .attach(Network::OURS, Mode::Auto)
            .expect("it attaches");
        assert_ne!(first.ifindex, second.ifindex);
        assert!(!second.adopted);
        assert_eq!(
            pinned_links(&pins),
            [format!("link-ours-{}", second.ifindex)]
        );
    });
}

#[test]
fn a_renamed_interface_keeps_its_link() {
    Network::with(|_network| {
        let pins = Pins::new();
        let first = pins
            .load()
            .attach(Network::OURS, Mode::Auto)
            .expect("it attaches");
        net::ip(&format!("link set {} down", Network::OURS));
        net::ip(&format!("link set {} name vlan.7", Network::OURS));
        let second = pins
            .load()
            .attach("vlan.7", Mode::Auto)
            .expect("it attaches");
        assert!(second.adopted);
        assert_eq!(
            pinned_links(&pins),
            [format!("link-vlan_7-{}", first.ifindex)]
        );
    });
}

#[test]
fn interfaces_that_are_no_longer_wanted_are_released() {
    Network::with(|network| {
        let pins = Pins::new();
        let mut redirect = pins.steer(&service());
        let ours = redirect
            .attach(Network::OURS, Mode::Auto)
            .expect("it attaches")
            .ifindex;
        let theirs = redirect
            .attach(Network::THEIRS, Mode::Auto)
            .expect("it attaches")
            .ifindex;
        assert!(!network.kernel_refuses(SERVICE));
        assert_eq!(
            redirect
                .detach_except(&[ours, theirs])
                .expect("nothing to do"),
            []
        );
        assert_eq!(redirect.detach_except(&[theirs]).expect("it goes"), [ours]);
        assert_eq!(pinned_links(&pins), [format!("link-theirs-{theirs}")]);
        assert!(network.kernel_refuses(SERVICE), "the kernel has it back");
    });
}
