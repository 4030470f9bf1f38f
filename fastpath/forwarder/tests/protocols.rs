//! Every protocol in every topology and both families; what is never balanced; what XDP has to steer for it.

mod common;

use std::collections::HashSet;
use std::net::IpAddr;

use common::*;
use ilb_forwarder::packet::sctp;
use ilb_forwarder::spec::*;
use ilb_forwarder::steering::Class;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Side, SteeringEntry};

const RR: Algorithm = Algorithm::RoundRobin;
type End = (IpAddr, u16);

/// A protocol as a client and a server speak it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Tcp,
    Udp,
    Sctp,
    Echo,
    Timestamp,
    Gre,
    Dccp,
    UdpLite,
}

const ALL: [Speech; 8] = [
    Speech::Tcp,
    Speech::Udp,
    Speech::Sctp,
    Speech::Echo,
    Speech::Timestamp,
    Speech::Gre,
    Speech::Dccp,
    Speech::UdpLite,
];

impl Speech {
    fn number(self, v4: bool) -> u8 {
        match self {
            Speech::Tcp => 6,
            Speech::Udp => 17,
            Speech::Sctp => 132,
            Speech::Echo | Speech::Timestamp if v4 => 1,
            Speech::Echo | Speech::Timestamp => 58,
            Speech::Gre => 47,
            Speech::Dccp => 33,
            Speech::UdpLite => 136,
        }
    }

    /// How a rule names it.
    fn protocol(self) -> Protocol {
        match self {
            Speech::Tcp => Protocol::Tcp,
            Speech::Udp => Protocol::Udp,
            Speech::Sctp => Protocol::Sctp,
            Speech::Echo | Speech::Timestamp => Protocol::Icmp,
            Speech::Gre | Speech::Dccp | Speech::UdpLite => Protocol::Any,
        }
    }

    /// Client's and VIP's port, as connections have them.
    fn ports(self) -> (u16, u16) {
        match self {
            Speech::Tcp | Speech::Udp | Speech::Sctp => (40_001, 80),
            Speech::Echo | Speech::Timestamp => (777, 0),
            Speech::Gre | Speech::Dccp | Speech::UdpLite => (0, 0),
        }
    }

    /// A packet from the one end to the other, the first of a connection if `asks`.
    fn packet(self, src: End, dst: End, asks: bool, ttl: u8) -> Vec<u8> {
        let v4 = src.0.is_ipv4();
        let mut bytes = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
        let sum_at = match self {
            Speech::Tcp => {
                let flags = if asks { 0x02 } else { 0x12 };
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
                Some(16)
            }
            Speech::Udp | Speech::UdpLite => {
                bytes.extend([0, 13, 0, 0]);
                Some(6)
            }
            Speech::Sctp => {
                let chunk = if asks { sctp::INIT } else { sctp::INIT_ACK };
                bytes.extend([1, 2, 3, 4, 0, 0, 0, 0, chunk, 0, 0, 9]);
                Some(8)
            }
            Speech::Echo | Speech::Timestamp => {
                let kind = match (self, v4, asks) {
                    (Speech::Echo, true, true) => 8,
                    (Speech::Echo, true, false) => 0,
                    (_, true, true) => 13,
                    (_, true, false) => 14,
                    // ICMPv6 has no timestamps; extended echo takes their place.
                    (Speech::Echo, false, true) => 128,
                    (Speech::Echo, false, false) => 129,
                    (_, false, true) => 160,
                    (_, false, false) => 161,
                };
                let id = if asks { src.1 } else { dst.1 };
                bytes = vec![kind, 0, 0, 0];
                bytes.extend(id.to_be_bytes());
                bytes.extend([0, 1]);
                Some(2)
            }
            Speech::Dccp => {
                bytes.extend([4, 0, 0, 0]);
                Some(6)
            }
            Speech::Gre => None,
        };
        bytes.extend(b"hello");
        if let Some(at) = sum_at {
            let sum = message_sum(&bytes, self.number(v4), src.0.into(), dst.0.into());
            bytes[at..at + sum.len()].copy_from_slice(&sum);
        }
        ip_frame(src.0, dst.0, self.number(v4), ttl, None, &bytes)
    }
}

