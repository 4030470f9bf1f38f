//! Which servers of a rule serve, out of those that could: the lowest tiers that are enough, or the sorry servers. Pure.
//!
//! A tier is enough if those of it and of all below it have the rule's quorum together.

use std::collections::BTreeMap;
use std::fmt;

use libilb::server::SORRY;

use crate::quorum::Demands;

/// Whom a server stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Those of lower numbers.
    Number(u8),
    /// All others, and then alone.
    Sorry,
}

impl Tier {
    /// That of a server.
    pub fn of(tier: u8) -> Tier {
        match tier {
            SORRY => Tier::Sorry,
            tier => Tier::Number(tier),
        }
    }
}

/// A server as far as this is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its tier.
    pub tier: Tier,
    /// What it counts for a quorum while it is able; more than 0.
    pub weight: u32,
    /// Whether it could take connections.
    pub able: bool,
}

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All tiers up to this one.
    UpTo(u8),
    /// The sorry servers, and nobody else.
    Sorry,
}

impl Level {
    /// Whether a server of this tier serves.
    pub fn has(self, tier: Tier) -> bool {
        match (self, tier) {
            (Level::UpTo(highest), Tier::Number(tier)) => tier <= highest,
            (Level::Sorry, Tier::Sorry) => true,
            (Level::UpTo(_), Tier::Sorry) | (Level::Sorry, Tier::Number(_)) => false,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::UpTo(0) => f.write_str("tier 0"),
            Level::UpTo(tier) => write!(f, "tiers 0 to {tier}"),
            Level::Sorry => f.write_str("its sorry servers"),
        }
    }
}

