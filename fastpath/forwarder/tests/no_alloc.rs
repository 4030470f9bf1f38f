//! `process` allocates nothing, whatever kind of packet it gets: counted by the allocator itself.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use ilb_forwarder::Packet;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::Verdict;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn process_does_not_allocate() {
    let counted = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(ALLOCATIONS.get(), counted + 2, "the allocator counts");

    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            for algorithm in Algorithm::ALL {
                let mut udp = rule(family, topology, algorithm, 3);
                udp.id = 2;
                udp.vips[0].protocol = Protocol::Udp;
                let mut world = World::new(vec![rule(family, topology, algorithm, 3), udp]);
                let (client, vip) = ((family.client(1), 4001), (family.vip(), 80));
                let mut frames = vec![
                    syn(client, vip),
                    ack(client, vip),
                    segment(client, vip, tcp::FIN | tcp::ACK).frame(),
                    syn(client, vip),
                    ack((family.client(2), 1), vip),
                    syn(client, (vip.0, 81)),
                    icmp_error(family.router(), vip.0, true, &ack(vip, client), 60),
                    vec![0; 30],
                ];
                let long = Build {
                    payload: vec![7; 3000],
                    ..datagram(client, vip)
                };
                frames.extend(long.fragments(9, 1400));
                frames.extend(long.fragments(10, 1400).into_iter().rev());
                frames.push(datagram(client, vip).frame());
                let mut bufs: Vec<Vec<u8>> = frames;
                let mut packets: Vec<_> = bufs
                    .iter_mut()
                    .map(|buf| {
                        let len = buf.len();
                        Packet::new(buf, 0, len, FRONT)
                    })
                    .collect();
                let before = ALLOCATIONS.get();
                world.forwarder.process(&world.view, &mut packets, 1000);
                assert_eq!(
                    ALLOCATIONS.get(),
                    before,
                    "{family:?} {topology:?} {algorithm:?}"
                );
                assert!(
                    packets
                        .iter()
                        .filter(|packet| packet.verdict == Verdict::Transmit(BACK))
                        .count()
                        >= 7
                );
            }
        }
    }
}

#[test]
fn a_connection_that_is_found_by_its_trace_does_not_allocate() {
    let mut light = rule(V4, Topology::HalfNat, Algorithm::LeastConnection, 3);
    light.sync = Synchronise::Light;
    let (mut begun, mut other) = (World::new(vec![light.clone()]), World::new(vec![light]));
    let vip = (V4.vip(), 80);
    let mut frames = Vec::new();
    for n in 1..=2 {
        begun.send(&syn((V4.client(n), 4000), vip));
        let (_, sent) = begun.send(&ack((V4.client(n), 4000), vip));
        let (client, server) = ends(&sent);
        frames
            .push([(ack(client, vip), FRONT), (ack(server, client), BACK)][n as usize - 1].clone());
    }
    let traces: Vec<u32> = (0..begun.table.high_water())
        .filter_map(|entry| ilb_forwarder::peer::trace(&begun.view, &begun.table, entry))
        .collect();
    let told = &other.view.snapshot.guard().traces;
    told.told(1, &traces, other.now);
    let mut packets: Vec<_> = frames
        .iter_mut()
        .map(|(frame, by)| {
            let len = frame.len();
            Packet::new(frame, 0, len, *by)
        })
        .collect();
    let before = ALLOCATIONS.get();
    other
        .forwarder
        .process(&other.view, &mut packets, other.now);
    assert_eq!(ALLOCATIONS.get(), before);
    let verdicts: Vec<_> = packets.iter().map(|packet| packet.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Transmit(BACK), Verdict::Transmit(FRONT)]
    );
}

/// A packet without a body worth mentioning: the type of an SCTP chunk or of an ICMP message is all that matters.
fn bare(family: Family, protocol: u8, src: std::net::IpAddr, dst: std::net::IpAddr) -> Vec<u8> {
    let mut body = vec![0; 20];
    let sum_at = match protocol {
        132 => {
            body[..4].copy_from_slice(&[0, 5, 0, 80]);
            body[12] = ilb_forwarder::packet::sctp::INIT;
            8
        }
        1 | 58 => {
            body[0] = if family.v4 { 8 } else { 128 };
            2
        }
        _ => 0,
    };
    let sum = message_sum(&body, protocol, src.into(), dst.into());
    body[sum_at..sum_at + sum.len()].copy_from_slice(&sum);
    ip_frame(src, dst, protocol, 64, None, &body)
}

