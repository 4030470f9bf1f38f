//! The configuration follows to the other node of the pair, and from it: [`ilb_pair::follow`] says what is to be done, which is
//! done here.
//!
//! A change is offered to the other node before it is made. While an answer is awaited, which takes [`patience`] at most,
//! health checks, VRRP and the other node itself are heard as ever; commands wait. What the other node gives is read and
//! checked like everything from outside, and taken as a change like any other: durable, in force, in the history. Or it is
//! refused as a whole, with a reason that both nodes show.

mod take;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ilb_node::journal::events::{PAIR_OUT_OF_STEP, PAIR_REFUSED};
use ilb_pair::follow::{
    Action, Counts, Delta, Digest, Draft, Follow, Heard, Line, Message, Numbers, Outcome, Refused,
    Speaks, Stand, Turn, Version, Whole, patience,
};
use libilb::model::Configuration;
use libilb::pair::{Notice, Step, StepDescription};
use tokio::time::{Instant, sleep_until};

use super::Manager;
use super::error::ManagerError;
use super::steps::{Cause, unix_now};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::followed::Followed;
use crate::state::State;
use crate::store::codec::forward;

/// How often it is found out anew how the nodes stand to each other, while they are not in step.
const AGAIN: Duration = Duration::from_secs(5);
/// Octets that a message may have; the link takes a little more.
const MOST_OCTETS: usize = 60 << 20;
/// Numbers of rules and servers that node 1 leaves out when it goes on alone: what the other node makes meanwhile has other
/// numbers then. Connections know their rule and server by them.
const GAP: u32 = 1 << 16;

/// What the manager knows of it.
#[derive(Default)]
pub struct Following {
    /// `None` without a pair.
    follow: Option<Follow>,
    /// What became of our offer.
    outcome: Option<Outcome>,
    /// A version is being made that the other node may have.
    pub(super) told: bool,
    /// A change that was not confirmed is being taken back: what the other node has may come before that.
    pub(super) taking_back: bool,
    /// The numbers when both nodes had the same.
    common: Option<Numbers>,
    /// When to find out anew.
    again: Option<Instant>,
    /// Why something could not be sent.
    unsent: String,
    /// Octets of the last whole configuration that was sent.
    pub(super) whole_octets: u64,
    /// The problem that was told last.
    trouble: String,
}

/// How the configuration stands to that of the other node, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowStatus {
    /// In short, with what is to be said about it.
    pub step: StepDescription,
    /// What a person should know, oldest first.
    pub notices: Vec<Notice>,
}

/// A version that may be made.
pub(super) struct Agreed {
    pub version: Version,
    /// Whether the other node has it, or may have it.
    pub told: bool,
}

impl Following {
    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Begins with what is kept.
    pub(super) fn begin_following(&mut self) {
        let follow = |pair: &Arc<Followed>| {
            let line = pair.line.clone();
            Follow::new(pair.node, Speaks::default(), line, pair.incomplete)
        };
        self.following = Following {
            follow: self.state.pair.as_ref().map(follow),
            ..Following::default()
        };
    }