/// Who serves from now on, after what it was `before`.
pub fn level(demands: Demands, members: &[Member], before: Option<Level>) -> Level {
    // By tier: the weight that there is, and that which is able.
    let mut tiers: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
    let (mut sorry, mut willing) = (false, false);
    for member in members {
        match member.tier {
            Tier::Number(tier) => {
                let weight = u64::from(member.weight);
                let sums = tiers.entry(tier).or_default();
                *sums = (sums.0 + weight, sums.1 + weight * u64::from(member.able));
            }
            Tier::Sorry => (sorry, willing) = (true, willing || member.able),
        }
    }
    // A tier that is gone served as the one below it.
    let before = before.map(|before| match before {
        Level::UpTo(tier) => {
            let there = tiers.range(..=tier).next_back();
            Level::UpTo(there.map_or(tier, |(tier, _)| *tier))
        }
        Level::Sorry => Level::Sorry,
    });
    let (mut all, mut able) = (0, 0);
    let mut highest = None;
    for (tier, (there, could)) in tiers {
        (all, able) = (all + there, able + could);
        let here = Level::UpTo(tier);
        if demands.met(able, all, before.map(|before| before <= here)) {
            return here;
        }
        highest = Some(here);
    }
    match highest {
        // What is left has to do.
        Some(highest) if !willing && (able > 0 || !sorry) => highest,
        // Even if they look dead: there is nobody else.
        _ => Level::Sorry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIERS: [Tier; 4] = [
        Tier::Number(0),
        Tier::Number(1),
        Tier::Number(7),
        Tier::Sorry,
    ];
    const LEVELS: [Option<Level>; 5] = [
        None,
        Some(Level::UpTo(0)),
        Some(Level::UpTo(1)),
        Some(Level::UpTo(7)),
        Some(Level::Sorry),
    ];

    /// Every group of up to four servers of weight 1, and of up to three of two weights, under all demands, after
    /// everything that may have been.
    fn each(mut test: impl FnMut(Demands, &[Member], Option<Level>)) {
        each_of(&[1], 4, &mut test);
        each_of(&[1, 3], 3, &mut test);
    }

    fn each_of(
        weights: &[u32],
        most: usize,
        test: &mut impl FnMut(Demands, &[Member], Option<Level>),
    ) {
        let kinds: Vec<Member> = weights
            .iter()
            .flat_map(|&weight| {
                TIERS
                    .iter()
                    .flat_map(move |&tier| [true, false].map(|able| Member { tier, weight, able }))
            })
            .collect();
        let mut groups: Vec<Vec<Member>> = vec![vec![]];
        for size in 0..most {
            let longer: Vec<Vec<Member>> = groups
                .iter()
                .filter(|group| group.len() == size)
                .flat_map(|group| kinds.iter().map(|kind| [&group[..], &[*kind]].concat()))
                .collect();
            groups.extend(longer);
        }
        for group in &groups {
            for quorum in 1..=3 {
                for hysteresis in 0..quorum {
                    for before in LEVELS {
                        test(Demands { quorum, hysteresis }, group, before);
                    }
                }
            }
        }
    }

    fn able_up_to(members: &[Member], level: Level) -> u32 {
        let counts = |m: &&Member| matches!(m.tier, Tier::Number(_)) && level.has(m.tier) && m.able;
        members.iter().filter(counts).map(|m| m.weight).sum()
    }

    #[test]
    fn whoever_is_able_is_not_left_out_while_nobody_else_serves() {
        each(|demands, members, before| {
            let level = level(demands, members, before);
            let serves = |m: &&Member| m.able && level.has(m.tier);
            let any = members.iter().any(|m| m.able);
            assert_eq!(
                members.iter().filter(serves).count() > 0,
                any,
                "{demands:?} {members:?} {before:?}: {level:?}"
            );
        });
    }

    #[test]
    fn what_is_enough_stays_enough_while_nothing_changes() {
        each(|demands, members, before| {
            let first = level(demands, members, before);
            let second = level(demands, members, Some(first));
            assert_eq!(first, second, "{demands:?} {members:?} {before:?}");
        });
    }

    #[test]
    fn nothing_changes_without_the_evidence_that_the_demands_ask_for() {
        each(|demands, members, before| {
            let after = level(demands, members, before);
            let Some(before) = before else {
                return;
            };
            // A tier that is gone served as the one below it, which is another question.
            if let Level::UpTo(tier) = before
                && !members.iter().any(|m| m.tier == Tier::Number(tier))
            {
                return;
            }
            let case = format!("{demands:?} {members:?} {before:?}: {after:?}");
            if after < before {
                // Enough came back: quorum and hysteresis, or all that there are of a group that has no more.
                let there = |m: &&Member| matches!(m.tier, Tier::Number(_)) && after.has(m.tier);
                let all: u32 = members.iter().filter(there).map(|m| m.weight).sum();
                let able = able_up_to(members, after);
                let left = !members.iter().any(|m| m.tier == Tier::Sorry && m.able);
                let enough = able >= demands.quorum + demands.hysteresis
                    || able == all && able >= demands.quorum;
                // Or nobody of those who are sorry is left, but somebody of the others is; or there are none.
                let highest = members.iter().filter_map(|m| match m.tier {
                    Tier::Number(tier) => Some(tier),
                    Tier::Sorry => None,
                });
                let others = able > 0 || !members.iter().any(|m| m.tier == Tier::Sorry);
                let last = highest.max().map(Level::UpTo) == Some(after) && left && others;
                assert!(enough || last, "{case}");
            }
            if after > before && members.iter().any(|m| before.has(m.tier)) {
                // Too many are gone.
                assert!(
                    able_up_to(members, before) < (demands.quorum - demands.hysteresis).max(1),
                    "{case}"
                );
            }
        });
    }

    #[test]
    fn tiers_are_used_in_their_order() {
        let member = |tier, able| Member {
            tier,
            weight: 1,
            able,
        };
        let number = Tier::Number;
        let (one, two) = (
            Demands {
                quorum: 1,
                hysteresis: 0,
            },
            Demands {
                quorum: 2,
                hysteresis: 1,
            },
        );
        let group = |able: [bool; 5]| {
            let tiers = [number(0), number(0), number(0), number(1), Tier::Sorry];
            [0, 1, 2, 3, 4].map(|i| member(tiers[i], able[i]))
        };
        let (up, down) = (true, false);
        // (given, then): demands, who is able, what it was; what it is.
        for (demands, able, before, after) in [
            (one, [up, up, up, up, up], None, Level::UpTo(0)),
            (
                one,
                [down, down, up, up, up],
                Some(Level::UpTo(0)),
                Level::UpTo(0),
            ),
            (
                one,
                [down, down, down, up, up],
                Some(Level::UpTo(0)),
                Level::UpTo(1),
            ),
            (
                one,
                [down, down, down, down, up],
                Some(Level::UpTo(1)),
                Level::Sorry,
            ),
            (
                one,
                [down, down, down, down, down],
                Some(Level::UpTo(1)),
                Level::Sorry,
            ),
            // Who is sorry and looks dead is taken only if nobody else is left.
            (
                two,
                [up, down, down, down, down],
                Some(Level::Sorry),
                Level::UpTo(1),
            ),
            (
                one,
                [up, down, down, down, up],
                Some(Level::Sorry),
                Level::UpTo(0),
            ),
            // Two are wanted; one will do for a while, three bring it back.
            (
                two,
                [up, down, down, up, up],
                Some(Level::UpTo(0)),
                Level::UpTo(0),
            ),
            (
                two,
                [down, down, down, up, up],
                Some(Level::UpTo(0)),
                Level::UpTo(1),
            ),
            (
                two,
                [down, down, down, down, up],
                Some(Level::UpTo(1)),
                Level::Sorry,
            ),
            (
                two,
                [up, up, down, down, up],
                Some(Level::Sorry),
                Level::Sorry,
            ),
            (
                two,
                [up, up, down, up, up],
                Some(Level::Sorry),
                Level::UpTo(1),
            ),
            (
                two,
                [up, up, up, down, up],
                Some(Level::Sorry),
                Level::UpTo(0),
            ),
        ] {
            assert_eq!(
                level(demands, &group(able), before),
                after,
                "{demands:?} {able:?} {before:?}"
            );
        }
    }
}
