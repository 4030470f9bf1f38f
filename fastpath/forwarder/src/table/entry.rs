//! One connection in 48 bytes of shared memory, in two parts.
//!
//! The *hot* part has what every packet needs in half a cache line: the key, the state, and the *lane*, a number by
//! which the workers find everything else about rule and server. The *cold* part has what makes the entry independent
//! of any process: the durable ids of rule and server, and the hashes by which the index finds it.
//!
//! Every field is an atomic, because another worker or another process may read an entry while it is given to a new
//! connection. The identity (client, ports, ids, hashes) is written while the entry is private and then never changes
//! until it is private again; state, time and lane change during its life.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
    /// Any other protocol: the client has sent one packet so far, which may have been answered.
    Fresh = 7,
    /// Any other protocol: the client has sent several packets.
    Flowing = 8,
    /// Not a connection but a client's claim to a server ([`crate::spec::Persistence`]).
    Persistence = 9,
    /// As before, of a client that may not exist: none of its connections has been more than embryonic yet.
    Offered = 10,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [State; 11] = [
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
        State::Offered,
    ];

    /// Damaged memory may hold numbers that are no states: they pass for reset, which is soon forgotten.
    pub(super) fn from_bits(bits: u8) -> State {
        State::ALL
            .get(bits as usize)
            .copied()
            .unwrap_or(State::Close)
    }

    /// Whether only the first packets have been seen: nothing shows yet that the client is real.
    #[inline(always)]
    pub const fn is_embryonic(self) -> bool {
        matches!(self, State::SynReceived | State::Fresh | State::Offered)
    }

    /// Whether this is no connection but a client's claim to a server.
    #[inline(always)]
    pub const fn is_claim(self) -> bool {
        matches!(self, State::Persistence | State::Offered)
    }

    /// Whether both ends have closed, or one has reset it: what may still come are segments that were late.
    #[inline(always)]
    pub const fn is_done(self) -> bool {
        matches!(self, State::LastAck | State::TimeWait | State::Close)
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
            State::Offered => "offered",
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
    /// Version of the server pool from which the server was chosen; 0..=[`MAX_POOL_VERSION`].
    pub pool_version: u16,
}

/// What a live entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Who it is.
    pub identity: Identity,
    /// Where in its life it is.
    pub state: State,
    /// When a packet was last seen: the low 24 bits of seconds since boot. See [`Connection::idle`].
    pub last_seen: u32,
}

impl Connection {
    /// Seconds since the last packet, up to [`LONGEST_IDLE`].
    #[inline(always)]
    pub fn idle(&self, now: u32) -> u32 {
        idle(self.last_seen, now)
    }
}

fn idle(last_seen: u32, now: u32) -> u32 {
    let idle = now.wrapping_sub(last_seen) & SEEN_MASK;
    // Another worker's clock may be a second ahead.
    if idle > LONGEST_IDLE { 0 } else { idle }
}

/// Longest time without a packet that can be told, in seconds: 97 days.
pub const LONGEST_IDLE: u32 = SEEN_MASK >> 1;
const SEEN_MASK: u32 = (1 << 24) - 1;

/// Largest rule id that an entry can hold.
pub const MAX_RULE_ID: RuleId = (1 << 24) - 1;
/// Largest server id that an entry can hold.
pub const MAX_SERVER_ID: ServerId = (1 << 28) - 1;
/// Largest version of a server pool that an entry can hold.
pub const MAX_POOL_VERSION: u16 = (1 << 12) - 1;
/// Largest lane.
pub const MAX_LANE: u32 = (1 << 25) - 1;
/// The lane of an entry whose process did not know one.
pub const NO_LANE: u32 = 0;

/// Source addresses that a rule can have: 4 bits of an entry.
const NAT_INDEX_BITS: u32 = 4;

/// What every packet of a connection needs. All zero is a free entry.
#[repr(C, align(32))]
pub(crate) struct Hot {
    client_low: AtomicU64,
    client_high: AtomicU64,
    /// client port (16), VIP port (16), NAT port (16), VIP index (8), NAT index (4), spare (4).
    ports: AtomicU64,
    /// last seen (24), protocol (8). The protocol never changes, so that the time can be stored without a lock.
    seen: AtomicU32,
    /// state (4), status (2), has reverse (1), lane (25).
    word: AtomicU32,
}

const _: () = assert!(size_of::<Hot>() == 32);

/// What only beginning, ending and counting need.
#[repr(C, align(16))]
pub(super) struct Cold {
    /// Rule (24), server (28) and pool version (12); of a free entry, the next free one.
    ids: AtomicU64,
    /// Hash of the forward tuple.
    forward: AtomicU32,
    /// Hash of the reverse tuple.
    reverse: AtomicU32,
}

const _: () = assert!(size_of::<Cold>() == 16);

/// State, status, whether there is a reverse direction, and the lane of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u32);