fn with(family: Family, topology: Topology, protocol: Protocol, servers: u8) -> RuleSpec {
    let mut rule = rule(family, topology, RR, servers);
    rule.vips[0].protocol = protocol;
    if !protocol.has_ports() {
        rule.vips[0].ports = PortRange::ANY;
    }
    rule
}

/// Every speech, family and topology, under a rule of the speech's own protocol and under one of any.
fn each(topologies: &[Topology], mut test: impl FnMut(Speech, Family, Topology, World, &str)) {
    for speech in ALL {
        for family in FAMILIES {
            for &topology in topologies {
                for protocol in HashSet::from([speech.protocol(), Protocol::Any]) {
                    let world = World::new(vec![with(family, topology, protocol, 2)]);
                    let what = format!("{speech:?} {family:?} {topology:?} rule of {protocol}");
                    test(speech, family, topology, world, &what);
                }
            }
        }
    }
}

#[test]
fn there_and_back() {
    let topologies = [Topology::Dsr, Topology::HalfNat, Topology::Nat];
    each(&topologies, |speech, family, topology, mut world, what| {
        let (client_port, port) = speech.ports();
        let (client, vip) = ((family.client(1), client_port), (family.vip(), port));
        let sent = speech.packet(client, vip, true, 64);
        let out = world.pass(&sent, BACK);
        assert_eq!(out[..6], [4, 0, 0, 0, 2, 1], "{what}: to the first server");
        if topology == Topology::Dsr {
            assert_eq!(out[14..], sent[14..], "{what}: untouched");
            return;
        }
        let (seen_client, server) = ends(&out);
        assert_eq!(server, (family.server(1), port), "{what}");
        match topology {
            Topology::HalfNat => assert_eq!(seen_client, client, "{what}"),
            _ => assert!(
                [family.proxy(1), family.proxy(2)].contains(&seen_client.0),
                "{what}: {seen_client:?}"
            ),
        }
        let expected = speech.packet(seen_client, server, true, 63);
        assert_eq!(out[14..], expected[14..], "{what}: at the server");

        let answer = speech.packet(server, seen_client, false, 64);
        let back = world.pass(&answer, FRONT);
        let expected = speech.packet(vip, client, false, 63);
        assert_eq!(back[14..], expected[14..], "{what}: at the client");
        // Once more: the connection is known.
        assert_eq!(
            ends(&world.pass(&sent, BACK)),
            (seen_client, server),
            "{what}"
        );
        assert_eq!(world.table.used(), 1, "{what}");
    });
}

#[test]
fn errors_reach_the_end_that_caused_them() {
    each(
        &[Topology::HalfNat, Topology::Nat],
        |speech, family, topology, mut world, what| {
            let (client_port, port) = speech.ports();
            let (client, vip) = ((family.client(1), client_port), (family.vip(), port));
            let at_server = world.pass(&speech.packet(client, vip, true, 64), BACK);
            let (seen_client, server) = ends(&at_server);
            let header = if family.v4 { 20 } else { 40 };
            for quote in [8, 500] {
                let error = icmp_error(
                    family.router(),
                    seen_client.0,
                    false,
                    &at_server,
                    header + quote,
                );
                let out = world.pass(&error, FRONT);
                assert_eq!(
                    quoted(&out),
                    quote_of(&speech.packet(client, vip, true, 63), header + quote),
                    "{what}"
                );
                assert_eq!(ends(&out).1.0, client.0, "{what}");

                // The answer, as the client's side of the network sees it, is too big for somebody.
                let answer = speech.packet(vip, client, false, 63);
                let error = icmp_error(family.router(), vip.0, true, &answer, header + quote);
                let out = world.pass(&error, BACK);
                assert_eq!(
                    quoted(&out),
                    quote_of(
                        &speech.packet(server, seen_client, false, 63),
                        header + quote
                    ),
                    "{what} {topology:?}"
                );
                assert_eq!(ends(&out).1.0, server.0, "{what}");
            }
        },
    );
}