#[test]
fn other_protocols_and_client_prefixes_do_not_allocate() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut any = rule(family, topology, Algorithm::RoundRobin, 3);
            any.vips[0].protocol = Protocol::Any;
            any.vips[0].ports = PortRange::ANY;
            let mut office = any.clone();
            office.id = 2;
            office.clients = (1..40)
                .map(|n| Prefix {
                    address: family.client(n),
                    len: if family.v4 { 32 } else { 128 },
                })
                .collect();
            let mut world = World::new(vec![any, office]);
            let (client, vip) = (family.client(1), family.vip());
            let icmp = if family.v4 { 1 } else { 58 };
            let mut frames = Vec::new();
            for protocol in [132, icmp, 47, 132, icmp, 47] {
                frames.push(bare(family, protocol, client, vip));
            }
            let about = bare(family, icmp, vip, client);
            frames.push(icmp_error(family.router(), vip, true, &about, 60));
            frames.push(bare(family, icmp, family.client(200), vip));
            let mut packets: Vec<_> = frames
                .iter_mut()
                .map(|frame| {
                    let len = frame.len();
                    Packet::new(frame, 0, len, FRONT)
                })
                .collect();
            let before = ALLOCATIONS.get();
            world.forwarder.process(&world.view, &mut packets, 1000);
            assert_eq!(ALLOCATIONS.get(), before, "{family:?} {topology:?}");
            let sent = packets
                .iter()
                .filter(|packet| packet.verdict == Verdict::Transmit(BACK));
            assert!(sent.count() >= 7, "{family:?} {topology:?}");
        }
    }
}

#[test]
fn telling_the_peer_does_not_allocate() {
    use ilb_forwarder::changes::{Change, Changes};
    for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
        let mut specs = vec![rule(V4, topology, Algorithm::RoundRobin, 3)];
        specs[0].persistence = Some(Persistence {
            mask: 32,
            timeout: 60,
        });
        let mut world = World::new(specs);
        let changes = std::sync::Arc::new(Changes::new(1));
        changes.switch(true);
        world.forwarder.set_changes(changes.clone());
        let vip = (V4.vip(), 80);
        let fin = tcp::FIN | tcp::ACK;
        let mut bufs: Vec<Vec<u8>> = (1..=20)
            .map(|n| (V4.client(n), 4000))
            .flat_map(|client| {
                let closes = segment(client, vip, fin).frame();
                [syn(client, vip), ack(client, vip), closes, syn(client, vip)]
            })
            .collect();
        let mut packets: Vec<_> = bufs
            .iter_mut()
            .map(|buf| {
                let len = buf.len();
                Packet::new(buf, 0, len, FRONT)
            })
            .collect();
        let before = ALLOCATIONS.get();
        world.forwarder.process(&world.view, &mut packets, 1000);
        assert_eq!(ALLOCATIONS.get(), before, "{topology:?}");
        let (mut entries, mut ended) = (0, 0);
        let missed = changes.take(|change| match change {
            Change::Entry(_) => entries += 1,
            Change::Ended(_) => ended += 1,
        });
        // A connection and a claim of each client; and the client that begins anew ends the one before.
        assert_eq!((missed, entries, ended), (false, 40, 20), "{topology:?}");
    }
}

#[test]
fn recovering_a_connection_does_not_allocate() {
    for topology in [Topology::Dsr, Topology::HalfNat] {
        for algorithm in [Algorithm::RoundRobin, Algorithm::HashIp] {
            let mut world = World::new(vec![rule(V4, topology, algorithm, 3)]);
            let (client, vip) = ((V4.client(1), 4001), (V4.vip(), 80));
            let server = world.pass(&syn(client, vip), BACK)[5];
            world.pass(&ack(client, vip), BACK);
            let table = std::sync::Arc::new(ilb_forwarder::Table::private(64, KEYS).unwrap());
            let mut forwarder = ilb_forwarder::Forwarder::new(0, table);
            let mut frame = ack(client, vip);
            let len = frame.len();
            let mut packets = [Packet::new(&mut frame, 0, len, FRONT)];
            let before = ALLOCATIONS.get();
            forwarder.process(&world.view, &mut packets, 1000);
            assert_eq!(ALLOCATIONS.get(), before, "{topology:?} {algorithm:?}");
            assert_eq!(packets[0].verdict, Verdict::Transmit(BACK));
            assert_eq!(packets[0].frame()[5], server);
        }
    }
}

