//! One connection in 48 bytes of shared memory.
//!
//! Every field is an atomic, because another worker or another process may read an entry while it is given to a new
//! connection. The identity (client, ports, ids, hashes) is written while the entry is private and then never changes
//! until it is private again; only the last word changes during its life.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Addr;
use crate::spec::{RuleId, ServerId};

/// Which way a packet of a connection travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Forward,
    /// From the server.
    Reverse,
}

/// Where in its life a connection is. TCP states carry the names of the kernel's IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// TCP, SCTP: handshake not finished.
    SynReceived = 0,
    /// TCP, SCTP: open.
    Established = 1,
    /// The client has closed.
    FinWait = 2,
    /// The server has closed.
    CloseWait = 3,
    /// Both have closed, the server first.
    LastAck = 4,
    /// Both have closed, the client first.
    TimeWait = 5,
    /// Reset by either end.
    Close = 6,
    /// Any other protocol: one packet so far.
    Fresh = 7,
    /// Any other protocol: several packets.
    Flowing = 8,
    /// Not a connection but a client's claim to a server ([`crate::spec::Persistence`]).
    Persistence = 9,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [State; 10] = [
        State::SynReceived,
        State::Established,
        State::FinWait,
        State::CloseWait,
        State::LastAck,
        State::TimeWait,
        State::Close,
        State::Fresh,
        State::Flowing,
        State::Persistence,
    ];

    /// Damaged memory may hold numbers that are no states: they pass for reset, which is soon forgotten.
    pub(super) fn from_bits(bits: u8) -> State {
        State::ALL
            .get(bits as usize)
            .copied()
            .unwrap_or(State::Close)
    }

    /// The word that a person reads.
    pub const fn label(self) -> &'static str {
        match self {
            State::SynReceived => "syn-received",
            State::Established => "established",
            State::FinWait => "fin-wait",
            State::CloseWait => "close-wait",
            State::LastAck => "last-ack",
            State::TimeWait => "time-wait",
            State::Close => "close",
            State::Fresh => "fresh",
            State::Flowing => "flowing",
            State::Persistence => "persistence",
        }
    }
}

/// Who may rely on the rest of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// On the free list or never used.
    Free = 0,
    /// Being entered by one worker.
    Pending = 1,
    /// A connection.
    Live = 2,
    /// No longer to be found; waits until nobody can still be reading it.
    Dead = 3,
}

/// Identity of a connection: all that does not change while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The client's address.
    pub client: Addr,
    /// The client's port.
    pub client_port: u16,
    /// The VIP's port that the client connected to.
    pub vip_port: u16,
    /// Our source port towards the server; 0 unless the topology is NAT.
    pub nat_port: u16,
    /// Index into the rule's `proxy_src`.
    pub nat_index: u8,
    /// Index into the rule's `vips`.
    pub vip_index: u8,
    /// The rule.
    pub rule: RuleId,
    /// The server.
    pub server: ServerId,
    /// Protocol number; 0 for persistence.
    pub protocol: u8,
    /// Whether packets from the server come through us, and so have an index slot of their own.
    pub has_reverse: bool,
    /// Low bits of the version of the server pool from which the server was chosen.
    pub pool_version: u16,
}

/// What a live entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Who it is.
    pub identity: Identity,
    /// Where in its life it is.
    pub state: State,
    /// When a packet was last seen, in seconds since boot.
    pub last_seen: u32,
}

/// See the module's text. All zero is a free entry.
#[repr(C, align(16))]
pub(super) struct Entry {
    client_low: AtomicU64,
    client_high: AtomicU64,
    /// client port, VIP port, NAT port, NAT index, VIP index.
    ports: AtomicU64,
    /// Rule and server; of a free entry, the next free one.
    ids: AtomicU64,
    /// Hash of the forward tuple and of the reverse tuple.
    hashes: AtomicU64,
    /// last seen (32), state (4), status (2), has reverse (1), spare (1), protocol (8), pool version (16).
    meta: AtomicU64,
}

const _: () = assert!(size_of::<Entry>() == 48);

/// The last word of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta(pub u64);

impl Meta {
    const STATE: u32 = 32;
    const STATUS: u32 = 36;
    const REVERSE: u32 = 38;
    const PROTOCOL: u32 = 40;
    const VERSION: u32 = 48;

    fn new(identity: &Identity, state: State, status: Status, now: u32) -> Meta {
        Meta(
            now as u64
                | (state as u64) << Meta::STATE
                | (status as u64) << Meta::STATUS
                | (identity.protocol as u64) << Meta::PROTOCOL
                | (identity.has_reverse as u64) << Meta::REVERSE
                | (identity.pool_version as u64) << Meta::VERSION,
        )
    }

    pub fn status(self) -> Status {
        match (self.0 >> Meta::STATUS) & 3 {
            0 => Status::Free,
            1 => Status::Pending,
            2 => Status::Live,
            _ => Status::Dead,
        }
    }

