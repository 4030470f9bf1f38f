//! What the other node says, and what follows from it.

use super::{
    Action, Actions, Answer, Follow, Fork, Link, Outcome, Peer, Refused, Stand, Taking, wins,
};
use crate::follow::line::{Kept, Line, Relation};
use crate::follow::message::{Delta, Heard, Hello, Message, Reason, Whole};
use crate::follow::version::{Version, VersionId};

impl Follow {
    /// What the other node says.
    pub fn heard(&mut self, heard: Heard) -> Actions {
        let message = match heard {
            Heard::Message(message) => *message,
            Heard::Unknown(what) => return vec![Action::Send(Message::Unknown { what })],
        };
        match message {
            Message::Hello(hello) => self.greeted(hello),
            // What was left of an earlier connection, or comes before a greeting.
            _ if !matches!(self.link, Link::Up(_)) => Vec::new(),
            Message::Offer(delta) => self.asked(delta),
            Message::Feed { deltas } => self.given(deltas),
            Message::Whole { instead, whole } => self.given_whole(instead, whole),
            Message::Done { id } => self.done(id),
            Message::Refused { id, reason, words } => self.denied(id, Refused { reason, words }),
            Message::Want { instead } => self.wanted(instead),
            Message::Active { active } => {
                if let Link::Up(peer) = &mut self.link {
                    peer.hello.active = active;
                }
                Vec::new()
            }
            Message::Acknowledged => vec![Action::Acknowledged],
            Message::Unknown { .. } => Vec::new(),
        }
    }

    pub(super) fn greeted(&mut self, hello: Hello) -> Actions {
        let mut actions = Vec::new();
        if !hello.answer {
            actions.push(self.hello(true));
        }
        if let Some(words) = self.misfit(&hello) {
            actions.extend(self.make(Answer::Cut));
            self.link = Link::Incompatible(words);
            return actions;
        }
        let head = hello.line.last().copied().unwrap_or(VersionId::ROOT);
        let (gave_up, slow) = match &mut self.link {
            Link::Up(peer) => {
                if hello.answer && peer.hello.line == hello.line && peer.fed {
                    // Nothing new: it has not got yet what is on its way.
                    peer.hello = hello;
                    return actions;
                }
                (peer.gave_up.take(), peer.slow)
            }
            Link::Down | Link::Greeting | Link::Incompatible(_) => (None, false),
        };
        let has_it = |offer: &Version| hello.line.contains(&offer.id);
        let has_offer = self.offer.as_ref().map(has_it);
        self.link = Link::Up(Box::new(Peer {
            hello,
            head,
            fed: false,
            slow,
            refuses: None,
            gave_up,
        }));
        match has_offer {
            Some(true) => actions.extend(self.make(Answer::Taken)),
            // It may have said this before it heard of the offer.
            Some(false) => {}
            None => actions.extend(self.weigh()),
        }
        actions
    }

    /// Why we cannot speak with it, if so.
    pub(super) fn misfit(&self, hello: &Hello) -> Option<String> {
        if hello.node == self.node {
            return Some(format!(
                "both nodes say that they are node {}: let one of them leave the pair and join it again",
                self.node
            ));
        }
        let ours = self.speaks;
        let agreed = hello.protocol.min(ours.protocol);
        let (older, newer, oldest) = match hello.protocol < ours.protocol {
            true => ("the other node", "this one", ours.oldest),
            false => ("this node", "the other one", hello.oldest),
        };
        (agreed < hello.oldest.max(ours.oldest)).then(|| {
            format!(
                "{older} speaks protocol {agreed}, and the oldest that {newer} understands is {oldest}: install a newer \
                 ilb on {older}"
            )
        })
    }

    /// Does what follows from the two lines.
    pub(super) fn weigh(&mut self) -> Actions {
        let stand = self.stand();
        let (node, active, head) = (self.node, self.active, self.line.head());
        let lacks_too = self.incomplete;
        let protocol = self.speaks.protocol;
        let Link::Up(peer) = &mut self.link else {
            return Vec::new();
        };
        match stand {
            Stand::Together => {
                let lacks = peer.hello.incomplete && peer.hello.protocol >= protocol;
                let ours_is_whole = !lacks_too || node == 0;
                if lacks && ours_is_whole && head != VersionId::ROOT {
                    peer.fed = true;
                    return vec![Action::Gather];
                }
                let won = peer.gave_up.take().map(Action::Won);
                self.counts.forks_won += u64::from(won.is_some());
                won.into_iter().collect()
            }
            Stand::Ahead(_) => self.feed(),
            // Node 0 decides, so that there are no two opinions.
            Stand::Forked(fork) if node == 0 => {
                if wins(active, fork.ours, peer.hello.active, fork.theirs) {
                    peer.gave_up = Some(fork);
                    peer.fed = true;
                    vec![Action::Gather]
                } else {
                    peer.gave_up = None;
                    vec![Action::Send(Message::Want { instead: head })]
                }
            }
            Stand::Forked(_)
            | Stand::Behind(_)
            | Stand::Away
            | Stand::Greeting
            | Stand::Incompatible(_) => Vec::new(),
        }
    }

