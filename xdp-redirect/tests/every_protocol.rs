//! SCTP, ICMP queries and all other protocols; and what is never steered, whatever the maps say.

mod common;

use std::net::IpAddr;

use common::frames::{
    Header, MORE, address, ethernet, extension, fragment_header, frame, icmp, packet, packet_with,
    ports,
};
use common::{Pins, SCTP, TCP, UDP, model, run};
use xdp_redirect::{Action, ERRORS_ONLY, OTHER_PROTOCOLS, Redirect, Steering};

/// Addresses of one family. `sctp` has SCTP 36412; `ping` has ICMP; `every` has all protocols; `rest` has only those
/// without ports; `tunnel` has errors; the server answers from every protocol, the echo server from ICMP alone.
struct Family {
    icmp: u8,
    client: IpAddr,
    sctp: IpAddr,
    ping: IpAddr,
    every: IpAddr,
    rest: IpAddr,
    tunnel: IpAddr,
    server: IpAddr,
    echo: IpAddr,
    header: Header,
}

fn families() -> [Family; 2] {
    let family = |icmp, prefix: &str, header| {
        let host = |host: &str| address(&format!("{prefix}{host}"));
        Family {
            icmp,
            client: host("1"),
            sctp: host("20"),
            ping: host("30"),
            every: host("40"),
            rest: host("50"),
            tunnel: host("60"),
            server: host("70"),
            echo: host("80"),
            header,
        }
    };
    let later4 = Header {
        fragment: 5 | MORE,
        ..Header::default()
    };
    let later6 = Header {
        extensions: vec![extension(60, 8), fragment_header(5, true)],
        ..Header::default()
    };
    [
        family(1, "192.0.2.", later4),
        family(58, "2001:db8::", later6),
    ]
}

fn steering() -> Steering {
    let mut steering = Steering::new();
    for f in families() {
        let all = [TCP, UDP, SCTP, f.icmp, OTHER_PROTOCOLS];
        let mut destination = |address, protocol, first, last| {
            let added = steering.add_destination(address, protocol, first, last);
            added.expect("allowed");
        };
        destination(f.sctp, SCTP, 36412, 36412);
        destination(f.ping, f.icmp, 0, 0);
        destination(f.rest, OTHER_PROTOCOLS, 0, 0);
        destination(f.tunnel, ERRORS_ONLY, 0, 0);
        for protocol in all {
            destination(f.every, protocol, 0, 65535);
        }
        for protocol in all {
            let added = steering.add_source(f.server, protocol, 0, 65535);
            added.expect("allowed");
        }
        let added = steering.add_source(f.echo, f.icmp, 0, 0);
        added.expect("allowed");
    }
    steering
}

fn expect(redirect: &Redirect, what: &str, frame: &[u8], ours: bool) {
    let expected = if ours { Action::Drop } else { Action::Pass };
    assert_eq!(run(redirect, frame), expected, "{what}: {frame:02x?}");
    assert_eq!(
        model::is_ours(&steering(), frame),
        ours,
        "the model disagrees about {what}: {frame:02x?}"
    );
}

#[test]
fn protocols_by_their_entries() {
    let pins = Pins::new();
    let redirect = pins.steer(&steering());
    for f in families() {
        let queries: &[u8] = match f.icmp {
            1 => &[0, 8, 13, 14, 15, 16, 17, 18, 42, 43],
            _ => &[128, 129, 160, 161],
        };
        for &kind in queries {
            let message = icmp(kind, 0, b"data");
            for (source, destination, ours) in [
                (f.client, f.ping, true),
                (f.client, f.every, true),
                (f.client, f.rest, false),
                (f.client, f.sctp, false),
                (f.client, f.tunnel, false),
                (f.echo, f.client, true),
                (f.server, f.client, true),
                (f.client, f.server, false),
            ] {
                let what = format!("ICMP type {kind} from {source} to {destination}");
                let sent = packet(source, destination, f.icmp, &message);
                expect(&redirect, &what, &frame(&sent), ours);
                let later = packet_with(&f.header, source, destination, f.icmp, &message);
                expect(
                    &redirect,
                    &format!("a later fragment of {what}"),
                    &frame(&later),
                    ours,
                );
                let short = packet(source, destination, f.icmp, &message[..7]);
                expect(
                    &redirect,
                    &format!("seven bytes of {what}"),
                    &frame(&short),
                    false,
                );
            }
        }
        for (source, destination, port, protocol, ours) in [
            (f.client, f.sctp, 36412, SCTP, true),
            (f.client, f.sctp, 36413, SCTP, false),
            (f.client, f.sctp, 36412, UDP, false),
            (f.client, f.every, 36412, SCTP, true),
            (f.client, f.every, 0, TCP, true),
            (f.client, f.every, 65535, UDP, true),
            (f.client, f.every, 1, 47, true),
            (f.client, f.every, 1, 255, true),
            (f.client, f.rest, 1, 47, true),
            (f.client, f.rest, 1, 50, true),
            (f.client, f.rest, 1, 136, true),
            (f.client, f.rest, 1, 255, true),
            // The other family's ICMP is a protocol like others.
            (f.client, f.rest, 1, 59 - f.icmp, true),
            (f.client, f.rest, 80, TCP, false),
            (f.client, f.rest, 80, UDP, false),
            (f.client, f.rest, 80, SCTP, false),
            (f.client, f.ping, 1, 47, false),
            (f.client, f.tunnel, 1, 47, false),
            (f.client, f.tunnel, 1, 255, false),
            (f.client, f.tunnel, 6080, UDP, false),
            (f.server, f.client, 1, 47, true),
            (f.server, f.client, 36412, SCTP, true),
            (f.echo, f.client, 1, 47, false),
        ] {
            let what = format!("{source} -> {destination} {port} protocol {protocol}");
            let sent = packet(source, destination, protocol, &ports(7, port));
            expect(&redirect, &what, &frame(&sent), ours);
        }
        let nothing = packet(f.client, f.rest, 47, &[]);
        expect(
            &redirect,
            "a protocol without a byte",
            &frame(&nothing),
            true,
        );
        let no_ports = packet(f.client, f.every, UDP, &[1, 2, 3]);
        expect(&redirect, "UDP without its ports", &frame(&no_ports), false);
    }
}

