//! Every steering decision, on frames that are handed to the program in the kernel. No socket is in its map, so what is
//! ours comes back as dropped.

mod common;

use common::frames::{
    Header, MORE, address, ethernet, extension, fragment_header, frame, icmp, packet, packet_with,
    ports,
};
use common::{Pins, TCP, UDP, run};
use std::net::IpAddr;
use xdp_redirect::{Action, Redirect, Steering};

/// Addresses of one family. The VIP has TCP 80 and UDP 53-60; the NAT address has TCP and UDP 1024-65535; the server
/// answers from TCP 8080 in a HALF-NAT rule; `every` has all TCP ports; `many` has TCP ports 100, 110, … 1090.
struct Family {
    icmp: u8,
    client: IpAddr,
    other: IpAddr,
    vip: IpAddr,
    nat: IpAddr,
    server: IpAddr,
    every: IpAddr,
    many: IpAddr,
}

fn families() -> [Family; 2] {
    let family = |icmp, prefix: &str| {
        let host = |host: &str| address(&format!("{prefix}{host}"));
        Family {
            icmp,
            client: host("1"),
            other: host("9"),
            vip: host("20"),
            nat: host("30"),
            server: host("40"),
            every: host("50"),
            many: host("60"),
        }
    };
    [family(1, "192.0.2."), family(58, "2001:db8::")]
}

fn steering() -> Steering {
    let mut steering = Steering::new();
    for family in families() {
        let mut add = |address, protocol, first, last| {
            steering
                .add_destination(address, protocol, first, last)
                .expect("allowed");
        };
        add(family.vip, TCP, 80, 80);
        add(family.vip, UDP, 53, 60);
        add(family.nat, TCP, 1024, 65535);
        add(family.nat, UDP, 1024, 65535);
        add(family.every, TCP, 0, 65535);
        for port in (100..1100).step_by(10) {
            add(family.many, TCP, port, port);
        }
        steering
            .add_source(family.server, TCP, 8080, 8080)
            .expect("allowed");
    }
    steering
}

fn loaded() -> (Pins, Redirect) {
    let pins = Pins::new();
    let redirect = pins.steer(&steering());
    (pins, redirect)
}

fn expect(redirect: &Redirect, what: &str, frame: &[u8], ours: bool) {
    let expected = if ours { Action::Drop } else { Action::Pass };
    assert_eq!(run(redirect, frame), expected, "{what}: {frame:02x?}");
    assert_eq!(
        common::model::is_ours(&steering(), frame),
        ours,
        "the model disagrees about {what}: {frame:02x?}"
    );
}

#[test]
fn destinations_and_sources_by_port() {
    let (_pins, redirect) = loaded();
    for f in families() {
        let table = [
            // (source, its port, destination, its port, protocol, ours)
            (f.client, 5000, f.vip, 80, TCP, true),
            (f.client, 5000, f.vip, 79, TCP, false),
            (f.client, 5000, f.vip, 81, TCP, false),
            (f.client, 80, f.vip, 5000, TCP, false),
            (f.client, 5000, f.vip, 80, UDP, false),
            (f.client, 5000, f.vip, 52, UDP, false),
            (f.client, 5000, f.vip, 53, UDP, true),
            (f.client, 5000, f.vip, 60, UDP, true),
            (f.client, 5000, f.vip, 61, UDP, false),
            (f.client, 5000, f.vip, 80, 132, false),
            (f.client, 5000, f.other, 80, TCP, false),
            (f.vip, 80, f.client, 5000, TCP, false),
            (f.server, 80, f.nat, 1023, TCP, false),
            (f.server, 80, f.nat, 1024, TCP, true),
            (f.server, 80, f.nat, 65535, TCP, true),
            (f.server, 80, f.nat, 65535, UDP, true),
            (f.server, 8080, f.client, 5000, TCP, true),
            (f.server, 8081, f.client, 5000, TCP, false),
            (f.server, 8080, f.client, 5000, UDP, false),
            (f.client, 5000, f.server, 8080, TCP, false),
            (f.client, 5000, f.every, 0, TCP, true),
            (f.client, 5000, f.every, 32768, TCP, true),
            (f.client, 5000, f.every, 65535, TCP, true),
            (f.client, 5000, f.every, 80, UDP, false),
            (f.client, 5000, f.many, 100, TCP, true),
            (f.client, 5000, f.many, 101, TCP, false),
            (f.client, 5000, f.many, 640, TCP, true),
            (f.client, 5000, f.many, 1090, TCP, true),
            (f.client, 5000, f.many, 1100, TCP, false),
            (f.client, 5000, f.many, 0, TCP, false),
            (f.client, 5000, f.many, 65535, TCP, false),
            // The destination has an entry that does not match, the source one that does.
            (f.server, 8080, f.vip, 5000, TCP, true),
        ];
        for (source, source_port, destination, port, protocol, ours) in table {
            let what =
                format!("{source} {source_port} -> {destination} {port} protocol {protocol}");
            let sent = packet(source, destination, protocol, &ports(source_port, port));
            expect(&redirect, &what, &frame(&sent), ours);
        }
    }
}