    /// It asks whether it may make a change.
    pub(super) fn asked(&mut self, delta: Delta) -> Actions {
        let id = delta.version.id;
        if self.line.has(id) {
            return vec![Action::Send(Message::Done { id })];
        }
        if let Err(words) = delta.version.proves(&delta.records) {
            return vec![self.refuse(id, Reason::Forged, words)];
        }
        if self.offer.is_some() && self.node == 0 {
            let words = "a change of node 0 goes first".to_owned();
            return vec![self.refuse(id, Reason::Busy, words)];
        }
        if !self.follows(&delta.version) {
            return self.stale(id);
        }
        self.taking = Some(Taking::changes(id));
        vec![Action::Take(vec![delta])]
    }

    /// Whether it is the next one.
    pub(super) fn follows(&self, version: &Version) -> bool {
        let number = self.line.newest().map_or(0, |newest| newest.number);
        version.parent == self.line.head() && version.number == number + 1
    }

    fn refuse(&mut self, id: VersionId, reason: Reason, words: String) -> Action {
        self.counts.refuse(reason);
        Action::Send(Message::Refused { id, reason, words })
    }

    pub(super) fn stale(&mut self, id: VersionId) -> Actions {
        let words = format!("the newest version here is {}", self.line.head());
        vec![self.refuse(id, Reason::Stale, words), self.hello(false)]
    }

    /// It has made changes.
    pub(super) fn given(&mut self, mut deltas: Vec<Delta>) -> Actions {
        let Some(last) = deltas.last().map(|delta| delta.version.id) else {
            return Vec::new();
        };
        let broken = deltas.windows(2).any(|two| match two {
            [first, second] => {
                let (first, second) = (&first.version, &second.version);
                second.parent != first.id || Some(second.number) != first.number.checked_add(1)
            }
            _ => false,
        });
        if broken {
            let words = "the changes do not follow one another".to_owned();
            return vec![self.refuse(last, Reason::Cannot, words)];
        }
        let proofs = deltas.iter();
        let proofs = proofs.map(|delta| delta.version.proves(&delta.records));
        if let Some(words) = proofs.filter_map(Result::err).next() {
            return vec![self.refuse(last, Reason::Forged, words)];
        }
        deltas.retain(|delta| !self.line.has(delta.version.id));
        let Some(first) = deltas.first() else {
            return match self.line.head() == last {
                true => vec![Action::Send(Message::Done { id: last })],
                false => vec![self.hello(false)],
            };
        };
        if !self.follows(&first.version) {
            return self.stale(last);
        }
        if let Link::Up(peer) = &mut self.link {
            for delta in &deltas {
                peer.has(delta.version.id);
            }
        }
        self.taking = Some(Taking::changes(last));
        vec![Action::Take(deltas)]
    }

    /// It gives us everything. That each version has the name of what it says, and follows the one before it, can be seen.
    /// What each has changed cannot: nobody has it, and the records are what came of all of them. So the digest of an old version is
    /// believed, as the records are, because the peer says so; it is looked at when a node that has the content tells it as a change.
    pub(super) fn given_whole(&mut self, instead: VersionId, whole: Whole) -> Actions {
        let Some(last) = whole.line.last().map(|version| version.id) else {
            return Vec::new();
        };
        let versions = whole.line.iter().cloned();
        let line = Line::new(versions.map(|version| Kept { version, mark: 0 }));
        let line = match line {
            Ok(line) => line,
            Err(words) => return vec![self.refuse(last, Reason::Cannot, words)],
        };
        let proofs = whole.line.iter().map(Version::proves_itself);
        if let Some(words) = proofs.filter_map(Result::err).next() {
            return vec![self.refuse(last, Reason::Forged, words)];
        }
        if instead != self.line.head() {
            return self.stale(last);
        }
        let ids = line.ids();
        let fork = match self.line.relation(&ids) {
            Relation::Same | Relation::Behind(_) => None,
            Relation::Ahead(_) => return self.stale(last),
            Relation::Forked {
                common,
                ours,
                theirs,
            } => Some(Fork {
                common: Some(common),
                ours,
                theirs,
            }),
            Relation::Strangers { ours, theirs } => Some(Fork {
                common: None,
                ours,
                theirs,
            }),
        };
        if let Link::Up(peer) = &mut self.link {
            peer.hello.line = ids;
            peer.head = last;
        }
        self.taking = Some(Taking {
            newest: last,
            whole: true,
            fork: fork.is_some(),
        });
        let whole = Box::new(whole);
        vec![Action::Replace { whole, fork }]
    }

