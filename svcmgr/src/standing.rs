//! How each rule stands with its servers: which tiers serve, whether it has its quorum, and which panic mode holds. Made of
//! the configuration and of what health checks have found. Pure: times come in as seconds since boot.

use ilb_forwarder::spec::RuleId;
use libilb::health::Weight;
use libilb::healthcheck::HealthCheck;
use libilb::map::Map;
use libilb::model::{Configuration, Rule};
use libilb::rule::PanicMode;

use crate::panicmode::{self, Panic};
use crate::quorum::Demands;
use crate::tiers::{Level, Member, Tier, level};
use crate::vigour::{Vigour, Vigours};

/// How an enabled rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who serves; none if its servers are all of one tier, so that there is nothing to choose.
    pub level: Option<Level>,
    /// Whether the servers of its tiers, without sorry servers, have the rule's quorum by what was found of them. A panic
    /// mode does not count: who looks dead is no reason for another node to stay back.
    pub quorum: bool,
    /// What holds because most of its servers look dead.
    pub panic: Option<Panic>,
    /// Whether its sorry servers serve even if they look dead, because nobody else is left.
    resort: bool,
}

impl Standing {
    /// Whether a server gets nothing because it was found dead.
    fn dead(&self, tier: Tier, vigour: &Vigour) -> bool {
        let used = match tier {
            Tier::Sorry => self.resort,
            Tier::Number(_) => self.panic.is_some_and(|p| p.uses(vigour.down_since)),
        };
        vigour.dead && !used
    }

    /// What of it the fast path has to know.
    fn compiled(&self) -> (Option<Level>, Option<Panic>, bool) {
        (self.level, self.panic, self.resort)
    }
}

/// How each enabled rule stands. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standings(Map<RuleId, Standing>);

impl Standings {
    /// How a rule stands; none if it is not enabled.
    pub fn of(&self, rule: RuleId) -> Option<&Standing> {
        self.0.get(&rule)
    }

    /// Whether a server of this tier serves in a rule.
    pub fn has(&self, rule: RuleId, tier: Tier) -> bool {
        let level = self.of(rule).and_then(|standing| standing.level);
        level.is_none_or(|level| level.has(tier))
    }

    /// Whether a server gets nothing in a rule because it was found dead.
    pub fn dead(&self, rule: RuleId, tier: Tier, vigour: &Vigour) -> bool {
        match self.of(rule) {
            Some(standing) => standing.dead(tier, vigour),
            None => vigour.dead,
        }
    }

    /// Finds out anew for a rule. True if it is otherwise now.
    pub fn settle(
        &mut self,
        configuration: &Configuration,
        number: RuleId,
        vigours: &Vigours,
    ) -> bool {
        let before = self.of(number).copied();
        let after = configuration
            .rules
            .by_number(number)
            .filter(|rule| rule.enabled)
            .map(|rule| of_rule(configuration, rule, vigours, before));
        match after {
            Some(standing) if before != after => drop(self.0.insert(number, standing)),
            None if before.is_some() => drop(self.0.remove(&number)),
            _ => {}
        }
        before != after
    }

    /// The rules for which the fast path has to know something else than it was `before`.
    pub fn different<'a>(&'a self, before: &'a Standings) -> impl Iterator<Item = RuleId> {
        let usual =
            |standing: Option<&Standing>| standing.map_or((None, None, false), Standing::compiled);
        self.0
            .since(&before.0)
            .filter(move |found| usual(found.before) != usual(found.after))
            .map(|found| *found.key)
    }

    /// The rules that stood otherwise `before`, or did not.
    pub fn since<'a>(&'a self, before: &'a Standings) -> impl Iterator<Item = RuleId> {
        self.0.since(&before.0).map(|found| *found.key)
    }
}

/// What a rule demands of its servers.
pub fn demands(rule: &Rule) -> Demands {
    Demands {
        quorum: rule.quorum.max(1),
        hysteresis: rule.hysteresis,
    }
}

/// The servers of a rule that could serve if they were well, able or not by what was found.
pub fn members(configuration: &Configuration, rule: &Rule, vigours: &Vigours) -> Vec<Member> {
    let all = there(configuration, rule, vigours).into_iter();
    all.map(|(tier, weight, vigour)| Member {
        tier,
        weight,
        able: !vigour.dead,
    })
    .collect()
}

