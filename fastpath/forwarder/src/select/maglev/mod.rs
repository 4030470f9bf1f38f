//! Maglev's lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4), with weights and with less movement.
//!
//! As in the paper every server walks over the slots in an order of its own and takes those that are free. There, a
//! server whose next slot is taken goes on until it finds a free one, so that all have as many slots at any time; a slot
//! that becomes free when a server goes away then changes the course of all that follows. Here, a server whose next
//! slot is taken has lost that turn, and leaves the race when it has its share. Who gets a slot depends on who comes
//! to it first, which other servers have no influence on until shares run out: about half as much moves needlessly as
//! in the paper's table. The table is a function of the set of servers, whatever it was before.
//!
//! A server that is away for now (dead, disabled, of weight 0, or removed with its place not taken by another yet) takes
//! part in the race all the same; what it wins is then given to those that are there ([`away`]). Only its own slots move
//! when it goes and when it comes back, and the shares of the others are as exact as before.
//!
//! Weights are honoured exactly: a server's share of the slots is its share of the weights, rounded so that all slots
//! are given away (largest remainder) but at least one slot, and servers take turns as often as their weights say. With
//! equal weights the shares differ by at most one slot.

mod away;

use crate::hash::{FIXED_KEYS, fold};

/// Slots of a large table, the paper's small one.
pub const FULL_SIZE: u32 = 65_537;

/// Slots of a small table: 256 for each of [`FEW`] equal servers.
pub const SMALL_SIZE: u32 = 8191;

/// Servers up to which a small table will do. What moves needlessly when there is one racer less falls with the square
/// root of the size: up to 0.9 percentage points in a small table, 0.46 in a large one. Nearly everything moves when the
/// size changes, so the size must not depend on which servers are candidates at the moment.
pub const FEW: usize = 32;

/// What a table is made from: two that are equal are the same table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// The candidates, in configured order. At least one; no weight is 0.
    pub servers: Box<[Racer]>,
    /// Those that are away for longer.
    pub away: Box<[Racer]>,
    /// Those that are away, too. While only one is, its going has moved nothing but its own slots.
    pub dead: Box<[Racer]>,
    /// Whether it has [`FULL_SIZE`] slots rather than [`SMALL_SIZE`].
    pub full_size: bool,
}

/// Who takes part: what makes it another one than the others (the number of its place in the server group, or its id),
/// and its weight, 1..=65535.
pub type Racer = (u32, u16);

/// A lookup table over candidates 0, 1, 2 ….
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Slots,
}

#[derive(Debug, PartialEq, Eq)]
enum Slots {
    /// Candidates below 65,536.
    Short(Box<[u16]>),
    Long(Box<[u32]>),
}

/// A server on its walk.
struct Walker {
    /// Slot of the next turn.
    place: u32,
    skip: u32,
    /// Round of the next turn, and rounds between turns, in 1/65536.
    due: u64,
    gap: u64,
    /// Slots that it still has to get.
    wants: u32,
    candidate: u32,
}

/// Rounds that are played between two looks at who has a turn in them at all.
const BLOCK: u64 = 64;

/// Free slots from which on it is cheaper to calculate who comes first than to walk. Below 256.
const FINISH: u32 = 64;

impl Maglev {
    /// Makes a table.
    ///
    /// # Panics
    /// If there are no candidates.
    pub fn new(recipe: &Recipe) -> Maglev {
        let racers = recipe.servers.len() + recipe.dead.len() + recipe.away.len();
        let size = match recipe.full_size {
            true => FULL_SIZE,
            false => SMALL_SIZE,
        };
        let size = size.max(next_prime(racers as u32));
        if racers == recipe.servers.len() {
            return Maglev::with_size(&recipe.servers, size);
        }
        assert!(!recipe.servers.is_empty());
        let (present, second) = (recipe.servers.len(), recipe.dead.len());
        let racers = [&recipe.servers[..], &recipe.dead, &recipe.away].concat();
        let mut slots = race(&racers, size, |racer| racer);
        away::hand_over(&mut slots, &racers, present, second);
        let slots = match recipe.servers.len() <= 1 << 16 {
            true => Slots::Short(slots.iter().map(|&candidate| candidate as u16).collect()),
            false => Slots::Long(slots),
        };
        Maglev { slots }
    }