#[test]
fn a_bitmap_holds_exactly_its_ports() {
    let (_pins, redirect) = loaded();
    for f in families() {
        for port in 0..=1200 {
            let sent = packet(f.client, f.many, TCP, &ports(1, port));
            let ours = (100..1100).contains(&port) && port % 10 == 0;
            expect(&redirect, &format!("port {port}"), &frame(&sent), ours);
        }
    }
}

#[test]
fn the_kernel_keeps_its_own() {
    let (_pins, redirect) = loaded();
    let arp = ethernet(0x0806, &[0; 46]);
    expect(&redirect, "ARP", &arp, false);
    expect(
        &redirect,
        "an unknown EtherType",
        &ethernet(0x88cc, &[0; 60]),
        false,
    );
    expect(&redirect, "an 802.3 length", &ethernet(46, &[0; 46]), false);
    for f in families() {
        let vip = packet(f.client, f.vip, TCP, &ports(5000, 80));
        expect(&redirect, "the same, plain", &frame(&vip), true);

        let mut tagged = frame(&vip);
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x64]);
        expect(&redirect, "a VLAN tag", &tagged, false);
        let mut tagged = frame(&vip);
        tagged.splice(12..12, [0x88, 0xa8, 0x00, 0x64]);
        expect(&redirect, "an 802.1ad tag", &tagged, false);

        let mut multicast = frame(&vip);
        multicast[..6].copy_from_slice(&[0x01, 0, 0x5e, 0, 0, 1]);
        expect(&redirect, "a multicast MAC address", &multicast, false);
        multicast[..6].copy_from_slice(&[0xff; 6]);
        expect(&redirect, "the broadcast MAC address", &multicast, false);

        let mut wrong = frame(&vip);
        wrong[12..14].copy_from_slice(&if f.icmp == 1 {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        });
        expect(&redirect, "the other family's EtherType", &wrong, false);

        let (echo, reply) = if f.icmp == 1 { (8, 0) } else { (128, 129) };
        let inner = packet(f.vip, f.client, TCP, &ports(80, 5000));
        for kind in [echo, reply] {
            let sent = packet(f.client, f.vip, f.icmp, &icmp(kind, 0, &inner));
            expect(
                &redirect,
                &format!("ICMP type {kind}"),
                &frame(&sent),
                false,
            );
        }
        let wrong_icmp = packet(f.client, f.vip, 59 - f.icmp, &icmp(3, 0, &inner));
        expect(
            &redirect,
            "the other family's ICMP",
            &frame(&wrong_icmp),
            false,
        );
        for protocol in [0u8, 2, 4, 41, 47, 50, 89, 112, 255] {
            if f.icmp == 58 && [0, 43, 44, 51, 60].contains(&protocol) {
                continue;
            }
            let sent = packet(f.client, f.vip, protocol, &ports(80, 80));
            expect(
                &redirect,
                &format!("protocol {protocol}"),
                &frame(&sent),
                false,
            );
        }
    }
    let [_, f] = families();
    let inner = packet(f.vip, f.client, TCP, &ports(80, 5000));
    for kind in 133..=137 {
        let sent = packet(f.client, f.vip, 58, &icmp(kind, 0, &inner));
        expect(
            &redirect,
            &format!("neighbour discovery, type {kind}"),
            &frame(&sent),
            false,
        );
    }
    let [f, _] = families();
    let inner = packet(f.vip, f.client, TCP, &ports(80, 5000));
    for kind in [4, 5] {
        let sent = packet(f.client, f.vip, 1, &icmp(kind, 0, &inner));
        expect(
            &redirect,
            &format!("ICMP type {kind}"),
            &frame(&sent),
            false,
        );
    }
}

