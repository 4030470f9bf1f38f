//! A flood of SYNs, datagrams and fragments from random sources, as fast as one processor can make them: see
//! `bpf/flood.bpf.c`. It comes out of the switch's end of the balancer's front interface, as if from the wire.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle, ObjectBuilder, ProgramInput};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::Lab;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flood.bpf.o"));
/// include/uapi/linux/bpf.h
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Packets of one system call; each call sets up a page pool, which takes milliseconds.
const AT_ONCE: u32 = 1 << 17;
const FRAME: [u8; 60] = [0; 60];
/// Random sources have these first eight bits; the lab's router is the way back to them.
const SOURCES: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Packets: a third SYNs, a third datagrams, a third fragments.
    pub packets: u64,
    /// How long it took.
    pub took: Duration,
}

impl Sent {
    /// Millions of packets a second.
    pub fn mpps(&self) -> f64 {
        self.packets as f64 / self.took.as_secs_f64() / 1e6
    }
}

/// A flood that goes on until [`Flood::stop`].
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Sent>>,
}

impl Flood {
    /// Floods the balancer: SYNs to `vip` and `tcp_port`, datagrams and fragments to `vip` and `udp_port`. It has
    /// processor 0 to itself as far as the machine lets it.
    #[track_caller]
    pub fn start(lab: &Lab, vip: IpAddr, tcp_port: u16, udp_port: u16) -> Flood {
        let IpAddr::V4(vip) = vip else {
            panic!("the flood is IPv4, {vip} is not");
        };
        let settings = settings(lab, vip, tcp_port, udp_port);
        let (stop, switch) = (Arc::new(AtomicBool::new(false)), Arc::clone(lab.at("sw")));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            switch.join_here();
            send(&settings, &stopped)
        });
        Flood {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(mut self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a flood ends once");
        thread.join().expect("the flood's thread panicked")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// As `struct settings`.
fn settings(lab: &Lab, vip: Ipv4Addr, tcp_port: u16, udp_port: u16) -> Vec<u8> {
    let of = |role: &str, device: &str, what: &str| {
        lab.at(role)
            .run(&format!("cat /sys/class/net/{device}/{what}"))
            .trim()
            .to_owned()
    };
    let index: u32 = of("sw", "lb-front", "ifindex")
        .parse()
        .expect("an interface index");
    let destination = of("lb", "eth0", "address")
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC address"))
        .collect::<Vec<_>>();
    let mut bytes = Vec::with_capacity(32);
    for word in [index, SOURCES.to_bits(), vip.to_bits()] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(tcp_port.to_ne_bytes());
    bytes.extend(udp_port.to_ne_bytes());
    bytes.extend(destination);
    bytes.extend([2, 0, 0, 0, 0, 9]);
    bytes.extend([0; 4]);
    bytes
}

fn send(settings: &[u8], stop: &AtomicBool) -> Sent {
    let mut processor = CpuSet::new();
    processor.set(0).expect("a processor's number");
    sched_setaffinity(Pid::from_raw(0), &processor).expect("processor 0 is there");
    let object = ObjectBuilder::default()
        .open_memory(OBJECT)
        .and_then(|object| object.load())
        .expect("the flood's BPF program loads (needs root)");
    let map = |name: &str| {
        let map = object.maps().find(|map| map.name() == name);
        let map = map.unwrap_or_else(|| panic!("the object has a map '{name}'"));
        MapHandle::try_from(&map).expect("a map can be referred to twice")
    };
    let counters = map("counters");
    map("settings")
        .update(&0u32.to_ne_bytes(), settings, MapFlags::ANY)
        .expect("settings of the flood");
    let program = object
        .progs_mut()
        .find(|program| program.name() == "flood")
        .expect("the object has a program 'flood'");
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let input = ProgramInput {
            data_in: Some(&FRAME),
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            repeat: AT_ONCE,
            ..ProgramInput::default()
        };
        program.test_run(input).expect("the flood runs");
    }
    let took = begun.elapsed();
    let packets = counters
        .lookup_percpu(&1u32.to_ne_bytes(), MapFlags::ANY)
        .expect("counter of the flood")
        .unwrap_or_default()
        .iter()
        .map(|cpu| u64::from_ne_bytes(cpu[..8].try_into().expect("a counter has 64 bits")))
        .sum();
    Sent { packets, took }
}