/// What an ICMP error quotes.
fn quoted(frame: &[u8]) -> Vec<u8> {
    let h = headers(frame);
    frame[h.l4 as usize + 8..h.end as usize].to_vec()
}

fn quote_of(frame: &[u8], quote: usize) -> Vec<u8> {
    frame[14..].iter().copied().take(quote).collect()
}

fn icmp_message(family: Family, src: IpAddr, dst: IpAddr, kind: u8) -> Vec<u8> {
    let number = if family.v4 { 1 } else { 58 };
    let mut body = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    body.extend([0; 16]);
    let sum = message_sum(&body, number, src.into(), dst.into());
    body[2..4].copy_from_slice(&sum);
    ip_frame(src, dst, number, 255, None, &body)
}

#[test]
fn what_belongs_to_the_link_is_never_balanced() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut world = World::new(vec![
                with(family, topology, Protocol::Any, 2),
                RuleSpec {
                    id: 2,
                    ..with(family, topology, Protocol::Icmp, 2)
                },
            ]);
            let (client, vip, server) = (family.client(1), family.vip(), family.server(1));
            let local: Vec<u8> = match family.v4 {
                // Redirect, router advertisement and solicitation, and what nobody knows.
                true => vec![1, 2, 5, 6, 7, 9, 10, 19, 30, 40, 44, 255],
                // Listener discovery, neighbour discovery and all else up to mobile and certified discovery.
                false => (130..=159).chain([0, 5, 100, 127, 162, 255]).collect(),
            };
            let mut frames: Vec<Vec<u8>> = Vec::new();
            for kind in local {
                frames.push(icmp_message(family, client, vip, kind));
                frames.push(icmp_message(family, server, client, kind));
            }
            frames.push(ip_frame(client, vip, 2, 1, None, &[0x16; 8]));
            for mac in [[0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1], [0xff; 6]] {
                let mut frame = Speech::Udp.packet((client, 5), (vip, 80), true, 64);
                frame[..6].copy_from_slice(&mac);
                frames.push(frame);
            }
            for frame in frames {
                let (verdict, out) = world.send(&frame);
                assert_eq!(verdict, Verdict::Kernel, "{family:?} {frame:02x?}");
                assert_eq!(out, frame, "untouched");
            }
            let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
            assert_eq!(world.send(&arp).0, Verdict::Drop(DropReason::NotIp));
            assert_eq!(world.table.used(), 0, "{family:?} {topology:?}");
        }
    }
}

#[test]
fn only_what_begins_something_begins_a_connection() {
    let (client, vip) = ((V4.client(1), 777), (V4.vip(), 0));
    let mut world = World::new(vec![with(V4, Topology::Nat, Protocol::Any, 1)]);
    // The balancer itself may have asked.
    let answer = Speech::Echo.packet((client.0, 0), (vip.0, 777), false, 64);
    assert_eq!(world.send(&answer).0, Verdict::Kernel);
    for chunk in 0..=14 {
        let mut frame = Speech::Sctp.packet((client.0, 5), (vip.0, 80), true, 64);
        frame[14 + 20 + 12] = chunk;
        let sum = message_sum_anew(&mut frame[14 + 20..]);
        let verdict = world.send(&frame).0;
        match chunk {
            sctp::INIT => {
                assert_eq!(verdict, Verdict::Transmit(BACK), "{sum:?}");
                let table = world.table.clone();
                table.each(|index, _| {
                    table.kill(index);
                    std::ops::ControlFlow::Continue(())
                });
            }
            _ => assert_eq!(
                verdict,
                Verdict::Drop(DropReason::NoConnection),
                "chunk {chunk}"
            ),
        }
    }
}

