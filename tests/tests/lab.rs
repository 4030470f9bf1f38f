//! The lab itself: what the other tests stand on.

use std::process::Command;

use ilb_tests::capture::Capture;
use ilb_tests::lab::web::{big_file, uploaded};
use ilb_tests::lab::wiring::NarrowHop;
use ilb_tests::lab::{Lab, Spec, leftovers, node};
use ilb_tests::load::Load;
use ilb_tests::transfer::{self, Downloads};
use ilb_tests::{Family, shell, udp};

/// A client reaches servers through the plain router, so wires, addresses, nginx, echo and tools are sound.
#[test]
fn plain_routing_works_in_both_families() {
    let lab = Lab::new(Spec::default());
    for family in Family::BOTH {
        lab.udp_echo(family, &[], 7);
        for n in 1..=3 {
            let server = lab.server(family, n);
            // Servers answer towards the balancer by default; here the way home is the router.
            let home = lab.client(family, 1);
            let router = ilb_tests::lab::plan::Net::Back.host(family, 254);
            lab.at(&format!("s{n}"))
                .ip(&[format!("route add {home} via {router}")]);
            let tally = Load::new((server, 80).into(), 50).run(lab.at("c1"));
            tally.none_failed("given plain routing, when 50 requests go to one server");
            assert_eq!(
                tally.of(&format!("s{n}")),
                50,
                "given server {n}, then it answers itself: {tally}"
            );
            let answers = udp::tally(lab.at("c1"), (server, 7).into(), 20_000, 5, 1200)
                .expect("an echo answers");
            assert_eq!(
                answers.get(&format!("s{n}")),
                Some(&5),
                "given the echo of server {n}, then it answers"
            );
        }
    }
    let expected = transfer::sha256_of(&big_file(lab.directory()));
    let target = (lab.server(Family::V4, 1), 80).into();
    Downloads::start(lab.at("c1"), target, "/files/big", 10)
        .none_broken(&expected, "given plain routing, when ten downloads run");
}

/// Both narrow hops produce "too big" errors, and transfers survive them, without any balancer.
#[test]
fn narrow_hops_are_narrow() {
    let lab = Lab::new(Spec {
        narrow: Some((NarrowHop::BehindBalancer, 1400)),
        ..Spec::default()
    });
    for family in Family::BOTH {
        let filter = match family {
            Family::V4 => "icmp[0] = 3 and icmp[1] = 4",
            Family::V6 => "icmp6 and ip6[40] = 2",
        };
        let capture = Capture::start(lab.at("lb"), "eth1", filter);
        let target = (lab.server(family, 1), 80).into();
        lab.at("lb")
            .enter(|| transfer::upload(target, "/upload/file", &big_file(lab.directory())))
            .unwrap_or_else(|error| {
                panic!(
                    "given a narrow hop, when uploading over {family}, then it completes: {error}"
                )
            });
        let packets = capture.stop();
        assert!(
            packets.iter().any(|packet| packet.contains("1400")),
            "given a hop with MTU 1400, when uploading over {family}, then it says so; seen: {packets:?}"
        );
        assert_eq!(
            transfer::sha256_of(&uploaded(lab.directory(), "s1", "file")),
            transfer::sha256_of(&big_file(lab.directory())),
            "given an upload over {family}, then the server has the same bytes"
        );
    }
}

fn break_a_lab(how: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ilb-lab"));
    command.args(["break", how]);
    if !node::programs().join("ilb-fastpath").exists() {
        panic!("the programs are not built: `make build`");
    }
    let answer = shell::run(command);
    assert_ne!(
        answer.code, 0,
        "given a lab that shall fail, then its runner fails:\n{answer}"
    );
    let identity = answer.stdout.trim().to_owned();
    assert!(
        identity.starts_with("ilb-"),
        "given a runner, then it says which lab it made:\n{answer}"
    );
    identity
}

/// A test that fails with ilb running leaves no namespace, pin, process or file.
#[test]
fn a_failing_test_leaves_nothing() {
    let identity = break_a_lab("panic");
    let left = leftovers::of(&identity, &[]);
    assert!(
        left.is_empty(),
        "given a test that panicked in its lab, then nothing of it is left; found:\n{}",
        left.join("\n")
    );
}

/// A runner that was killed with -9 cannot clean up, but the next one does.
#[test]
fn what_a_killed_runner_leaves_is_swept() {
    let identity = break_a_lab("kill");
    assert!(
        !leftovers::of(&identity, &[]).is_empty(),
        "given a runner killed with -9, then its lab is still there (or this test shows nothing)"
    );
    let swept = leftovers::sweep(false);
    assert!(
        swept.contains(&identity),
        "given what it left, when sweeping, then it is found: {swept:?}"
    );
    let left = leftovers::of(&identity, &[]);
    assert!(
        left.is_empty(),
        "given a sweep, then nothing is left; found:\n{}",
        left.join("\n")
    );
}

/// Not being root is an error that says so, never a skipped test.
#[test]
fn without_root_a_lab_test_fails_with_a_reason() {
    use std::os::unix::process::CommandExt;
    // Where everybody may run it.
    let directory = std::env::temp_dir().join(format!("ilb-noroot-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("cannot make a directory");
    let program = directory.join("ilb-lab");
    std::fs::copy(env!("CARGO_BIN_EXE_ilb-lab"), &program).expect("cannot copy a program");
    let mut command = Command::new(&program);
    command.args(["break", "panic"]).uid(65534).gid(65534);
    let answer = shell::run(command);
    std::fs::remove_dir_all(&directory).expect("cannot remove a directory");
    assert_ne!(answer.code, 0, "given no root, then it fails:\n{answer}");
    assert!(
        answer.stderr.contains("needs root"),
        "given no root, then it says why:\n{answer}"
    );
}
