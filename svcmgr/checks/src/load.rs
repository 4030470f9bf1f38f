//! Load-aware weights: what becomes of a server's share of new connections when it has more to do than the others.
//!
//! Pure: readings come in, shares come out; who reads, and when, is the [engine](crate::engine)'s matter.
//!
//! # The law
//! A share is in inverse proportion to the load, relative to the least loaded server of the rule: twice the load, half the
//! share. With `b` for a server's smoothed reading plus a little ([`SLACK`], so that next to nothing is not twice of
//! less), its share is `least(b of all) / b`, and not less than the check's bound. The least loaded one keeps its whole
//! configured weight. An agent's own word is a share already.
//!
//! # Why it does not oscillate
//! What a server has to do depends on its share, so this is a control loop. A relative change of a share by `x` changes the
//! server's load relatively by at most `x`, and so, by the law, the share that is due by at most `x` in the other direction:
//! the loop's gain is below 1. Readings are smoothed by a quarter ([`SMOOTHING`]), and such a loop is stable as long as
//! `SMOOTHING * gain < 2 sin(π / (2 (2d + 1)))` for a delay of `d` readings: up to five. Noise ends in the dead band
//! ([`BAND`]): a share is told anew only when it differs by that from what was told last.

mod agent;
pub mod snmp;

use std::collections::BTreeMap;

pub(crate) use agent::ask as ask_agent;

/// How much of the distance to a new reading the smoothed one goes.
pub const SMOOTHING: f64 = 0.25;

/// By how much a share has to differ from the one that was told last.
pub const BAND: f64 = 0.10;

/// Readings in a row that may fail before a server's load counts as unknown.
pub const MISSES: u8 = 3;

/// A share that is whole.
pub const WHOLE: u16 = 1000;

/// Added to readings: a fifth of full load; a millisecond. The more, the less it matters who of the idle is the idlest.
pub const SLACK: (f64, f64) = (0.2, 1000.0);

/// What was read of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// How busy it is, from 0 to 1; a little more than 1 is possible where the administrator said what full load is.
    Busy(f64),
    /// How long it took to answer, in microseconds.
    Time(f64),
    /// The share that it wants of its configured one, from 0 to 1.
    Share(f64),
}

impl Reading {
    /// The number, and what is added to it.
    fn parts(self) -> (f64, f64) {
        match self {
            Reading::Busy(busy) => (busy.clamp(0.0, 100.0), SLACK.0),
            Reading::Time(micros) => (micros.max(0.0), SLACK.1),
            Reading::Share(share) => (share.clamp(0.0, 1.0), 0.0),
        }
    }
}

/// A server.
#[derive(Debug, Clone, Default, PartialEq)]
struct Member {
    /// The smoothed reading; none while nothing is known.
    smooth: Option<Reading>,
    misses: u8,
    /// The share that was told last, in thousandths.
    told: Option<u16>,
}

/// The servers of a rule that are up.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    least: f64,
    members: BTreeMap<u32, Member>,
}

impl Group {
    /// Nobody, with this bound in percent, 1 to 100.
    pub fn new(least: u8) -> Group {
        Group {
            least: f64::from(least.clamp(1, 100)) / 100.0,
            members: BTreeMap::new(),
        }
    }

    /// Another bound.
    pub fn bound(&mut self, least: u8) {
        self.least = f64::from(least.clamp(1, 100)) / 100.0;
    }

    /// A server is up. What is known of one that was there stays.
    pub fn join(&mut self, server: u32) {
        self.members.entry(server).or_default();
    }

    /// A server is down or gone: nobody is compared with it, and nothing is known of it when it comes back.
    pub fn leave(&mut self, server: u32) {
        self.members.remove(&server);
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a reading, or that there was none. Nothing becomes of it before [`Group::settle`].
    pub fn take(&mut self, server: u32, reading: Option<Reading>) {
        let Some(member) = self.members.get_mut(&server) else {
            return;
        };
        let Some(new) = reading else {
            member.misses = member.misses.saturating_add(1);
            if member.misses >= MISSES {
                member.smooth = None;
            }
            return;
        };
        member.misses = 0;
        let towards = |from: f64, to: f64| from + SMOOTHING * (to - from);
        member.smooth = Some(match (member.smooth, new) {
            (Some(Reading::Busy(old)), Reading::Busy(_)) => {
                Reading::Busy(towards(old, new.parts().0))
            }
            (Some(Reading::Time(old)), Reading::Time(_)) => {
                Reading::Time(towards(old, new.parts().0))
            }
            (Some(Reading::Share(old)), Reading::Share(_)) => {
                Reading::Share(towards(old, new.parts().0))
            }
            (_, new) => new,
        });
    }

    /// The smoothed reading of a server.
    pub fn reading(&self, server: u32) -> Option<Reading> {
        self.members.get(&server)?.smooth
    }

    /// The share of a server that was told last, in thousandths of its configured one.
    pub fn share(&self, server: u32) -> Option<u16> {
        self.members.get(&server)?.told
    }

    /// The shares that are others now than they were told last, in thousandths of the configured ones: from the bound to
    /// [`WHOLE`].
    pub fn settle(&mut self) -> Vec<(u32, u16)> {
        let due = self.due();
        let least = (self.least * 100.0).round() as u16 * 10;
        let mut changed = Vec::new();
        for ((server, member), share) in self.members.iter_mut().zip(due) {
            // To whole hundredths: nobody sees more, and the ends are reached.
            let share = ((share * 100.0).round() as u16 * 10).clamp(10, WHOLE);
            let told = member.told.unwrap_or(WHOLE);
            // Both ends are reached, or who is loaded no more would never have its whole share.
            let distance = f64::from(share.abs_diff(told)) / 1000.0;
            let end = (share == WHOLE || share == least) && distance >= BAND / 4.0;
            let far = distance >= BAND;
            if far || end || member.told.is_none() {
                member.told = Some(share);
                changed.push((*server, share));
            }
        }
        changed
    }

    /// What the law says, in the order of members.
    fn due(&self) -> Vec<f64> {
        let burden = |member: &Member| {
            let (value, slack) = member.smooth?.parts();
            Some(value + slack)
        };
        let lightest = self
            .members
            .values()
            .filter_map(burden)
            .fold(f64::INFINITY, f64::min);
        let share = |member: &Member| match member.smooth? {
            Reading::Share(share) => Some(share.max(self.least)),
            _ => burden(member).map(|burden| (lightest / burden).max(self.least)),
        };
        let shares: Vec<Option<f64>> = self.members.values().map(share).collect();
        // One of whom nothing is known gets what the others have on average: neither spared nor preferred.
        let known: Vec<f64> = shares.iter().flatten().copied().collect();
        let average = match known.len() {
            0 => 1.0,
            n => known.iter().sum::<f64>() / n as f64,
        };
        shares
            .into_iter()
            .map(|share| share.unwrap_or(average))
            .collect()
    }
}

#[cfg(test)]
mod tests;