    /// The table of mh for servers of equal weight: what the benchmark measures.
    pub fn full(ids: &[u32]) -> Maglev {
        Maglev::new(&Recipe {
            servers: ids.iter().map(|&id| (id, 1)).collect(),
            away: Box::default(),
            dead: Box::default(),
            full_size: true,
        })
    }

    /// Table of `size` slots, a prime not below the number of candidates.
    pub fn with_size(servers: &[Racer], size: u32) -> Maglev {
        assert!(!servers.is_empty() && servers.len() <= size as usize);
        let slots = if servers.len() <= 1 << 16 {
            Slots::Short(race(servers, size, |candidate| candidate as u16))
        } else {
            Slots::Long(race(servers, size, |candidate| candidate))
        };
        Maglev { slots }
    }

    /// The candidate for a hash.
    #[inline]
    pub fn lookup(&self, hash: u64) -> u32 {
        self.slot(((hash as u128 * self.size() as u128) >> 64) as usize)
    }

    /// The candidate in a slot, below [`Maglev::size`].
    #[inline]
    pub fn slot(&self, slot: usize) -> u32 {
        match &self.slots {
            Slots::Short(slots) => slots[slot] as u32,
            Slots::Long(slots) => slots[slot],
        }
    }

    /// Number of slots.
    #[inline]
    pub fn size(&self) -> usize {
        match &self.slots {
            Slots::Short(slots) => slots.len(),
            Slots::Long(slots) => slots.len(),
        }
    }
}

/// Servers in an order that does not depend on theirs, nor on how their ids were given.
fn walkers(servers: &[Racer], size: u32) -> Vec<Walker> {
    let mut order: Vec<(u64, u32)> = (0u32..)
        .zip(servers)
        .map(|(index, &(id, _))| (fold(id as u64 ^ FIXED_KEYS[1], FIXED_KEYS[2]), index))
        .collect();
    order.sort_unstable_by_key(|&(hash, index)| (hash, servers[index as usize].0));
    let heaviest = servers.iter().map(|s| s.1 as u64).max().unwrap_or(1);
    let walker = |(hash, candidate): (u64, u32)| {
        let (id, weight) = servers[candidate as usize];
        let (id, gap) = (id as u64, (heaviest << 16) / weight.max(1) as u64);
        Walker {
            place: (fold(id ^ FIXED_KEYS[0], FIXED_KEYS[1]) % size as u64) as u32,
            skip: (fold(id ^ FIXED_KEYS[2], FIXED_KEYS[3]) % (size as u64 - 1)) as u32 + 1,
            // The lighter ones do not all begin in the same round.
            due: (((hash >> 32) * (gap - (1 << 16))) >> 32) & !0xffff,
            gap,
            wants: 0,
            candidate,
        }
    };
    let mut walkers: Vec<Walker> = order.into_iter().map(walker).collect();
    share_out(servers, &mut walkers, size);
    walkers
}

/// Shares by weight: whole slots first, at least one; the rest to the largest remainders, of equal ones to the first.
fn share_out(servers: &[Racer], walkers: &mut [Walker], size: u32) {
    let total: u64 = servers.iter().map(|s| s.1.max(1) as u64).sum();
    let mut given = 0;
    let mut remainders: Vec<(u64, usize)> = Vec::with_capacity(walkers.len());
    for (at, walker) in walkers.iter_mut().enumerate() {
        let share = size as u64 * servers[walker.candidate as usize].1.max(1) as u64;
        walker.wants = ((share / total) as u32).max(1);
        given += walker.wants;
        // Who got his one slot as a present has no remainder.
        remainders.push((if share < total { 0 } else { share % total }, at));
    }
    remainders.sort_by_key(|&(remainder, at)| (std::cmp::Reverse(remainder), at));
    for &(_, at) in remainders
        .iter()
        .cycle()
        .take(size.saturating_sub(given) as usize)
    {
        walkers[at].wants += 1;
    }
    // Many that got one slot for next to no weight may have cost more than there are: the heaviest pay.
    for _ in size..given {
        if let Some(heaviest) = walkers.iter_mut().rev().max_by_key(|walker| walker.wants) {
            heaviest.wants -= 1;
        }
    }
}