impl Word {
    /// No state: see [`Word::is_owned`].
    const OWNED: u32 = 0xf;
    const STATUS: u32 = 4;
    const REVERSE: u32 = 6;
    const LANE: u32 = 7;

    fn new(state: State, status: Status, has_reverse: bool, lane: u32) -> Word {
        Word(
            state as u32
                | (status as u32) << Word::STATUS
                | (has_reverse as u32) << Word::REVERSE
                | lane.min(MAX_LANE) << Word::LANE,
        )
    }

    pub(super) fn status(self) -> Status {
        match (self.0 >> Word::STATUS) & 3 {
            0 => Status::Free,
            1 => Status::Pending,
            2 => Status::Live,
            _ => Status::Dead,
        }
    }

    /// Where in its life the connection is.
    pub fn state(self) -> State {
        State::from_bits(self.0 as u8 & 0xf)
    }

    pub(super) fn has_reverse(self) -> bool {
        self.0 >> Word::REVERSE & 1 == 1
    }

    /// Number by which the workers find rule and server; [`NO_LANE`] if none is known.
    #[inline(always)]
    pub fn lane(self) -> u32 {
        self.0 >> Word::LANE
    }

    /// Whether a worker has ended the connection and will give the entry back itself.
    pub(super) fn is_owned(self) -> bool {
        self.status() == Status::Dead && self.0 & 0xf == Word::OWNED
    }

    /// Whether this is a connection in full flow, whose state no ordinary packet changes.
    #[inline(always)]
    pub fn is_flowing(self) -> bool {
        const LIVE: u32 = (Status::Live as u32) << Word::STATUS;
        let place = self.0 & 0x3f;
        place == State::Established as u32 | LIVE || place == State::Flowing as u32 | LIVE
    }

    fn with_status(self, status: Status) -> Word {
        let word = Word(self.0 & !(3 << Word::STATUS) | (status as u32) << Word::STATUS);
        // Damaged memory must not pass for owned.
        word.with_state(self.state())
    }

    fn with_state(self, state: State) -> Word {
        Word(self.0 & !0xf | state as u32)
    }

    fn with_lane(self, lane: u32) -> Word {
        Word(self.0 & ((1 << Word::LANE) - 1) | lane.min(MAX_LANE) << Word::LANE)
    }
}

impl Hot {
    /// State, status and lane now.
    #[inline(always)]
    pub fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// The client's address.
    #[inline(always)]
    pub fn client(&self) -> Addr {
        let (low, high) = (&self.client_low, &self.client_high);
        Addr((high.load(Ordering::Relaxed) as u128) << 64 | low.load(Ordering::Relaxed) as u128)
    }

    /// Ports and indices.
    #[inline(always)]
    pub fn ports(&self) -> Ports {
        Ports(self.ports.load(Ordering::Relaxed))
    }

