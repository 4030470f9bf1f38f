//! What a node says and does, by what it hears.

mod hearing;

use super::counts::{Answer, Counts};
use super::line::{Line, MOST, Relation};
use super::message::{Delta, Hello, Message, OLDEST, PROTOCOL, Reason, Whole};
use super::version::{Draft, Version, VersionId};

/// Deltas that one message has at most.
const FEED: usize = 64;

/// The protocols that a program speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaks {
    /// The best.
    pub protocol: u32,
    /// The oldest.
    pub oldest: u32,
}

impl Default for Speaks {
    fn default() -> Speaks {
        Speaks {
            protocol: PROTOCOL,
            oldest: OLDEST,
        }
    }
}

/// Changes on both nodes that did not know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The last version that both had; `None` if none is known.
    pub common: Option<VersionId>,
    /// Versions that only we had.
    pub ours: usize,
    /// Versions that only the other node had.
    pub theirs: usize,
}

/// What the host is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say this.
    Send(Message),
    /// Make these changes durably, one after the other; tell by [`Follow::took`].
    Take(Vec<Delta>),
    /// Make this the configuration durably; tell by [`Follow::took`].
    Replace {
        /// What.
        whole: Box<Whole>,
        /// What gets lost by it, if anything.
        fork: Option<Fork>,
    },
    /// Find out what has changed after this version; tell by [`Follow::collected`].
    Collect(VersionId),
    /// Find out everything; tell by [`Follow::gathered`].
    Gather,
    /// This became of what was offered.
    Outcome(Outcome),
    /// The other node gave up what it had changed; tell people.
    Won(Fork),
    /// Somebody took note on the other node of what became of conflicting histories.
    Acknowledged,
}

/// What becomes of a change that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is to be made now, as this version; tell by [`Follow::advanced`].
    Make(Version),
    /// Another change came first: it has to be tried again on top of that.
    Overtaken,
    /// The other node must not change now; the words say why.
    Forbidden(String),
}

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub words: String,
}

/// How a change can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The other node is asked first.
    Offer,
    /// At once: the other node gets it when it can.
    Alone,
    /// Not yet: what the other node has comes first.
    Wait,
}

/// How the nodes stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// The other node is not heard.
    Away,
    /// It has not said yet what it has.
    Greeting,
    /// It speaks nothing that we speak; the words say what.
    Incompatible(String),
    /// Both have the same.
    Together,
    /// It gets what it lacks, so many versions.
    Ahead(usize),
    /// We get what we lack, so many versions.
    Behind(usize),
    /// Both have changed while apart; one of us gets what the other has.
    Forked(Fork),
}

/// Whether node 0 goes on with its line when histories are in conflict, as opposed to node 1: the active node does, by whose
/// configuration clients are served; if both or none are active, the one with more changes; then node 0.
pub fn wins(zero_active: bool, zero_changes: usize, one_active: bool, one_changes: usize) -> bool {
    match (zero_active, one_active) {
        (true, false) => true,
        (false, true) => false,
        (true, true) | (false, false) => zero_changes >= one_changes,
    }
}

/// What is known of the other node while it is heard.
#[derive(Debug, Clone)]
struct Peer {
    hello: Hello,
    /// The newest version that it has, as far as we know.
    head: VersionId,
    /// It gets something and has not answered yet.
    fed: bool,
    /// It did not answer in time.
    slow: bool,
    /// Why it did not take what it got last.
    refuses: Option<Refused>,
    /// It was given everything because histories were in conflict.
    gave_up: Option<Fork>,
}

