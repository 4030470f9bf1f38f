//! A source and a sink of packets that need no network card: see `bpf/bench.bpf.c`.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput, ProgramMut,
};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// include/uapi/linux/bpf.h
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Packets of one system call: about half a second, because each call sets up a page pool, which takes milliseconds.
const AT_ONCE: u32 = 1 << 19;
const FRAME: [u8; 60] = [0; 60];

/// What the source sends.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Interface to send by.
    pub ifindex: u32,
    /// Number of flows, drawn at random.
    pub flows: u32,
    /// First client address.
    pub client: Ipv4Addr,
    /// First destination.
    pub vip: Ipv4Addr,
    /// Number of destinations, next to each other; each flow has one of them.
    pub vips: u16,
    /// Destination port.
    pub port: u16,
    /// Ethernet destination.
    pub destination: [u8; 6],
    /// Ethernet source.
    pub source: [u8; 6],
}

impl Stream {
    /// As `struct settings`.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        for word in [
            self.ifindex,
            self.flows,
            self.client.to_bits(),
            self.vip.to_bits(),
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.port.to_ne_bytes());
        bytes.extend(self.vips.to_ne_bytes());
        bytes.extend(self.destination);
        bytes.extend(self.source);
        bytes
    }
}

/// The loaded programs.
pub struct Programs {
    object: Object,
}

impl Default for Programs {
    fn default() -> Programs {
        Programs::load()
    }
}

impl Programs {
    /// Loads them.
    pub fn load() -> Programs {
        let object = ObjectBuilder::default()
            .open_memory(OBJECT)
            .and_then(|object| object.load())
            .expect("the benchmark's BPF programs load (needs root)");
        Programs { object }
    }

    fn program(&mut self, name: &str) -> ProgramMut<'_> {
        self.object
            .progs_mut()
            .find(|program| program.name() == name)
            .unwrap_or_else(|| panic!("the object has a program '{name}'"))
    }

    fn map(&self, name: &str) -> MapHandle {
        let map = self
            .object
            .maps()
            .find(|map| map.name() == name)
            .unwrap_or_else(|| panic!("the object has a map '{name}'"));
        MapHandle::try_from(&map).expect("a map can be referred to twice")
    }

    /// Attaches `sink` or `pass` to an interface of the present network namespace for as long as the result lives.
    pub fn attach(&mut self, name: &str, ifindex: u32) -> Link {
        self.program(name)
            .attach_xdp(ifindex as i32)
            .unwrap_or_else(|error| panic!("cannot attach '{name}' to {ifindex}: {error}"))
    }

    /// Sends from the present network namespace and processor until `stop`.
    pub fn send(&mut self, stream: &Stream, stop: &AtomicBool) {
        self.map("settings")
            .update(&0u32.to_ne_bytes(), &stream.bytes(), MapFlags::ANY)
            .expect("settings of the source");
        let source = self.program("source");
        while !stop.load(Ordering::Relaxed) {
            let input = ProgramInput {
                data_in: Some(&FRAME),
                flags: BPF_F_TEST_XDP_LIVE_FRAMES,
                repeat: AT_ONCE,
                ..ProgramInput::default()
            };
            source.test_run(input).expect("the source runs");
        }
    }

    /// Counts what the sink has seen.
    pub fn seen(&self) -> u64 {
        self.map("counters")
            .lookup_percpu(&1u32.to_ne_bytes(), MapFlags::ANY)
            .expect("counter of the sink")
            .unwrap_or_default()
            .iter()
            .map(|cpu| u64::from_ne_bytes(cpu[..8].try_into().expect("a counter has 64 bits")))
            .sum()
    }
}
