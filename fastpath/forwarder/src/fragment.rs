//! Fragments: only the first one has ports, so the others follow it by what they share (RFC 791 section 3.2,
//! RFC 8200 section 4.5): addresses, protocol and identification. Memory is fixed; a flood of fragments can push out
//! other fragments' places, nothing else.

use crate::packet::{Headers, Tuple};
use crate::table::{Direction, Identity};

const SETS: usize = 256;
const WAYS: usize = 4;
/// RFC 791 and RFC 8200 allow a receiver 15 to 60 s for reassembly; Linux takes 30.
const LIFE_SECONDS: u32 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    tuple: Tuple,
    id: u32,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    key: Key,
    identity: Identity,
    direction: Direction,
    seen: u32,
}

/// Where the first fragments of recent datagrams went; one for each worker.
#[derive(Debug)]
pub struct Fragments {
    places: Box<[[Option<Place>; WAYS]]>,
}

impl Default for Fragments {
    fn default() -> Fragments {
        Fragments {
            places: vec![[None; WAYS]; SETS].into(),
        }
    }
}

fn key(headers: &Headers, id: u32) -> Key {
    Key {
        tuple: Tuple {
            sport: 0,
            dport: 0,
            ..headers.tuple
        },
        id,
    }
}

impl Fragments {
    /// Remembers which connection a first fragment belongs to. `hash` is that of its addresses and identification.
    pub fn remember(
        &mut self,
        headers: &Headers,
        id: u32,
        hash: u64,
        found: (Identity, Direction),
        now: u32,
    ) {
        let key = key(headers, id);
        let set = &mut self.places[hash as usize % SETS];
        let (identity, direction) = found;
        let way = (0..WAYS)
            .find(|&way| set[way].is_some_and(|place| place.key == key))
            .or_else(|| (0..WAYS).min_by_key(|&way| set[way].map_or(0, |place| place.seen + 1)))
            .unwrap_or(0);
        set[way] = Some(Place {
            key,
            identity,
            direction,
            seen: now,
        });
    }

    /// The connection of a later fragment.
    pub fn recall(
        &self,
        headers: &Headers,
        id: u32,
        hash: u64,
        now: u32,
    ) -> Option<(Identity, Direction)> {
        let key = key(headers, id);
        self.places[hash as usize % SETS]
            .iter()
            .flatten()
            .find(|place| place.key == key && now.wrapping_sub(place.seen) <= LIFE_SECONDS)
            .map(|place| (place.identity, place.direction))
    }
}