    /// What is kept with the configuration follows whether this node is in a pair, and as which node.
    pub(super) async fn settle_membership(&mut self) {
        let member = self.pair.kept.membership.as_ref();
        let node = member.map(|membership| membership.node);
        let known = self.state.pair.as_ref().map(|pair| pair.node);
        if node == known || self.store.is_none() {
            return;
        }
        let pair = node.map(|node| {
            let mut line = Line::default();
            if node == 0 {
                // What there is now is what the other node gets.
                let draft = Draft {
                    time: unix_now(),
                    author: Author::Manager.to_string(),
                    words: "the pair begins".to_owned(),
                    // Nobody is told this as a change, and no two pairs begin with the same version.
                    digest: ilb_pair::Secret::generate()
                        .map(|random| random.derive("version").into())
                        .unwrap_or_default(),
                };
                let first = Version::new(None, node, &draft);
                // Nothing is before the first one.
                drop(line.push(first, self.state.generation));
            }
            Arc::new(Followed {
                node,
                line,
                ..Followed::default()
            })
        });
        let next = State {
            pair,
            ..self.state.clone()
        };
        match self.commit(next, Cause::own(String::new())).await {
            Ok(()) => {
                self.begin_following();
                if self.pair.up {
                    self.follow_up().await;
                }
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Does something with the machine, and then what it says.
    async fn drive(&mut self, what: impl FnOnce(&mut Follow) -> Vec<Action>) {
        let Some(follow) = &mut self.following.follow else {
            return;
        };
        let actions = what(follow);
        self.act(actions).await;
    }

    /// The other node is heard.
    pub(super) async fn follow_up(&mut self) {
        let active = self.own_node().active;
        self.drive(|follow| {
            follow.set_active(active);
            follow.up()
        })
        .await;
    }

    /// It is not heard any more.
    pub(super) async fn follow_down(&mut self) {
        self.drive(Follow::down).await;
    }

    /// It says something.
    pub(super) async fn follow_hear(&mut self, frame: Vec<u8>) {
        let decoded = tokio::task::spawn_blocking(move || Message::decode(&frame)).await;
        match decoded {
            Ok(Ok(heard)) => {
                if let Heard::Message(message) = &heard
                    && let Message::Unknown { what } = message.as_ref()
                {
                    tracing::warn!("the other node of the pair does not understand {what:?}");
                }
                self.drive(|follow| follow.heard(heard)).await;
            }
            Ok(Err(nonsense)) => {
                tracing::warn!("{nonsense}");
                self.following.unsent = nonsense.to_string();
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// After everything that happens: whether we are active, and whether the nodes are in step.
    pub(super) async fn tend_following(&mut self) {
        self.settle_membership().await;
        if self.following.follow.is_none() {
            return;
        }
        let active = self.own_node().active;
        self.drive(|follow| follow.set_active(active)).await;
        let Some(follow) = &self.following.follow else {
            return;
        };
        let settled = match follow.stand() {
            Stand::Together => {
                self.following.common = Some(forward::numbers(&self.state.configuration));
                self.following.unsent.clear();
                true
            }
            Stand::Away | Stand::Incompatible(_) => true,
            Stand::Greeting | Stand::Ahead(_) | Stand::Behind(_) | Stand::Forked(_) => false,
        };
        self.following.again = match (settled, self.following.again) {
            (true, _) => None,
            (false, None) => Some(Instant::now() + AGAIN),
            (false, again) => again,
        };
        self.tell_trouble();
    }

    /// Says in the journal, once, what keeps the nodes from being in step.
    fn tell_trouble(&mut self) {
        let Some(follow) = &self.following.follow else {
            return;
        };
        let refused = |whom: &str, refused: Option<&Refused>| {
            refused.map(|refused| format!("{whom} does not take a change: {}", refused.words))
        };
        let trouble = match follow.stand() {
            Stand::Together => None,
            Stand::Incompatible(words) => Some(words),
            _ => refused("the other node", follow.peer_refuses())
                .or_else(|| refused("this node", follow.refuses())),
        };
        match trouble {
            Some(words) if words != self.following.trouble => {
                tracing::warn!(
                    message_id = PAIR_REFUSED.id,
                    ilb_reason = words,
                    "the configuration does not follow in the pair: {words}"
                );
                self.following.trouble = words;
            }
            Some(_) => {}
            None if follow.stand() == Stand::Together => self.following.trouble.clear(),
            None => {}
        }
    }

    /// It is time to find out anew how things stand.
    pub(super) async fn look_again(&mut self) {
        self.following.again = None;
        self.drive(Follow::again).await;
    }

    /// The same with the next that happens.
    pub(super) fn look_again_soon(&mut self) {
        if self.following.follow.is_some() {
            self.following.again = Some(Instant::now());
        }
    }

    /// What has happened, in numbers.
    pub(super) fn counts(&self) -> Option<&Counts> {
        self.following.follow.as_ref().map(Follow::counts)
    }

    /// Whether this node is the one that changes something of its own accord.
    pub(super) fn leads(&self) -> bool {
        self.following.follow.as_ref().is_none_or(Follow::leads)
    }

    /// The configuration as somebody may change it. Alone, node 1 leaves numbers out.
    pub(super) fn editable(&self) -> Configuration {
        let mut configuration = self.state.configuration.clone();
        let alone =
            self.following.follow.as_ref().is_some_and(|follow| {
                follow.node() == 1 && !matches!(follow.stand(), Stand::Together)
            });
        if alone {
            let numbers = forward::numbers(&configuration);
            let common = self.following.common.unwrap_or(numbers);
            let room = |now: u32, common: u32| now.max(common.saturating_add(GAP));
            if numbers.rule < u32::MAX - GAP && numbers.server < u32::MAX - GAP {
                configuration.next_rule = room(numbers.rule, common.rule);
                configuration.next_server = room(numbers.server, common.server);
            }
        }
        configuration
    }

    /// The present configuration, if nothing else is different than the numbers of what comes next.
    pub(super) fn unless_only_numbers(&self, configuration: Configuration) -> Configuration {
        let present = &self.state.configuration;
        if self.following.follow.is_none() || configuration == *present {
            return configuration;
        }
        let numbered = Configuration {
            next_rule: configuration.next_rule,
            next_server: configuration.next_server,
            ..present.clone()
        };
        match numbered == configuration {
            true => present.clone(),
            false => configuration,
        }
    }

    /// Waits until this node has what the other one has, if it lacks something.
    ///
    /// # Errors
    /// [`ManagerError::PeerAhead`]: to go on from here would make conflicting histories.
    pub(super) async fn has_caught_up(&mut self) -> Result<(), ManagerError> {
        let deadline = self.deadline();
        while self.turn() == Turn::Wait && self.meanwhile(deadline).await {}
        if self.turn() != Turn::Wait {
            return Ok(());
        }
        let Some(follow) = &self.following.follow else {
            return Ok(());
        };
        let behind = match follow.stand() {
            Stand::Behind(changes) => changes,
            Stand::Forked(fork) => fork.theirs,
            Stand::Away
            | Stand::Greeting
            | Stand::Incompatible(_)
            | Stand::Together
            | Stand::Ahead(_) => {
                self.drive(Follow::enough).await;
                return Ok(());
            }
        };
        let why = follow.refuses();
        Err(ManagerError::PeerAhead {
            changes: changes(behind),
            why: why.map_or_else(String::new, |refused| {
                format!(" and it cannot take: {}", refused.words)
            }),
        })
    }

    /// Whether the other node has changes that this one does not have.
    pub(super) fn lacks_changes(&self) -> bool {
        let follow = self.following.follow.as_ref();
        follow.is_some_and(|follow| matches!(follow.stand(), Stand::Behind(_)))
    }

    fn turn(&self) -> Turn {
        let follow = self.following.follow.as_ref();
        follow.map_or(Turn::Alone, Follow::turn)
    }

    /// When the other node has had enough time.
    fn deadline(&self) -> Instant {
        let node = self.following.follow.as_ref().map_or(0, Follow::node);
        Instant::now() + patience(node)
    }

    /// Hears whoever must be heard while the other node is waited for; false when there has been enough time. What the other
    /// node has said by then is heard before that: this one may have been stopped meanwhile.
    async fn meanwhile(&mut self, deadline: Instant) -> bool {
        tokio::select! {
            biased;
            event = self.pair.link.event() => self.pair_event(event).await,
            () = sleep_until(deadline) => return false,
            news = self.checks.news() => self.learn(news).await,
            () = self.vrrp.hear() => {}
        }
        true
    }

    /// Asks the other node, if there is one, whether this may be the configuration. Without an answer it may.
    ///
    /// # Errors
    /// [`ManagerError::Overtaken`], [`ManagerError::PeerForbids`].
    pub(super) async fn agree(
        &mut self,
        configuration: &Configuration,
        cause: &Cause,
    ) -> Result<Option<Agreed>, ManagerError> {
        if self.following.follow.is_none() {
            return Ok(None);
        }
        let records = forward::records(&self.state.configuration, configuration);
        let Some(follow) = &mut self.following.follow else {
            return Ok(None);
        };
        if records.is_empty() {
            // It is this node's own.
            return Ok(None);
        }
        let draft = Draft {
            time: unix_now(),
            author: cause.author.to_string(),
            words: cause.words.clone(),
            digest: Digest::of(&records),
        };
        let delta = Delta {
            version: follow.draft(&draft),
            records,
            numbers: forward::numbers(configuration),
        };
        self.following.outcome = None;
        let actions = follow.offer(delta);
        let told = follow.offered().is_some();
        self.act(actions).await;
        let deadline = self.deadline();
        loop {
            match self.following.outcome.take() {
                Some(Outcome::Make(version)) => return Ok(Some(Agreed { version, told })),
                Some(Outcome::Overtaken) => return Err(ManagerError::Overtaken),
                Some(Outcome::Forbidden(words)) => return Err(ManagerError::PeerForbids(words)),
                None => {}
            }
            if !self.meanwhile(deadline).await {
                tracing::warn!(
                    message_id = PAIR_OUT_OF_STEP.id,
                    "the other node of the pair does not answer in time: the change is made without it, and it gets it later"
                );
                self.drive(Follow::enough).await;
            }
        }
    }

    /// What is known of the pair with one more version, which `changes` something here or not.
    pub(super) fn one_more(&self, version: &Version, changes: bool) -> Option<Arc<Followed>> {
        let mut pair = self.state.pair.clone()?;
        let generation = self.state.generation + u64::from(changes);
        let followed = Arc::make_mut(&mut pair);
        if let Err(error) = followed.line.push(version.clone(), generation) {
            // The machine gives the next one only.
            tracing::error!("{error}");
        }
        Some(pair)
    }

    /// How a change is taken back that the other node may have: by one more version. No number is given again.
    pub(super) fn told_back(&self, back: State, words: &str) -> State {
        if !self.following.told {
            return back;
        }
        let Some(mut pair) = self.state.pair.clone() else {
            return back;
        };
        let configuration = self.state.configuration.restored(back.configuration);
        let records = forward::records(&self.state.configuration, &configuration);
        let followed = Arc::make_mut(&mut pair);
        let draft = Draft {
            time: unix_now(),
            author: Author::Manager.to_string(),
            words: words.to_owned(),
            digest: Digest::of(&records),
        };
        let version = Version::new(followed.line.newest(), followed.node, &draft);
        if let Err(error) = followed.line.push(version, back.generation) {
            tracing::error!("{error}");
        }
        State {
            configuration,
            pair: Some(pair),
            ..back
        }
    }

    /// Goes on with the machine when what was agreed is made, or could not be.
    pub(super) async fn follow_on(
        &mut self,
        agreed: Agreed,
        result: Result<(), ManagerError>,
    ) -> Result<(), ManagerError> {
        let Some(pair) = self.state.pair.clone() else {
            return result;
        };
        self.drive(|follow| follow.advanced(&pair.line, pair.incomplete))
            .await;
        if result.is_err() && agreed.told && !pair.line.has(agreed.version.id) {
            self.look_again().await;
            let there = self.following.follow.as_ref();
            let has_it = there.is_some_and(|follow| matches!(follow.stand(), Stand::Behind(_)));
            if has_it {
                return result.map_err(|error| ManagerError::OnlyThere(Box::new(error)));
            }
        }
        result
    }

    /// Does what the machine says.
    async fn act(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let more = match action {
                Action::Send(message) => {
                    self.say(&message);
                    continue;
                }
                Action::Outcome(outcome) => {
                    self.following.outcome = Some(outcome);
                    continue;
                }
                Action::Take(deltas) => self.take(deltas).await,
                Action::Replace { whole, fork } => self.replace(*whole, fork).await,
                Action::Collect(base) => {
                    let state = self.state.clone();
                    let work = tokio::task::spawn_blocking(move || forward::since(&state, base));
                    let deltas = work.await.unwrap_or_default();
                    self.with_follow(|follow| follow.collected(deltas))
                }
                Action::Gather => {
                    let now = self.state.configuration.clone();
                    let work = tokio::task::spawn_blocking(move || Whole {
                        line: Vec::new(),
                        records: forward::records(&Configuration::default(), &now),
                        numbers: forward::numbers(&now),
                    });
                    match work.await {
                        Ok(whole) => self.with_follow(|follow| follow.gathered(whole)),
                        Err(error) => {
                            tracing::error!("{error}");
                            continue;
                        }
                    }
                }
                Action::Won(fork) => {
                    self.won(fork).await;
                    continue;
                }
                Action::Acknowledged => {
                    if let Err(error) = self.clear_notices().await {
                        tracing::error!("{error}");
                    }
                    continue;
                }
            };
            for action in more.into_iter().rev() {
                actions.push_front(action);
            }
        }
    }

    fn with_follow(&mut self, what: impl FnOnce(&mut Follow) -> Vec<Action>) -> Vec<Action> {
        self.following.follow.as_mut().map(what).unwrap_or_default()
    }

    fn say(&mut self, message: &Message) {
        let octets = message.encode();
        if matches!(message, Message::Whole { .. }) {
            self.following.whole_octets = octets.len() as u64;
        }
        if octets.len() > MOST_OCTETS {
            let words = format!(
                "the configuration is too large for the other node of the pair: {} MiB, and {} are possible",
                octets.len() >> 20,
                MOST_OCTETS >> 20
            );
            tracing::error!("{words}");
            self.following.unsent = words;
            return;
        }
        self.pair.link.send(octets);
    }

    /// How the configuration stands to that of the other node.
    pub(super) fn follow_status(&self) -> Option<FollowStatus> {
        let follow = self.following.follow.as_ref()?;
        let refused = match (follow.peer_refuses(), follow.refuses()) {
            (Some(refused), _) => format!("the other node does not take it: {}", refused.words),
            (None, Some(refused)) => format!("this node does not take it: {}", refused.words),
            (None, None) => self.following.unsent.clone(),
        };
        let (step, missing, words) = match follow.stand() {
            Stand::Away => (Step::Unknown, 0, String::new()),
            Stand::Greeting => (Step::Unknown, 0, String::new()),
            Stand::Incompatible(words) => (Step::Unknown, 0, words),
            Stand::Together => (Step::InStep, 0, String::new()),
            Stand::Ahead(missing) => (Step::Ahead, missing, refused),
            Stand::Behind(missing) => (Step::Behind, missing, refused),
            Stand::Forked(fork) => (Step::Forked, fork.ours + fork.theirs, refused),
        };
        let pair = self.state.pair.as_ref();
        let notices = pair.map(|pair| pair.notices.as_slice()).unwrap_or_default();
        let notice = |notice: &crate::followed::Notice| Notice {
            time: notice.time,
            words: notice.words.clone(),
        };
        Some(FollowStatus {
            step: StepDescription {
                step,
                changes: missing as u64,
                words,
            },
            notices: notices.iter().map(notice).collect(),
        })
    }
}

fn changes(count: usize) -> String {
    match count {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    }
}

fn were(count: usize) -> String {
    match count {
        1 => "1 change was".to_owned(),
        count => format!("{count} changes were"),
    }
}
