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
            for algorithm in [
                Algorithm::RoundRobin,
                Algorithm::HashIp,
                Algorithm::HashIpPort,
                Algorithm::HashIpVip,
            ] {
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
