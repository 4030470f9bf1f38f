//! Addresses that take nothing for the host itself: what is sent to them and is not ours.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;

use common::frames::{
    Header, MORE, address, ethernet, extension, fragment_header, frame, icmp, packet, packet_with,
    ports,
};
use common::{Pins, SCTP, TCP, UDP, model, run};
use xdp_redirect::{Action, Changes, MAX_CLOSED, Redirect, Steering};

/// What should become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The kernel gets it.
    Kernel,
    /// It is dropped because of where it is sent to.
    Closed,
    /// A rule takes it.
    Ours,
}
use Fate::{Closed, Kernel, Ours};

/// Addresses of one family: the VIP with TCP 80 is closed, `other` is not.
struct Family {
    icmp: u8,
    client: IpAddr,
    vip: IpAddr,
    other: IpAddr,
}

fn families() -> [Family; 2] {
    let family = |icmp, prefix: &str| Family {
        icmp,
        client: address(&format!("{prefix}1")),
        vip: address(&format!("{prefix}20")),
        other: address(&format!("{prefix}30")),
    };
    [family(1, "192.0.2."), family(58, "2001:db8::")]
}

fn steering() -> Steering {
    let mut steering = Steering::new();
    for f in families() {
        let added = steering.add_destination(f.vip, TCP, 80, 80);
        added.expect("allowed");
    }
    steering
}

fn vips() -> BTreeSet<IpAddr> {
    families().into_iter().map(|f| f.vip).collect()
}

fn loaded() -> (Pins, Redirect) {
    let pins = Pins::new();
    let mut redirect = pins.steer(&steering());
    redirect.close(&vips()).expect("the map takes it");
    (pins, redirect)
}

#[track_caller]
fn expect(redirect: &Redirect, what: &str, frame: &[u8], fate: Fate) {
    let before = redirect.counters().expect("counters");
    let action = run(redirect, frame);
    let after = redirect.counters().expect("counters");
    let mut expected = before;
    let (said, count) = match fate {
        Kernel => (Action::Pass, &mut expected.passed),
        Closed => (Action::Drop, &mut expected.closed),
        Ours => (Action::Drop, &mut expected.unserved),
    };
    *count += 1;
    if fate == Closed {
        expected.closed_bytes += frame.len() as u64 - 14;
    }
    // What kind of packet it was is another test's.
    expected.malformed = after.malformed;
    expected.fragments = after.fragments;
    expected.icmp_errors = after.icmp_errors;
    assert_eq!((action, after), (said, expected), "{what}: {frame:02x?}");
    let model = match (
        model::is_ours(&steering(), frame),
        model::is_closed(&vips(), frame),
    ) {
        (true, _) => Ours,
        (false, true) => Closed,
        (false, false) => Kernel,
    };
    assert_eq!(
        model, fate,
        "the model disagrees about {what}: {frame:02x?}"
    );
}

#[test]
fn the_host_gets_nothing_at_a_closed_address() {
    let (_pins, redirect) = loaded();
    for f in families() {
        let echo = if f.icmp == 1 { 8 } else { 128 };
        let error = if f.icmp == 1 { 3 } else { 1 };
        let about = |from, to| icmp(error, 0, &packet(from, to, UDP, &ports(53, 53)[..8]));
        let ours = icmp(error, 0, &packet(f.vip, f.client, TCP, &ports(80, 9)[..8]));
        for (what, protocol, body, to_vip) in [
            ("a ping", f.icmp, icmp(echo, 0, b"data"), Closed),
            ("a port without a rule", TCP, ports(5000, 22), Closed),
            (
                "another protocol than the rule's",
                UDP,
                ports(5000, 80),
                Closed,
            ),
            ("SCTP", SCTP, ports(5000, 80), Closed),
            ("GRE", 47, vec![0; 8], Closed),
            (
                "an error about nobody's",
                f.icmp,
                about(f.vip, f.client),
                Closed,
            ),
            ("a port that is cut off", TCP, vec![1, 2, 3], Closed),
            (
                "a message that is cut off",
                f.icmp,
                vec![echo, 0, 0],
                Closed,
            ),
            ("a group message", 2, vec![0x16; 8], Closed),
            ("the rule's port", TCP, ports(5000, 80), Ours),
            ("an error about a rule's packet", f.icmp, ours, Ours),
            ("VRRP", 112, vec![0x31; 12], Kernel),
        ] {
            let sent = frame(&packet(f.client, f.vip, protocol, &body));
            expect(&redirect, what, &sent, to_vip);
            let elsewhere = frame(&packet(f.client, f.other, protocol, &body));
            let what = format!("{what} to another address");
            let fate = if to_vip == Ours && protocol != TCP {
                Ours
            } else {
                Kernel
            };
            expect(&redirect, &what, &elsewhere, fate);
            let leaving = frame(&packet(f.vip, f.client, 17, &ports(1, 1)));
            expect(&redirect, "a packet from the address", &leaving, Kernel);
        }
    }
}