/// Fills the slots, all servers having one turn in each round: the case of equal weights, which nearly all tables are.
fn race_evenly<T: Copy>(walkers: &[Walker], slots: &mut [T], slot: impl Fn(u32) -> T) {
    let size = slots.len() as u32;
    let mut taken = vec![0u64; slots.len().div_ceil(64)];
    let mut steps: Vec<(u32, u32)> = walkers.iter().map(|w| (w.place, w.skip)).collect();
    let mut wants: Vec<(u32, u32)> = walkers.iter().map(|w| (w.wants, w.candidate)).collect();
    while !steps.is_empty() {
        let free: u32 = wants.iter().map(|&(wants, _)| wants).sum();
        if free <= FINISH {
            finish(&steps, &mut wants, &taken, slots, slot);
            return;
        }
        for _ in 0..BLOCK {
            for (at, (place, skip)) in steps.iter_mut().enumerate() {
                let here = *place as usize;
                let next = *place + *skip;
                *place = if next >= size { next - size } else { next };
                let (word, bit) = (&mut taken[here / 64], 1u64 << (here % 64));
                // Most turns are lost; who has his share is not asked before one is won.
                if *word & bit == 0 {
                    let (wants, candidate) = &mut wants[at];
                    if *wants > 0 {
                        *word |= bit;
                        *wants -= 1;
                        slots[here] = slot(*candidate);
                    }
                }
            }
        }
        let mut at = 0;
        steps.retain(|_| {
            at += 1;
            wants[at - 1].0 > 0
        });
        wants.retain(|&(wants, _)| wants > 0);
    }
}

/// Fills the last free slots as the race would have gone on, without walking: the fewer of them there are, the longer the
/// walk to one, and nearly half of all turns would be for the last few. A walker comes to a slot in the turn that solves
/// `place + turn * skip = slot` modulo the size, which is a prime.
fn finish<T: Copy>(
    steps: &[(u32, u32)],
    wants: &mut [(u32, u32)],
    taken: &[u64],
    slots: &mut [T],
    slot: impl Fn(u32) -> T,
) {
    let size = slots.len() as u32;
    let mut free: Vec<Option<u32>> = Vec::new();
    for (first, word) in (0..size).step_by(64).zip(taken) {
        let mut bits = !word;
        while bits != 0 {
            free.push(Some(first + bits.trailing_zeros()).filter(|&slot| slot < size));
            bits &= bits - 1;
        }
    }
    // Turn, walker and slot in one number, by which they are sorted: there are few of the last two.
    let mut turns: Vec<u64> = Vec::with_capacity(free.len() * steps.len());
    for (at, &(place, skip)) in (0u64..).zip(steps) {
        let inverse = inverse(skip, size) as u64;
        let turn = |to: u32| (to + size - place) as u64 * inverse % size as u64;
        let way = |(index, to): (u64, &Option<u32>)| to.map(|to| turn(to) << 16 | at << 8 | index);
        turns.extend((0u64..).zip(&free).filter_map(way));
    }
    turns.sort_unstable();
    for turn in turns {
        let (wants, candidate) = &mut wants[(turn >> 8 & 0xff) as usize];
        if *wants > 0
            && let Some(to) = free[(turn & 0xff) as usize].take()
        {
            *wants -= 1;
            slots[to as usize] = slot(*candidate);
        }
    }
}

/// The number by which `of` has to be multiplied for 1, modulo `prime`: Euclid's algorithm, extended.
fn inverse(of: u32, prime: u32) -> u32 {
    let (mut a, mut b) = ((prime, 0i64), (of, 1i64));
    while b.0 > 1 {
        let quotient = a.0 / b.0;
        (a, b) = (b, (a.0 % b.0, a.1 - quotient as i64 * b.1));
    }
    b.1.rem_euclid(prime as i64) as u32
}

