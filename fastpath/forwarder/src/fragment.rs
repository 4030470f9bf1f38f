//! Fragments: only the first one has ports, so the others follow it by what they share (RFC 791 section 3.2,
//! RFC 8200 section 4.5): addresses, protocol and identification.
//!
//! Where first fragments went is remembered for all workers together, because a NIC may give the fragments of one
//! datagram to different queues. Memory is fixed: sets of sixteen places, each guarded by a sequence number, without a
//! lock. A new place takes the oldest one of its set. The hash is keyed, so that nobody can aim at a set, and
//! the networks that packets come from reach only one group of sets each, so that no network can push out the
//! fragments of all others. Within its group, a datagram's place is safe for the next 64 sets × 16 places or so.
//!
//! A later fragment whose first one has not come waits with the worker ([`crate::verdict::Verdict::Hold`]).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::address::Addr;
use crate::checksum::Delta;
use crate::hash::FlowHasher;
use crate::packet::{self, Headers, Tuple, field, get16, protocol, put16};
use crate::table::{Direction, Identity};
use crate::verdict::DropReason;

/// Groups of sets; a source network reaches one.
pub const GROUPS: usize = 1 << GROUP_BITS;
const GROUP_BITS: u32 = 3;
const SETS: usize = 1 << SET_BITS;
const SET_BITS: u32 = 9;
const WAYS: usize = 16;
/// RFC 791 and RFC 8200 allow a receiver 15 to 60 s for reassembly; Linux takes 30.
const LIFE_SECONDS: u32 = 30;
/// Tells this use of the table's hash keys from others.
const PURPOSE: u64 = 0x6672_6167_0000_0001;

/// What the fragments of one datagram have in common, as a hash that names their group in its highest bits. Two
/// datagrams may have the same one; nothing but the choice of a place and waiting depends on it.
pub type Key = u64;

/// The group of a key, below [`GROUPS`].
pub fn group(key: Key) -> usize {
    (key >> (64 - GROUP_BITS)) as usize
}

/// The key of a fragment with this identification.
pub fn key(hasher: &FlowHasher, headers: &Headers, id: u32) -> Key {
    let Tuple {
        src, dst, protocol, ..
    } = headers.tuple;
    let hash = hasher.flow(src, dst, id as u16, (id >> 16) as u16, protocol);
    let network = match src.is_v4() {
        true => {
            let [a, b, c, _] = src.v4_bytes();
            Addr::v4([a, b, c, 0])
        }
        false => Addr(src.0 >> 80 << 80),
    };
    let group = hasher.address(network, PURPOSE) << (64 - GROUP_BITS);
    group | hash >> GROUP_BITS
}

/// Where a fragment's data lies in its datagram, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
    /// Whether others follow behind it.
    pub more: bool,
}

/// The offset of the IPv6 fragment header in a frame.
fn fragment_header(frame: &[u8], l3: usize, end: usize) -> Option<usize> {
    let ip = frame.get(l3..end)?;
    let (mut next, mut at) = (*ip.get(field::IP6_NEXT_HEADER)?, field::IP6_HEADER);
    for _ in 0..=packet::MAX_EXTENSIONS {
        let extension = ip.get(at..at + 8)?;
        let units = extension[1] as usize;
        at += match next {
            protocol::FRAGMENT => return Some(l3 + at),
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => (units + 1) * 8,
            protocol::AUTHENTICATION => (units + 2) * 4,
            _ => return None,
        };
        next = extension[0];
    }
    None
}

fn extent(frame: &[u8], headers: &Headers) -> Option<Extent> {
    let (l3, end) = (headers.l3 as usize, headers.end as usize);
    if headers.is_v4() {
        let word = get16(frame, l3 + field::IP4_FRAGMENT);
        return Some(Extent {
            offset: (word & 0x1fff) as usize * 8,
            len: end - headers.l4 as usize,
            more: word & 0x2000 != 0,
        });
    }
    let at = fragment_header(frame, l3, end)?;
    let word = get16(frame, at + 2);
    Some(Extent {
        offset: (word & 0xfff8) as usize,
        len: end - (at + 8),
        more: word & 1 != 0,
    })
}

/// Where the data of a fragment lie, if they can be part of a datagram: all but the last are whole units of eight bytes
/// (RFC 791 section 3.1, RFC 8200 section 4.5), and none ends behind 65,535.
pub fn sound_extent(frame: &[u8], headers: &Headers) -> Result<Extent, DropReason> {
    let extent = extent(frame, headers).ok_or(DropReason::Malformed)?;
    let whole = extent.len > 0 && (!extent.more || extent.len.is_multiple_of(8));
    if !whole || extent.offset + extent.len > u16::MAX as usize {
        return Err(DropReason::Malformed);
    }
    // The first fragment must have the whole TCP header, so that nothing else can begin within it (RFC 3128).
    if headers.tuple.protocol == protocol::TCP && (1..field::TCP_HEADER).contains(&extent.offset) {
        return Err(DropReason::FragmentOverlap);
    }
    Ok(extent)
}