#[test]
fn errors_about_every_protocol() {
    let pins = Pins::new();
    let redirect = pins.steer(&steering());
    for f in families() {
        let (kind, request, reply, other) = match f.icmp {
            1 => (3, 8, 0, 5),
            _ => (1, 128, 129, 135),
        };
        let query = |kind| icmp(kind, 0, &[]);
        for (source, destination, protocol, about, ours) in [
            (f.client, f.ping, f.icmp, query(request), true),
            (f.ping, f.client, f.icmp, query(reply), true),
            (f.client, f.echo, f.icmp, query(request), true),
            (f.echo, f.client, f.icmp, query(reply), false),
            (f.client, f.sctp, f.icmp, query(request), false),
            (f.ping, f.client, f.icmp, query(kind), false),
            (f.every, f.client, f.icmp, query(other), false),
            (f.ping, f.client, f.icmp, query(reply)[..7].to_vec(), false),
            (f.sctp, f.client, SCTP, ports(36412, 9)[..8].to_vec(), true),
            (f.sctp, f.client, SCTP, ports(9, 36412)[..8].to_vec(), false),
            (f.rest, f.client, 47, vec![], true),
            (f.client, f.server, 47, vec![0; 8], true),
            (f.every, f.client, 2, vec![0; 8], false),
            // Whatever left from a tunnel's address; nothing that went there.
            (f.tunnel, f.client, 4, vec![0; 8], true),
            (f.tunnel, f.client, 41, vec![0; 8], true),
            (f.tunnel, f.client, 47, vec![], true),
            (
                f.tunnel,
                f.client,
                UDP,
                ports(50_000, 6080)[..8].to_vec(),
                true,
            ),
            (
                f.client,
                f.tunnel,
                UDP,
                ports(50_000, 6080)[..8].to_vec(),
                false,
            ),
        ] {
            let what = format!(
                "an error about {source} -> {destination} protocol {protocol} {about:02x?}"
            );
            let inner = packet(source, destination, protocol, &about);
            let error = packet(f.client, f.every, f.icmp, &icmp(kind, 1, &inner));
            expect(&redirect, &what, &frame(&error), ours);
        }
    }
}

/// With every protocol of the address in the maps, these are still the kernel's.
#[test]
fn what_belongs_to_the_link_is_never_steered() {
    let pins = Pins::new();
    let redirect = pins.steer(&steering());
    let arp = ethernet(0x0806, &[0; 46]);
    expect(&redirect, "ARP", &arp, false);
    for f in families() {
        let local: Vec<u8> = match f.icmp {
            // Source quench, redirect, router advertisement and solicitation, and what nobody knows.
            1 => vec![1, 2, 4, 5, 6, 9, 10, 19, 30, 40, 44, 255],
            // Listener discovery, neighbour discovery, redirect, node information, inverse discovery and so on.
            _ => (130..=159).chain([0, 5, 100, 127, 162, 255]).collect(),
        };
        for destination in [f.every, f.ping] {
            for &kind in &local {
                let sent = packet(f.client, destination, f.icmp, &icmp(kind, 0, &[0; 24]));
                let what = format!("ICMP type {kind} to {destination}");
                expect(&redirect, &what, &frame(&sent), false);
                let from = packet(f.server, destination, f.icmp, &icmp(kind, 0, &[0; 24]));
                expect(
                    &redirect,
                    &format!("{what} from a server"),
                    &frame(&from),
                    false,
                );
            }
        }
        for protocol in [TCP, UDP, SCTP, f.icmp, 47] {
            let body = if protocol == f.icmp {
                icmp(if f.icmp == 1 { 8 } else { 128 }, 0, &[])
            } else {
                ports(1, 1)
            };
            let mut sent = frame(&packet(f.client, f.every, protocol, &body));
            expect(&redirect, &format!("protocol {protocol}"), &sent, true);
            for mac in [
                [0x33, 0x33, 0, 0, 0, 1],
                [0x01, 0, 0x5e, 0, 0, 1],
                [0xff; 6],
            ] {
                sent[..6].copy_from_slice(&mac);
                expect(
                    &redirect,
                    &format!("protocol {protocol} to {mac:02x?}"),
                    &sent,
                    false,
                );
            }
        }
        let group = packet(f.client, f.every, 2, &[0x16; 8]);
        expect(&redirect, "IGMP", &frame(&group), false);
    }
}

#[test]
fn the_same_without_cap_perfmon() {
    common::again_without_perfmon("the_same_without_cap_perfmon");
}
