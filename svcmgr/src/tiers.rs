//! Which servers of a rule serve, out of those that could: the lowest tiers that are enough, or the sorry servers. Pure.
//!
//! A tier is enough if it has, together with those below it, as many able servers as the quorum says. A change waits for
//! `hysteresis` servers more on the way up, and for as many fewer on the way down, so that one server that comes and goes
//! does not move everything each time.

use std::collections::BTreeMap;
use std::fmt;

use ilb_forwarder::spec::{RuleId, ServerId};
use libilb::map::Map;
use libilb::model::{Configuration, Rule};
use libilb::server::SORRY;

use crate::vigour::Vigours;

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

/// What a rule demands of its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Able servers that are enough, at least 1.
    pub quorum: u32,
    /// See the module; less than the quorum.
    pub hysteresis: u32,
}

/// A server as far as this is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its tier.
    pub tier: Tier,
    /// Whether it could take connections: enabled, with a weight, and not found dead.
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
    // By tier: how many there are, and how many are able.
    let mut tiers: BTreeMap<u8, (u32, u32)> = BTreeMap::new();
    let mut sorry = false;
    for member in members {
        match member.tier {
            Tier::Number(tier) => {
                let counts = tiers.entry(tier).or_default();
                *counts = (counts.0 + 1, counts.1 + u32::from(member.able));
            }
            Tier::Sorry => sorry |= member.able,
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
        let enough = match before {
            None => demands.quorum,
            // It was enough until now.
            Some(before) if before <= here => {
                demands.quorum.saturating_sub(demands.hysteresis).max(1)
            }
            // More than there are cannot be asked for.
            Some(_) => (demands.quorum + demands.hysteresis).min(all.max(demands.quorum)),
        };
        if able >= enough {
            return here;
        }
        highest = Some(here);
    }
    match (sorry, highest) {
        (true, _) | (false, None) => Level::Sorry,
        // What is left has to do.
        (false, Some(highest)) => highest,
    }
}

/// Who serves, of each rule for which that is a question. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels(Map<RuleId, Level>);

impl Levels {
    /// Whether a server of this tier serves in a rule.
    pub fn has(&self, rule: RuleId, tier: Tier) -> bool {
        self.0.get(&rule).is_none_or(|level| level.has(tier))
    }

    /// Who serves in a rule; none if all do.
    pub fn of(&self, rule: RuleId) -> Option<Level> {
        self.0.get(&rule).copied()
    }

    /// Finds out anew for a rule. True if it is otherwise now.
    pub fn settle(
        &mut self,
        configuration: &Configuration,
        number: RuleId,
        vigours: &Vigours,
    ) -> bool {
        let before = self.of(number);
        let after = configuration
            .rules
            .by_number(number)
            .filter(|rule| rule.enabled)
            .and_then(|rule| of_rule(configuration, rule, vigours, before));
        match after {
            Some(level) if before != after => drop(self.0.insert(number, level)),
            None if before.is_some() => drop(self.0.remove(&number)),
            _ => {}
        }
        before != after
    }

    /// The rules in which it was otherwise `before`.
    pub fn different<'a>(&'a self, before: &'a Levels) -> impl Iterator<Item = RuleId> {
        self.0.since(&before.0).map(|found| *found.key)
    }
}

/// Who serves in a rule; none if its servers are all of one tier, so that there is nothing to choose.
fn of_rule(
    configuration: &Configuration,
    rule: &Rule,
    vigours: &Vigours,
    before: Option<Level>,
) -> Option<Level> {
    let servers = &configuration.group_of(rule)?.servers;
    let first = servers.first()?.tier;
    servers
        .iter()
        .any(|server| server.tier != first)
        .then_some(())?;
    let members = members(configuration, rule, vigours);
    Some(level(demands(rule), &members, before))
}

/// What a rule demands.
pub fn demands(rule: &Rule) -> Demands {
    Demands {
        quorum: rule.quorum.max(1),
        hysteresis: rule.hysteresis,
    }
}