#[test]
fn what_a_host_needs_to_have_the_address_passes() {
    let (_pins, redirect) = loaded();
    expect(&redirect, "ARP", &ethernet(0x0806, &[0; 46]), Kernel);
    let [v4, v6] = families();
    for kind in 0..=255 {
        let message = icmp(kind, 0, &[0; 24]);
        let sent = frame(&packet(v6.client, v6.vip, 58, &message));
        let fate = match kind {
            133..=137 => Kernel,
            _ => Closed,
        };
        expect(&redirect, &format!("ICMPv6 type {kind}"), &sent, fate);
        let sent = frame(&packet(v4.client, v4.vip, 1, &message));
        expect(&redirect, &format!("ICMP type {kind}"), &sent, Closed);
        let sent = frame(&packet(v4.client, v4.vip, 58, &message));
        expect(
            &redirect,
            &format!("ICMPv6 type {kind} in IPv4"),
            &sent,
            Closed,
        );
    }
    // A solicitation to the address's group, as neighbours begin.
    let group = address("ff02::1:ff00:20");
    let mut sent = frame(&packet(v6.client, group, 58, &icmp(135, 0, &[0; 16])));
    sent[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 0x20]);
    expect(&redirect, "a solicitation to the group", &sent, Kernel);
    for f in families() {
        // The address of the link makes no difference to whose the packet is.
        let mut sent = frame(&packet(f.client, f.vip, UDP, &ports(1, 1)));
        for mac in [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1]] {
            sent[..6].copy_from_slice(&mac);
            expect(&redirect, "a packet that everybody gets", &sent, Closed);
        }
        let mut tagged = sent.clone();
        tagged.splice(12..12, [0x81, 0x00, 0, 7]);
        expect(&redirect, "another link's", &tagged, Kernel);
    }
}

#[test]
fn headers_hide_nothing() {
    let (_pins, redirect) = loaded();
    let [v4, v6] = families();
    let options = Header {
        options: vec![1; 40],
        ..Header::default()
    };
    let walked = |count| Header {
        extensions: (0..count).map(|_| extension(60, 8)).collect(),
        ..Header::default()
    };
    let fragment4 = |fragment| Header {
        fragment,
        ..Header::default()
    };
    let fragment6 = |offset, more| Header {
        extensions: vec![extension(0, 8), fragment_header(offset, more)],
        ..Header::default()
    };
    for (what, f, header, solicitation) in [
        ("IPv4 options", &v4, options, Closed),
        ("a first IPv4 fragment", &v4, fragment4(MORE), Closed),
        ("extension headers", &v6, walked(8), Kernel),
        // Too many to be understood.
        ("nine extension headers", &v6, walked(9), Closed),
        ("a first IPv6 fragment", &v6, fragment6(0, true), Kernel),
    ] {
        for (kind, protocol, body, fate) in [
            ("UDP", UDP, ports(1, 53), Closed),
            ("a solicitation", 58, icmp(135, 0, &[0; 16]), solicitation),
        ] {
            let sent = frame(&packet_with(&header, f.client, f.vip, protocol, &body));
            expect(&redirect, &format!("{kind} behind {what}"), &sent, fate);
        }
    }
    for (f, later) in [(&v4, fragment4(7)), (&v6, fragment6(7, false))] {
        for (protocol, fate) in [(TCP, Ours), (UDP, Closed), (f.icmp, Closed), (112, Kernel)] {
            let body = icmp(135, 0, &[0; 16]);
            let sent = frame(&packet_with(&later, f.client, f.vip, protocol, &body));
            let what = format!("a later fragment of protocol {protocol}");
            expect(&redirect, &what, &sent, fate);
        }
    }
    for f in families() {
        // Down to the address itself; what is shorter names none.
        let whole = frame(&packet(f.client, f.vip, UDP, &ports(1, 53)));
        let header = if f.icmp == 1 { 34 } else { 54 };
        for length in 14..whole.len() {
            let fate = if length < header { Kernel } else { Closed };
            let what = format!("{length} bytes of a packet");
            expect(&redirect, &what, &whole[..length], fate);
        }
    }
}

#[test]
fn addresses_are_closed_and_opened() {
    let pins = Pins::new();
    let mut redirect = pins.load();
    let ping = |to: IpAddr| frame(&packet(address("192.0.2.1"), to, 1, &icmp(8, 0, b"data")));
    let [one, two] = ["192.0.2.20", "192.0.2.30"].map(address);
    let mut close = |addresses: &[IpAddr], (added, removed)| {
        let wanted = addresses.iter().copied().collect();
        let changes = redirect.close(&wanted).expect("the map takes it");
        let expected = Changes {
            added,
            changed: 0,
            removed,
        };
        assert_eq!(changes, expected, "{addresses:?}");
        assert_eq!(redirect.closed().expect("the map can be read"), wanted);
        for address in [one, two] {
            let expected = match addresses.contains(&address) {
                true => Action::Drop,
                false => Action::Pass,
            };
            let action = run(&redirect, &ping(address));
            assert_eq!(action, expected, "{address} of {addresses:?}");
        }
    };
    close(&[], (0, 0));
    close(&[one], (1, 0));
    close(&[one], (0, 0));
    close(&[one, address("2001:db8::20")], (1, 0));
    close(&[two], (1, 2));
    close(&[], (0, 1));
    close(&[one, two], (2, 0));

    // They stay closed without a process, and a later one knows them.
    drop(redirect);
    let mut redirect = pins.load();
    assert_eq!(run(&redirect, &ping(one)), Action::Drop);
    let both = BTreeSet::from([one, two]);
    assert_eq!(redirect.closed().expect("the map can be read"), both);

    let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let error = redirect.close(&(0..=MAX_CLOSED).map(address).collect());
    let error = error.expect_err("one too many").to_string();
    assert_eq!(
        error,
        "65537 addresses are to be closed, but there is room for 65536"
    );
    assert_eq!(redirect.closed().expect("the map can be read"), both);
}

#[test]
fn the_same_without_cap_perfmon() {
    common::again_without_perfmon("the_same_without_cap_perfmon");
}
