//! The program's maps: reading and changing what the kernel steers by.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::offset_of;
use std::net::IpAddr;
use std::path::Path;

use crate::abi::{self, Ports, RawCounters};
use crate::map::Map;
use crate::{Changes, Counters, Error, PortSet, Steering};

/// Names of all maps, as `src/bpf/maps.h` has them and as they are pinned.
pub(crate) const NAMES: [&str; 10] = [
    "destinations4",
    "destinations6",
    "sources4",
    "sources6",
    "bitmaps",
    "slots",
    "sockets",
    "closed",
    "settings",
    "counters",
];

/// The maps whose size follows from the number of addresses.
pub(crate) const STEERING: [&str; 5] = [
    "destinations4",
    "destinations6",
    "sources4",
    "sources6",
    "bitmaps",
];

/// What the entries of the four address maps are called, in the order of [`Maps::tables`].
const TABLE_WORDS: [&str; 4] = [
    "IPv4 destinations",
    "IPv6 destinations",
    "IPv4 sources",
    "IPv6 sources",
];

/// Entries of one address map: key to value, both as bytes.
type Entries = HashMap<Vec<u8>, Vec<u8>>;

/// The maps of a loaded program.
#[derive(Debug)]
pub(crate) struct Maps {
    destinations4: Map,
    destinations6: Map,
    sources4: Map,
    sources6: Map,
    bitmaps: Map,
    slots: Map,
    sockets: Map,
    closed: Map,
    settings: Map,
    counters: Map,
    /// What this process knows to be in the kernel.
    known: Option<State>,
}

/// What the kernel has now.
#[derive(Debug, Default)]
struct State {
    tables: [Entries; 4],
    bitmaps: HashMap<u32, Vec<u8>>,
}

/// What has to be done to the kernel's maps.
#[derive(Debug, Default)]
struct Plan {
    /// Bitmaps that have to be made first.
    new_bitmaps: Vec<(u32, Vec<u8>)>,
    /// Keys of all bitmaps that these entries refer to.
    bitmaps: HashSet<u32>,
    /// Table, key and value of entries that have to be there.
    entries: Vec<(usize, Vec<u8>, Vec<u8>)>,
    /// Table and key of entries that have to go; none of `entries`.
    gone: Vec<(usize, Vec<u8>)>,
    /// Nothing else shall be there.
    whole: bool,
}

/// How to take back a change: the element and what it was before.
struct Undo<'a> {
    map: &'a Map,
    key: Vec<u8>,
    old: Option<Vec<u8>>,
}

/// Entries of the maps for this many addresses. While a configuration replaces another, both are in the maps.
pub(crate) fn entries_for(max_addresses: u32) -> u32 {
    max_addresses * 2
}