fn there(
    configuration: &Configuration,
    rule: &Rule,
    vigours: &Vigours,
) -> Vec<(Tier, u32, Vigour)> {
    let servers = configuration.group_of(rule);
    let servers = servers.map_or(&[][..], |group| &group.servers);
    servers
        .iter()
        .filter(|server| server.enabled && server.weight > 0)
        .filter_map(|server| {
            let vigour = vigours.of(rule.number, server.number);
            let weight = match vigour.weight {
                // Who is loaded is no less able.
                None | Some(Weight::Share(_)) => server.weight,
                Some(found) => found.apply(server.weight),
            };
            (weight > 0).then(|| (Tier::of(server.tier), u32::from(weight), vigour))
        })
        .collect()
}

fn of_rule(
    configuration: &Configuration,
    rule: &Rule,
    vigours: &Vigours,
    before: Option<Standing>,
) -> Standing {
    let servers = configuration.group_of(rule);
    let servers = servers.map_or(&[][..], |group| &group.servers);
    // Those who could serve if they were well.
    let there = there(configuration, rule, vigours);
    let demands = demands(rule);
    let numbered = || there.iter().filter(|(tier, ..)| *tier != Tier::Sorry);
    let sum = |able: bool| -> u64 {
        let counted = numbered().filter(|(_, _, vigour)| !able || !vigour.dead);
        counted.map(|(_, weight, _)| u64::from(*weight)).sum()
    };
    let quorum = demands.met(sum(true), sum(false), before.map(|before| before.quorum));

    let sorry = there.iter().any(|(tier, ..)| *tier == Tier::Sorry);
    let check = configuration.check_of(rule);
    let panic = check.and_then(|check| {
        let lived: Vec<Option<u32>> = numbered()
            .map(|(_, _, vigour)| vigour.dead.then_some(vigour.down_since))
            .filter(|down_since| *down_since != Some(0))
            .collect();
        let demands = panicmode::Demands {
            mode: rule.panic_mode,
            threshold: rule.panic_threshold,
            window: window(check),
        };
        let panic = panicmode::panic(demands, &lived, before.and_then(|before| before.panic));
        panic.filter(|panic| panic.mode != PanicMode::Sorry || sorry)
    });
    let mut standing = Standing {
        level: None,
        quorum,
        panic,
        resort: false,
    };
    let several = servers.iter().any(|server| server.tier != servers[0].tier);
    if several {
        let members: Vec<Member> = there
            .iter()
            .map(|(tier, weight, vigour)| Member {
                tier: *tier,
                weight: *weight,
                able: !standing.dead(*tier, vigour),
            })
            .collect();
        let apologise = panic.is_some_and(|p| p.mode == PanicMode::Sorry);
        let chosen = match apologise {
            true => Level::Sorry,
            false => level(demands, &members, before.and_then(|before| before.level)),
        };
        let willing = members.iter().any(|m| m.tier == Tier::Sorry && m.able);
        standing.level = Some(chosen);
        standing.resort = chosen == Level::Sorry && !willing;
    }
    standing
}