/// The errors that are steered, by family.
fn errors(icmp: u8) -> &'static [u8] {
    if icmp == 1 {
        &[3, 11, 12]
    } else {
        &[1, 2, 3, 4]
    }
}

#[test]
fn icmp_errors_about_our_packets() {
    let (_pins, redirect) = loaded();
    for f in families() {
        let table = [
            // The embedded packet: (source, its port, destination, its port, protocol, ours)
            (f.vip, 80, f.client, 5000, TCP, true),
            (f.vip, 81, f.client, 5000, TCP, false),
            (f.vip, 53, f.client, 5000, UDP, true),
            (f.vip, 80, f.client, 5000, UDP, false),
            (f.nat, 2000, f.server, 80, TCP, true),
            (f.nat, 1000, f.server, 80, TCP, false),
            (f.client, 5000, f.vip, 80, TCP, true),
            (f.client, 5000, f.vip, 81, TCP, false),
            (f.client, 5000, f.server, 8080, TCP, true),
            (f.client, 5000, f.server, 8081, TCP, false),
            (f.server, 8080, f.client, 5000, TCP, false),
            (f.many, 110, f.client, 5000, TCP, true),
            (f.many, 111, f.client, 5000, TCP, false),
            (f.other, 80, f.client, 5000, TCP, false),
        ];
        for (source, source_port, destination, port, protocol, ours) in table {
            let inner = packet(
                source,
                destination,
                protocol,
                &ports(source_port, port)[..8],
            );
            for &kind in errors(f.icmp) {
                let what = format!(
                    "type {kind} about {source} {source_port} -> {destination} {port} protocol {protocol}"
                );
                let error = packet(f.other, f.client, f.icmp, &icmp(kind, 4, &inner));
                expect(&redirect, &what, &frame(&error), ours);
            }
        }
        // Eight bytes behind the header are promised; four have the ports; three do not.
        for (length, ours) in [(8, true), (4, true), (3, false), (0, false)] {
            let inner = packet(f.vip, f.client, TCP, &ports(80, 5000)[..length]);
            let error = packet(f.other, f.vip, f.icmp, &icmp(errors(f.icmp)[0], 0, &inner));
            expect(
                &redirect,
                &format!("{length} bytes embedded"),
                &frame(&error),
                ours,
            );
        }
        // The embedded header's length field speaks of the whole packet.
        let whole = packet(f.vip, f.client, TCP, &vec![0; 1400]);
        let mut inner = whole[..whole.len() - 1400].to_vec();
        inner.extend(&ports(80, 5000)[..8]);
        let error = packet(f.other, f.vip, f.icmp, &icmp(errors(f.icmp)[0], 0, &inner));
        expect(
            &redirect,
            "a shortened packet embedded",
            &frame(&error),
            true,
        );
        // An error about an error is none of ours.
        let twice = packet(f.other, f.vip, f.icmp, &icmp(errors(f.icmp)[0], 0, &error));
        expect(&redirect, "an error about an error", &frame(&twice), false);
    }
}