#[derive(Debug, Clone)]
enum Link {
    Down,
    Greeting,
    Incompatible(String),
    Up(Box<Peer>),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Follow {
    node: u8,
    speaks: Speaks,
    line: Line,
    active: bool,
    incomplete: bool,
    link: Link,
    /// Our change that the other node was asked to take.
    offer: Option<Version>,
    /// What the host is taking.
    taking: Option<Taking>,
    /// Why we did not take what we got last.
    refused: Option<Refused>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Taking {
    /// The newest version of it.
    newest: VersionId,
    /// Whether it is everything.
    whole: bool,
    /// Whether something gets lost by it.
    fork: bool,
}

type Actions = Vec<Action>;

impl Follow {
    /// For one of the two nodes, with what it has.
    pub fn new(node: u8, speaks: Speaks, line: Line, incomplete: bool) -> Follow {
        Follow {
            node,
            speaks,
            line,
            active: false,
            incomplete,
            link: Link::Down,
            offer: None,
            taking: None,
            refused: None,
            counts: Counts::default(),
        }
    }

    /// What has happened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Which node this is.
    pub fn node(&self) -> u8 {
        self.node
    }

    /// The versions that we have.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// How the nodes stand to each other.
    pub fn stand(&self) -> Stand {
        let peer = match &self.link {
            Link::Down => return Stand::Away,
            Link::Greeting => return Stand::Greeting,
            Link::Incompatible(words) => return Stand::Incompatible(words.clone()),
            Link::Up(peer) => peer,
        };
        if peer.head == self.line.head() {
            return Stand::Together;
        }
        if let Some(after) = self.line.after(peer.head) {
            return Stand::Ahead(after.len());
        }
        match self.line.relation(&peer.hello.line) {
            Relation::Same => Stand::Together,
            Relation::Ahead(more) => Stand::Ahead(more),
            Relation::Behind(more) => Stand::Behind(more),
            Relation::Forked {
                common,
                ours,
                theirs,
            } => Stand::Forked(Fork {
                common: Some(common),
                ours,
                theirs,
            }),
            Relation::Strangers { ours, theirs } => Stand::Forked(Fork {
                common: None,
                ours,
                theirs,
            }),
        }
    }

    /// Why the other node did not take what it got last, if it did not.
    pub fn peer_refuses(&self) -> Option<&Refused> {
        match &self.link {
            Link::Up(peer) => peer.refuses.as_ref(),
            Link::Down | Link::Greeting | Link::Incompatible(_) => None,
        }
    }

    /// Why we did not take what we got last, if we did not.
    pub fn refuses(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// Whether the other node is active, while it is heard.
    pub fn peer_active(&self) -> Option<bool> {
        match &self.link {
            Link::Up(peer) => Some(peer.hello.active),
            Link::Down | Link::Greeting | Link::Incompatible(_) => None,
        }
    }

    /// Whether what we are told may have more in it than we can keep: a later program tells it.
    pub fn may_lack(&self) -> bool {
        match &self.link {
            Link::Up(peer) => peer.hello.protocol > self.speaks.protocol,
            Link::Down | Link::Greeting | Link::Incompatible(_) => false,
        }
    }

    /// Whether this node is the one that changes something of its own accord: the active one, or node 0 if both or none
    /// are; alone, each.
    pub fn leads(&self) -> bool {
        match self.peer_active() {
            None => true,
            Some(theirs) if theirs == self.active => self.node == 0,
            Some(_) => self.active,
        }
    }

    /// How a change can be made now.
    pub fn turn(&self) -> Turn {
        match self.stand() {
            Stand::Together => Turn::Offer,
            Stand::Away | Stand::Incompatible(_) => Turn::Alone,
            // It has what we have in a moment, unless it cannot.
            Stand::Ahead(_) => match &self.link {
                Link::Up(peer) if !peer.slow && peer.refuses.is_none() => Turn::Wait,
                _ => Turn::Alone,
            },
            Stand::Forked(_) => match &self.link {
                Link::Up(peer) if peer.gave_up.is_some() => Turn::Alone,
                _ => Turn::Wait,
            },
            Stand::Greeting | Stand::Behind(_) => Turn::Wait,
        }
    }

    /// Our offer that is not decided yet.
    pub fn offered(&self) -> Option<&Version> {
        self.offer.as_ref()
    }

    fn hello(&self, answer: bool) -> Action {
        Action::Send(Message::Hello(Hello {
            protocol: self.speaks.protocol,
            oldest: self.speaks.oldest,
            node: self.node,
            line: self.line.ids(),
            active: self.active,
            incomplete: self.incomplete,
            answer,
        }))
    }

    /// The other node is heard.
    pub fn up(&mut self) -> Actions {
        let mut actions = self.down();
        self.link = Link::Greeting;
        actions.push(self.hello(false));
        actions
    }

    /// The other node is not heard any more. What was offered is made alone: if the other node has made it, it is the same
    /// version.
    pub fn down(&mut self) -> Actions {
        self.link = Link::Down;
        self.make(Answer::Cut).into_iter().collect()
    }

    fn make(&mut self, answer: Answer) -> Option<Action> {
        let offer = self.offer.take()?;
        self.counts.answer(answer);
        Some(Action::Outcome(Outcome::Make(offer)))
    }

    fn overtaken(&mut self, answer: Answer) -> Option<Action> {
        self.offer.take()?;
        self.counts.answer(answer);
        Some(Action::Outcome(Outcome::Overtaken))
    }

    /// Whether clients are served by our configuration.
    pub fn set_active(&mut self, active: bool) -> Actions {
        if self.active == active {
            return Vec::new();
        }
        self.active = active;
        match self.link {
            Link::Up(_) => vec![Action::Send(Message::Active { active })],
            Link::Down | Link::Greeting | Link::Incompatible(_) => Vec::new(),
        }
    }

    /// Finds out anew how things stand: something is otherwise here, or nothing was heard for long.
    pub fn again(&mut self) -> Actions {
        match self.link {
            Link::Up(_) | Link::Greeting => vec![self.hello(false)],
            Link::Down | Link::Incompatible(_) => Vec::new(),
        }
    }

    /// Somebody took note of what became of conflicting histories.
    pub fn acknowledge(&mut self) -> Actions {
        match self.link {
            Link::Up(_) => vec![Action::Send(Message::Acknowledged)],
            Link::Down | Link::Greeting | Link::Incompatible(_) => Vec::new(),
        }
    }

    /// The version that a change would be here and now.
    pub fn draft(&self, draft: &Draft) -> Version {
        Version::new(self.line.newest(), self.node, draft)
    }

    /// Offers a change, made by [`Follow::draft`], if there is somebody to take it. Otherwise it is to be made alone.
    pub fn offer(&mut self, delta: Delta) -> Actions {
        let version = delta.version.clone();
        if self.stand() != Stand::Together || self.offer.is_some() {
            return vec![Action::Outcome(Outcome::Make(version))];
        }
        self.offer = Some(version);
        vec![Action::Send(Message::Offer(delta))]
    }

    /// The other node has had enough time to answer: what was offered is made alone, and so is what comes next, until it
    /// answers. What it answers later is understood.
    pub fn enough(&mut self) -> Actions {
        let made = self.make(Answer::Unanswered);
        if let Link::Up(peer) = &mut self.link {
            peer.slow = true;
            peer.fed |= made.is_some();
        }
        made.into_iter().collect()
    }

    /// This is what we have durably now.
    pub fn advanced(&mut self, line: &Line, incomplete: bool) -> Actions {
        self.incomplete = incomplete;
        if self.line.head() == line.head() {
            self.line = line.clone();
            return Vec::new();
        }
        self.line = line.clone();
        self.feed()
    }

    /// Gives the other node what it lacks, if it waits for nothing.
    fn feed(&mut self) -> Actions {
        let ahead = matches!(self.stand(), Stand::Ahead(_));
        let Link::Up(peer) = &mut self.link else {
            return Vec::new();
        };
        if !ahead || peer.fed || peer.refuses.is_some() {
            return Vec::new();
        }
        peer.fed = true;
        match peer.head {
            // It has nothing, and what the first version made of nothing is not known.
            VersionId::ROOT => vec![Action::Gather],
            head => vec![Action::Collect(head)],
        }
    }

    /// Answers [`Action::Collect`]: what has changed, or nothing if that is not known any more.
    pub fn collected(&mut self, deltas: Option<Vec<Delta>>) -> Actions {
        match deltas {
            Some(mut deltas) => {
                deltas.truncate(FEED);
                // What a program of another age has made here may not be what was told then: it knew less, or more. The other
                // node would refuse it, and gets everything.
                let proved = |delta: &Delta| delta.version.proves(&delta.records).is_ok();
                deltas.truncate(deltas.iter().take_while(|delta| proved(delta)).count());
                match deltas.is_empty() {
                    true => vec![Action::Gather],
                    false => vec![Action::Send(Message::Feed { deltas })],
                }
            }
            None => vec![Action::Gather],
        }
    }

    /// Answers [`Action::Gather`]; the versions are added here.
    pub fn gathered(&mut self, mut whole: Whole) -> Actions {
        let Link::Up(peer) = &self.link else {
            return Vec::new();
        };
        let versions = self.line.versions().iter();
        whole.line = versions.map(|kept| kept.version.clone()).collect();
        if whole.line.is_empty() {
            return Vec::new();
        }
        let instead = peer.head;
        self.counts.wholes_given += 1;
        vec![Action::Send(Message::Whole { instead, whole })]
    }
}

impl Taking {
    fn changes(newest: VersionId) -> Taking {
        Taking {
            newest,
            whole: false,
            fork: false,
        }
    }
}

impl Peer {
    /// It has one more version now.
    fn has(&mut self, id: VersionId) {
        self.head = id;
        let line = &mut self.hello.line;
        if line.last() == Some(&id) {
            return;
        }
        line.push(id);
        if line.len() > MOST + 1 {
            line.remove(0);
        }
    }
}
