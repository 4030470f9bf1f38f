//! Gives the slots of those that are away to those that are there.
//!
//! They go in two parties, the second one handing its slots over when the first has, so that whoever is alone in it moves
//! nothing but its own slots. Every slot asks racers in an order of its own, by a hash of the slot and the number of the question; the
//! first one that is left and has room takes it. Room is a matter of the shares: nobody gets more than its exact share
//! rounded up, and spare slots, those that nobody needs to have its share rounded down, are first come, first served.
//!
//! Nobody has too many at any time: a share among all is not larger than a share among some.

use super::Racer;
use crate::hash::{FIXED_KEYS, fold};

/// Racers that a slot asks before what is left is given to whoever has room, in order.
const QUESTIONS: u64 = 64;

/// What one has and may have, in slots.
#[derive(Clone, Default)]
struct Share {
    has: u32,
    /// The exact share, rounded down and up, but at least one.
    least: u32,
    most: u32,
}

struct Handover<'a> {
    slots: &'a mut [u32],
    racers: &'a [Racer],
    shares: Vec<Share>,
    /// Racers in an order that does not depend on who is there.
    order: Vec<u32>,
}

/// `slots` are racers by number, of whom in the end only the first `present` have any; those from `present + second` on go
/// first.
pub fn hand_over(slots: &mut [u32], racers: &[Racer], present: usize, second: usize) {
    let mut shares = vec![Share::default(); racers.len()];
    for &racer in slots.iter() {
        shares[racer as usize].has += 1;
    }
    let mut order: Vec<u32> = (0..racers.len() as u32).collect();
    order.sort_unstable_by_key(|&racer| racers[racer as usize]);
    let mut handover = Handover {
        slots,
        racers,
        shares,
        order,
    };
    for left in [present + second, present] {
        handover.leave(left);
    }
}

impl Handover<'_> {
    /// Only the first `left` stay.
    fn leave(&mut self, left: usize) {
        let goes = |&(_, racer): &(u32, &u32)| *racer as usize >= left;
        let slots = (0u32..).zip(self.slots.iter());
        let mut free: Vec<u32> = slots.filter(goes).map(|(slot, _)| slot).collect();
        if free.is_empty() {
            return;
        }
        self.share_out(left);
        let needed = |share: &Share| share.least.saturating_sub(share.has);
        let needed: u32 = self.shares[..left].iter().map(needed).sum();
        let mut spare = (free.len() as u32).saturating_sub(needed);
        for question in 0..QUESTIONS {
            let key = FIXED_KEYS[1].wrapping_add(question << 1);
            free.retain(|&slot| {
                let hash = fold(slot as u64 ^ FIXED_KEYS[3], key);
                let asked = (hash as u128 * self.order.len() as u128) >> 64;
                !self.give(slot, self.order[asked as usize], &mut spare)
            });
            if free.is_empty() {
                return;
            }
        }
        let mut at = 0;
        for slot in free {
            // There is room for all: the exact shares rounded up are not less than the slots.
            while at < self.order.len() && !self.give(slot, self.order[at], &mut spare) {
                at += 1;
            }
        }
    }

    /// Sets the shares when only the first `left` stay.
    fn share_out(&mut self, left: usize) {
        self.shares.truncate(left);
        let total: u64 = self.racers[..left].iter().map(|&(_, w)| w as u64).sum();
        let (mut known, mut least, mut most) = (0, 0, 0);
        for (share, &(_, weight)) in self.shares.iter_mut().zip(self.racers) {
            if weight != known {
                let exact = self.slots.len() as u64 * weight as u64;
                least = ((exact / total) as u32).max(1);
                most = (exact.div_ceil(total) as u32).max(1);
                known = weight;
            }
            (share.least, share.most) = (least, most);
        }
    }

    /// Gives a slot to a racer, if it has room.
    fn give(&mut self, slot: u32, to: u32, spare: &mut u32) -> bool {
        let Some(share) = self.shares.get_mut(to as usize) else {
            return false;
        };
        let needs = share.has < share.least;
        if !needs && (*spare == 0 || share.has >= share.most) {
            return false;
        }
        *spare -= u32::from(!needs);
        share.has += 1;
        self.slots[slot as usize] = to;
        true
    }
}