#[test]
fn fragments_by_address_and_protocol() {
    let (_pins, redirect) = loaded();
    let [f, _] = families();
    let with = |fragment| Header {
        fragment,
        ..Header::default()
    };
    let table = [
        (f.client, f.vip, TCP, MORE, 80, true),
        (f.client, f.vip, TCP, MORE, 81, false),
        (f.client, f.vip, TCP, MORE | 1, 81, true),
        (f.client, f.vip, TCP, 0x1fff, 81, true),
        (f.client, f.vip, TCP, 0x4000, 81, false),
        (f.client, f.vip, 132, 1, 80, false),
        (f.client, f.other, TCP, 1, 80, false),
        (f.server, f.client, TCP, 1, 1, true),
        (f.server, f.client, UDP, 1, 1, false),
        (f.client, f.server, TCP, 1, 1, false),
        (f.other, f.vip, 1, 1, 1, false),
    ];
    for (source, destination, protocol, fragment, port, ours) in table {
        let what = format!("{source} -> {destination} protocol {protocol} fragment {fragment:x}");
        let sent = packet_with(
            &with(fragment),
            source,
            destination,
            protocol,
            &ports(7, port),
        );
        expect(&redirect, &what, &frame(&sent), ours);
    }
    let short = packet_with(&with(5), f.client, f.vip, TCP, &[0]);
    expect(
        &redirect,
        "a later fragment of one byte",
        &frame(&short),
        true,
    );
    let short = packet_with(&with(MORE), f.client, f.vip, TCP, &[0, 80, 0]);
    expect(
        &redirect,
        "a first fragment without its ports",
        &frame(&short),
        false,
    );
    for (fragment, port, ours) in [(MORE, 80, true), (MORE, 81, false), (9, 81, true)] {
        let inner = packet_with(&with(fragment), f.vip, f.client, TCP, &ports(port, 7)[..8]);
        let error = packet(f.other, f.vip, 1, &icmp(11, 1, &inner));
        expect(
            &redirect,
            &format!("an error about fragment {fragment:x}"),
            &frame(&error),
            ours,
        );
        let error = packet_with(&with(1), f.other, f.vip, 1, &icmp(3, 4, &inner));
        expect(
            &redirect,
            "a later fragment of an error",
            &frame(&error),
            false,
        );
        let error = packet_with(&with(MORE), f.other, f.vip, 1, &icmp(3, 4, &inner));
        expect(
            &redirect,
            "the first fragment of an error",
            &frame(&error),
            ours,
        );
    }

    let [_, f] = families();
    let with = |offset, more| Header {
        extensions: vec![fragment_header(offset, more)],
        ..Header::default()
    };
    let table = [
        (f.client, f.vip, TCP, 0, true, 80, true),
        (f.client, f.vip, TCP, 0, true, 81, false),
        (f.client, f.vip, TCP, 0, false, 80, true),
        (f.client, f.vip, TCP, 1, true, 81, true),
        (f.client, f.vip, TCP, 0x1fff, false, 81, true),
        (f.client, f.vip, 132, 1, false, 80, false),
        (f.client, f.other, TCP, 1, false, 80, false),
        (f.server, f.client, TCP, 1, false, 1, true),
        (f.client, f.server, TCP, 1, false, 1, false),
    ];
    for (source, destination, protocol, offset, more, port, ours) in table {
        let what =
            format!("{source} -> {destination} protocol {protocol} fragment {offset} {more}");
        let sent = packet_with(
            &with(offset, more),
            source,
            destination,
            protocol,
            &ports(7, port),
        );
        expect(&redirect, &what, &frame(&sent), ours);
    }
    for (offset, port, ours) in [(0, 80, true), (0, 81, false), (9, 81, true)] {
        let inner = packet_with(
            &with(offset, true),
            f.vip,
            f.client,
            TCP,
            &ports(port, 7)[..8],
        );
        let error = packet(f.other, f.vip, 58, &icmp(3, 1, &inner));
        expect(
            &redirect,
            &format!("an error about fragment {offset}"),
            &frame(&error),
            ours,
        );
    }
    assert_eq!(redirect.counters().expect("counters").fragments, 7);
}

