//! ICMP errors reach the end that caused them, quoting the packet as that end knows it.

mod common;

use common::*;
use ilb_forwarder::packet::{self, tcp};
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};

/// The quoted packet's ends, as the receiver of the error sees them.
fn quoted_ends(frame: &[u8]) -> ((std::net::IpAddr, u16), (std::net::IpAddr, u16)) {
    let h = headers(frame);
    let quoted = packet::parse_quoted(frame, h.l4 as usize + 8, h.is_v4()).unwrap();
    let tuple = quoted.tuple;
    (
        (tuple.src.into(), tuple.sport),
        (tuple.dst.into(), tuple.dport),
    )
}

fn outer(frame: &[u8]) -> (std::net::IpAddr, std::net::IpAddr) {
    let tuple = headers(frame).tuple;
    (tuple.src.into(), tuple.dst.into())
}

#[test]
fn an_error_about_a_request_reaches_the_client() {
    for family in FAMILIES {
        for topology in [Topology::HalfNat, Topology::Nat] {
            for (too_big, quote) in [(true, 28), (true, 48), (true, 500), (false, 500)] {
                let quote = if family.v4 { quote } else { quote + 20 };
                let mut world = World::new(vec![rule(family, topology, Algorithm::RoundRobin, 2)]);
                let (client, vip) = ((family.client(3), 40_003), (family.vip(), 80));
                let sent = syn(client, vip);
                let at_server = world.pass(&sent, BACK);
                let (seen_client, _) = ends(&at_server);
                let error = icmp_error(family.router(), seen_client.0, too_big, &at_server, quote);
                let out = world.pass(&error, FRONT);
                assert_eq!(
                    outer(&out),
                    (family.vip(), client.0),
                    "{family:?} {topology:?}"
                );
                assert_eq!(quoted_ends(&out), (client, vip), "{family:?} {topology:?}");
                // Byte for byte what the client sent, but for the hop that we took.
                let h = headers(&out);
                let quoted = &out[h.l4 as usize + 8..h.end as usize];
                let mut expected = Build {
                    ttl: 63,
                    ..segment(client, vip, tcp::SYN)
                }
                .frame();
                expected.drain(..14);
                expected.truncate(quote);
                assert_eq!(
                    quoted, expected,
                    "{family:?} {topology:?} quoting {quote} bytes"
                );
            }
        }
    }
}

#[test]
fn an_error_about_a_reply_reaches_the_server() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut world = World::new(vec![rule(family, topology, Algorithm::RoundRobin, 2)]);
            let (client, vip) = ((family.client(3), 40_003), (family.vip(), 80));
            let at_server = world.pass(&syn(client, vip), BACK);
            let (seen_client, server) = ends(&at_server);
            // Under DSR the server answers the client directly, from the VIP.
            let reply = segment(vip, client, tcp::ACK).frame();
            let error = icmp_error(family.router(), vip.0, true, &reply, 600);
            let out = world.pass(&error, BACK);
            assert_eq!(
                out[..6],
                at_server[..6],
                "{family:?} {topology:?}: same server"
            );
            if topology == Topology::Dsr {
                assert_eq!(out[14..], error[14..], "untouched");
                continue;
            }
            let from = if topology == Topology::Nat {
                seen_client.0
            } else {
                family.router()
            };
            assert_eq!(outer(&out), (from, server.0), "{family:?} {topology:?}");
            assert_eq!(
                quoted_ends(&out),
                (server, seen_client),
                "{family:?} {topology:?}"
            );
            let totals = world.view.snapshot.targets()[0].account.totals();
            assert_eq!((totals.icmp_processed, totals.too_big_processed), (1, 1));
        }
    }
}

#[test]
fn errors_that_are_not_ours_are_left_to_the_kernel_and_broken_ones_dropped() {
    let mut world = World::new(vec![rule(V4, Topology::Nat, Algorithm::RoundRobin, 2)]);
    let (client, vip) = ((V4.client(3), 40_003), (V4.vip(), 80));
    let at_server = world.pass(&syn(client, vip), BACK);
    let source = ends(&at_server).0;
    let stranger = syn((source.0, 1), (V4.server(1), 80));
    let about_stranger = icmp_error(V4.router(), source.0, false, &stranger, 28);
    assert_eq!(world.send(&about_stranger).0, Verdict::Kernel);
    let cut = icmp_error(V4.router(), source.0, false, &at_server, 27);
    assert_eq!(
        world.send(&cut).0,
        Verdict::Kernel,
        "seven bytes of the transport header are too few"
    );
    let mut broken = icmp_error(V4.router(), source.0, false, &at_server, 28);
    *broken.last_mut().unwrap() ^= 1;
    // The flipped bit is in the quoted destination port's neighbourhood: either it is no flow of ours or the sum fails.
    let verdict = world.send(&broken).0;
    assert!(
        matches!(
            verdict,
            Verdict::Drop(DropReason::Malformed) | Verdict::Kernel
        ),
        "{verdict:?}"
    );
    let mut bad_sum = icmp_error(V4.router(), source.0, false, &at_server, 28);
    bad_sum[14 + 20 + 2] ^= 0x40;
    assert_eq!(world.send(&bad_sum).0, Verdict::Drop(DropReason::Malformed));
}
