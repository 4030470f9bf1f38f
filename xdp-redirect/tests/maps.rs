//! The contents of the maps: changes by difference, and what a later process finds.

mod common;

use std::fs;
use std::net::IpAddr;

use common::frames::{address, frame, packet, ports};
use common::{Pins, SCTP, TCP, UDP, run};
use xdp_redirect::{Action, Changes, Error, LoadOptions, OTHER_PROTOCOLS, Redirect, Steering};

/// Address, protocol and port ranges.
type Entry<'a> = (&'a str, u8, &'a [(u16, u16)]);

fn steering(entries: &[Entry<'_>]) -> Steering {
    let mut steering = Steering::new();
    for &(text, protocol, ranges) in entries {
        for &(first, last) in ranges {
            steering
                .add_destination(address(text), protocol, first, last)
                .expect("allowed");
        }
    }
    steering
}

const MANY: &[(u16, u16)] = &[(1, 1), (3, 3), (5, 5), (7, 7), (9, 9), (1000, 2000)];
const OTHER_MANY: &[(u16, u16)] = &[(1, 1), (3, 3), (5, 5), (7, 7), (9, 9), (1000, 2001)];

#[test]
fn only_differences_are_applied() {
    let pins = Pins::new();
    let mut redirect = pins.load();
    let mut apply = |entries: &[Entry<'_>], added, changed, removed| {
        let wanted = steering(entries);
        let changes = redirect.apply(&wanted).expect("the maps take it");
        assert_eq!(
            changes,
            Changes {
                added,
                changed,
                removed
            },
            "{entries:?}"
        );
        assert_eq!(redirect.current().expect("the maps can be read"), wanted);
        let again = redirect.apply(&wanted).expect("the maps take it");
        assert!(again.is_empty(), "{entries:?} twice: {again:?}");
    };
    apply(&[], 0, 0, 0);
    apply(&[("192.0.2.1", TCP, &[(80, 80)])], 1, 0, 0);
    apply(&[("192.0.2.1", TCP, &[(80, 80), (443, 443)])], 0, 1, 0);
    apply(
        &[
            ("192.0.2.1", TCP, &[(0, 65535)]),
            ("2001:db8::1", TCP, &[(80, 80)]),
        ],
        1,
        1,
        0,
    );
    apply(
        &[("192.0.2.1", TCP, MANY), ("192.0.2.2", TCP, MANY)],
        1,
        1,
        1,
    );
    apply(
        &[("192.0.2.1", TCP, OTHER_MANY), ("192.0.2.2", TCP, MANY)],
        0,
        1,
        0,
    );
    apply(
        &[
            ("192.0.2.1", TCP, OTHER_MANY),
            ("192.0.2.2", TCP, OTHER_MANY),
        ],
        0,
        1,
        0,
    );
    apply(&[("192.0.2.1", UDP, &[(53, 53)])], 1, 0, 2);
    apply(&[], 0, 0, 1);
}

#[test]
fn a_part_is_replaced_without_the_rest() {
    let pins = Pins::new();
    let stays: &[Entry<'_>] = &[("192.0.2.9", TCP, MANY), ("2001:db8::9", UDP, &[(53, 53)])];
    let whole = |entries: &[Entry<'_>]| steering(&[stays, entries].concat());
    let mut redirect = pins.steer(&whole(&[]));
    let mut present: &[Entry<'_>] = &[];
    type Row<'a> = (&'a [Entry<'a>], (usize, usize, usize));
    let table: &[Row<'_>] = &[
        (&[("192.0.2.1", TCP, &[(80, 80)])], (1, 0, 0)),
        (&[("192.0.2.1", TCP, &[(80, 81)])], (0, 1, 0)),
        (
            &[("192.0.2.1", TCP, OTHER_MANY), ("192.0.2.2", TCP, MANY)],
            (1, 1, 0),
        ),
        (
            &[("192.0.2.2", TCP, MANY), ("192.0.2.3", SCTP, MANY)],
            (1, 0, 1),
        ),
        (
            &[
                ("2001:db8::1", 58, &[(0, 65535)]),
                ("192.0.2.1", 1, &[(0, 65535)]),
            ],
            (2, 0, 2),
        ),
        (&[("192.0.2.1", OTHER_PROTOCOLS, &[(0, 65535)])], (1, 0, 2)),
        (&[], (0, 0, 1)),
    ];
    // Once as it comes, once by a process that has not read the maps yet.
    for fresh in [false, true] {
        for &(wanted, (added, changed, removed)) in table {
            if fresh {
                redirect = pins.load();
            }
            let changes = redirect
                .replace(&steering(present), &steering(wanted))
                .expect("the maps take it");
            let expected = Changes {
                added,
                changed,
                removed,
            };
            assert_eq!(changes, expected, "{wanted:?}");
            assert_eq!(
                redirect.current().expect("the maps can be read"),
                whole(wanted)
            );
            present = wanted;
        }
    }
    let again = redirect.apply(&whole(&[])).expect("the maps take it");
    assert!(again.is_empty(), "{again:?}");
}

/// One more among many costs a small part of looking at all.
#[test]
fn one_of_many_addresses_does_not_cost_as_much_as_all() {
    let pins = Pins::new();
    let options = LoadOptions {
        max_addresses: 20_000,
        ..pins.options()
    };
    let mut redirect = Redirect::load(&options).expect("the program loads");
    let source = |steering: &mut Steering, number: u32| {
        let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        steering.add_source(address, TCP, 80, 80).expect("allowed");
    };
    let mut many = Steering::new();
    (0..20_000 - 1).for_each(|number| source(&mut many, number));
    redirect.apply(&many).expect("the maps take it");
    let mut one = Steering::new();
    source(&mut one, 19_999);
    let fresh = |redirect: &mut Redirect| {
        let began = std::time::Instant::now();
        let changes = redirect.replace(&Steering::new(), &one);
        assert_eq!(changes.expect("the maps take it").added, 1);
        let added = began.elapsed();
        let changes = redirect.replace(&one, &Steering::new());
        assert_eq!(changes.expect("the maps take it").removed, 1);
        added
    };
    let one_more = (0..20)
        .map(|_| fresh(&mut redirect))
        .min()
        .expect("20 of them");
    let began = std::time::Instant::now();
    redirect.apply(&many).expect("the maps take it");
    let all = began.elapsed();
    assert!(
        one_more * 20 < all,
        "one more takes {one_more:?}, all {all:?}"
    );
    let mut two = one.clone();
    source(&mut two, 30_000);
    let error = redirect
        .replace(&Steering::new(), &two)
        .expect_err("one too many");
    assert!(
        matches!(error, Error::TooManyAddresses { wanted: 20_001, .. }),
        "{error}"
    );
    assert_eq!(redirect.current().expect("the maps can be read"), many);
}

#[test]
fn sources_and_destinations_are_apart() {
    let pins = Pins::new();
    let mut redirect = pins.load();
    let mut wanted = Steering::new();
    for text in ["192.0.2.1", "2001:db8::1"] {
        wanted
            .add_source(address(text), TCP, 80, 80)
            .expect("allowed");
        wanted
            .add_destination(address(text), TCP, 81, 82)
            .expect("allowed");
    }
    assert_eq!(redirect.apply(&wanted).expect("the maps take it").added, 4);
    assert_eq!(redirect.current().expect("the maps can be read"), wanted);
}

/// More elements than one batch of the kernel's answer has.
#[test]
fn thousands_of_addresses() {
    let pins = Pins::new();
    let options = LoadOptions {
        max_addresses: 5000,
        ..pins.options()
    };
    let mut redirect = Redirect::load(&options).expect("the program loads");
    let mut wanted = Steering::new();
    for number in 0..5000u32 {
        let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        wanted
            .add_destination(address, TCP, 80, 80)
            .expect("allowed");
    }
    assert_eq!(
        redirect.apply(&wanted).expect("the maps take it").added,
        5000
    );
    assert_eq!(redirect.current().expect("the maps can be read"), wanted);
    assert_eq!(
        redirect
            .apply(&Steering::new())
            .expect("the maps take it")
            .removed,
        5000
    );
    assert!(redirect.current().expect("the maps can be read").is_empty());
}

#[test]
fn too_many_addresses_change_nothing() {
    let pins = Pins::new();
    let options = LoadOptions {
        max_addresses: 4,
        ..pins.options()
    };
    let mut redirect = Redirect::load(&options).expect("the program loads");
    let addresses = |from: u8, count: u8| {
        let mut steering = Steering::new();
        for host in from..from + count {
            steering
                .add_destination(IpAddr::from([192, 0, 2, host]), TCP, 80, 80)
                .expect("allowed");
        }
        steering
    };
    let four = addresses(1, 4);
    redirect.apply(&four).expect("four are allowed");
    let error = redirect.apply(&addresses(1, 5)).expect_err("five are not");
    assert!(
        matches!(
            error,
            Error::TooManyAddresses {
                wanted: 5,
                allowed: 4,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(redirect.current().expect("the maps can be read"), four);
    // Four others at once: for a moment, there are eight.
    let others = addresses(100, 4);
    redirect.apply(&others).expect("four are allowed");
    assert_eq!(redirect.current().expect("the maps can be read"), others);
}

#[test]
fn a_later_process_finds_everything() {
    let pins = Pins::new();
    let wanted = steering(&[("192.0.2.1", TCP, &[(80, 80)]), ("2001:db8::1", UDP, MANY)]);
    let first = pins.steer(&wanted);
    let vip = frame(&packet(
        address("192.0.2.9"),
        address("192.0.2.1"),
        TCP,
        &ports(5000, 80),
    ));
    assert_eq!(run(&first, &vip), Action::Drop);
    drop(first);

    let mut second = pins.load();
    assert_eq!(second.current().expect("the maps can be read"), wanted);
    assert_eq!(run(&second, &vip), Action::Drop);
    assert_eq!(
        second.counters().expect("counters").unserved,
        2,
        "the counters go on"
    );
    assert!(second.apply(&wanted).expect("the maps take it").is_empty());
}

#[test]
fn another_number_of_addresses_keeps_the_contents() {
    let pins = Pins::new();
    let wanted = steering(&[("192.0.2.1", TCP, &[(80, 80)]), ("2001:db8::1", UDP, MANY)]);
    let first = pins.steer(&wanted);
    let vip = frame(&packet(
        address("192.0.2.9"),
        address("192.0.2.1"),
        TCP,
        &ports(5000, 80),
    ));
    assert_eq!(run(&first, &vip), Action::Drop);
    drop(first);
    for max_addresses in [4096, 16] {
        let options = LoadOptions {
            max_addresses,
            ..pins.options()
        };
        let redirect = Redirect::load(&options).expect("the program loads");
        assert_eq!(redirect.current().expect("the maps can be read"), wanted);
        assert_eq!(
            redirect.counters().expect("counters").unserved,
            1,
            "the counters go on"
        );
        let again = Redirect::load(&options).expect("the program loads");
        assert_eq!(again.current().expect("the maps can be read"), wanted);
    }
    let maps = fs::read_dir(pins.path().join("v3"))
        .expect("the maps are pinned")
        .count();
    assert_eq!(maps, 10, "no temporary pin stays");
}

#[test]
fn maps_of_another_version_are_replaced() {
    let pins = Pins::new();
    let wanted = steering(&[("192.0.2.1", TCP, &[(80, 80)])]);
    drop(pins.steer(&wanted));
    fs::rename(pins.path().join("v3"), pins.path().join("v2")).expect("bpffs can rename");
    let redirect = pins.load();
    assert!(redirect.current().expect("the maps can be read").is_empty());
    assert!(!pins.path().join("v2").exists());
    assert!(pins.path().join("v3").exists());
}

#[test]
fn an_incomplete_set_of_pins_is_made_whole() {
    let pins = Pins::new();
    drop(pins.steer(&steering(&[("192.0.2.1", TCP, &[(80, 80)])])));
    fs::remove_file(pins.path().join("v3/bitmaps")).expect("the map is pinned");
    let wanted = steering(&[("192.0.2.2", TCP, MANY)]);
    drop(pins.steer(&wanted));
    assert_eq!(pins.load().current().expect("the maps can be read"), wanted);
}

#[test]
fn detaching_leaves_nothing() {
    let pins = Pins::new();
    let redirect = pins.steer(&steering(&[("192.0.2.1", TCP, MANY)]));
    assert!(pins.path().exists());
    redirect.detach().expect("everything goes");
    assert!(!pins.path().exists());
    Redirect::detach_all(pins.path()).expect("twice is fine");
}

#[test]
fn impossible_options_are_refused_in_words() {
    let pins = Pins::new();
    let table = [
        (pins.path().to_owned(), 0, "1 to 4194304 are allowed"),
        (pins.path().to_owned(), u32::MAX, "1 to 4194304 are allowed"),
        (
            "/tmp/ilb-not-a-bpf-file-system".into(),
            16,
            "choose one below /sys/fs/bpf",
        ),
        ("relative".into(), 16, "absolute"),
        ("/sys/fs/bpf/../bpf/x".into(), 16, "without `..`"),
        ("/sys/fs/bpf/ilb.test".into(), 16, "no dots"),
    ];
    for (pin_dir, max_addresses, words) in table {
        let error = Redirect::load(&LoadOptions {
            pin_dir,
            max_addresses,
        })
        .expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn sockets_have_limits() {
    let pins = Pins::new();
    let mut redirect = pins.load();
    let error = redirect
        .set_socket(1, 64, 0)
        .expect_err("the queue is out of range");
    assert!(error.to_string().contains("queues 0 to 63"), "{error}");
    let file = fs::File::open("/proc/self/status").expect("/proc is mounted");
    let error = redirect
        .set_socket(1, 0, std::os::fd::AsRawFd::as_raw_fd(&file))
        .expect_err("a file is no socket");
    assert!(error.to_string().contains("map sockets"), "{error}");
    redirect
        .clear_socket(1, 0)
        .expect("there is none, which is fine");
    for ifindex in 2..=64 {
        redirect
            .clear_socket(ifindex, 63)
            .expect("64 interfaces have room");
    }
    let error = redirect.clear_socket(65, 0).expect_err("the 65th has not");
    assert!(matches!(error, Error::TooManyInterfaces), "{error}");
}

#[test]
fn frames_of_impossible_length_are_refused() {
    let pins = Pins::new();
    let redirect = pins.load();
    let error = redirect
        .try_frame(&[0; 13])
        .expect_err("shorter than an Ethernet header");
    assert!(error.to_string().contains("13 bytes"), "{error}");
}
