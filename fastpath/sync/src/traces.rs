//! The light way: what is told of a connection is its *trace*, 32 bits that stand for it and its server, and nothing else.
//!
//! Traces are told many at once: sorted, and only the gaps between them, in Golomb-Rice code (Rice, "Some practical
//! universal noiseless coding techniques", 1979), because they are spread evenly by their making. Among n of them one costs
//! 33.5 - log2(n) bits: 24 of a thousand, 17 of a hundred thousand.
//!
//! Nobody tells of an end. Instead everything that lives is told anew in *rounds*, whenever four times as much has been
//! told as lives, or after [`ROUND`]: who hears a round to its end forgets what was not in it or told since it began.
//! Traces are a set: told twice is told once, and in any order.
//!
//! ```text
//!   round(4) flags(1: 1 = inherited, 2 = over) age(2) rice(1) count(2)  then, if there is any:
//!   first(4), and for each further one the gap to the one before, less one: its quotient by 2^rice in ones with a zero
//!   behind, its remainder in `rice` bits; the last octet is filled up with zeros
//! ```

use std::collections::VecDeque;

use crate::bytes::Reader;

/// Milliseconds that a new trace waits for others.
pub const GATHER: u64 = 50;
/// Milliseconds between the beginnings of two rounds, at most.
pub const ROUND: u64 = 300_000;
/// Traces that are told at once, at most: more would not make them much shorter.
const MOST_AT_ONCE: usize = 1 << 18;
/// Entries that are looked at in one step.
const LOOKS: u32 = 16_384;
/// Parcels that wait while a round looks for more.
const FEW: usize = 64;
/// Parcels that may wait. The peer is away for long, or the bandwidth is too small: then it is told everything later.
const MOST_PARCELS: usize = 8192;
/// Traces that one parcel may have: what is read is written again in less than 64 KiB.
const MOST_IN_ONE: usize = 8192;
/// Octets before the code.
const HEAD: usize = 7;
/// Traces of which a round is never begun for their number alone.
const MANY: u64 = 4096;

const INHERITED: u8 = 1;
const OVER: u8 = 2;

/// Traces as a datagram tells them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// The sender's round.
    pub round: u32,
    /// The sender had them from a peer, which was heard for the last time this many seconds ago; None if it has these
    /// connections itself.
    pub inherited: Option<u16>,
    /// That was everything of this round.
    pub over: bool,
    /// The traces, ascending, none twice.
    pub traces: Vec<u32>,
}

/// A part of what is to be told: traces in their code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    inherited: Option<u16>,
    /// The round that is over with it.
    over: Option<u32>,
    /// Whether the round is not over without it.
    of_round: bool,
    count: u16,
    code: Vec<u8>,
}

/// Writes bits, the highest first.
#[derive(Default)]
struct Bits {
    octets: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for at in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.octets.push(0);
            }
            let bit = (value >> at & 1) as u8;
            if let Some(last) = self.octets.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }
}

/// Takes bits, the highest first.
struct Take<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Take<'_> {
    fn bit(&mut self) -> Option<u32> {
        let octet = *self.octets.get(self.at / 8)?;
        let bit = octet >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(u32::from(bit))
    }

    fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | self.bit()?;
        }
        Some(value)
    }

    /// Whether all that is left is less than an octet of zeros.
    fn is_over(&mut self) -> bool {
        let left = self.octets.len() * 8 - self.at;
        left < 8 && (0..left).all(|_| self.bit() == Some(0))
    }
}

/// Bits of a remainder that suit so many traces spread over 32 bits.
fn rice(count: usize) -> u32 {
    let gap = (1u64 << 32) / count.max(1) as u64;
    gap.max(1).ilog2().min(31)
}

/// Ascending traces, none twice, in their code: as many as fit `room` octets. Gives how many those are.
fn code(traces: &[u32], rice: u32, room: usize) -> (usize, Vec<u8>) {
    let mut out = vec![rice as u8, 0, 0];
    let Some((&first, rest)) = traces.split_first() else {
        return (0, out);
    };
    out.extend(first.to_be_bytes());
    let most = (room.saturating_sub(out.len() + HEAD) * 8) as u64;
    let (mut bits, mut before, mut count) = (Bits::default(), first, 1usize);
    for &trace in rest {
        let gap = trace.wrapping_sub(before).wrapping_sub(1);
        let quotient = gap >> rice;
        let length = u64::from(quotient) + 1 + u64::from(rice);
        if u64::from(bits.used) + length > most || count == MOST_IN_ONE {
            break;
        }
        (0..quotient).for_each(|_| bits.put(1, 1));
        bits.put(0, 1);
        bits.put(gap, rice);
        (before, count) = (trace, count + 1);
    }
    out[1..3].copy_from_slice(&(count as u16).to_be_bytes());
    out.extend(bits.octets);
    (count, out)
}