#[test]
fn ipv4_options() {
    let (_pins, redirect) = loaded();
    let [f, _] = families();
    for words in 0..=10 {
        // Ports of ours stand in the options, too: they must not be taken for the real ones.
        let options: Vec<u8> = [0, 80, 0, 80].repeat(words);
        let header = Header {
            options,
            ..Header::default()
        };
        for (port, ours) in [(80, true), (81, false)] {
            let what = format!("{words} words of options, port {port}");
            let sent = packet_with(&header, f.client, f.vip, TCP, &ports(80, port));
            expect(&redirect, &what, &frame(&sent), ours);
            let inner = packet_with(&header, f.vip, f.client, TCP, &ports(port, 80)[..8]);
            let error = packet_with(&header, f.other, f.vip, 1, &icmp(3, 4, &inner));
            expect(
                &redirect,
                &format!("an error about {what}"),
                &frame(&error),
                ours,
            );
        }
    }
    for length in 0..5u8 {
        let mut sent = packet(f.client, f.vip, TCP, &ports(80, 80));
        sent[0] = 0x40 | length;
        expect(
            &redirect,
            &format!("a header of {length} words"),
            &frame(&sent),
            false,
        );
    }
}

#[test]
fn ipv6_extension_headers() {
    let (_pins, redirect) = loaded();
    let [_, f] = families();
    let chains: Vec<Vec<(u8, Vec<u8>)>> = vec![
        vec![extension(0, 8)],
        vec![extension(43, 24)],
        vec![extension(60, 2048)],
        vec![extension(51, 24)],
        vec![extension(51, 12), extension(60, 8)],
        vec![
            extension(0, 8),
            extension(60, 16),
            extension(43, 24),
            fragment_header(0, true),
            extension(51, 16),
        ],
        vec![extension(60, 8); 8],
        vec![extension(51, 1028)],
    ];
    for extensions in chains {
        let numbers: Vec<u8> = extensions.iter().map(|(number, _)| *number).collect();
        let header = Header {
            extensions,
            ..Header::default()
        };
        for (port, ours) in [(80, true), (81, false)] {
            let what = format!("extension headers {numbers:?}, port {port}");
            let sent = packet_with(&header, f.client, f.vip, TCP, &ports(7, port));
            expect(&redirect, &what, &frame(&sent), ours);
            // Longer ones than an error may carry are tested, too: the program does not know that limit.
            let inner = packet_with(&header, f.vip, f.client, TCP, &ports(port, 7)[..8]);
            let error = packet(f.other, f.vip, 58, &icmp(1, 4, &inner));
            expect(
                &redirect,
                &format!("an error about {what}"),
                &frame(&error),
                ours,
            );
        }
        let inner = packet(f.vip, f.client, TCP, &ports(80, 7)[..8]);
        let error = packet_with(&header, f.other, f.vip, 58, &icmp(2, 0, &inner));
        expect(
            &redirect,
            &format!("an error behind extension headers {numbers:?}"),
            &frame(&error),
            true,
        );
    }
    let too_many = Header {
        extensions: vec![extension(60, 8); 9],
        ..Header::default()
    };
    let sent = packet_with(&too_many, f.client, f.vip, TCP, &ports(7, 80));
    expect(&redirect, "nine extension headers", &frame(&sent), false);

    let later = Header {
        extensions: vec![extension(60, 8), fragment_header(4, false)],
        ..Header::default()
    };
    let sent = packet_with(&later, f.client, f.vip, TCP, &[0]);
    expect(
        &redirect,
        "a later fragment behind another header",
        &frame(&sent),
        true,
    );
    for number in [59, 135, 139, 140, 253] {
        let header = Header {
            extensions: vec![extension(number, 8)],
            ..Header::default()
        };
        let sent = packet_with(&header, f.client, f.vip, TCP, &ports(7, 80));
        expect(
            &redirect,
            &format!("header {number}, which is not walked"),
            &frame(&sent),
            false,
        );
    }
}