    /// Protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.seen.load(Ordering::Relaxed) >> 24) as u8
    }

    /// Records when a packet was seen. Writes only if that changes anything, so that a busy connection does not keep
    /// its cache line moving between workers.
    #[inline(always)]
    pub fn see(&self, now: u32) {
        let seen = self.seen.load(Ordering::Relaxed);
        let new = seen & !SEEN_MASK | now & SEEN_MASK;
        if new != seen {
            self.seen.store(new, Ordering::Relaxed);
        }
    }

    pub(super) fn last_seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed) & SEEN_MASK
    }

    /// Records a packet; gives the states before and after it, or None if the entry has died meanwhile.
    #[inline(always)]
    pub(super) fn touch(&self, state: impl Fn(State) -> State, now: u32) -> Option<(State, State)> {
        let mut word = self.word();
        loop {
            if word.status() != Status::Live {
                return None;
            }
            let (old, new) = (word.state(), state(word.state()));
            if new == old {
                self.see(now);
                return Some((old, new));
            }
            match self.exchange(word, word.with_state(new)) {
                Ok(()) => {
                    self.see(now);
                    return Some((old, new));
                }
                Err(seen) => word = seen,
            }
        }
    }

    fn exchange(&self, old: Word, new: Word) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(old.0, new.0, Ordering::SeqCst, Ordering::SeqCst)
            .map(drop)
            .map_err(Word)
    }

    /// Moves from one status to another; gives the word before, or None if it was not in the first.
    pub(super) fn transition(&self, from: Status, to: Status) -> Option<Word> {
        let mut word = self.word();
        while word.status() == from {
            match self.exchange(word, word.with_status(to)) {
                Ok(()) => return Some(word),
                Err(seen) => word = seen,
            }
        }
        None
    }

    /// Ends a connection whose state still `may_go`, in the name of a worker that will give the entry back itself.
    pub(super) fn seize(&self, may_go: impl Fn(State) -> bool) -> Option<State> {
        let mut word = self.word();
        while word.status() == Status::Live && may_go(word.state()) {
            let dead = Word(word.with_status(Status::Dead).0 | Word::OWNED);
            match self.exchange(word, dead) {
                Ok(()) => return Some(word.state()),
                Err(seen) => word = seen,
            }
        }
        None
    }

    /// Leaves an owned entry to the sweeper.
    pub(super) fn disown(&self) {
        let word = self.word();
        if word.is_owned() {
            let dead = word.with_state(State::Close);
            self.word.store(dead.0, Ordering::SeqCst);
        }
    }

    /// Gives a live entry its lane.
    pub(super) fn set_lane(&self, lane: u32) {
        let mut word = self.word();
        while word.status() == Status::Live && word.lane() != lane {
            match self.exchange(word, word.with_lane(lane)) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

/// Ports and indices of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Ports(u64);

impl Ports {
    fn new(identity: &Identity) -> Ports {
        let nat_index = identity.nat_index as u64 & ((1 << NAT_INDEX_BITS) - 1);
        Ports(
            identity.client_port as u64
                | (identity.vip_port as u64) << 16
                | (identity.nat_port as u64) << 32
                | (identity.vip_index as u64) << 48
                | nat_index << 56,
        )
    }

    /// The VIP's port above the client's.
    #[inline(always)]
    pub fn vip_and_client(self) -> u32 {
        self.0 as u32
    }

    /// The client's port.
    #[inline(always)]
    pub fn client(self) -> u16 {
        self.0 as u16
    }

    /// The VIP's port.
    #[inline(always)]
    pub fn vip(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Our port towards the server.
    #[inline(always)]
    pub fn nat(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Index into the rule's VIPs.
    #[inline(always)]
    pub fn vip_index(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Index into the rule's source addresses.
    #[inline(always)]
    pub fn nat_index(self) -> u8 {
        (self.0 >> 56) as u8 & ((1 << NAT_INDEX_BITS) - 1)
    }
}

impl Cold {
    /// Forward and reverse hash.
    #[inline(always)]
    pub fn hashes(&self) -> (u32, u32) {
        let (forward, reverse) = (&self.forward, &self.reverse);
        (
            forward.load(Ordering::Relaxed),
            reverse.load(Ordering::Relaxed),
        )
    }

    /// Next free entry, while this one is on the free list.
    pub fn next_free(&self) -> u32 {
        self.ids.load(Ordering::Relaxed) as u32
    }
}

/// Both parts of one entry.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub hot: &'a Hot,
    pub cold: &'a Cold,
}

impl Entry<'_> {
    /// Fills a private entry. The reverse hash stays 0 until [`Entry::set_reverse`].
    pub fn write(&self, identity: &Identity, state: State, hash: u32, lane: u32, now: u32) {
        let Entry { hot, cold } = self;
        hot.client_low
            .store(identity.client.low(), Ordering::Relaxed);
        hot.client_high
            .store(identity.client.high(), Ordering::Relaxed);
        hot.ports.store(Ports::new(identity).0, Ordering::Relaxed);
        let seen = now & SEEN_MASK | (identity.protocol as u32) << 24;
        hot.seen.store(seen, Ordering::Relaxed);
        let ids = identity.rule.min(MAX_RULE_ID) as u64
            | (identity.server.min(MAX_SERVER_ID) as u64) << 24
            | (identity.pool_version.min(MAX_POOL_VERSION) as u64) << 52;
        cold.ids.store(ids, Ordering::Relaxed);
        cold.forward.store(hash, Ordering::Relaxed);
        cold.reverse.store(0, Ordering::Relaxed);
        let word = Word::new(state, Status::Pending, identity.has_reverse, lane);
        hot.word.store(word.0, Ordering::Release);
    }

    /// Sets what the reverse direction is found by, while the entry is private to its worker.
    pub fn set_reverse(&self, identity: &Identity, reverse_hash: u32) {
        self.hot
            .ports
            .store(Ports::new(identity).0, Ordering::Relaxed);
        self.cold.reverse.store(reverse_hash, Ordering::Relaxed);
    }

    /// The entry's contents, whatever its status.
    #[inline(always)]
    pub fn read(&self) -> (Connection, Word) {
        let word = self.hot.word();
        let (ports, ids) = (self.hot.ports(), self.cold.ids.load(Ordering::Relaxed));
        let identity = Identity {
            client: self.hot.client(),
            client_port: ports.client(),
            vip_port: ports.vip(),
            nat_port: ports.nat(),
            nat_index: ports.nat_index(),
            vip_index: ports.vip_index(),
            rule: ids as u32 & MAX_RULE_ID,
            server: (ids >> 24) as u32 & MAX_SERVER_ID,
            protocol: self.hot.protocol(),
            has_reverse: word.has_reverse(),
            pool_version: (ids >> 52) as u16,
        };
        let connection = Connection {
            identity,
            state: word.state(),
            last_seen: self.hot.last_seen(),
        };
        (connection, word)
    }

    /// Puts the entry on the free list in front of `next`.
    pub fn set_free(&self, next: u32) {
        self.cold.ids.store(next as u64, Ordering::Relaxed);
        self.hot.word.store(0, Ordering::Release);
    }
}