impl Parcel {
    /// Parcels of at most `room` octets for all these traces, which are sorted meanwhile.
    fn all(traces: &mut Vec<u32>, inherited: Option<u16>, room: usize, each: impl FnMut(Parcel)) {
        let mut each = each;
        traces.sort_unstable();
        traces.dedup();
        let rice = rice(traces.len());
        let mut rest = &traces[..];
        while !rest.is_empty() {
            let (count, code) = code(rest, rice, room);
            rest = &rest[count..];
            each(Parcel {
                inherited,
                over: None,
                of_round: false,
                count: count as u16,
                code,
            });
        }
        traces.clear();
    }

    /// The end of a round.
    fn end(round: u32) -> Parcel {
        Parcel {
            inherited: None,
            over: Some(round),
            of_round: false,
            count: 0,
            code: vec![0; 3],
        }
    }

    /// Traces in it.
    pub(crate) fn count(&self) -> u64 {
        u64::from(self.count)
    }

    /// Appends it as it is told in this round.
    pub(crate) fn encode(&self, round: u32, out: &mut Vec<u8>) {
        out.extend(round.to_be_bytes());
        let flag = |on, flag| if on { flag } else { 0 };
        out.push(flag(self.inherited.is_some(), INHERITED) | flag(self.over.is_some(), OVER));
        out.extend(self.inherited.unwrap_or(0).to_be_bytes());
        out.extend(&self.code);
    }
}

impl Traces {
    /// Writes them; those that one datagram has room for, if it is one of ours.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (count, code) = code(&self.traces, rice(self.traces.len()), usize::from(u16::MAX));
        let parcel = Parcel {
            inherited: self.inherited,
            over: self.over.then_some(self.round),
            of_round: false,
            count: count as u16,
            code,
        };
        parcel.encode(self.round, out);
    }

    /// Reads what is left; None if it is nothing that one of us has written.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Traces> {
        let (round, flags, age) = (reader.u32()?, reader.u8()?, reader.u16()?);
        if flags & !(INHERITED | OVER) != 0 || flags & INHERITED == 0 && age != 0 {
            return None;
        }
        let (rice, count) = (u32::from(reader.u8()?), usize::from(reader.u16()?));
        let mut traces = Vec::new();
        if rice > 31 || count > MOST_IN_ONE {
            return None;
        }
        if count > 0 {
            let mut last = reader.u32()?;
            let octets = std::mem::take(&mut reader.0);
            // Each further one takes a bit at least.
            if count > octets.len() * 8 + 1 {
                return None;
            }
            traces.reserve(count);
            traces.push(last);
            let mut bits = Take { octets, at: 0 };
            for _ in 1..count {
                let mut quotient = 0u64;
                while bits.bit()? == 1 {
                    quotient += 1;
                }
                let gap = quotient << rice | u64::from(bits.bits(rice)?);
                last = u32::try_from(u64::from(last) + gap + 1).ok()?;
                traces.push(last);
            }
            if !bits.is_over() {
                return None;
            }
        }
        Some(Traces {
            round,
            inherited: (flags & INHERITED != 0).then_some(age),
            over: flags & OVER != 0,
            traces,
        })
    }
}

/// Tells the other end of traces: what is new, and all of them in rounds.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    /// Octets that a parcel may have.
    room: usize,
    /// New ones, and since when there are any.
    fresh: Vec<u32>,
    since: Option<u64>,
    parcels: VecDeque<Parcel>,
    /// Parcels of the round among them.
    of_round: usize,
    round: u32,
    began: u64,
    /// Entry that the round looks at next; None if it has seen all.
    at: Option<u32>,
    seen: Vec<u32>,
    /// Traces of this round so far, and of the one before.
    size: u64,
    last_size: u64,
    /// New traces since it began.
    told: u64,
    /// All of the round has been found, and its end is not said yet.
    ending: bool,
    /// Number of the datagram before which all of it was sent.
    barrier: Option<u64>,
    /// A round is due, whatever its time.
    due: bool,
}

impl Teller {
    pub(crate) fn new(room: usize) -> Teller {
        Teller {
            room,
            ..Teller::default()
        }
    }

    pub(crate) fn round(&self) -> u32 {
        self.round
    }

    /// Traces that wait to be told, new ones that are gathered aside.
    pub(crate) fn waiting(&self) -> u64 {
        let parcels = self.parcels.iter().map(|it| u64::from(it.count));
        parcels.sum::<u64>() + self.seen.len() as u64 + u64::from(self.at.is_some())
    }

    /// New ones that are gathered.
    pub(crate) fn gathered(&self) -> u64 {
        self.fresh.len() as u64
    }

