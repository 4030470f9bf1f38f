//! Addresses at which this node takes nothing for itself: what rules take goes on as ever, the rest is dropped and counted.

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::*;
use ilb_forwarder::View;
use ilb_forwarder::explain::{Outcome, Query, explain};
use ilb_forwarder::listing::End;
use ilb_forwarder::network::Network;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};

const CLOSED: Verdict = Verdict::Drop(DropReason::AddressClosed);

fn seen(world: &mut World, network: Network) {
    let snapshot = Arc::clone(&world.view.snapshot);
    world.view = View::new(snapshot, Arc::new(network));
}

/// A rule for TCP 80 and one for ICMP; servers 1 and 2, of which the second is this host in some tests.
fn world(family: Family, topology: Topology, servers: u8) -> World {
    let web = rule(family, topology, Algorithm::RoundRobin, servers);
    let mut ping = web.clone();
    ping.id = 2;
    ping.name = "ping".into();
    ping.vips[0].protocol = Protocol::Icmp;
    ping.vips[0].ports = PortRange::ANY;
    World::new(vec![web, ping])
}

fn ip_protocol(family: Family) -> u8 {
    if family.v4 { 1 } else { 58 }
}

#[track_caller]
fn expect(world: &mut World, what: &str, frame: &[u8], expected: Verdict) {
    let before = world.forwarder.counters().drops(DropReason::AddressClosed);
    let (verdict, out) = world.send(frame);
    assert_eq!(verdict, expected, "{what}");
    assert_eq!(out, frame, "{what}: untouched");
    let counted = world.forwarder.counters().drops(DropReason::AddressClosed) - before;
    assert_eq!(counted, u64::from(expected == CLOSED), "{what}");
}

#[test]
fn what_nobody_takes_is_dropped_at_a_closed_address() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut world = world(family, topology, 2);
            let (client, vip) = (family.client(1), family.vip());
            let other = family.client(210);
            let icmp = ip_protocol(family);
            let stranger = syn((vip, 1), (family.client(9), 1));
            for (closed, expected) in [(vec![vip], CLOSED), (vec![other], Verdict::Kernel)] {
                seen(&mut world, network().with_closed(closed));
                let reply = Build {
                    is_reply: Some(true),
                    ..segment((client, 0), (vip, 7), 0)
                };
                let reply = Build {
                    protocol: icmp,
                    ..reply
                };
                for (what, frame) in [
                    ("another port", syn((client, 40_000), (vip, 22))),
                    ("UDP", datagram((client, 5), (vip, 80)).frame()),
                    ("GRE", ip_frame(client, vip, 47, 64, None, &[0; 8])),
                    ("an answer to a ping of ours", reply.frame()),
                    (
                        "an error about nobody's packet",
                        icmp_error(family.router(), vip, false, &stranger, 600),
                    ),
                    (
                        "group membership",
                        ip_frame(client, vip, 2, 1, None, &[0x16; 8]),
                    ),
                ] {
                    let what = format!("{family:?} {topology:?}: {what}");
                    expect(&mut world, &what, &frame, expected);
                }
                let pieces = Build {
                    payload: vec![9; 3000],
                    ..datagram((client, 5), (vip, 5000))
                };
                for frame in pieces.fragments(3, 1400) {
                    expect(&mut world, "a fragment", &frame, expected);
                }
                // Whoever has an address has to do with its link.
                for (what, protocol, kind) in [
                    ("VRRP", 112, 0x31),
                    ("a solicitation", 58, 135),
                    ("an advertisement", 58, 136),
                ] {
                    if protocol == 58 && family.v4 {
                        continue;
                    }
                    let body = [&[kind][..], &[0; 23]].concat();
                    let frame = ip_frame(client, vip, protocol, 255, None, &body);
                    expect(&mut world, what, &frame, Verdict::Kernel);
                }
                let elsewhere = syn((client, 40_000), (family.client(211), 22));
                expect(&mut world, "another address", &elsewhere, Verdict::Kernel);
            }
        }
    }
}

#[test]
fn what_rules_take_goes_on_as_ever() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut world = world(family, topology, 2);
            let (client, vip) = ((family.client(3), 40_003), (family.vip(), 80));
            let mut closed = vec![family.vip()];
            closed.extend([family.proxy(1), family.proxy(2)]);
            seen(&mut world, network().with_closed(closed));
            let there = world.pass(&syn(client, vip), BACK);
            world.pass(&ack(client, vip), BACK);
            let ping = Build {
                protocol: ip_protocol(family),
                ..segment((client.0, 7), (vip.0, 0), 0)
            };
            world.pass(&ping.frame(), BACK);
            let error = icmp_error(family.router(), vip.0, true, &syn(vip, client), 600);
            world.pass(&error, BACK);
            let (seen_client, server) = ends(&there);
            if topology != Topology::Dsr {
                world.pass(&segment(server, seen_client, tcp::ACK).frame(), FRONT);
            }
            // What comes to the addresses that servers answer to, and belongs to nobody.
            if topology == Topology::Nat {
                let stray = syn((family.server(9), 80), (seen_client.0, seen_client.1 ^ 1));
                expect(&mut world, "to a proxy-src address", &stray, CLOSED);
            }
        }
    }
}

/// A rule's server that is this host itself is no host that takes something for itself.
#[test]
fn a_local_server_gets_its_packets() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut world = world(family, topology, 1);
            let (client, vip) = ((family.client(3), 40_003), (family.vip(), 80));
            let here = network()
                .with_local([family.server(1)])
                .with_closed([family.vip()]);
            seen(&mut world, here);
            for frame in [syn(client, vip), ack(client, vip)] {
                expect(&mut world, "the rule's port", &frame, Verdict::Kernel);
            }
            let pieces = Build {
                payload: vec![9; 3000],
                ..segment(client, vip, tcp::ACK)
            };
            for frame in pieces.fragments(3, 1400) {
                expect(&mut world, "a fragment", &frame, Verdict::Kernel);
            }
            let error = icmp_error(family.router(), vip.0, true, &syn(vip, client), 600);
            expect(
                &mut world,
                "an error about its answer",
                &error,
                Verdict::Kernel,
            );
            let ssh = syn(client, (vip.0, 22));
            expect(&mut world, "another port", &ssh, CLOSED);
        }
    }
}

#[test]
fn an_explanation_says_so() {
    for family in FAMILIES {
        let mut world = world(family, Topology::Dsr, 1);
        seen(&mut world, network().with_closed([family.vip()]));
        let ask = |world: &World, address: IpAddr, port: u16| {
            let query = Query {
                source: End {
                    address: family.client(1),
                    port: 40_000,
                },
                destination: End { address, port },
                ..Query::default()
            };
            let said = explain(&world.view, &world.table, &query, world.now);
            said.unwrap().outcome
        };
        match ask(&world, family.vip(), 22) {
            Outcome::Drop { reason, words } => {
                assert_eq!(reason, "address-closed");
                assert!(words.contains("accept=no"), "{words}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&world, family.vip(), 80), Outcome::Transmit);
        assert_eq!(ask(&world, family.client(210), 22), Outcome::Kernel);
    }
}