/// Fills the slots.
fn race<T: Copy + Default>(servers: &[Racer], size: u32, slot: impl Fn(u32) -> T) -> Box<[T]> {
    let mut slots = vec![T::default(); size as usize].into_boxed_slice();
    let walkers = walkers(servers, size);
    if walkers.iter().all(|walker| walker.gap == 1 << 16) {
        race_evenly(&walkers, &mut slots, slot);
    } else {
        race_by_weight(walkers, &mut slots, slot);
    }
    slots
}

/// Fills the slots, each server having as many turns as its weight says.
fn race_by_weight<T: Copy>(mut walkers: Vec<Walker>, slots: &mut [T], slot: impl Fn(u32) -> T) {
    let size = slots.len() as u32;
    // One bit a slot stays in the first-level cache, where the turns that are lost, which most are, come to nothing.
    let mut taken = vec![0u64; slots.len().div_ceil(64)];
    let mut turn = |walker: &mut Walker| {
        let place = walker.place;
        let next = place + walker.skip;
        walker.place = if next >= size { next - size } else { next };
        let (word, bit) = (&mut taken[place as usize / 64], 1u64 << (place % 64));
        if *word & bit == 0 {
            *word |= bit;
            slots[place as usize] = slot(walker.candidate);
            walker.wants -= 1;
        }
    };
    let (mut now, mut turns) = (0, Vec::with_capacity(walkers.len()));
    while !walkers.is_empty() {
        let end = now + BLOCK;
        turns.clear();
        turns.extend((0..walkers.len()).filter(|&at| walkers[at].due < end << 16));
        for round in now + 1..=end {
            for &at in &turns {
                let walker = &mut walkers[at];
                if walker.wants > 0 && walker.due < round << 16 {
                    walker.due += walker.gap;
                    turn(walker);
                }
            }
        }
        walkers.retain(|walker| walker.wants > 0);
        now = end;
        quicken(&mut walkers, now);
    }
}

/// When only light servers are left, there is nobody to wait for between their turns.
fn quicken(walkers: &mut [Walker], now: u64) {
    let fastest = walkers.iter().map(|walker| walker.gap).min().unwrap_or(0);
    if fastest < 2 << 16 {
        return;
    }
    let quickened = |rounds: u64| ((rounds as u128) << 16) / fastest as u128;
    for walker in walkers {
        walker.gap = quickened(walker.gap) as u64;
        walker.due = (now << 16) + quickened(walker.due.saturating_sub(now << 16)) as u64;
    }
}