/// Whether a frame that cannot be parsed is a first fragment that ends before its transport header does.
#[cold]
pub fn is_tiny(frame: &[u8]) -> bool {
    const L3: usize = packet::ETHERNET;
    let Some(ip) = frame.get(L3..).filter(|ip| ip.len() >= field::IP4_HEADER) else {
        return false;
    };
    match get16(frame, 12) {
        packet::ETHERTYPE_IPV4 => {
            let header = (ip[0] & 0xf) as usize * 4;
            let total = get16(ip, field::IP4_TOTAL_LENGTH) as usize;
            let first = get16(ip, field::IP4_FRAGMENT) & 0x3fff == 0x2000;
            first && (header..header + field::TCP_HEADER).contains(&total) && total <= ip.len()
        }
        packet::ETHERTYPE_IPV6 => fragment_header(frame, L3, frame.len())
            .is_some_and(|at| get16(frame, at + 2) & 0xfff9 == 1),
        _ => false,
    }
}

/// Gives an IPv4 packet another identification.
pub fn identify(frame: &mut [u8], headers: &Headers, new: u16) {
    let ip = &mut frame[headers.l3 as usize..];
    let mut delta = Delta::NONE;
    delta.word(get16(ip, field::IP4_ID), new);
    put16(ip, field::IP4_ID, new);
    let sum = get16(ip, field::IP4_CHECKSUM);
    put16(ip, field::IP4_CHECKSUM, delta.apply(sum));
}

/// What became of a first fragment, and so becomes of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It went on with a connection.
    Flow(Identity, Direction),
    /// It was the kernel's.
    Kernel,
    /// It was sent on to another node.
    Relayed,
}

/// What is remembered of a first fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What became of it.
    pub fate: Fate,
    /// Where its data end in the datagram.
    pub end: u16,
    /// Identification that the datagram has behind us, if its addresses are rewritten: senders that do not know each
    /// other may have chosen the same one, and behind us they look like one (RFC 6864 section 4).
    pub id: u16,
}

/// Key (addresses, identification and protocol), fate, and when it was seen.
const WORDS: usize = 10;
const KEY_WORDS: usize = 5;

type Words = [u64; WORDS];

fn key_words(tuple: &Tuple, id: u32) -> [u64; KEY_WORDS] {
    let Tuple {
        src, dst, protocol, ..
    } = tuple;
    let rest = (*protocol as u64) << 32 | id as u64;
    [src.low(), src.high(), dst.low(), dst.high(), rest]
}

impl Place {
    fn words(&self, key: [u64; KEY_WORDS]) -> Words {
        let mut words = [0; WORDS];
        words[..KEY_WORDS].copy_from_slice(&key);
        let ends = (self.end as u64) << 48 | (self.id as u64) << 32;
        if let Fate::Flow(identity, direction) = &self.fate {
            words[5] = identity.client.low();
            words[6] = identity.client.high();
            words[7] = identity.client_port as u64
                | (identity.vip_port as u64) << 16
                | (identity.nat_port as u64) << 32
                | (identity.nat_index as u64) << 48
                | (identity.vip_index as u64) << 56;
            words[8] = (identity.rule as u64) << 32 | identity.server as u64;
            words[9] = 1
                | ((*direction == Direction::Reverse) as u64) << 1
                | (identity.has_reverse as u64) << 2
                | (identity.protocol as u64) << 8
                | (identity.pool_version as u64) << 16;
        }
        if self.fate == Fate::Relayed {
            words[9] = 8;
        }
        words[9] |= ends;
        words
    }

    fn of(words: &Words) -> Place {
        let [.., low, high, ports, ids, rest] = *words;
        let identity = Identity {
            client: Addr((high as u128) << 64 | low as u128),
            client_port: ports as u16,
            vip_port: (ports >> 16) as u16,
            nat_port: (ports >> 32) as u16,
            nat_index: (ports >> 48) as u8,
            vip_index: (ports >> 56) as u8,
            rule: (ids >> 32) as u32,
            server: ids as u32,
            protocol: (rest >> 8) as u8,
            has_reverse: rest & 4 != 0,
            pool_version: (rest >> 16) as u16,
        };
        let direction = match rest & 2 {
            0 => Direction::Forward,
            _ => Direction::Reverse,
        };
        Place {
            fate: match rest & 9 {
                0 => Fate::Kernel,
                8 => Fate::Relayed,
                _ => Fate::Flow(identity, direction),
            },
            end: (rest >> 48) as u16,
            id: (rest >> 32) as u16,
        }
    }
}