fn message_sum_anew(sctp: &mut [u8]) -> [u8; 4] {
    sctp[8..12].fill(0);
    let sum = crc32c(sctp);
    sctp[8..12].copy_from_slice(&sum);
    sum
}

#[test]
fn nat_tells_clients_apart_by_identifiers_and_portless_ones_by_addresses() {
    for family in FAMILIES {
        let mut world = World::new(vec![with(family, Topology::Nat, Protocol::Any, 1)]);
        let vip = (family.vip(), 0);
        let seen: HashSet<End> = (1..=50)
            .map(|n| {
                let sent = Speech::Echo.packet((family.client(n), 1), vip, true, 64);
                ends(&world.pass(&sent, BACK)).0
            })
            .collect();
        assert_eq!(seen.len(), 50, "{family:?}: no identifier twice");
        assert!(seen.iter().all(|end| end.1 >= 1024));

        let gre = |n| Speech::Gre.packet((family.client(n), 0), vip, true, 64);
        let sources: HashSet<IpAddr> = (1..=2)
            .map(|n| ends(&world.pass(&gre(n), BACK)).0.0)
            .collect();
        assert_eq!(sources, HashSet::from([family.proxy(1), family.proxy(2)]));
        assert_eq!(
            world.send(&gre(3)).0,
            Verdict::Drop(DropReason::NatPortsExhausted),
            "two addresses, two clients of one server"
        );
    }
}

#[test]
fn fragments_of_an_echo_follow_the_first_and_sctp_ones_are_dropped_when_ports_change() {
    for family in FAMILIES {
        let number = Speech::Echo.number(family.v4);
        let (client, vip) = (family.client(1), family.vip());
        let mut body = vec![if family.v4 { 8 } else { 128 }, 0, 0, 0, 3, 9, 0, 1];
        body.extend([7; 2000]);
        let sum = message_sum(&body, number, client.into(), vip.into());
        body[2..4].copy_from_slice(&sum);
        let mut world = World::new(vec![with(family, Topology::Nat, Protocol::Icmp, 2)]);
        let mut whole = Vec::new();
        let mut tuple = None;
        for (n, piece) in body.chunks(800).enumerate() {
            let place = Some((9, (n * 100) as u16, n < 2));
            let frame = ip_frame(client, vip, number, 64, place, piece);
            let out = world.pass(&frame, BACK);
            let h = headers(&out);
            whole.extend(&out[h.l4 as usize..h.end as usize]);
            let (src, dst) = (h.tuple.src, h.tuple.dst);
            assert_eq!(*tuple.get_or_insert((src, dst)), (src, dst), "{family:?}");
        }
        let (src, dst) = tuple.unwrap();
        let sum: Vec<u8> = whole[2..4].to_vec();
        whole[2..4].fill(0);
        assert_eq!(
            sum,
            message_sum(&whole, number, src, dst),
            "{family:?}: reassembled"
        );
        assert_ne!(whole[4..6], [3, 9], "{family:?}: an identifier of ours");

        for (topology, passes) in [
            (Topology::Dsr, true),
            (Topology::HalfNat, true),
            (Topology::Nat, false),
        ] {
            let mut world = World::new(vec![with(family, topology, Protocol::Sctp, 2)]);
            let mut whole = Speech::Sctp.packet((client, 5), (vip, 80), true, 64);
            let body = whole.split_off(14 + if family.v4 { 20 } else { 40 });
            let frame = ip_frame(client, vip, 132, 64, Some((3, 0, true)), &body[..16]);
            let expected = match passes {
                true => Verdict::Transmit(BACK),
                false => Verdict::Drop(DropReason::SctpFragment),
            };
            assert_eq!(world.send(&frame).0, expected, "{family:?} {topology:?}");
        }
    }
}