impl Maps {
    /// Gathers the maps, each opened by `open` from its name.
    pub fn gather(mut open: impl FnMut(&'static str) -> Result<Map, Error>) -> Result<Maps, Error> {
        let [
            destinations4,
            destinations6,
            sources4,
            sources6,
            bitmaps,
            slots,
            sockets,
            closed,
            settings,
            counters,
        ] = NAMES;
        Ok(Maps {
            destinations4: open(destinations4)?,
            destinations6: open(destinations6)?,
            sources4: open(sources4)?,
            sources6: open(sources6)?,
            bitmaps: open(bitmaps)?,
            slots: open(slots)?,
            sockets: open(sockets)?,
            closed: open(closed)?,
            settings: open(settings)?,
            counters: open(counters)?,
            known: None,
        })
    }

    /// The pinned maps of a directory.
    pub fn open(directory: &Path) -> Result<Maps, Error> {
        Maps::gather(|name| {
            let path = directory.join(name);
            Map::open(name, &path).map_err(|source| Error::Pin {
                action: "open",
                path,
                source,
            })
        })
    }

    /// All maps, in the order of [`NAMES`].
    pub fn all(&self) -> [&Map; 10] {
        [
            &self.destinations4,
            &self.destinations6,
            &self.sources4,
            &self.sources6,
            &self.bitmaps,
            &self.slots,
            &self.sockets,
            &self.closed,
            &self.settings,
            &self.counters,
        ]
    }

    /// The map of this name.
    pub fn get(&self, name: &str) -> Option<&Map> {
        self.all().into_iter().find(|map| map.name() == name)
    }

    fn tables(&self) -> [&Map; 4] {
        [
            &self.destinations4,
            &self.destinations6,
            &self.sources4,
            &self.sources6,
        ]
    }

    fn state(&self) -> Result<State, Error> {
        let read = |map: &Map| map.elements().map(Entries::from_iter);
        let [a, b, c, d] = self.tables();
        let bitmaps = self.bitmaps.elements()?.into_iter();
        Ok(State {
            tables: [read(a)?, read(b)?, read(c)?, read(d)?],
            bitmaps: bitmaps
                .filter_map(|(key, value)| Some((parse_u32(&key)?, value)))
                .collect(),
        })
    }

    /// What the kernel steers by now, read from it.
    pub fn current(&self) -> Result<Steering, Error> {
        let state = self.state()?;
        let mut steering = Steering::new();
        for (index, table) in state.tables.iter().enumerate() {
            let side = if index < 2 {
                &mut steering.destinations
            } else {
                &mut steering.sources
            };
            for (key, value) in table {
                if let (Some(key), Some(ports)) = (abi::parse_key(key), Ports::from_bytes(value)) {
                    side.insert(key, decode(&ports, &state.bitmaps));
                }
            }
        }
        Ok(steering)
    }

    /// Makes the maps equal to `steering`: what is new first, then what changes, what goes last. An entry is the old one
    /// or the new one to every packet. When something fails, the maps are as before.
    pub fn apply(&mut self, steering: &Steering) -> Result<Changes, Error> {
        let state = self.state()?;
        let mut plan = plan(steering, &state);
        let wanted: HashSet<(usize, &[u8])> = plan
            .entries
            .iter()
            .map(|(table, key, _)| (*table, key.as_slice()))
            .collect();
        let gone: Vec<(usize, Vec<u8>)> = (0..)
            .zip(&state.tables)
            .flat_map(|(table, entries)| entries.keys().map(move |key| (table, key)))
            .filter(|(table, key)| !wanted.contains(&(*table, key.as_slice())))
            .map(|(table, key)| (table, key.clone()))
            .collect();
        drop(wanted);
        plan.gone = gone;
        plan.whole = true;
        self.carry_out(plan, state)
    }

    /// Makes entries as they are in `new`, and removes those of `old` that are not in it. The rest stays.
    pub fn replace(&mut self, old: &Steering, new: &Steering) -> Result<Changes, Error> {
        let state = match self.known.take() {
            Some(known) => known,
            None => self.state()?,
        };
        let mut plan = plan(new, &state);
        let sides = [
            (0, &old.destinations, &new.destinations),
            (2, &old.sources, &new.sources),
        ];
        for (first, old, new) in sides {
            let gone = old.keys().filter(|key| !new.contains_key(key));
            plan.gone.extend(gone.map(|&(address, protocol)| {
                let table = first + usize::from(address.is_ipv6());
                (table, abi::key(address, protocol))
            }));
        }
        self.carry_out(plan, state)
    }

    /// Does what is planned, and knows the kernel's maps afterwards unless it failed.
    fn carry_out(&mut self, plan: Plan, mut state: State) -> Result<Changes, Error> {
        self.known = None;
        self.check_rooms(&plan, &state)?;
        let mut changes = Changes::default();
        let mut undo: Vec<Undo<'_>> = Vec::new();
        let tables = self.tables();
        let mut set = |map, key: &[u8], value: &[u8], old: Option<Vec<u8>>| -> Result<(), Error> {
            Map::update(map, key, value).inspect_err(|_| roll_back(&undo))?;
            undo.push(Undo {
                map,
                key: key.to_vec(),
                old,
            });
            Ok(())
        };
        for (key, bitmap) in plan.new_bitmaps {
            set(&self.bitmaps, &key.to_ne_bytes(), &bitmap, None)?;
            state.bitmaps.insert(key, bitmap);
        }
        let mut left_bitmaps = plan.whole && !state.bitmaps.is_empty();
        for (table, key, value) in plan.entries {
            let old = state.tables[table].get(&key);
            if old == Some(&value) {
                continue;
            }
            match old {
                Some(_) => changes.changed += 1,
                None => changes.added += 1,
            }
            left_bitmaps |= old.is_some_and(|old| bitmap_of(old).is_some());
            set(tables[table], &key, &value, old.cloned())?;
            state.tables[table].insert(key, value);
        }
        for (table, key) in plan.gone {
            if let Some(old) = state.tables[table].remove(&key) {
                tables[table].delete(&key)?;
                changes.removed += 1;
                left_bitmaps |= bitmap_of(&old).is_some();
            }
        }
        if left_bitmaps {
            self.remove_unused_bitmaps(&mut state)?;
        }
        self.known = Some(state);
        Ok(changes)
    }

    fn remove_unused_bitmaps(&self, state: &mut State) -> Result<(), Error> {
        let entries = state.tables.iter().flat_map(|entries| entries.values());
        let used: HashSet<u32> = entries.filter_map(|value| bitmap_of(value)).collect();
        let unused = state.bitmaps.keys().filter(|key| !used.contains(key));
        for key in unused.copied().collect::<Vec<_>>() {
            self.bitmaps.delete(&key.to_ne_bytes())?;
            state.bitmaps.remove(&key);
        }
        Ok(())
    }

    /// Whether all has room when the plan is carried out, and on the way there.
    fn check_rooms(&self, plan: &Plan, state: &State) -> Result<(), Error> {
        let mut counts = [0; 4];
        for (count, entries) in counts.iter_mut().zip(&state.tables) {
            *count = entries.len();
        }
        for (table, key, _) in &plan.entries {
            counts[*table] += usize::from(!state.tables[*table].contains_key(key));
        }
        for (table, key) in &plan.gone {
            counts[*table] -= usize::from(state.tables[*table].contains_key(key));
        }
        for (what, wanted) in TABLE_WORDS.into_iter().zip(counts) {
            self.check_room(what, wanted)?;
        }
        let bitmaps = match plan.whole {
            true => plan.bitmaps.len(),
            false => state.bitmaps.len() + plan.new_bitmaps.len(),
        };
        self.check_room("different sets of more than 4 port ranges", bitmaps)
    }

    fn check_room(&self, what: &'static str, wanted: usize) -> Result<(), Error> {
        let allowed = (self.destinations4.info().max_entries / 2) as usize;
        if wanted > allowed {
            return Err(Error::TooManyAddresses {
                what,
                wanted,
                allowed,
            });
        }
        Ok(())
    }

    /// Sums of the counters of all CPUs.
    pub fn counters(&self) -> Result<Counters, Error> {
        let mut sums = Counters::default();
        for value in self.counters.lookup_per_cpu(&0u32.to_ne_bytes())? {
            let read = |offset| abi::read_u64(&value, offset);
            sums.passed += read(offset_of!(RawCounters, passed));
            sums.malformed += read(offset_of!(RawCounters, malformed));
            sums.redirected += read(offset_of!(RawCounters, redirected));
            sums.unserved += read(offset_of!(RawCounters, unserved));
            sums.fragments += read(offset_of!(RawCounters, fragments));
            sums.icmp_errors += read(offset_of!(RawCounters, icmp_errors));
            sums.closed += read(offset_of!(RawCounters, closed));
            sums.closed_bytes += read(offset_of!(RawCounters, closed_bytes));
        }
        Ok(sums)
    }

    /// The addresses that are closed now.
    pub fn closed(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let elements = self.closed.elements()?;
        let addresses = elements
            .iter()
            .filter_map(|(key, _)| abi::parse_address(key));
        Ok(addresses.collect())
    }

    /// Closes these addresses and no others. When it fails, no more are closed than before.
    pub fn close(&self, wanted: &BTreeSet<IpAddr>) -> Result<Changes, Error> {
        let allowed = abi::MAX_CLOSED as usize;
        if wanted.len() > allowed {
            return Err(Error::TooManyClosed {
                wanted: wanted.len(),
                allowed,
            });
        }
        let present = self.closed()?;
        // What goes makes room first: unlike an entry of the steering maps, one of these stands for itself.
        for gone in present.difference(wanted) {
            self.closed.delete(&abi::address(*gone))?;
        }
        let mut undo = Vec::new();
        for come in wanted.difference(&present) {
            let key = abi::address(*come);
            let added = self.closed.update(&key, &0u32.to_ne_bytes());
            added.inspect_err(|_| roll_back(&undo))?;
            undo.push(Undo {
                map: &self.closed,
                key: key.to_vec(),
                old: None,
            });
        }
        // The constant bounds it to 32 bits.
        let settings = abi::settings(wanted.len() as u32);
        let set = self.settings.update(&0u32.to_ne_bytes(), &settings);
        set.inspect_err(|_| roll_back(&undo))?;
        Ok(Changes {
            added: undo.len(),
            changed: 0,
            removed: present.difference(wanted).count(),
        })
    }

    /// The slot of an interface, a free one if it has none yet.
    pub fn slot(&self, ifindex: u32) -> Result<u32, Error> {
        let mut taken = HashSet::new();
        for (key, value) in self.slots.elements()? {
            let slot = parse_u32(&value);
            if let (true, Some(slot)) = (parse_u32(&key) == Some(ifindex), slot) {
                return Ok(slot);
            }
            taken.extend(slot);
        }
        let free = (0..abi::MAX_INTERFACES)
            .find(|slot| !taken.contains(slot))
            .ok_or(Error::TooManyInterfaces)?;
        self.slots
            .update(&ifindex.to_ne_bytes(), &free.to_ne_bytes())?;
        Ok(free)
    }

    /// Frees the slots of all interfaces but these.
    pub fn keep_slots(&self, ifindexes: &[u32]) -> Result<(), Error> {
        for (key, _) in self.slots.elements()? {
            if parse_u32(&key).is_none_or(|ifindex| !ifindexes.contains(&ifindex)) {
                self.slots.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Puts a socket, or none, at a queue of an interface.
    pub fn set_socket(
        &self,
        ifindex: u32,
        queue: u32,
        value: Option<[u8; 4]>,
    ) -> Result<(), Error> {
        if queue >= abi::MAX_QUEUES {
            return Err(Error::Queue { queue });
        }
        let key = (self.slot(ifindex)? * abi::MAX_QUEUES + queue).to_ne_bytes();
        match value {
            Some(value) => self.sockets.update(&key, &value),
            None => self.sockets.delete(&key),
        }
    }
}

/// Undoes changes, the last one first. What cannot be undone is logged: there is nobody left to tell.
fn roll_back(undo: &[Undo<'_>]) {
    for Undo { map, key, old } in undo.iter().rev() {
        let undone = match old {
            Some(old) => map.update(key, old),
            None => map.delete(key),
        };
        if let Err(error) = undone {
            tracing::error!(
                "a change to the steering maps failed and could not be undone: {error}"
            );
        }
    }
}

fn parse_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

/// The ports of an entry. A bitmap that is missing counts as all ports, as it does for the program.
fn decode(ports: &Ports, bitmaps: &HashMap<u32, Vec<u8>>) -> PortSet {
    match ports.kind {
        abi::PORTS_ANY => PortSet::any(),
        abi::PORTS_RANGES => ports
            .ranges
            .iter()
            .map(|range| (range.first, range.last))
            .collect(),
        abi::PORTS_BITMAP => bitmaps
            .get(&ports.bitmap)
            .map_or_else(PortSet::any, |bitmap| PortSet::from_bitmap(bitmap)),
        _ => PortSet::new(),
    }
}

/// The key of the bitmap that an entry refers to.
fn bitmap_of(value: &[u8]) -> Option<u32> {
    let ports = Ports::from_bytes(value)?;
    (ports.kind == abi::PORTS_BITMAP).then_some(ports.bitmap)
}

/// The elements that `steering` wants.
///
/// Entries with the same ports share a bitmap, and bitmaps that are there already are used again. A bitmap is never
/// changed; one with other ports gets a key that no bitmap has.
fn plan(steering: &Steering, state: &State) -> Plan {
    let mut known: HashMap<Vec<u8>, u32> = state
        .bitmaps
        .iter()
        .map(|(&key, bitmap)| (bitmap.clone(), key))
        .collect();
    let mut next = state
        .bitmaps
        .keys()
        .max()
        .map_or(0, |&key| key.wrapping_add(1));
    let mut plan = Plan::default();
    let sides = [(0, &steering.destinations), (2, &steering.sources)];
    for (first, side) in sides {
        for (&(address, protocol), set) in side {
            let mut ports = Ports {
                kind: abi::PORTS_ANY,
                bitmap: 0,
                ranges: [abi::Range::NONE; abi::INLINE_RANGES as usize],
            };
            if let (false, Some(ranges)) = (set.is_any(), set.inline()) {
                ports.kind = abi::PORTS_RANGES;
                ports.ranges = ranges;
            } else if !set.is_any() {
                let bitmap = set.to_bitmap();
                ports.kind = abi::PORTS_BITMAP;
                ports.bitmap = *known.entry(bitmap).or_insert_with_key(|bitmap| {
                    while state.bitmaps.contains_key(&next) {
                        next = next.wrapping_add(1);
                    }
                    let key = next;
                    next = next.wrapping_add(1);
                    plan.new_bitmaps.push((key, bitmap.clone()));
                    key
                });
                plan.bitmaps.insert(ports.bitmap);
            }
            let table = first + usize::from(address.is_ipv6());
            plan.entries.push((
                table,
                abi::key(address, protocol),
                ports.to_bytes().to_vec(),
            ));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(offset: u16) -> Vec<(u16, u16)> {
        (0..5)
            .map(|i| (offset + i * 10, offset + i * 10 + 1))
            .collect()
    }

    #[test]
    fn equal_sets_share_a_bitmap_and_other_ones_never_reuse_its_key() {
        let mut steering = Steering::new();
        for (host, ranges) in [(1, many(100)), (2, many(100)), (3, many(1000))] {
            for (first, last) in ranges {
                steering
                    .add_destination(IpAddr::from([192, 0, 2, host]), 6, first, last)
                    .expect("allowed");
            }
        }
        let present: PortSet = many(1000).into_iter().collect();
        let state = State {
            tables: Default::default(),
            bitmaps: HashMap::from([(u32::MAX, present.to_bitmap())]),
        };
        let Plan {
            new_bitmaps: new,
            bitmaps: used,
            entries,
            ..
        } = plan(&steering, &state);
        assert_eq!(
            new.len(),
            1,
            "one set is there, two entries share the other"
        );
        assert_eq!(used, HashSet::from([u32::MAX, new[0].0]));
        assert_ne!(new[0].0, u32::MAX);

        let mut bitmaps = state.bitmaps;
        bitmaps.extend(new);
        for (host, expected) in [(1, many(100)), (2, many(100)), (3, many(1000))] {
            let key = abi::key(IpAddr::from([192, 0, 2, host]), 6);
            let entry = entries.iter().find(|entry| entry.1 == key);
            let ports = Ports::from_bytes(&entry.expect("it is wanted").2).expect("24 bytes");
            assert_eq!(decode(&ports, &bitmaps), expected.into_iter().collect());
        }
    }
}