fn next_prime(from: u32) -> u32 {
    (from.max(3)..)
        .find(|&n| (2..).take_while(|d| d * d <= n).all(|d| n % d != 0))
        .unwrap_or(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(ids: impl Iterator<Item = u32>) -> Recipe {
        Recipe {
            servers: ids.map(|id| (id, 1)).collect(),
            away: Box::default(),
            dead: Box::default(),
            full_size: true,
        }
    }

    /// The recipe when these go away, too.
    fn but(recipe: &Recipe, gone: &[u32]) -> Recipe {
        let goes = |&&(id, _): &&Racer| gone.contains(&id);
        let (away, servers): (Vec<Racer>, Vec<Racer>) =
            recipe.servers.iter().partition(|r| goes(r));
        Recipe {
            servers: servers.into(),
            dead: recipe.dead.iter().chain(&away).copied().collect(),
            ..recipe.clone()
        }
    }

    /// Slots by candidate.
    fn shares(table: &Maglev, candidates: usize) -> Vec<u32> {
        let mut shares = vec![0; candidates];
        (0..table.size()).for_each(|slot| shares[table.slot(slot) as usize] += 1);
        shares
    }

    /// Percentage points of the slots that go from one server to another although both stay.
    fn moved_needlessly(before: &Recipe, after: &Recipe) -> f64 {
        let (old, new) = (Maglev::new(before), Maglev::new(after));
        assert_eq!(old.size(), new.size());
        let stays = |id: u32| after.servers.iter().any(|&(other, _)| other == id);
        let stays: Vec<bool> = before.servers.iter().map(|&(id, _)| stays(id)).collect();
        let moved = (0..old.size()).filter(|&slot| {
            let (from, to) = (old.slot(slot) as usize, new.slot(slot) as usize);
            stays[from] && before.servers[from].0 != after.servers[to].0
        });
        100.0 * moved.count() as f64 / old.size() as f64
    }

    #[test]
    fn the_short_way_for_equal_weights_makes_the_same_table() {
        for (n, size) in [
            (1, 251),
            (2, 509),
            (7, 251),
            (40, 41),
            (250, 1021),
            (3, SMALL_SIZE),
            (1000, FULL_SIZE),
        ] {
            let servers = equal(1..=n).servers;
            let [mut evenly, mut by_weight] =
                [vec![u32::MAX; size as usize], vec![0; size as usize]];
            race_evenly(&walkers(&servers, size), &mut evenly, |candidate| candidate);
            race_by_weight(walkers(&servers, size), &mut by_weight, |candidate| {
                candidate
            });
            assert_eq!(evenly, by_weight, "{n} servers, {size} slots");
        }
    }

    #[test]
    fn inverses() {
        for prime in [251, SMALL_SIZE, FULL_SIZE, 70_001] {
            for of in (1..prime).step_by(37).chain([prime - 1]) {
                let product = of as u64 * inverse(of, prime) as u64;
                assert_eq!(product % prime as u64, 1, "{of} modulo {prime}");
            }
        }
    }

    #[test]
    fn equal_shares_differ_by_at_most_one_slot() {
        for n in [1, 2, 3, 10, 655, 1000, 5000] {
            for full_size in [false, true] {
                let recipe = Recipe {
                    full_size,
                    ..equal(1..=n)
                };
                let shares = shares(&Maglev::new(&recipe), n as usize);
                let (most, least) = (shares.iter().max(), shares.iter().min());
                assert!(most.unwrap() - least.unwrap() <= 1, "{n} servers");
            }
        }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        for weights in [
            vec![1, 2, 3, 4],
            vec![65_535, 1],
            vec![100, 100, 50, 1, 0xffff],
            (1..=200).collect(),
        ] {
            let servers: Box<[_]> = (1..).zip(weights.iter().copied()).collect();
            let total: f64 = weights.iter().map(|&w| w as f64).sum();
            let table = Maglev::new(&Recipe {
                servers,
                away: Box::default(),
                dead: Box::default(),
                full_size: true,
            });
            for (slots, weight) in shares(&table, weights.len()).into_iter().zip(weights) {
                let exact = FULL_SIZE as f64 * weight as f64 / total;
                assert!(
                    slots > 0 && (slots as f64 - exact).abs() <= 1.0,
                    "{slots}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn the_order_of_the_servers_does_not_matter() {
        let servers = [(7, 2), (3, 1), (9, 65_535), (4, 1)];
        let mut other = servers;
        other.reverse();
        let table = |servers: &[Racer]| -> Vec<u32> {
            let table = Maglev::with_size(servers, 8191);
            (0..8191)
                .map(|slot| servers[table.slot(slot) as usize].0)
                .collect()
        };
        assert_eq!(table(&servers), table(&other));
    }

    #[test]
    fn the_size_depends_on_the_candidates_only_when_they_do_not_fit() {
        let size = |n, full_size| {
            let recipe = Recipe {
                full_size,
                ..equal(1..=n)
            };
            Maglev::new(&recipe).size()
        };
        assert_eq!([1, 2, 32, 8000].map(|n| size(n, false)), [8191; 4]);
        assert_eq!([1, 2, 1000, 65_000].map(|n| size(n, true)), [65_537; 4]);
        assert_eq!(size(70_000, true), 70_001);
    }

    #[test]
    fn primes() {
        let sizes = [SMALL_SIZE, FULL_SIZE];
        assert!(sizes.iter().all(|&size| next_prime(size) == size));
        assert_eq!(next_prime(66_000), 66_029);
    }

    #[test]
    fn removing_one_moves_little_else() {
        // Percentage points of all slots beside those of the server that goes: at most, and in the mean over many that go.
        for (n, most, mean) in [
            (3, 0.02, 0.01),
            (10, 0.21, 0.16),
            (50, 0.32, 0.28),
            (100, 0.37, 0.32),
            (500, 0.47, 0.43),
            (1000, 0.40, 0.36),
        ] {
            let before = equal(1..=n);
            let some = (1..=n).step_by(n.div_ceil(20) as usize);
            let moved: Vec<f64> = some
                .map(|gone| moved_needlessly(&before, &equal((1..=n).filter(|&id| id != gone))))
                .collect();
            let average = moved.iter().sum::<f64>() / moved.len() as f64;
            println!("{n}: {average:.3}, {moved:.3?}");
            assert!(moved.iter().all(|&moved| moved <= most), "{n}: {moved:?}");
            assert!(average <= mean, "{n}: {average}");
        }
    }

    #[test]
    fn only_the_slots_of_one_that_goes_away_move() {
        for n in [2, 3, 10, 50, 100, 500, 1000] {
            let before = equal(1..=n);
            for gone in (1..=n).step_by(n.div_ceil(7) as usize) {
                let after = but(&before, &[gone]);
                assert_eq!(moved_needlessly(&before, &after), 0.0, "{gone} of {n}");
                let shares = shares(&Maglev::new(&after), after.servers.len());
                let (most, least) = (shares.iter().max(), shares.iter().min());
                assert!(most.unwrap() - least.unwrap() <= 1, "{n} servers");
            }
        }
    }

    #[test]
    fn when_others_are_away_one_more_moves_little_else() {
        // Percentage points of all slots, at most, for one that dies when others are dead.
        for (n, away, most) in [
            (10, 1, 0.75),
            (10, 5, 0.15),
            (100, 3, 0.25),
            (100, 50, 1.2),
            (1000, 24, 0.3),
            (1000, 500, 0.95),
        ] {
            let gone: Vec<u32> = (1..=n).step_by(n as usize / away).take(away).collect();
            let before = but(&equal(1..=n), &gone);
            let some = (2..=n).step_by(n.div_ceil(7) as usize);
            for more in some.filter(|id| !gone.contains(id)) {
                let longer = Recipe {
                    away: before.dead.clone(),
                    dead: Box::default(),
                    ..before.clone()
                };
                let after = but(&longer, &[more]);
                assert_eq!(
                    moved_needlessly(&longer, &after),
                    0.0,
                    "{n} servers, {away} away"
                );
                let after = but(&before, &[more]);
                let moved = moved_needlessly(&before, &after);
                assert!(
                    moved <= most,
                    "{n} servers, {away} away, and {more}: {moved}"
                );
                let shares = shares(&Maglev::new(&after), after.servers.len());
                let (most, least) = (shares.iter().max(), shares.iter().min());
                assert!(most.unwrap() - least.unwrap() <= 1, "{n} servers");
            }
        }
    }

    #[test]
    fn shares_are_those_of_the_weights_when_others_are_away() {
        let weight = |id: u32| [1, 7, 100, 3, 65_535][id as usize % 5];
        for (there, away) in [(1, 1), (3, 40), (40, 3), (200, 200)] {
            let racers: Vec<Racer> = (0..there + away).map(|id| (id, weight(id))).collect();
            let (servers, away) = racers.split_at(there as usize);
            let table = Maglev::new(&Recipe {
                servers: servers.into(),
                away: away[..away.len() / 2].into(),
                dead: away[away.len() / 2..].into(),
                full_size: true,
            });
            let total: f64 = servers.iter().map(|s| s.1 as f64).sum();
            let shares = shares(&table, servers.len());
            for (slots, &(id, weight)) in shares.into_iter().zip(servers) {
                let exact = FULL_SIZE as f64 * weight as f64 / total;
                // Those that get their one slot for next to no weight take from the others.
                let off = servers.len() as f64 / 5.0 * 2.0;
                assert!(
                    slots > 0 && (slots as f64 - exact).abs() <= 1.0 + off,
                    "{id}: {slots}, not {exact}"
                );
            }
        }
    }
}
