//! Fragments follow their first one, whatever the topology.

mod common;

use common::*;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};

const RR: Algorithm = Algorithm::RoundRobin;

fn client(family: Family, n: u8) -> (std::net::IpAddr, u16) {
    (family.client(n), 40_000 + n as u16)
}

#[test]
fn fragments_follow_their_first_one_both_ways() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut rule = rule(family, topology, RR, 3);
            rule.vips[0].protocol = Protocol::Udp;
            let mut world = World::new(vec![rule]);
            let payload: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
            let (from, vip) = (client(family, 1), (family.vip(), 80));
            let big = Build {
                payload: payload.clone(),
                ..datagram(from, vip)
            };
            let out: Vec<_> = big
                .fragments(77, 1400)
                .iter()
                .map(|fragment| world.pass(fragment, BACK))
                .collect();
            let (src, dst) = ends(&out[0]);
            assert!(
                out.iter().all(|frame| frame[..12] == out[0][..12]),
                "{family:?} {topology:?}: one server"
            );
            assert_reassembles(
                &out,
                &Build {
                    payload: payload.clone(),
                    ..datagram(src, dst)
                },
            );
            if topology != Topology::Dsr {
                let reply = Build {
                    payload,
                    ..datagram(dst, src)
                };
                let back: Vec<_> = reply
                    .fragments(99, 1400)
                    .iter()
                    .map(|fragment| world.pass(fragment, FRONT))
                    .collect();
                assert_reassembles(
                    &back,
                    &Build {
                        payload: reply.payload.clone(),
                        ..datagram(vip, from)
                    },
                );
            }
        }
    }
}

/// The fragments' data are those of the datagram, its checksum included, and their addresses its addresses.
fn assert_reassembles(fragments: &[Vec<u8>], datagram: &Build) {
    let mut data: Vec<u8> = vec![];
    for fragment in fragments {
        let headers = headers(fragment);
        assert_eq!(headers.tuple.src, datagram.src.0.into());
        assert_eq!(headers.tuple.dst, datagram.dst.0.into());
        data.extend(&fragment[headers.l4 as usize..headers.end as usize]);
    }
    assert_eq!(data, datagram.transport());
}

#[test]
fn a_later_fragment_without_its_first_is_named() {
    for family in FAMILIES {
        let mut rule = rule(family, Topology::Nat, RR, 3);
        rule.vips[0].protocol = Protocol::Udp;
        let mut world = World::new(vec![rule]);
        let fragments = Build {
            payload: vec![1; 3000],
            ..datagram(client(family, 1), (family.vip(), 80))
        }
        .fragments(5, 1400);
        assert_eq!(
            world.send(&fragments[1]).0,
            Verdict::Drop(DropReason::FragmentUnknown)
        );
        world.pass(&fragments[0], BACK);
        world.pass(&fragments[1], BACK);
        world.now += 60;
        assert_eq!(
            world.send(&fragments[2]).0,
            Verdict::Drop(DropReason::FragmentUnknown),
            "too late"
        );
    }
}
