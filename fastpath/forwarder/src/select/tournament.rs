//! The smallest of many numbers that all workers change: a tournament tree. Who wins is known at once; a change costs
//! one match a level.
//!
//! No lock: whoever changes a number plays the matches on its way up anew. After writing down a winner it looks at the
//! two players again, so that of two workers that play the same match the one with the older numbers does not have the
//! last word. Between a change and the end of its way the tree may name the second best, but a change of whoever it names
//! always goes all the way up, however long another worker sleeps on its own; when all are done, it names the best.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Key of who must not win.
pub const NEVER: u64 = u64::MAX;

/// Nobody.
const NONE: u32 = u32::MAX;

/// See the module's text. The smaller key wins; among equal keys the turn that is earlier, in wrapping order; then the
/// smaller number.
#[derive(Debug)]
pub struct Tournament {
    /// Winners of matches, the final in place 1; players follow in the places behind.
    winners: Box<[AtomicU32]>,
    players: Box<[Player]>,
}

#[derive(Debug)]
struct Player {
    key: AtomicU64,
    turn: AtomicU64,
}

impl Tournament {
    /// For players with these keys and turns.
    pub fn new(players: impl Iterator<Item = (u64, u64)>) -> Tournament {
        let players: Box<[Player]> = players
            .map(|(key, turn)| Player {
                key: key.into(),
                turn: turn.into(),
            })
            .collect();
        let tree = Tournament {
            winners: (0..players.len().next_power_of_two())
                .map(|_| AtomicU32::new(NONE))
                .collect(),
            players,
        };
        for place in (1..tree.winners.len()).rev() {
            let winner = tree.better(tree.player(2 * place), tree.player(2 * place + 1));
            tree.winners[place].store(winner, Ordering::Relaxed);
        }
        tree
    }

    /// Who wins; None if nobody may.
    #[inline]
    pub fn winner(&self) -> Option<u32> {
        let winner = self.player(1);
        (winner != NONE && self.key(winner) != NEVER).then_some(winner)
    }

    /// Key of a player.
    pub fn key(&self, player: u32) -> u64 {
        self.players[player as usize].key.load(Ordering::SeqCst)
    }

    /// Turn of a player.
    pub fn turn(&self, player: u32) -> u64 {
        self.players[player as usize].turn.load(Ordering::SeqCst)
    }

    /// Changes a player's key.
    pub fn set_key(&self, player: u32, key: u64) {
        if self.players[player as usize]
            .key
            .swap(key, Ordering::SeqCst)
            != key
        {
            self.play(player);
        }
    }

    /// Changes a player's turn.
    pub fn set_turn(&self, player: u32, turn: u64) {
        if self.players[player as usize]
            .turn
            .swap(turn, Ordering::SeqCst)
            != turn
        {
            self.play(player);
        }
    }

    /// Plays the matches of a player anew.
    fn play(&self, player: u32) {
        let mut place = (self.winners.len() + player as usize) / 2;
        while place > 0 && self.winners.len() > 1 {
            let mut written = false;
            let winner = loop {
                let winner = self.better(self.player(2 * place), self.player(2 * place + 1));
                if self.winners[place].load(Ordering::SeqCst) == winner {
                    break winner;
                }
                self.winners[place].store(winner, Ordering::SeqCst);
                written = true;
            };
            // Who neither won here nor wins now changes nothing further up. Unless the tree names this very player,
            // because whoever changed a match below is asleep between there and the final: while that lasts, all
            // connections would go to a server that is not the least loaded any more.
            if !written && winner != player && self.player(1) != player {
                return;
            }
            place /= 2;
        }
    }

    /// Who has come to this place.
    #[inline]
    fn player(&self, place: usize) -> u32 {
        match place.checked_sub(self.winners.len()) {
            None => self.winners[place].load(Ordering::SeqCst),
            Some(player) if player < self.players.len() => player as u32,
            Some(_) => NONE,
        }
    }

    #[inline]
    fn better(&self, a: u32, b: u32) -> u32 {
        if a == NONE || b == NONE {
            return a.min(b);
        }
        let (key_a, key_b) = (self.key(a), self.key(b));
        if key_a != key_b {
            return if key_a < key_b { a } else { b };
        }
        let ahead = self.turn(a).wrapping_sub(self.turn(b)) as i64;
        if ahead == 0 {
            return a.min(b);
        }
        if ahead < 0 { a } else { b }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn best(tree: &Tournament, n: u32) -> Option<u32> {
        (0..n)
            .filter(|&player| tree.key(player) != NEVER)
            .min_by_key(|&player| (tree.key(player), tree.turn(player), player))
    }

    proptest! {
        #[test]
        fn the_smallest_wins_after_every_change(
            keys in proptest::collection::vec((0u64..8, 0u64..4), 1..70),
            changes in proptest::collection::vec((any::<u32>(), 0u64..9, 0u64..5), 0..200)
        ) {
            let n = keys.len() as u32;
            let tree = Tournament::new(keys.into_iter());
            prop_assert_eq!(tree.winner(), best(&tree, n));
            for (player, key, turn) in changes {
                tree.set_key(player % n, if key == 8 { NEVER } else { key });
                tree.set_turn(player % n, turn);
                prop_assert_eq!(tree.winner(), best(&tree, n));
            }
        }
    }

    #[test]
    fn turns_are_in_wrapping_order() {
        let tree = Tournament::new([(1, 5), (1, u64::MAX - 5)].into_iter());
        assert_eq!(tree.winner(), Some(1));
    }

    #[test]
    fn converges_whoever_changes_what_at_once() {
        for n in [2u32, 3, 7, 64, 100] {
            for round in 0..60u64 {
                let tree = Tournament::new((0..n).map(|_| (5, 0)));
                std::thread::scope(|scope| {
                    for thread in 0..4u64 {
                        let tree = &tree;
                        scope.spawn(move || {
                            let mut random = round << 8 | thread | 1;
                            for _ in 0..300 {
                                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d) + 0x1405_7b7e;
                                let player = (random >> 33) as u32 % n;
                                tree.set_key(player, random >> 60);
                                if random >> 50 & 1 == 1 {
                                    tree.set_turn(player, random >> 61);
                                }
                            }
                        });
                    }
                });
                assert_eq!(tree.winner(), best(&tree, n), "{n} players, round {round}");
                for place in 1..tree.winners.len() {
                    let winner = tree.better(tree.player(2 * place), tree.player(2 * place + 1));
                    assert_eq!(tree.player(place), winner, "{n} players, match {place}");
                }
            }
        }
    }
}