    /// Has everything told anew.
    pub(crate) fn again(&mut self) {
        self.due = true;
    }

    /// A connection has begun.
    pub(crate) fn add(&mut self, trace: u32, now: u64) {
        self.fresh.push(trace);
        self.told += 1;
        self.since.get_or_insert(now);
    }

    /// Nobody hears: what is new will be told with everything else.
    pub(crate) fn nobody(&mut self) {
        (self.since, self.due) = (None, true);
        self.fresh.clear();
    }

    /// What a peer before had told.
    pub(crate) fn inherit(&mut self, mut traces: Vec<u32>, age: u16) {
        for part in traces.chunks_mut(MOST_AT_ONCE) {
            let mut part = part.to_vec();
            let parcels = &mut self.parcels;
            Parcel::all(&mut part, Some(age), self.room, |it| parcels.push_back(it));
        }
    }

    /// Looks what is to be told now. `read` gives an entry's trace, `size` is where entries end.
    pub(crate) fn step(&mut self, now: u64, size: u32, read: impl FnMut(u32) -> Option<u32>) {
        let ripe = |since| now.saturating_sub(since) >= GATHER;
        if self.since.is_some_and(ripe) || self.fresh.len() >= MOST_AT_ONCE {
            self.since = None;
            let mut fresh = std::mem::take(&mut self.fresh);
            let parcels = &mut self.parcels;
            Parcel::all(&mut fresh, None, self.room, |it| parcels.push_back(it));
            self.fresh = fresh;
        }
        if self.parcels.len() > MOST_PARCELS {
            self.parcels.clear();
            (self.of_round, self.at, self.ending) = (0, None, false);
            self.seen.clear();
            self.due = true;
        }
        let grown = self.told > (self.last_size * 4).max(MANY);
        let old = now.saturating_sub(self.began) >= ROUND;
        let going = self.at.is_some() || self.ending;
        if self.due && self.parcels.len() < FEW || !going && (grown || old) {
            self.begin(now);
        }
        if self.at.is_some() && self.parcels.len() < FEW {
            self.look(size, read);
        }
    }

    fn begin(&mut self, now: u64) {
        self.round = self.round.wrapping_add(1);
        (self.began, self.due, self.told) = (now, false, 0);
        (self.at, self.ending, self.barrier) = (Some(0), false, None);
        self.size = 0;
        self.seen.clear();
        self.parcels.retain(|it| it.over.is_none());
        self.parcels.iter_mut().for_each(|it| it.of_round = false);
        self.of_round = 0;
    }

    /// Looks at a part of the entries.
    fn look(&mut self, size: u32, mut read: impl FnMut(u32) -> Option<u32>) {
        let Some(at) = self.at else { return };
        let end = size.min(at.saturating_add(LOOKS));
        self.seen.extend((at..end).filter_map(&mut read));
        self.at = (end < size).then_some(end);
        if self.at.is_some() && self.seen.len() < MOST_AT_ONCE {
            return;
        }
        self.size += self.seen.len() as u64;
        let mut seen = std::mem::take(&mut self.seen);
        let (parcels, of_round) = (&mut self.parcels, &mut self.of_round);
        Parcel::all(&mut seen, None, self.room, |it| {
            *of_round += 1;
            parcels.push_back(Parcel {
                of_round: true,
                ..it
            });
        });
        self.seen = seen;
        if self.at.is_none() {
            self.ending = true;
            self.last_size = self.size;
        }
    }

    /// Whether there is something to be told.
    pub(crate) fn has_any(&self) -> bool {
        !self.parcels.is_empty()
    }

    pub(crate) fn take(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.pop_front()?;
        self.of_round -= usize::from(parcel.of_round);
        Some(parcel)
    }

    /// A parcel did not arrive.
    pub(crate) fn lost(&mut self, parcel: Parcel) {
        if parcel.over.is_some_and(|round| round != self.round) {
            return;
        }
        self.of_round += usize::from(parcel.of_round);
        self.barrier = None;
        self.parcels.push_front(parcel);
    }