/// A frame that ends early passes, unless what is missing is padding; a packet that ends early passes, unless its ports
/// are there.
#[test]
fn truncation_at_every_length() {
    let (_pins, redirect) = loaded();
    let [f4, f6] = families();
    let options = Header {
        options: vec![1; 12],
        ..Header::default()
    };
    let chain = Header {
        extensions: vec![
            extension(0, 8),
            fragment_header(0, true),
            extension(51, 16),
            extension(60, 16),
        ],
        ..Header::default()
    };
    let inner4 = packet_with(&options, f4.vip, f4.client, TCP, &ports(80, 5000)[..8]);
    let inner6 = packet_with(&chain, f6.vip, f6.client, TCP, &ports(80, 5000)[..8]);
    let later4 = Header {
        fragment: 1,
        ..Header::default()
    };
    let later6 = Header {
        extensions: vec![extension(0, 8), fragment_header(1, false)],
        ..Header::default()
    };
    let packets = [
        packet_with(&later4, f4.client, f4.vip, TCP, &[0; 8]),
        packet_with(&later6, f6.client, f6.vip, TCP, &[0; 8]),
        packet(f4.client, f4.vip, TCP, &ports(5000, 80)),
        packet_with(&options, f4.server, f4.client, TCP, &ports(8080, 5000)),
        packet_with(&options, f4.other, f4.vip, 1, &icmp(3, 4, &inner4)),
        packet(f6.client, f6.vip, TCP, &ports(5000, 80)),
        packet_with(&chain, f6.server, f6.client, TCP, &ports(8080, 5000)),
        packet_with(&chain, f6.other, f6.vip, 58, &icmp(2, 0, &inner6)),
    ];
    for sent in packets {
        let whole = frame(&sent);
        expect(&redirect, "the whole frame", &whole, true);
        for length in 14..whole.len() {
            expect(
                &redirect,
                &format!("{length} bytes of it"),
                &whole[..length],
                false,
            );
        }
        let mut padded = whole.clone();
        padded.resize(whole.len() + 30, 0);
        expect(&redirect, "with padding", &padded, true);

        // Now the header agrees with what is there, and what was cut off is there as padding.
        for length in 0..sent.len() {
            let mut short = whole.clone();
            if sent[0] >> 4 == 4 {
                short[16..18].copy_from_slice(&(length as u16).to_be_bytes());
            } else if let Some(payload) = length.checked_sub(40) {
                short[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
            } else {
                continue;
            }
            let ours = common::model::is_ours(&steering(), &short);
            expect(
                &redirect,
                &format!("a packet that claims {length} bytes"),
                &short,
                ours,
            );
            let cut = &short[..(14 + length).max(14)];
            let ours = common::model::is_ours(&steering(), cut);
            expect(&redirect, &format!("a packet of {length} bytes"), cut, ours);
        }
    }
}

#[test]
fn every_frame_is_counted_once() {
    let (_pins, redirect) = loaded();
    let [f, _] = families();
    let before = redirect.counters().expect("counters");
    let inner = packet(f.vip, f.client, TCP, &ports(80, 5000)[..8]);
    let later = Header {
        fragment: 1,
        ..Header::default()
    };
    let vip = frame(&packet(f.client, f.vip, TCP, &ports(5000, 80)));
    for _ in 0..3 {
        run(&redirect, &vip);
    }
    run(&redirect, &vip[..30]);
    run(
        &redirect,
        &frame(&packet(f.client, f.other, TCP, &ports(5000, 80))),
    );
    run(
        &redirect,
        &frame(&packet_with(&later, f.client, f.vip, TCP, &[0])),
    );
    run(
        &redirect,
        &frame(&packet(f.other, f.vip, 1, &icmp(3, 4, &inner))),
    );
    let after = redirect.counters().expect("counters");
    assert_eq!(after.passed - before.passed, 2);
    assert_eq!(after.malformed - before.malformed, 1);
    assert_eq!(after.redirected - before.redirected, 0);
    assert_eq!(after.unserved - before.unserved, 5);
    assert_eq!(after.fragments - before.fragments, 1);
    assert_eq!(after.icmp_errors - before.icmp_errors, 1);
}

#[test]
fn the_same_without_cap_perfmon() {
    common::again_without_perfmon("the_same_without_cap_perfmon");
}