#[test]
fn tunnels_and_answers_do_not_allocate() {
    let kinds = [
        Tunnel::Ipip,
        Tunnel::Gre { checksum: true },
        Tunnel::Gue {
            port: 6080,
            checksum: GueChecksum::Remote,
        },
    ];
    for family in FAMILIES {
        for (kind, outer) in kinds.iter().flat_map(|k| FAMILIES.map(|outer| (*k, outer))) {
            let mut rule = rule(family, Topology::Tun, Algorithm::RoundRobin, 1);
            rule.tunnel = kind;
            rule.proxy_src = vec![outer.proxy(1)];
            rule.servers[0].address = outer.server(1);
            let mut world = World::new(vec![rule]);
            let (client, vip) = ((family.client(1), 4001), (family.vip(), 80));
            let (_, wrapped) = world.send(&syn(client, vip));
            let source = headers(&wrapped).tuple.src.into();
            let long = Build {
                payload: vec![7; 1460],
                ..segment(client, vip, tcp::ACK)
            };
            let mut too_big = long.frame();
            if family.v4 {
                too_big[14 + 6] = 0x40;
                too_big[24..26].fill(0);
                let sum = ilb_forwarder::checksum::of(&too_big[14..34], 0);
                too_big[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let frames = [
                ack(client, vip),
                too_big,
                icmp_error(outer.router(), source, true, &wrapped, 400),
                icmp_error(outer.router(), source, false, &wrapped, 48),
                ack(client, vip),
            ];
            let lens = frames.each_ref().map(Vec::len);
            let mut bufs = frames.map(|frame| [vec![0; HEADROOM], frame].concat());
            let mut packets: Vec<_> = bufs
                .iter_mut()
                .zip(lens)
                .map(|(buf, len)| Packet::new(buf, HEADROOM, len, FRONT))
                .collect();
            let before = ALLOCATIONS.get();
            world.forwarder.process(&world.view, &mut packets, 1000);
            assert_eq!(ALLOCATIONS.get(), before, "{family:?} {kind:?} {outer:?}");
            let sent = |packet: &&Packet<'_>| matches!(packet.verdict, Verdict::Transmit(_));
            assert!(packets.iter().filter(sent).count() >= 4);
        }
    }
}

#[test]
fn claims_orphans_single_datagrams_and_making_way_do_not_allocate() {
    for family in FAMILIES {
        for orphans in [Orphans::Reschedule, Orphans::Reset, Orphans::Drop] {
            for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
                let mut tcp = rule(family, topology, Algorithm::LeastConnection, 3);
                let mask = if family.v4 { 32 } else { 128 };
                tcp.persistence = Some(Persistence { mask, timeout: 60 });
                tcp.orphans = orphans;
                let mut udp = tcp.clone();
                udp.id = 2;
                udp.vips[0].protocol = Protocol::Udp;
                udp.one_packet = topology == Topology::Dsr;
                let mut specs = vec![tcp, udp];
                let mut world = World::with_table(specs.clone(), 64);
                let vip = (family.vip(), 80);
                let first = (family.client(1), 4000);
                world.pass(&syn(first, vip), BACK);
                world.pass(&ack(first, vip), BACK);
                world.pass(&datagram(first, vip).frame(), BACK);
                specs[0].servers[0].dead = true;
                specs[1].servers[0].dead = true;
                world.configure(specs);
                let mut bufs: Vec<Vec<u8>> = vec![ack(first, vip), datagram(first, vip).frame()];
                // The claim, given to another server; then strangers until one has to make way for the other.
                bufs.extend((1..4).map(|n| syn((first.0, 4000 + n), vip)));
                bufs.extend((2..50).map(|n| syn((family.client(n), 4000), vip)));
                bufs.extend((2..9).map(|n| datagram((family.client(n), 4000), vip).frame()));
                let mut packets: Vec<_> = bufs
                    .iter_mut()
                    .map(|buf| {
                        let len = buf.len();
                        Packet::new(buf, 0, len, FRONT)
                    })
                    .collect();
                let before = ALLOCATIONS.get();
                world.forwarder.process(&world.view, &mut packets, 1000);
                assert_eq!(
                    ALLOCATIONS.get(),
                    before,
                    "{family:?} {topology:?} {orphans:?}"
                );
                let what = format!("{family:?} {topology:?} {orphans:?}");
                let sent = |packet: &&Packet<'_>| packet.verdict == Verdict::Transmit(BACK);
                assert!(packets.iter().filter(sent).count() >= 30, "{what}");
                assert!(world.forwarder.counters().replaced.get() > 30, "{what}");
            }
        }
    }
}

#[test]
fn what_is_sent_on_to_another_node_does_not_allocate() {
    let nat = rule(V4, Topology::Nat, Algorithm::RoundRobin, 2);
    let mut world = World::new(vec![nat]);
    let relay = &world.view.snapshot.guard().relay;
    relay.set(FRONT, Some([6, 0, 0, 0, 0, 1]), u32::MAX);
    relay.set(BACK, Some([6, 0, 0, 0, 0, 2]), u32::MAX);
    let (server, source) = ((V4.server(1), 80), (V4.proxy(1), 5001));
    let long = Build {
        payload: vec![7; 3000],
        ..datagram(server, source)
    };
    let mut frames = vec![
        (ack((V4.client(1), 4001), (V4.vip(), 80)), FRONT),
        (ack(server, source), BACK),
    ];
    frames.extend(long.fragments(9, 1400).into_iter().map(|it| (it, BACK)));
    let mut packets: Vec<_> = frames
        .iter_mut()
        .map(|(frame, by)| {
            let len = frame.len();
            Packet::new(frame, 0, len, *by)
        })
        .collect();
    let before = ALLOCATIONS.get();
    world
        .forwarder
        .process(&world.view, &mut packets, world.now);
    assert_eq!(ALLOCATIONS.get(), before);
    assert_eq!(world.forwarder.counters().relayed.get(), 5);
}