    /// Says that the round is over, as soon as all of it has arrived: nothing is on its way below the number that the next
    /// datagram had when its last part was sent. `next` is that number now, `first` that of the first one on its way.
    pub(crate) fn end_round(&mut self, next: u64, first: Option<u64>) {
        if !self.ending || self.of_round > 0 {
            return;
        }
        let barrier = *self.barrier.get_or_insert(next);
        if first.is_none_or(|first| first >= barrier) {
            self.ending = false;
            self.barrier = None;
            self.parcels.push_back(Parcel::end(self.round));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const ROOM: usize = 900;

    fn decoded(parcel: &Parcel, round: u32) -> Traces {
        let mut out = Vec::new();
        parcel.encode(round, &mut out);
        assert!(out.len() <= ROOM, "{}", out.len());
        let mut reader = Reader(&out);
        let traces = Traces::decode(&mut reader).expect("one of ours");
        assert!(reader.is_empty());
        traces
    }

    fn spread(count: u32) -> Vec<u32> {
        (0..count)
            .map(|n| n.wrapping_mul(0x9e37_79b1) ^ n >> 3)
            .collect()
    }

    #[test]
    fn what_a_trace_costs() {
        // Traces at once, and octets for each of them, heads of parcels included.
        for (count, most) in [(100, 3.6), (1000, 3.1), (10_000, 2.65), (100_000, 2.25)] {
            let (mut octets, mut found) = (0, 0);
            Parcel::all(&mut spread(count), None, ROOM, |it| {
                let mut out = Vec::new();
                it.encode(1, &mut out);
                octets += out.len();
                found += u32::from(it.count);
            });
            let each = octets as f64 / f64::from(count);
            assert!(found == count && each < most, "{count}: {each}");
        }
    }

    #[test]
    fn a_round_ends_when_all_of_it_has_arrived() {
        let mut teller = Teller::new(ROOM);
        teller.again();
        let all = spread(40_000);
        let read = |entry: u32| all.get(entry as usize).copied();
        let (mut told, mut flying) = (BTreeSet::new(), VecDeque::new());
        let mut over = None;
        for number in 1..2000u64 {
            teller.step(number, 40_000, read);
            teller.end_round(number, flying.front().map(|(first, _)| *first));
            if let Some(parcel) = teller.take() {
                flying.push_back((number, parcel));
            }
            // Every third one is lost the first time.
            if number % 2 == 0
                && let Some((number, parcel)) = flying.pop_front()
            {
                let traces = decoded(&parcel, teller.round());
                if number % 3 == 0 && !traces.over {
                    teller.lost(parcel);
                } else {
                    told.extend(traces.traces);
                    if traces.over {
                        assert_eq!(told.len(), 40_000, "nothing is missing");
                        over = Some(traces.round);
                        break;
                    }
                }
            }
        }
        assert_eq!(over, Some(1));
        assert_eq!((teller.waiting(), teller.gathered()), (0, 0));
    }

    #[test]
    fn rounds_come_when_much_was_told_and_after_a_while() {
        let mut teller = Teller::new(ROOM);
        let rest = |teller: &mut Teller, now| {
            for _ in 0..10 {
                teller.step(now, 10, |_| None);
                teller.end_round(1, None);
                while teller.take().is_some() {}
            }
            teller.round()
        };
        assert_eq!(rest(&mut teller, 0), 0, "nobody has asked for any");
        teller.again();
        assert_eq!(rest(&mut teller, 1), 1);
        assert_eq!(rest(&mut teller, ROUND), 1);
        assert_eq!(rest(&mut teller, ROUND + 1), 2);
        (0..MANY).for_each(|n| teller.add(n as u32, ROUND + 2));
        assert_eq!(rest(&mut teller, ROUND + 60), 2);
        teller.add(1, ROUND + 61);
        assert_eq!(rest(&mut teller, ROUND + 61), 3);
    }

    #[test]
    fn without_bandwidth_everything_is_told_later_instead_of_more_and_more() {
        let mut teller = Teller::new(100);
        for now in 0..400u32 {
            let base = now * 1000;
            (base..base + 1000).for_each(|n| teller.add(n.wrapping_mul(0x9e37_79b1), 0));
            teller.step(u64::from(now) * GATHER, 0, |_| None);
        }
        assert!(
            teller.parcels.len() <= MOST_PARCELS,
            "{}",
            teller.parcels.len()
        );
    }

    proptest! {
        #[test]
        fn parcels_say_what_was_put_into_them(
            traces in prop::collection::btree_set(any::<u32>(), 0..3000),
            inherited in prop::option::of(any::<u16>()),
            round in any::<u32>(),
            shift in 0u32..32,
        ) {
            let traces: BTreeSet<u32> = traces.into_iter().map(|it| it >> shift).collect();
            let mut found = Vec::new();
            let mut list: Vec<u32> = traces.iter().copied().rev().collect();
            Parcel::all(&mut list, inherited, ROOM, |it| {
                let read = decoded(&it, round);
                assert_eq!((read.round, read.inherited, read.over), (round, inherited, false));
                found.extend(read.traces);
            });
            prop_assert_eq!(found, traces.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(traces) = Traces::decode(&mut Reader(&octets)) {
                prop_assert!(traces.traces.is_sorted_by(|a, b| a < b));
                let mut out = Vec::new();
                traces.encode(&mut out);
                prop_assert_eq!(Traces::decode(&mut Reader(&out)), Some(traces));
            }
        }
    }
}