/// The servers of a rule.
pub fn members(configuration: &Configuration, rule: &Rule, vigours: &Vigours) -> Vec<Member> {
    let group = configuration.group_of(rule);
    let servers = group.iter().flat_map(|group| &group.servers);
    let able = |number: ServerId, weight: u16| {
        let vigour = vigours.of(rule.number, number);
        let weight = match weight {
            0 => 0,
            weight => vigour.weight.map_or(weight, |found| found.apply(weight)),
        };
        weight > 0 && !vigour.dead
    };
    servers
        .map(|server| Member {
            tier: Tier::of(server.tier),
            able: server.enabled && able(server.number, server.weight),
        })
        .collect()
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

    /// Every group of up to four servers, under all demands, after everything that may have been.
    fn each(mut test: impl FnMut(Demands, &[Member], Option<Level>)) {
        let kinds: Vec<Member> = TIERS
            .iter()
            .flat_map(|tier| [true, false].map(|able| Member { tier: *tier, able }))
            .collect();
        let mut groups: Vec<Vec<Member>> = vec![vec![]];
        for size in 0..4 {
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
        let count = |m: &&Member| matches!(m.tier, Tier::Number(_)) && level.has(m.tier) && m.able;
        u32::try_from(members.iter().filter(count).count()).unwrap()
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
                let all = u32::try_from(members.iter().filter(there).count()).unwrap();
                let able = able_up_to(members, after);
                let left = !members.iter().any(|m| m.tier == Tier::Sorry && m.able);
                let enough = able >= demands.quorum + demands.hysteresis
                    || able == all && able >= demands.quorum;
                // Or there is nobody else.
                let highest = members.iter().filter_map(|m| match m.tier {
                    Tier::Number(tier) => Some(tier),
                    Tier::Sorry => None,
                });
                let last = highest.max().map(Level::UpTo) == Some(after) && left;
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
        let member = |tier, able| Member { tier, able };
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

    #[test]
    fn a_rule_follows_its_servers_and_what_is_found_out_about_them() {
        use libilb::model::{RuleSettings, ServerSettings};

        let mut c = Configuration::default();
        c.create_group(
            "web",
            &["192.0.2.10", "192.0.2.11,tier=1", "192.0.2.12,tier=sorry"],
        )
        .unwrap();
        let rule = RuleSettings {
            enabled: true,
            vip: "198.51.100.1".into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "h".into(),
            servergroup: "web".into(),
            ..RuleSettings::default()
        };
        c.create_rule("www", &rule).unwrap();
        let (mut levels, mut vigours) = (Levels::default(), Vigours::default());
        let none = Levels::default();
        // What is done, who serves then.
        type Step = fn(&mut Configuration, &mut Vigours);
        let steps: [(Step, Option<Level>); 7] = [
            (|_, _| {}, Some(Level::UpTo(0))),
            (
                |_, v| assert!(v.learn((1, 1), true, None, 1)),
                Some(Level::UpTo(1)),
            ),
            (
                |c, _| drop(c.enable_servers(&["_web.1"], false)),
                Some(Level::Sorry),
            ),
            (
                |_, v| assert!(v.learn((1, 1), false, None, 2)),
                Some(Level::UpTo(0)),
            ),
            (
                |c, _| {
                    let weight = ServerSettings {
                        weight: Some(0),
                        ..ServerSettings::default()
                    };
                    drop(c.modify_servers(&["_web.0"], &weight));
                },
                Some(Level::Sorry),
            ),
            (
                |c, _| drop(c.remove_servers("web", &["_web.0", "_web.1"])),
                None,
            ),
            (|c, _| drop(c.enable_rules(&["www"], false)), None),
        ];
        for (i, (step, expected)) in steps.into_iter().enumerate() {
            step(&mut c, &mut vigours);
            let before = levels.clone();
            let different = levels.settle(&c, 1, &vigours);
            assert_eq!(levels.of(1), expected, "step {i}");
            assert_eq!(different, levels != before, "step {i}");
            assert_eq!(
                levels.different(&before).count(),
                usize::from(different),
                "step {i}"
            );
        }
        assert_eq!(levels, none);
        // Where nothing is to be chosen, all serve.
        assert!(levels.has(1, Tier::Sorry) && levels.has(1, Tier::Number(0)));
    }
}
