//! One session as one end knows it: what is on its way, what has come, who has to say something.

use std::collections::VecDeque;

use crate::frame::{Frame, Gap, MOST_GAPS};
use crate::record::End;
use crate::seal::{Keys, Token};
use crate::traces::Parcel;

/// What a datagram on its way says.
#[derive(Debug)]
pub struct Flight {
    pub number: u64,
    pub entries: Vec<u32>,
    pub ends: Vec<End>,
    pub parcel: Option<Parcel>,
}

/// One session of two ends.
pub struct Link {
    pub keys: Keys,
    /// Our nonce and theirs.
    pub ours: Token,
    pub theirs: Token,
    /// Number of our next datagram.
    pub next: u64,
    pub flights: VecDeque<Flight>,
    /// Highest number that has come.
    pub highest: u64,
    /// Numbers below it that have not come and that the sender has not given up.
    pub gaps: VecDeque<Gap>,
    pub heard: u64,
    /// When we last said something, and something that wants an acknowledgement.
    pub said: u64,
    pub asked: u64,
    /// Datagrams that want an acknowledgement, and since when.
    pub unacknowledged: u32,
    pub unacknowledged_since: u64,
    /// Nothing of this session has come from the peer yet.
    pub unconfirmed: bool,
    pub confirmed_at: u64,
}

impl Link {
    /// A session that begins now: we said `ours` and the other end `theirs`.
    pub fn new(keys: Keys, ours: Token, theirs: Token, now: u64) -> Link {
        Link {
            keys,
            ours,
            theirs,
            next: 1,
            flights: VecDeque::new(),
            highest: 0,
            gaps: VecDeque::new(),
            heard: now,
            said: 0,
            asked: 0,
            unacknowledged: 0,
            unacknowledged_since: 0,
            unconfirmed: true,
            confirmed_at: 0,
        }
    }

    /// A datagram with this number has come, whose sender has given up what lies below `floor`.
    pub fn came(&mut self, number: u64, floor: u64, now: u64) {
        self.heard = now;
        if number > self.highest + 1 {
            let missing = (number - self.highest - 1).min(u64::from(u32::MAX)) as u32;
            self.gaps.push_back((self.highest + 1, missing));
        }
        self.highest = number;
        let end = |gap: &Gap| gap.0.saturating_add(u64::from(gap.1));
        self.gaps.retain(|gap| end(gap) > floor);
    }

    /// Takes out what the other end has got, or has not: gives what is lost.
    pub fn acknowledged(&mut self, upto: u64, gaps: &[Gap]) -> Vec<Flight> {
        let mut lost = Vec::new();
        while self.flights.front().is_some_and(|it| it.number <= upto)
            && let Some(flight) = self.flights.pop_front()
        {
            let within = |&(first, count): &Gap| {
                first <= flight.number && flight.number - first < u64::from(count)
            };
            if gaps.iter().any(within) {
                lost.push(flight);
            }
        }
        lost
    }

    /// What has come, and what has not.
    pub fn acknowledgement(&self) -> Frame {
        let gaps: Vec<Gap> = self.gaps.iter().take(MOST_GAPS).copied().collect();
        let upto = match self.gaps.get(MOST_GAPS) {
            Some((first, _)) => first - 1,
            None => self.highest,
        };
        Frame::Ack { upto, gaps }
    }
}
