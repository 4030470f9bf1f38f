//! Ten million malformed, truncated and random packets: no panic, every packet has exactly one verdict, every drop a
//! name, no byte outside a frame changes, and real traffic goes on in between.

mod common;

use common::*;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{BATCH, Packet};

const PACKETS: usize = 10_000_000;
const ROOM: usize = HEADROOM + 256 + 32;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Well-formed packets of every kind that reaches the forwarder, to be spoilt.
fn originals() -> Vec<Vec<u8>> {
    let mut all = vec![vec![0xff; 60]];
    for (family, port) in FAMILIES
        .into_iter()
        .flat_map(|family| [80, 81, 82].map(|port| (family, port)))
    {
        let (client, vip, server) = (
            (family.client(1), 4000),
            (family.vip(), port),
            (family.server(1), port),
        );
        let proxy = (family.proxy(1), 5000);
        for (src, dst) in [(client, vip), (server, client), (server, proxy)] {
            all.extend([
                syn(src, dst),
                ack(src, dst),
                segment(src, dst, tcp::FIN | tcp::ACK).frame(),
            ]);
            all.extend([
                datagram(src, dst).frame(),
                segment(src, dst, tcp::RST).frame(),
            ]);
            let long = Build {
                payload: vec![7; 300],
                ..datagram(src, dst)
            };
            all.extend(long.fragments(9, 128));
            all.push(icmp_error(family.router(), dst.0, true, &syn(dst, src), 60));
            all.push(icmp_error(
                family.router(),
                dst.0,
                false,
                &syn(src, dst),
                80,
            ));
        }
    }
    all.iter_mut().for_each(|frame| frame.truncate(256));
    all
}

fn spoil(random: &mut Random, original: &[u8], frame: &mut [u8; 256]) -> usize {
    frame[..original.len()].copy_from_slice(original);
    let mut len = original.len();
    match random.below(8) {
        0 => len = random.below(len + 1),
        1 => {
            len = random.below(257);
            frame[..len]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8);
        }
        2 => {
            // Random behind a plausible Ethernet header.
            len = 14 + random.below(120);
            frame[14..len]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8);
        }
        3 => {}
        _ => {
            for _ in 0..1 + random.below(4) {
                let at = random.below(len.max(1));
                frame[at] ^= 1 << random.below(8);
            }
        }
    }
    len
}

#[test]
fn ten_million_bad_packets() {
    let mut rules = vec![];
    for (n, family) in FAMILIES.into_iter().enumerate() {
        for (m, topology) in [Topology::Dsr, Topology::HalfNat, Topology::Nat]
            .into_iter()
            .enumerate()
        {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let mut rule = rule(family, topology, Algorithm::HashIpPort, 3);
                rule.id = 1 + rules.len() as u32 + n as u32 * 100;
                rule.vips[0].protocol = protocol;
                rule.vips[0].ports = PortRange::single(80 + m as u16);
                rules.push(rule);
            }
        }
    }
    let mut world = World::with_table(rules, 4096);
    let originals = originals();
    let mut random = Random(0x1db_5eed);
    let mut bufs = vec![[0u8; ROOM]; BATCH];
    let (mut transmitted, mut dropped, mut kernel, mut unresolved) = (0, 0, 0, 0);
    let mut held = 0;
    let good = (V4.client(77), 7777);
    world.pass(&syn(good, (V4.vip(), 80)), BACK);
    for round in 0..PACKETS / BATCH {
        let mut lens = [0; BATCH];
        for (buf, len) in bufs.iter_mut().zip(&mut lens) {
            buf.fill(0xa5);
            let mut frame = [0; 256];
            let original = &originals[random.below(originals.len())];
            *len = spoil(&mut random, original, &mut frame);
            buf[HEADROOM..HEADROOM + *len].copy_from_slice(&frame[..*len]);
        }
        let mut packets: Vec<_> = bufs
            .iter_mut()
            .zip(lens)
            .map(|(buf, len)| Packet::new(buf, HEADROOM, len, FRONT))
            .collect();
        world
            .forwarder
            .process(&world.view, &mut packets, world.now);
        for packet in &packets {
            match packet.verdict {
                Verdict::Transmit(port) => {
                    assert!(port == FRONT || port == BACK);
                    transmitted += 1;
                }
                Verdict::Drop(reason) => {
                    assert!(!reason.label().is_empty());
                    dropped += 1;
                }
                Verdict::Kernel => kernel += 1,
                Verdict::Hold { .. } => held += 1,
                Verdict::Unresolved { .. } => unresolved += 1,
            }
        }
        drop(packets);
        for (buf, len) in bufs.iter().zip(lens) {
            assert!(
                buf[..HEADROOM]
                    .iter()
                    .chain(&buf[HEADROOM + len..])
                    .all(|&byte| byte == 0xa5),
                "byte outside the frame"
            );
        }
        if round % 1000 == 0 {
            world.now += 1;
            world.pass(&ack(good, (V4.vip(), 80)), BACK);
            let table = world.table.clone();
            ilb_forwarder::census::take(&world.view, &mut table.sweeper(), world.now);
        }
    }
    let counters = world.forwarder.counters().clone();
    let named: u64 = DropReason::ALL
        .iter()
        .map(|&reason| counters.drops(reason))
        .sum();
    assert_eq!(named, dropped, "every drop has a name");
    assert_eq!(counters.held.get(), held);
    let verdicts = counters.transmitted.get()
        + counters.kernel.get()
        + counters.unresolved.get()
        + held
        + named;
    assert_eq!(
        verdicts,
        counters.packets.get(),
        "every packet has exactly one verdict"
    );
    println!(
        "{transmitted} transmitted, {kernel} to the kernel, {dropped} dropped, {unresolved} unresolved, {held} held"
    );
    assert!(
        [transmitted, kernel, dropped].iter().all(|&n| n > 100_000)
            && unresolved > 1000
            && held > 1000,
        "the noise is varied"
    );
}