    pub fn state(self) -> State {
        State::from_bits((self.0 >> Meta::STATE) as u8 & 0xf)
    }

    pub fn last_seen(self) -> u32 {
        self.0 as u32
    }

    pub fn has_reverse(self) -> bool {
        self.0 >> Meta::REVERSE & 1 == 1
    }

    fn protocol(self) -> u8 {
        (self.0 >> Meta::PROTOCOL) as u8
    }

    fn with_status(self, status: Status) -> Meta {
        Meta(self.0 & !(3 << Meta::STATUS) | (status as u64) << Meta::STATUS)
    }

    fn with_state(self, state: State, now: u32) -> Meta {
        Meta(self.0 & !0xf_ffff_ffff | now as u64 | (state as u64) << Meta::STATE)
    }
}

impl Entry {
    pub fn meta(&self) -> Meta {
        Meta(self.meta.load(Ordering::Acquire))
    }

    /// Forward and reverse hash.
    #[inline(always)]
    pub fn hashes(&self) -> (u32, u32) {
        let hashes = self.hashes.load(Ordering::Relaxed);
        (hashes as u32, (hashes >> 32) as u32)
    }

    /// Fills a private entry. The reverse hash stays 0 until [`Entry::set_reverse`].
    pub fn write(&self, identity: &Identity, state: State, forward_hash: u32, now: u32) {
        self.client_low
            .store(identity.client.low(), Ordering::Relaxed);
        self.client_high
            .store(identity.client.high(), Ordering::Relaxed);
        self.ids.store(
            (identity.rule as u64) << 32 | identity.server as u64,
            Ordering::Relaxed,
        );
        self.write_ports(identity);
        self.hashes.store(forward_hash as u64, Ordering::Relaxed);
        self.meta.store(
            Meta::new(identity, state, Status::Pending, now).0,
            Ordering::Release,
        );
    }

    fn write_ports(&self, identity: &Identity) {
        let ports = identity.client_port as u64
            | (identity.vip_port as u64) << 16
            | (identity.nat_port as u64) << 32
            | (identity.nat_index as u64) << 48
            | (identity.vip_index as u64) << 56;
        self.ports.store(ports, Ordering::Relaxed);
    }

    /// Sets what the reverse direction is found by, while the entry is private to its worker.
    pub fn set_reverse(&self, identity: &Identity, reverse_hash: u32) {
        self.write_ports(identity);
        let (forward, _) = self.hashes();
        self.hashes.store(
            forward as u64 | (reverse_hash as u64) << 32,
            Ordering::Relaxed,
        );
    }

    /// The entry's contents, whatever its status.
    #[inline(always)]
    pub fn read(&self) -> (Connection, Meta) {
        let meta = self.meta();
        let ports = self.ports.load(Ordering::Relaxed);
        let ids = self.ids.load(Ordering::Relaxed);
        let client = (self.client_high.load(Ordering::Relaxed) as u128) << 64
            | self.client_low.load(Ordering::Relaxed) as u128;
        let identity = Identity {
            client: Addr(client),
            client_port: ports as u16,
            vip_port: (ports >> 16) as u16,
            nat_port: (ports >> 32) as u16,
            nat_index: (ports >> 48) as u8,
            vip_index: (ports >> 56) as u8,
            rule: (ids >> 32) as u32,
            server: ids as u32,
            protocol: meta.protocol(),
            has_reverse: meta.has_reverse(),
            pool_version: (meta.0 >> Meta::VERSION) as u16,
        };
        (
            Connection {
                identity,
                state: meta.state(),
                last_seen: meta.last_seen(),
            },
            meta,
        )
    }

    /// Records that a packet was seen. Writes only if something changed, so that a busy connection does not keep its
    /// cache line moving between workers. False if the entry has died meanwhile.
    #[inline(always)]
    pub fn touch(&self, state: impl Fn(State) -> State, now: u32) -> bool {
        let mut meta = self.meta();
        loop {
            if meta.status() != Status::Live {
                return false;
            }
            let next = meta.with_state(state(meta.state()), now);
            if next == meta {
                return true;
            }
            match self.meta.compare_exchange_weak(
                meta.0,
                next.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(seen) => meta = Meta(seen),
            }
        }
    }

    /// Moves from one status to another; false if it was not in the first.
    pub fn transition(&self, from: Status, to: Status) -> bool {
        let mut meta = self.meta();
        while meta.status() == from {
            match self.meta.compare_exchange_weak(
                meta.0,
                meta.with_status(to).0,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return true,
                Err(seen) => meta = Meta(seen),
            }
        }
        false
    }

    /// Next free entry, while this one is on the free list.
    pub fn next_free(&self) -> u32 {
        self.ids.load(Ordering::Relaxed) as u32
    }

    /// Puts the entry on the free list in front of `next`.
    pub fn set_free(&self, next: u32) {
        self.ids.store(next as u64, Ordering::Relaxed);
        self.meta.store(0, Ordering::Release);
    }
}