    /// Answers [`Action::Take`] and [`Action::Replace`]: this is what we have durably now.
    pub fn took(&mut self, line: &Line, incomplete: bool, result: Result<(), Refused>) -> Actions {
        let number = |line: &Line| line.newest().map_or(0, |newest| newest.number);
        let (before, count) = (self.line.head(), number(&self.line));
        self.line = line.clone();
        self.incomplete = incomplete;
        let mut actions = Vec::new();
        let head = self.line.head();
        if head != before || result.is_ok() {
            actions.push(Action::Send(Message::Done { id: head }));
        }
        let taking = self.taking.take().unwrap_or(Taking::changes(head));
        match (taking.whole, &result) {
            (true, Ok(())) => {
                self.counts.wholes_taken += 1;
                self.counts.forks_lost += u64::from(taking.fork);
            }
            (true, Err(_)) => {}
            // Some may have gone well before one did not.
            (false, _) => self.counts.taken += number(&self.line).saturating_sub(count),
        }
        if let Link::Up(peer) = &mut self.link
            && result.is_ok()
        {
            peer.has(head);
            peer.fed = false;
            peer.slow = false;
            peer.refuses = None;
        }
        self.refused = result.err();
        if let Some(Refused { reason, words }) = self.refused.clone() {
            actions.push(self.refuse(taking.newest, reason, words));
        }
        // What we wanted ourselves has to be tried again on top of that.
        actions.extend(self.overtaken(Answer::Overtaken));
        actions
    }

    /// It has this version.
    pub(super) fn done(&mut self, id: VersionId) -> Actions {
        let ours = self.line.has(id);
        let offered = self.offer.as_ref().is_some_and(|offer| offer.id == id);
        let Link::Up(peer) = &mut self.link else {
            return Vec::new();
        };
        if offered {
            peer.has(id);
            peer.fed = false;
            peer.slow = false;
            peer.refuses = None;
            return self.make(Answer::Taken).into_iter().collect();
        }
        if !ours {
            return Vec::new();
        }
        let mut ids = self.line.ids();
        if let Some(place) = ids.iter().rposition(|known| *known == id) {
            ids.truncate(place + 1);
        }
        peer.hello.line = ids;
        peer.head = id;
        peer.fed = false;
        peer.slow = false;
        peer.refuses = None;
        peer.hello.incomplete = false;
        if self.offer.is_some() {
            return Vec::new();
        }
        self.weigh()
    }

    /// It does not have this version.
    pub(super) fn denied(&mut self, id: VersionId, refused: Refused) -> Actions {
        let offered = self.offer.as_ref().is_some_and(|offer| offer.id == id);
        let Link::Up(peer) = &mut self.link else {
            return Vec::new();
        };
        let reason = refused.reason;
        if !offered {
            // An offer that is made or withdrawn, or what it was given.
            peer.fed = false;
            return match reason {
                Reason::Busy | Reason::Stale => vec![self.hello(false)],
                Reason::Waiting | Reason::Forged | Reason::Cannot => {
                    peer.refuses = Some(refused);
                    Vec::new()
                }
            };
        }
        match reason {
            Reason::Busy | Reason::Stale => {
                let mut actions = vec![self.hello(false)];
                actions.extend(self.overtaken(Answer::Refused(reason)));
                // What it has is not what we thought, and it says so soon.
                self.link = Link::Greeting;
                actions
            }
            Reason::Waiting => {
                self.offer = None;
                self.counts.answer(Answer::Refused(reason));
                vec![Action::Outcome(Outcome::Forbidden(refused.words))]
            }
            Reason::Forged | Reason::Cannot => {
                peer.refuses = Some(refused);
                self.make(Answer::Refused(reason)).into_iter().collect()
            }
        }
    }

    /// Node 0 wants what we have in the place of what it has.
    pub(super) fn wanted(&mut self, instead: VersionId) -> Actions {
        let Stand::Forked(fork) = self.stand() else {
            return vec![self.hello(false)];
        };
        let Link::Up(peer) = &mut self.link else {
            return Vec::new();
        };
        if self.node == 0 || peer.head != instead {
            return vec![self.hello(false)];
        }
        peer.gave_up = Some(fork);
        peer.fed = true;
        vec![Action::Gather]
    }
}