#[test]
fn port_maps_concern_protocols_with_ports_only() {
    for family in FAMILIES {
        let mut rule = with(family, Topology::HalfNat, Protocol::Tcp, 1);
        rule.servers[0].ports = PortMap::Collapse(8080);
        for protocol in [Protocol::Icmp, Protocol::Any] {
            rule.vips.push(VipSpec {
                address: family.vip(),
                protocol,
                ports: PortRange::ANY,
            });
        }
        let mut world = World::new(vec![rule]);
        for (speech, port, at_server) in [
            (Speech::Tcp, 80, 8080),
            (Speech::Tcp, 81, 81),
            (Speech::Udp, 80, 80),
            (Speech::Echo, 0, 0),
            (Speech::Gre, 0, 0),
        ] {
            let client = (family.client(1), speech.ports().0);
            let out = world.pass(&speech.packet(client, (family.vip(), port), true, 64), BACK);
            assert_eq!(
                ends(&out).1,
                (family.server(1), at_server),
                "{speech:?} port {port}"
            );
            let back = world.pass(&speech.packet(ends(&out).1, client, false, 64), FRONT);
            assert_eq!(
                ends(&back).0,
                (family.vip(), port),
                "{speech:?} port {port}"
            );
        }
    }
}

#[test]
fn steering_names_every_side() {
    use Class::{Others, Protocol as Number};
    let any = (0, 65_535);
    let nat = (1024, 65_535);
    for family in FAMILIES {
        let icmp = Number(if family.v4 { 1 } else { 58 });
        let (vip, server) = (family.vip(), family.server(1));
        let mut collapsed = with(family, Topology::HalfNat, Protocol::Sctp, 1);
        collapsed.servers[0].ports = PortMap::Collapse(7);
        let mut shifted = with(family, Topology::HalfNat, Protocol::Tcp, 1);
        shifted.vips[0].ports = PortRange {
            first: 90,
            last: 99,
        };
        shifted.servers[0].ports = PortMap::Shift(1090);
        let one_proxy = |mut rule: RuleSpec| {
            rule.proxy_src.truncate(1);
            rule
        };
        let to = Side::Destination;
        let all = |side, address, ports| {
            [Number(6), Number(17), Number(132)]
                .map(|class| (side, address, class, ports))
                .into_iter()
                .chain([icmp, Others].map(|class| (side, address, class, any)))
        };
        let proxy = family.proxy(1);
        for (rule, expected) in [
            (
                with(family, Topology::Dsr, Protocol::Tcp, 2),
                vec![(to, vip, Number(6), (80, 80))],
            ),
            (
                shifted,
                vec![
                    (to, vip, Number(6), (90, 99)),
                    (Side::Source, server, Number(6), (1090, 1099)),
                ],
            ),
            (
                collapsed,
                vec![
                    (to, vip, Number(132), (80, 80)),
                    (Side::Source, server, Number(132), (7, 7)),
                ],
            ),
            (
                one_proxy(with(family, Topology::Nat, Protocol::Udp, 2)),
                vec![
                    (to, vip, Number(17), (80, 80)),
                    (to, proxy, Number(17), nat),
                ],
            ),
            (
                one_proxy(with(family, Topology::Nat, Protocol::Icmp, 2)),
                vec![(to, vip, icmp, any), (to, proxy, icmp, any)],
            ),
            (
                with(family, Topology::Dsr, Protocol::Any, 2),
                all(to, vip, any).collect(),
            ),
            (
                with(family, Topology::HalfNat, Protocol::Any, 1),
                all(to, vip, any)
                    .chain(all(Side::Source, server, any))
                    .collect(),
            ),
            (
                one_proxy(with(family, Topology::Nat, Protocol::Any, 1)),
                all(to, vip, any).chain(all(to, proxy, nat)).collect(),
            ),
        ] {
            let what = format!("{rule:?}");
            let world = World::new(vec![rule]);
            let mut steering = world.view.snapshot.steering();
            let mut expected: Vec<SteeringEntry> = expected
                .into_iter()
                .map(|(side, address, class, (first, last))| SteeringEntry {
                    side,
                    address,
                    class,
                    ports: PortRange { first, last },
                })
                .collect();
            steering.sort();
            expected.sort();
            assert_eq!(steering, expected, "{what}");
        }
    }
}