/// Seconds in which a check finds out about every server when they fail at the same time.
fn window(check: &HealthCheck) -> u32 {
    let timing = &check.timing;
    let tries = u64::from(timing.count.max(1));
    let each = u64::from(timing.timeout.millis()) + u64::from(timing.retry_delay.millis());
    let interval = u64::from(timing.interval.millis()) * (100 + u64::from(timing.jitter)) / 100;
    // What is not repeated at once waits for the next interval.
    let at_once = timing
        .retries
        .map_or(tries, |retries| u64::from(retries) + 1);
    let millis = tries * each + tries.div_ceil(at_once) * interval;
    // Times are whole seconds.
    u32::try_from(millis.div_ceil(1000) + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use libilb::model::{HealthCheckSettings, RuleSettings, ServerSettings};

    use super::*;

    fn rule() -> RuleSettings {
        RuleSettings {
            enabled: true,
            vip: "198.51.100.1".into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "h".into(),
            servergroup: "web".into(),
            health_check: Some("alive".into()),
            ..RuleSettings::default()
        }
    }

    /// Rule 1 with these servers, from number 1 on.
    fn configuration(servers: &[&str], rule: &RuleSettings) -> Configuration {
        let mut c = Configuration::default();
        let mut check = HealthCheckSettings::default();
        check
            .parse("test=tcp,interval=5,timeout=1,count=2,jitter=0")
            .unwrap();
        c.create_check("alive", &check).unwrap();
        c.create_group("web", servers).unwrap();
        c.create_rule("www", rule).unwrap();
        c
    }

    /// What became of servers: number, whether dead, and when.
    fn found(all: &[(u32, bool, u32)]) -> Vigours {
        let mut vigours = Vigours::default();
        for &(server, dead, now) in all {
            vigours.learn((1, server), dead, None, now);
        }
        vigours
    }

    /// Which of the first `count` servers get connections.
    fn used(c: &Configuration, standings: &Standings, vigours: &Vigours) -> Vec<bool> {
        let group = c.group("web").unwrap();
        let servers = group.servers.iter();
        servers
            .map(|server| {
                let tier = Tier::of(server.tier);
                let vigour = vigours.of(1, server.number);
                server.weight > 0 && standings.has(1, tier) && !standings.dead(1, tier, &vigour)
            })
            .collect()
    }

    #[test]
    fn a_rule_follows_its_servers_and_what_is_found_out_about_them() {
        let mut c = Configuration::default();
        c.create_group(
            "web",
            &["192.0.2.10", "192.0.2.11,tier=1", "192.0.2.12,tier=sorry"],
        )
        .unwrap();
        let rule = RuleSettings {
            health_check: None,
            ..rule()
        };
        c.create_rule("www", &rule).unwrap();
        let (mut standings, mut vigours) = (Standings::default(), Vigours::default());
        let none = Standings::default();
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
            let before = standings.clone();
            let different = standings.settle(&c, 1, &vigours);
            assert_eq!(
                standings.of(1).and_then(|standing| standing.level),
                expected,
                "step {i}"
            );
            assert_eq!(different, standings != before, "step {i}");
            let since = standings.since(&before).count();
            assert_eq!(since, usize::from(different), "step {i}");
        }
        assert_eq!(standings, none);
        // Where nothing is to be chosen, all serve.
        assert!(standings.has(1, Tier::Sorry) && standings.has(1, Tier::Number(0)));
    }
    #[test]
    fn the_time_to_find_out_is_that_of_all_tests_that_it_takes() {
        for (text, seconds) in [
            ("test=tcp,interval=5,timeout=1,count=2,jitter=0", 8),
            ("test=tcp,interval=10,timeout=2,count=3,jitter=50", 22),
            (
                "test=tcp,interval=10,timeout=2,count=3,jitter=0,retries=0",
                37,
            ),
            (
                "test=tcp,interval=1,timeout=1,count=1,jitter=0,retry-delay=2",
                5,
            ),
        ] {
            let mut settings = HealthCheckSettings::default();
            settings.parse(text).unwrap();
            let mut c = Configuration::default();
            c.create_check("a", &settings).unwrap();
            assert_eq!(window(c.check("a").unwrap()), seconds, "{text}");
        }
    }

    #[test]
    fn each_panic_mode_uses_whom_it_says() {
        let servers = [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4,weight=0",
            "192.0.2.9,tier=sorry",
        ];
        let (yes, no) = (true, false);
        // The first died long ago; then the others, and the sorry server, too, look dead at once.
        let cut = [
            (1, true, 10),
            (2, true, 1000),
            (3, true, 1003),
            (5, true, 1004),
        ];
        for (mode, threshold, who, expected) in [
            ("none", 50, &cut[..], [no, no, no, no, yes]),
            ("keep-last", 50, &cut, [no, yes, yes, no, no]),
            ("fail-open", 50, &cut, [yes, yes, yes, no, no]),
            ("sorry", 50, &cut, [no, no, no, no, yes]),
            // One of three lives: that is less than 50 %, and not less than 30 %.
            ("keep-last", 50, &cut[..2], [no, yes, yes, no, no]),
            ("keep-last", 30, &cut[..2], [no, no, yes, no, no]),
            ("fail-open", 34, &cut[..2], [yes, yes, yes, no, no]),
            ("sorry", 50, &cut[..2], [no, no, no, no, yes]),
            ("sorry", 30, &cut[..2], [no, no, yes, no, no]),
        ] {
            let settings = RuleSettings {
                panic_mode: Some(mode.into()),
                panic_threshold: Some(threshold),
                ..rule()
            };
            let c = configuration(&servers, &settings);
            let vigours = found(who);
            let mut standings = Standings::default();
            assert!(standings.settle(&c, 1, &vigours));
            let case = format!("{mode} below {threshold} %, {who:?}");
            assert_eq!(used(&c, &standings, &vigours), expected, "{case}");
            // By what was found there is a quorum as long as one lives, whatever is used.
            let quorum = standings.of(1).unwrap().quorum;
            assert_eq!(quorum, who.len() < 3, "{case}");
            // When they are found alive again it is over.
            let vigours = found(&[]);
            standings.settle(&c, 1, &vigours);
            let standing = standings.of(1).unwrap();
            assert_eq!((standing.panic, standing.quorum), (None, true), "{case}");
            assert_eq!(
                used(&c, &standings, &vigours),
                [yes, yes, yes, no, no],
                "{case}"
            );
        }
    }

    #[test]
    fn without_a_check_or_sorry_servers_there_is_nothing_to_do() {
        for (mode, checked, expected) in [
            ("sorry", true, [false, false]),
            ("fail-open", true, [true, true]),
            ("fail-open", false, [false, false]),
        ] {
            let settings = RuleSettings {
                panic_mode: Some(mode.into()),
                health_check: checked.then(|| "alive".into()),
                ..rule()
            };
            let c = configuration(&["192.0.2.1", "192.0.2.2"], &settings);
            let vigours = found(&[(1, true, 5), (2, true, 5)]);
            let mut standings = Standings::default();
            standings.settle(&c, 1, &vigours);
            assert_eq!(used(&c, &standings, &vigours), expected, "{mode} {checked}");
        }
    }

    #[test]
    fn who_was_never_proven_is_not_used_and_does_not_count() {
        let settings = RuleSettings {
            panic_mode: Some("fail-open".into()),
            ..rule()
        };
        let c = configuration(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], &settings);
        let mut vigours = Vigours::default();
        let mut standings = Standings::default();
        let mut step = |vigours: &Vigours| {
            standings.settle(&c, 1, vigours);
            used(&c, &standings, vigours)
        };
        for server in 1..=3 {
            vigours.doubt((1, server));
        }
        assert_eq!(step(&vigours), [false, false, false]);
        vigours.learn((1, 1), false, None, 10);
        assert_eq!(step(&vigours), [true, false, false]);
        vigours.learn((1, 2), true, None, 11);
        assert_eq!(step(&vigours), [true, false, false], "it was never alive");
        vigours.learn((1, 1), true, None, 20);
        assert_eq!(step(&vigours), [true, false, false], "it was, until now");
    }

    #[test]
    fn weights_count_for_the_quorum() {
        let settings = RuleSettings {
            quorum: Some(4),
            hysteresis: Some(1),
            ..rule()
        };
        let servers = ["192.0.2.1,weight=3", "192.0.2.2", "192.0.2.3,weight=2"];
        let c = configuration(&servers, &settings);
        let mut standings = Standings::default();
        // Who is dead, whether that leaves a quorum: 3, 1 and 2 of 6; 3 keep it, 5 bring it back.
        for (dead, expected) in [
            (&[][..], true),
            (&[3], true),
            (&[2, 3], true),
            (&[1, 2], false),
            (&[3], false),
            (&[2], true),
            (&[1], true),
            (&[1, 2, 3], false),
            (&[], true),
        ] {
            let all: Vec<_> = dead.iter().map(|&server| (server, true, 5)).collect();
            standings.settle(&c, 1, &found(&all));
            assert_eq!(standings.of(1).unwrap().quorum, expected, "{dead:?}");
        }
    }
}
