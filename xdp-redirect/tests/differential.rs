//! Random and mutated frames, the program in the kernel against the model in Rust.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;

use common::frames::{
    Header, MORE, address, extension, fragment_header, frame, icmp, packet_with, ports,
};
use common::{Pins, SCTP, TCP, UDP, model, run};
use xdp_redirect::{Action, ERRORS_ONLY, OTHER_PROTOCOLS, Steering};

/// Frames that are compared.
const FRAMES: u64 = 200_000;

/// xorshift64*: the same frames on every machine and in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const ADDRESSES: [[&str; 4]; 2] = [
    ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"],
    ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"],
];

const PORTS: [u16; 14] = [
    0, 79, 80, 81, 100, 105, 110, 443, 1023, 1024, 8080, 8081, 32768, 65535,
];

/// A steering in which each of the addresses but the last is something else.
fn steering(random: &mut Random) -> Steering {
    let mut steering = Steering::new();
    for family in ADDRESSES {
        for text in &family[..3] {
            let icmp = if address(text).is_ipv4() { 1 } else { 58 };
            for protocol in [icmp, OTHER_PROTOCOLS, ERRORS_ONLY] {
                if random.one_in(3) {
                    steering
                        .add_destination(address(text), protocol, 0, 0)
                        .expect("allowed");
                }
                if random.one_in(5) && protocol != ERRORS_ONLY {
                    steering
                        .add_source(address(text), protocol, 0, 0)
                        .expect("allowed");
                }
            }
            for protocol in [TCP, UDP, SCTP] {
                for _ in 0..random.below(9) {
                    let (a, b) = (random.pick(&PORTS), random.pick(&PORTS));
                    let (address, first, last) = (address(text), a.min(b), a.max(b));
                    let last = if random.one_in(2) { first } else { last };
                    if random.one_in(3) {
                        steering
                            .add_source(address, protocol, first, last)
                            .expect("allowed");
                    } else {
                        steering
                            .add_destination(address, protocol, first, last)
                            .expect("allowed");
                    }
                }
            }
        }
    }
    steering
}

fn header(random: &mut Random, v6: bool) -> Header {
    let mut header = Header::default();
    if !v6 {
        if random.one_in(4) {
            header.fragment = random.pick(&[MORE, MORE | 1, 1, 0x1fff, 0x4000]);
        }
        if random.one_in(4) {
            header.options = vec![random.next() as u8; random.below(11) * 4];
        }
    } else if random.one_in(3) {
        for _ in 0..=random.below(9) {
            let next = match random.pick(&[0, 43, 44, 51, 60]) {
                44 => fragment_header(random.pick(&[0, 0, 0, 1, 0x1fff]), random.one_in(2)),
                51 => extension(51, 8 + 4 * random.below(8)),
                number => extension(number, 8 + 8 * random.below(4)),
            };
            header.extensions.push(next);
        }
    }
    header
}

/// None, or some, of the addresses.
fn closed(random: &mut Random) -> BTreeSet<IpAddr> {
    let some = random.one_in(2);
    let addresses = ADDRESSES.iter().flatten().map(|text| address(text));
    addresses.filter(|_| some && random.one_in(2)).collect()
}

fn packet(random: &mut Random, v6: bool, depth: usize) -> Vec<u8> {
    let pair =
        |random: &mut Random| -> IpAddr { address(random.pick(&ADDRESSES[usize::from(v6)])) };
    let (source, destination) = (pair(random), pair(random));
    let header = header(random, v6);
    if depth > 0 && random.one_in(2) {
        let inner = packet(random, v6, depth - 1);
        let kind = random.pick(&[
            0, 1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 18, 42, 43, 128, 129, 130, 133, 135, 143, 160,
        ]);
        let protocol = if v6 { 58 } else { 1 };
        return packet_with(
            &header,
            source,
            destination,
            protocol,
            &icmp(kind, 0, &inner),
        );
    }
    let protocol = random.pick(&[TCP, TCP, UDP, UDP, SCTP, 1, 58, 2, 47, 50, 112, 255]);
    let (from, to) = (random.pick(&PORTS), random.pick(&PORTS));
    packet_with(&header, source, destination, protocol, &ports(from, to))
}

fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        match random.below(4) {
            // Most of what is decided stands at the beginning.
            0 => {
                let at = random.below(frame.len().min(90));
                frame[at] ^= 1 << random.below(8);
            }
            1 => {
                let at = random.below(frame.len());
                frame[at] = random.next() as u8;
            }
            2 => {
                let length = 14 + random.below(frame.len() - 13);
                frame.truncate(length);
            }
            _ => {
                let padding = random.below(60);
                frame.resize(frame.len() + padding, random.next() as u8);
            }
        }
    }
}

#[test]
fn the_program_and_the_model_agree() {
    let mut random = Random(0x1b_5eed);
    let pins = Pins::new();
    let mut redirect = pins.load();
    let mut rules = Steering::new();
    let mut shut = BTreeSet::new();
    let (mut ours, mut passed, mut dropped, mut bytes) = (0u64, 0u64, 0u64, 0u64);
    for number in 0..FRAMES {
        if number % 2000 == 0 {
            rules = steering(&mut random);
            redirect.apply(&rules).expect("the maps take it");
            assert_eq!(redirect.current().expect("the maps can be read"), rules);
            shut = closed(&mut random);
            redirect.close(&shut).expect("the map takes it");
            assert_eq!(redirect.closed().expect("the map can be read"), shut);
        }
        let mut sent = if random.one_in(20) {
            (0..14 + random.below(120))
                .map(|_| random.next() as u8)
                .collect()
        } else {
            let v6 = random.one_in(2);
            frame(&packet(&mut random, v6, 2))
        };
        if random.one_in(2) {
            mutate(&mut random, &mut sent);
        }
        let expected = if model::is_ours(&rules, &sent) {
            ours += 1;
            Action::Drop
        } else if model::is_closed(&shut, &sent) {
            dropped += 1;
            bytes += sent.len() as u64 - 14;
            Action::Drop
        } else {
            passed += 1;
            Action::Pass
        };
        let action = run(&redirect, &sent);
        assert_eq!(
            action, expected,
            "frame {number} with {rules:?} and {shut:?}: {sent:02x?}"
        );
        // Which of both made it drop only the counters know.
        if number % 100 == 99 {
            let counters = redirect.counters().expect("counters");
            assert_eq!(
                (counters.unserved, counters.passed, counters.redirected),
                (ours, passed, 0),
                "up to frame {number}"
            );
            assert_eq!((counters.closed, counters.closed_bytes), (dropped, bytes));
        }
    }
    // All answers have to come often, or this would compare nothing.
    assert!(
        [ours, passed, dropped].iter().all(|it| *it > FRAMES / 10),
        "{ours} ours, {passed} passed, {dropped} dropped"
    );
}

#[test]
fn the_same_without_cap_perfmon() {
    common::again_without_perfmon("the_same_without_cap_perfmon");
}