/// Memory of one place. Odd sequence numbers mean that it is being written.
#[derive(Debug, Default)]
struct Cell {
    sequence: AtomicU32,
    words: [AtomicU64; WORDS],
}

impl Cell {
    fn read(&self) -> Option<Words> {
        let before = self.sequence.load(Ordering::Acquire);
        let words = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let same = self.sequence.load(Ordering::Relaxed) == before;
        (same && before & 1 == 0).then_some(words)
    }

    /// False if another worker writes it now.
    fn write(&self, words: &Words) -> bool {
        let before = self.sequence.load(Ordering::Relaxed);
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        if before & 1 == 1
            || self
                .sequence
                .compare_exchange(before, before.wrapping_add(1), acquire, relaxed)
                .is_err()
        {
            return false;
        }
        fence(Ordering::Release);
        for (place, word) in self.words.iter().zip(words) {
            place.store(*word, Ordering::Relaxed);
        }
        self.sequence
            .store(before.wrapping_add(2), Ordering::Release);
        true
    }
}

/// Hints come first, so that a search touches two cache lines and one place.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    /// Part of the hash; 0 for an empty place.
    tags: [AtomicU32; WAYS],
    /// When it was written, in seconds since boot.
    seen: [AtomicU32; WAYS],
    cells: [Cell; WAYS],
    /// Way that is taken next, so that it is always the oldest.
    next: AtomicU32,
}

/// See the module's text.
#[derive(Debug)]
pub struct Fragments {
    sets: Box<[Set]>,
    /// Places taken since the start.
    made: AtomicU64,
    next_id: AtomicU32,
}

impl Default for Fragments {
    fn default() -> Fragments {
        Fragments {
            sets: (0..SETS).map(|_| Set::default()).collect(),
            made: AtomicU64::new(0),
            next_id: AtomicU32::new(1),
        }
    }
}

fn tag(key: Key) -> u32 {
    key as u32 | 1
}

impl Fragments {
    fn set(&self, key: Key) -> &Set {
        &self.sets[(key >> (64 - SET_BITS)) as usize]
    }

    /// Ways of the set that may hold this key and are not too old.
    fn ways(&self, key: Key, now: u32) -> impl Iterator<Item = usize> {
        let set = self.set(key);
        (0..WAYS).filter(move |&way| {
            let age = now.wrapping_sub(set.seen[way].load(Ordering::Relaxed)) as i32;
            set.tags[way].load(Ordering::Relaxed) == tag(key) && age <= LIFE_SECONDS as i32
        })
    }

    fn find(&self, words: &[u64; KEY_WORDS], key: Key, now: u32) -> Option<(usize, Place)> {
        let set = self.set(key);
        self.ways(key, now).find_map(|way| {
            let found = set.cells[way].read()?;
            (found[..KEY_WORDS] == *words).then(|| (way, Place::of(&found)))
        })
    }

    /// Remembers what became of a first fragment, whose data end at `end` of the datagram. Gives its place.
    pub fn remember(
        &self,
        headers: &Headers,
        id: u32,
        key: Key,
        (fate, end): (Fate, usize),
        now: u32,
    ) -> Place {
        let words = key_words(&headers.tuple, id);
        let known = self.find(&words, key, now);
        let set = self.set(key);
        if let Some((way, place)) = known
            && place.fate == fate
            && place.end as usize == end
        {
            set.seen[way].store(now, Ordering::Relaxed);
            return place;
        }
        let place = Place {
            fate,
            end: end.min(u16::MAX as usize) as u16,
            id: self.next_id.fetch_add(1, Ordering::Relaxed) as u16,
        };
        for _ in 0..WAYS {
            let way = match known {
                Some((way, _)) => way,
                None => set.next.fetch_add(1, Ordering::Relaxed) as usize % WAYS,
            };
            set.seen[way].store(now, Ordering::Relaxed);
            if set.cells[way].write(&place.words(words)) {
                set.tags[way].store(tag(key), Ordering::Release);
                break;
            }
        }
        self.made.fetch_add(1, Ordering::Release);
        place
    }

    /// What is remembered of a later fragment's first one.
    pub fn recall(&self, headers: &Headers, id: u32, key: Key, now: u32) -> Option<Place> {
        let words = key_words(&headers.tuple, id);
        self.find(&words, key, now).map(|(_, place)| place)
    }

    /// Whether a first fragment with this key has come, as far as the key tells.
    pub fn is_known(&self, key: Key, now: u32) -> bool {
        self.ways(key, now).next().is_some()
    }

    /// How many first fragments have come. Whoever waits for one need not look before this changes.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }
}
