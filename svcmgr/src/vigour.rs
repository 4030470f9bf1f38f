//! What health checks have found out about servers, as far as the fast path has to know it: who is dead, whose share is
//! another than the configured one, and who came back lately. Of (rule, server), since each rule has its own check. Never
//! stored with the configuration. Pure: time comes in.

use ilb_forwarder::spec::{RuleId, ServerId};
use libilb::health::Weight;
use libilb::map::Map;

/// What the fast path has to know of a server of a rule besides its configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vigour {
    /// It does not answer and gets no new connections.
    pub dead: bool,
    /// What its check makes of its configured share, if anything.
    pub weight: Option<Weight>,
    /// When it came back, in seconds since boot; 0 for long ago or never away.
    pub up_since: u32,
    /// When it was found dead, likewise; 0 if it is not, or was never proven to live.
    pub down_since: u32,
}

/// See the module. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vigours(Map<(RuleId, ServerId), Vigour>);

impl Vigours {
    /// Of one server; healthy if nothing is known.
    pub fn of(&self, rule: RuleId, server: ServerId) -> Vigour {
        self.0.get(&(rule, server)).copied().unwrap_or_default()
    }

    /// Takes over what a check found at `now`, in seconds since boot. A server that was dead and is no longer has come
    /// back. True if that made a difference.
    pub fn learn(
        &mut self,
        place: (RuleId, ServerId),
        dead: bool,
        weight: Option<Weight>,
        now: u32,
    ) -> bool {
        let before = self.of(place.0, place.1);
        let after = Vigour {
            dead,
            weight,
            up_since: match (before.dead, dead) {
                (true, false) => now.max(1),
                (_, true) => 0,
                (false, false) => before.up_since,
            },
            down_since: match (before.dead, dead) {
                (false, true) => now.max(1),
                (true, true) => before.down_since,
                (_, false) => 0,
            },
        };
        self.set(place, after);
        before != after
    }

    /// Takes a server for dead until it is proven to live.
    pub fn doubt(&mut self, place: (RuleId, ServerId)) {
        let dead = Vigour {
            dead: true,
            ..Vigour::default()
        };
        self.set(place, dead);
    }

    /// Forgets everything about the servers that `keep` does not want. True if that made a difference.
    pub fn retain(&mut self, keep: impl Fn(RuleId, ServerId) -> bool) -> bool {
        let gone: Vec<_> = self
            .0
            .keys()
            .filter(|(rule, server)| !keep(*rule, *server))
            .copied()
            .collect();
        for place in &gone {
            self.0.remove(place);
        }
        !gone.is_empty()
    }

    /// Everything that is known of servers that are not simply healthy.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = ((RuleId, ServerId), Vigour)> {
        self.0.iter().map(|(place, vigour)| (*place, *vigour))
    }

    /// The rules with a server of which something else was known `before`.
    pub fn different<'a>(&'a self, before: &'a Vigours) -> impl Iterator<Item = RuleId> {
        self.0.since(&before.0).map(|found| found.key.0)
    }

    fn set(&mut self, place: (RuleId, ServerId), vigour: Vigour) {
        if vigour == Vigour::default() {
            self.0.remove(&place);
        } else if self.0.get(&place) != Some(&vigour) {
            self.0.insert(place, vigour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_dead_and_is_not_has_come_back() {
        let mut vigours = Vigours::default();
        let mut learn = |dead, weight, now| {
            let different = vigours.learn((1, 7), dead, weight, now);
            (different, vigours.of(1, 7))
        };
        let of = |dead, weight, since| Vigour {
            dead,
            weight,
            up_since: if dead { 0 } else { since },
            down_since: if dead { since } else { 0 },
        };
        // (given, then): whether it differs, what is known.
        for (given, then) in [
            ((false, None, 10), (false, of(false, None, 0))),
            ((true, None, 11), (true, of(true, None, 11))),
            ((true, None, 12), (false, of(true, None, 11))),
            ((false, None, 13), (true, of(false, None, 13))),
            ((false, None, 14), (false, of(false, None, 13))),
            (
                (false, Some(Weight::Set(3)), 15),
                (true, of(false, Some(Weight::Set(3)), 13)),
            ),
            (
                (true, Some(Weight::Set(3)), 16),
                (true, of(true, Some(Weight::Set(3)), 16)),
            ),
            ((false, None, 0), (true, of(false, None, 1))),
        ] {
            assert_eq!(learn(given.0, given.1, given.2), then, "{given:?}");
        }
        assert_eq!(vigours.of(2, 7), Vigour::default());
        vigours.doubt((2, 7));
        vigours.learn((2, 7), true, None, 20);
        assert_eq!(vigours.of(2, 7), of(true, None, 0), "it was never alive");
    }

    #[test]
    fn only_rules_with_news_are_different() {
        let mut vigours = Vigours::default();
        vigours.learn((1, 7), true, None, 1);
        let before = vigours.clone();
        vigours.learn((2, 7), true, None, 1);
        vigours.learn((3, 7), false, None, 1);
        assert_eq!(vigours.different(&before).collect::<Vec<_>>(), [2]);
        assert!(vigours.retain(|rule, _| rule == 2));
        assert!(!vigours.retain(|rule, _| rule == 2));
        assert_eq!(vigours.different(&before).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            vigours.iter().map(|(place, _)| place).collect::<Vec<_>>(),
            [(2, 7)]
        );
    }
}
