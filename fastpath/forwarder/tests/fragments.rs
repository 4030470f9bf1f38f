//! Fragments follow their first one, whatever the topology, their order, and the worker that they come to.

mod common;

use std::net::IpAddr;

use common::*;
use ilb_forwarder::fragment::{self, Fate, Fragments};
use ilb_forwarder::hash::FlowHasher;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Forwarder, Packet};

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

/// Two workers that keep what they are told to hold.
struct Workers {
    world: World,
    forwarders: [Forwarder; 2],
    held: [Vec<(u64, Vec<u8>)>; 2],
}

impl Workers {
    fn new(rules: Vec<RuleSpec>) -> Workers {
        let world = World::with_table(rules, 65_536);
        let forwarders = [0, 1].map(|n| Forwarder::new(n, world.table.clone()));
        Workers {
            world,
            forwarders,
            held: [vec![], vec![]],
        }
    }

    fn process(&mut self, worker: usize, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buf = frame.to_vec();
        let mut packets = [Packet::new(&mut buf, 0, frame.len(), FRONT)];
        let World { view, now, .. } = &self.world;
        self.forwarders[worker].process(view, &mut packets, *now);
        (packets[0].verdict, packets[0].frame().to_vec())
    }

    /// What comes out when a frame comes in: it, and what waited for it. Held frames must be unchanged.
    fn receive(&mut self, worker: usize, frame: &[u8]) -> Vec<(Verdict, Vec<u8>)> {
        let mut out = vec![];
        match self.process(worker, frame) {
            (Verdict::Hold { key }, unchanged) => {
                assert_eq!(unchanged, frame, "what waits is as it came");
                self.held[worker].push((key, unchanged));
            }
            done => out.push(done),
        }
        for worker in [0, 1] {
            for (key, frame) in std::mem::take(&mut self.held[worker]) {
                if Forwarder::is_awaited_no_more(&self.world.view, key, self.world.now) {
                    out.push(self.process(worker, &frame));
                } else {
                    self.held[worker].push((key, frame));
                }
            }
        }
        out
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(n - 1);
    shorter
        .iter()
        .flat_map(|rest| {
            (0..n).map(|at| {
                let mut longer = rest.clone();
                longer.insert(at, n - 1);
                longer
            })
        })
        .collect()
}

fn offset(frame: &[u8]) -> u16 {
    match headers(frame).is_v4() {
        true => u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff,
        false => u16::from_be_bytes([frame[56], frame[57]]) >> 3,
    }
}

#[test]
fn every_order_of_arrival_on_two_workers() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut rule = rule(family, topology, RR, 3);
            rule.vips[0].protocol = Protocol::Udp;
            let mut workers = Workers::new(vec![rule]);
            let mut id = 0u32;
            for count in 2..=5usize {
                for order in permutations(count) {
                    // Which worker gets which, as a number in binary.
                    for queues in 0..1usize << count {
                        id += 1;
                        let from = (family.client(1 + (id % 100) as u8), 1024 + id as u16);
                        let big = Build {
                            payload: (0..count * 64 - 20).map(|n| n as u8).collect(),
                            ..datagram(from, (family.vip(), 80))
                        };
                        let fragments = big.fragments(id, 64);
                        assert_eq!(fragments.len(), count);
                        let mut out: Vec<Vec<u8>> = vec![];
                        for &n in &order {
                            for (verdict, frame) in workers.receive(queues >> n & 1, &fragments[n])
                            {
                                assert_eq!(verdict, Verdict::Transmit(BACK));
                                assert_checksums(&frame);
                                out.push(frame);
                            }
                        }
                        let context = format!("{family:?} {topology:?} {order:?} {queues:b}");
                        assert!(workers.held.iter().all(Vec::is_empty), "{context}");
                        out.sort_by_key(|frame| offset(frame));
                        assert_eq!(out.len(), count, "{context}");
                        assert!(out.iter().all(|f| f[..6] == out[0][..6]), "{context}");
                        let ids: Vec<_> = out.iter().map(|f| headers(f).fragment).collect();
                        assert!(ids.iter().all(|id| *id == ids[0]), "{context}: {ids:?}");
                        let (src, dst) = ends(&out[0]);
                        let payload = big.payload.clone();
                        assert_reassembles(
                            &out,
                            &Build {
                                payload,
                                ..datagram(src, dst)
                            },
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_later_fragment_waits_for_its_first_and_not_for_another() {
    for family in FAMILIES {
        let mut rule = rule(family, Topology::Nat, RR, 3);
        rule.vips[0].protocol = Protocol::Udp;
        let mut world = World::new(vec![rule]);
        let of = |id| {
            Build {
                payload: vec![1; 3000],
                ..datagram(client(family, 1), (family.vip(), 80))
            }
            .fragments(id, 1400)
        };
        let (ours, others) = (of(5), of(6));
        let Verdict::Hold { key } = world.send(&ours[1]).0 else {
            panic!("its first one has not come");
        };
        assert_eq!(world.forwarder.counters().held.get(), 1);
        world.pass(&others[0], BACK);
        assert!(!Forwarder::is_awaited_no_more(&world.view, key, world.now));
        let before = Forwarder::first_fragments(&world.view);
        world.pass(&ours[0], BACK);
        assert_eq!(Forwarder::first_fragments(&world.view), before + 1);
        assert!(Forwarder::is_awaited_no_more(&world.view, key, world.now));
        world.pass(&ours[1], BACK);
        world.now += 31;
        assert!(
            matches!(world.send(&ours[2]).0, Verdict::Hold { .. }),
            "what is remembered is forgotten after 30 s"
        );
    }
}

#[test]
fn what_begins_in_the_kernel_goes_on_there() {
    for family in FAMILIES {
        let mut rule = rule(family, Topology::HalfNat, RR, 1);
        rule.vips[0].protocol = Protocol::Udp;
        let mut workers = Workers::new(vec![rule]);
        // The host's own service on another port of the VIP.
        let fragments = Build {
            payload: vec![9; 3000],
            ..datagram(client(family, 1), (family.vip(), 5000))
        }
        .fragments(3, 1400);
        assert!(workers.receive(1, &fragments[2]).is_empty(), "it waits");
        let out = workers.receive(0, &fragments[0]);
        let expected = [&fragments[0], &fragments[2]].map(|f| (Verdict::Kernel, f.clone()));
        assert_eq!(out, expected, "{family:?}: both, unchanged");
        let out = workers.receive(1, &fragments[1]);
        assert_eq!(out, [(Verdict::Kernel, fragments[1].clone())]);
    }
}

#[test]
fn datagrams_of_different_clients_keep_apart_behind_nat() {
    // Two clients that chose the same identification look like one sender to the server.
    let mut rule = rule(V4, Topology::Nat, RR, 1);
    rule.proxy_src.truncate(1);
    rule.vips[0].protocol = Protocol::Udp;
    let mut world = World::new(vec![rule]);
    let mut ids = vec![];
    for n in 1..=50 {
        let fragments = Build {
            payload: vec![n; 2000],
            ..datagram(client(V4, n), (V4.vip(), 80))
        }
        .fragments(4242, 1400);
        let of = |frame: Vec<u8>| headers(&frame).fragment.unwrap();
        let id = of(world.pass(&fragments[0], BACK));
        assert_eq!(of(world.pass(&fragments[1], BACK)), id);
        assert_eq!(of(world.pass(&fragments[0], BACK)), id, "repeated");
        assert!(!ids.contains(&id));
        ids.push(id);
    }
}

#[test]
fn fragments_that_no_datagram_has_are_dropped_by_name() {
    use DropReason::{FragmentOverlap, FragmentTiny, Malformed};
    for family in FAMILIES {
        let mut udp = rule(family, Topology::HalfNat, RR, 1);
        udp.vips[0].protocol = Protocol::Udp;
        let mut tcp = rule(family, Topology::HalfNat, RR, 1);
        tcp.id = 2;
        let mut world = World::new(vec![udp, tcp]);
        let (from, vip) = (client(family, 1), (family.vip(), 80));
        let bytes = Build {
            payload: vec![7; 100],
            ..datagram(from, vip)
        }
        .transport();
        let mut id = 0;
        let mut fragment = |protocol, offset: u16, more, body: &[u8]| {
            id += 1;
            let numbers = Some((id, offset / 8, more));
            ip_frame(from.0, vip.0, protocol, 64, numbers, body)
        };
        // (what, protocol, offset, whether more follow, bytes, reason)
        let table = [
            ("UDP ports cut off", 17, 0, true, &bytes[..4], FragmentTiny),
            ("TCP flags cut off", 6, 0, true, &bytes[..8], FragmentTiny),
            (
                "TCP options at 8",
                6,
                8,
                true,
                &bytes[..64],
                FragmentOverlap,
            ),
            (
                "TCP flags at 16",
                6,
                16,
                false,
                &bytes[..9],
                FragmentOverlap,
            ),
            (
                "first with odd length",
                17,
                0,
                true,
                &bytes[..33],
                Malformed,
            ),
            (
                "middle of odd length",
                17,
                64,
                true,
                &bytes[..33],
                Malformed,
            ),
            ("last of no length", 17, 64, false, &bytes[..0], Malformed),
            (
                "ends behind 65535",
                17,
                65_528,
                false,
                &bytes[..9],
                Malformed,
            ),
        ];
        for (what, protocol, offset, more, body, reason) in table {
            let frame = fragment(protocol, offset, more, body);
            let (verdict, _) = world.send(&frame);
            assert_eq!(verdict, Verdict::Drop(reason), "{family:?}: {what}");
        }
        // One that would overwrite the end of the first one: nothing but its own loss.
        let numbers = |offset: u16, more| Some((999, offset / 8, more));
        let of = |offset, more, body: &[u8]| {
            ip_frame(from.0, vip.0, 17, 64, numbers(offset, more), body)
        };
        world.pass(&of(0, true, &bytes[..64]), BACK);
        for inside in [8, 56] {
            let (verdict, _) = world.send(&of(inside, false, &bytes[64..]));
            assert_eq!(verdict, Verdict::Drop(FragmentOverlap));
        }
        world.pass(&of(64, false, &bytes[64..]), BACK);
    }
}

/// Where in memory a first fragment from `source` with this identification would be.
struct Flood {
    fragments: Fragments,
    hasher: FlowHasher,
    now: u32,
}

impl Flood {
    fn headers(source: u32) -> ilb_forwarder::packet::Headers {
        let source = IpAddr::from(source.to_be_bytes());
        let bytes = datagram((source, 9), (V4.vip(), 80)).transport();
        headers(&ip_frame(
            source,
            V4.vip(),
            17,
            64,
            Some((1, 0, true)),
            &bytes,
        ))
    }

    fn first(&self, source: u32, id: u32) {
        let headers = Flood::headers(source);
        let key = fragment::key(&self.hasher, &headers, id);
        let fate = (Fate::Kernel, 64);
        self.fragments.remember(&headers, id, key, fate, self.now);
    }

    fn is_known(&self, source: u32, id: u32) -> bool {
        let headers = Flood::headers(source);
        let key = fragment::key(&self.hasher, &headers, id);
        self.fragments.recall(&headers, id, key, self.now).is_some()
    }
}

fn mix(n: u32) -> u32 {
    (u64::from(n)
        .wrapping_add(77)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 32) as u32
}

#[test]
fn a_datagram_survives_as_many_others_as_promised() {
    // (other first fragments before the last fragment comes, from one network only, datagrams of 500 that must survive)
    for (others, one_network, at_least) in [
        (1_000, false, 500),
        (2_000, false, 500),
        (4_000, false, 485),
        (250, true, 500),
        (500, true, 485),
    ] {
        let flood = Flood {
            fragments: Fragments::default(),
            hasher: FlowHasher::new(KEYS),
            now: 1000,
        };
        let mut n = 0;
        let mut survived = 0;
        for id in 0..500 {
            flood.first(0x0a01_0003, id);
            for _ in 0..others {
                n += 1;
                let source = match one_network {
                    true => 0x0a01_0000 | mix(n) & 0xff,
                    false => mix(n),
                };
                flood.first(source, 1_000_000 + n);
            }
            survived += u32::from(flood.is_known(0x0a01_0003, id));
        }
        assert!(
            survived >= at_least,
            "{others} others, one network {one_network}: {survived} of 500"
        );
    }
}

#[test]
fn a_million_first_fragments_of_one_network_push_out_those_of_one_group_only() {
    let flood = Flood {
        fragments: Fragments::default(),
        hasher: FlowHasher::new(KEYS),
        now: 1000,
    };
    // Four from each of 200 networks: 1.6 a set.
    let others = || (0..800).map(|n| ((100 + n % 200) << 20, n));
    others().for_each(|(source, id)| flood.first(source, id));
    for n in 0..1_000_000 {
        flood.first(0x0a01_0000 | mix(n) & 0xff, n);
    }
    let left = others()
        .filter(|&(source, id)| flood.is_known(source, id))
        .count();
    // Seven of eight groups expected.
    assert!((640..=760).contains(&left), "{left} of 800");
    assert_eq!(flood.fragments.made(), 1_000_800);
}
