//! What the other node has becomes what this one has, or is refused as a whole.

use std::sync::Arc;

use ilb_node::journal::events::PAIR_FORKED;
use ilb_pair::follow::{Action, Delta, Follow, Fork, Kept, Line, Reason, Refused, Whole};
use libilb::model::Configuration;

use super::{changes, were};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::followed::Followed;
use crate::manager::Manager;
use crate::manager::error::ManagerError;
use crate::manager::steps::{Cause, unix_now};
use crate::state::State;
use crate::store::codec::{self, forward};

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Changes of the other node, one after the other.
    pub(super) async fn take(&mut self, deltas: Vec<Delta>) -> Vec<Action> {
        let mut result = Ok(());
        for delta in deltas {
            result = self.take_one(delta).await;
            if result.is_err() {
                break;
            }
        }
        self.taken(result)
    }

    fn taken(&mut self, result: Result<(), Refused>) -> Vec<Action> {
        let pair = self.state.pair.clone().unwrap_or_default();
        self.with_follow(|follow| follow.took(&pair.line, pair.incomplete, result))
    }

    /// Whether anything can be taken now.
    async fn can_take(&mut self) -> Result<(), Refused> {
        match self.can_store().await {
            // What waits is taken back on top of it.
            Err(ManagerError::Waiting { .. }) if self.following.taking_back => Ok(()),
            result => result.map_err(refusal),
        }
    }

    async fn take_one(&mut self, delta: Delta) -> Result<(), Refused> {
        self.can_take().await?;
        let version = delta.version;
        let (records, numbers) = (delta.records, delta.numbers);
        let (state, later) = (self.state.clone(), self.later());
        let applied = tokio::task::spawn_blocking(move || {
            let now = &state.configuration;
            let next = forward::apply(now, now, &records, numbers, later)?;
            fits(&state, next)
        });
        let configuration = unless_refused(applied.await)?;
        let changes = configuration != self.state.configuration;
        let pair = self.one_more(&version, changes).map(|pair| self.told(pair));
        let cause = Cause {
            author: Author::Peer(version.author.clone()),
            words: version.words.clone(),
        };
        let pending = self.state.pending.clone();
        let put = self.put(configuration, pending, pair, cause).await;
        put.map_err(refusal)
    }

    /// Whether the other node's program is later than this one.
    fn later(&self) -> bool {
        self.following.follow.as_ref().is_some_and(Follow::may_lack)
    }

    /// Notes whether a later program has told this.
    fn told(&self, mut pair: Arc<Followed>) -> Arc<Followed> {
        if self.later() && !pair.incomplete {
            Arc::make_mut(&mut pair).incomplete = true;
        }
        pair
    }

    /// The whole configuration of the other node.
    pub(super) async fn replace(&mut self, whole: Whole, fork: Option<Fork>) -> Vec<Action> {
        let result = self.replace_by(whole, fork).await;
        self.taken(result)
    }

    async fn replace_by(&mut self, whole: Whole, fork: Option<Fork>) -> Result<(), Refused> {
        self.can_take().await?;
        let Whole {
            line,
            records,
            numbers,
        } = whole;
        let (state, later) = (self.state.clone(), self.later());
        let applied = tokio::task::spawn_blocking(move || {
            let local = &state.configuration;
            let next = forward::apply(&Configuration::default(), local, &records, numbers, later)?;
            fits(&state, next)
        });
        let configuration = unless_refused(applied.await)?;
        let before = self.state.generation;
        let generation = before + u64::from(configuration != self.state.configuration);
        let newest = line.last().map(|version| version.id);
        let kept = line.into_iter().map(|version| Kept {
            mark: match newest == Some(version.id) {
                true => generation,
                // What was before is not known here.
                false => 0,
            },
            version,
        });
        let line = Line::new(kept).map_err(|words| Refused {
            reason: Reason::Cannot,
            words,
        })?;
        let mut pair = Followed {
            line,
            incomplete: false,
            ..self.state.pair.as_deref().cloned().unwrap_or_default()
        };
        let mut words = "the whole configuration of the other node".to_owned();
        if let Some(fork) = fork {
            words = format!("{words}: {} of this node gave way", changes(fork.ours));
            let notice = format!(
                "while the nodes did not hear each other, {} made on this node and {} on the other one, whose configuration is \
                 in force now; what this node had is kept: 'lbadm history' lists it, 'lbadm rollback {before}' brings it back \
                 on both nodes",
                were(fork.ours),
                changes(fork.theirs)
            );
            pair.notice(unix_now(), notice);
        }
        let author = pair.line.newest().map(|newest| newest.author.clone());
        let cause = Cause {
            author: Author::Peer(author.unwrap_or_default()),
            words,
        };
        let pair = self.told(Arc::new(pair));
        let pending = self.state.pending.clone();
        let put = self.put(configuration, pending, Some(pair), cause).await;
        put.map_err(refusal)?;
        if let Some(fork) = fork {
            tracing::warn!(
                message_id = PAIR_FORKED.id,
                ilb_generation = before,
                "conflicting histories: {} of this node gave way to {} of the other one; generation {before} has them",
                changes(fork.ours),
                changes(fork.theirs)
            );
        }
        Ok(())
    }

    /// The other node gave up what it had changed.
    pub(super) async fn won(&mut self, fork: Fork) {
        let words = format!(
            "while the nodes did not hear each other, {} made on the other node and {} on this one, whose configuration is in \
             force now; what the other node had is kept there: 'lbadm history' on that node lists it",
            were(fork.theirs),
            changes(fork.ours)
        );
        tracing::warn!(
            message_id = PAIR_FORKED.id,
            ilb_generation = self.state.generation,
            "conflicting histories: {} of the other node gave way to {} of this one",
            changes(fork.theirs),
            changes(fork.ours)
        );
        let Some(mut pair) = self.state.pair.clone() else {
            return;
        };
        Arc::make_mut(&mut pair).notice(unix_now(), words);
        let next = State {
            pair: Some(pair),
            ..self.state.clone()
        };
        if let Err(error) = self.commit(next, Cause::own(String::new())).await {
            tracing::error!("{error}");
        }
    }

    pub(super) async fn clear_notices(&mut self) -> Result<u32, ManagerError> {
        let Some(mut pair) = self.state.pair.clone() else {
            return Ok(0);
        };
        if pair.notices.is_empty() {
            return Ok(0);
        }
        let notices = std::mem::take(&mut Arc::make_mut(&mut pair).notices);
        let next = State {
            pair: Some(pair),
            ..self.state.clone()
        };
        // No new generation: the configuration is the same.
        self.commit(next, Cause::own(String::new())).await?;
        Ok(u32::try_from(notices.len()).unwrap_or(u32::MAX))
    }

    /// `AcknowledgePair`: on both nodes, if they hear each other.
    pub(in crate::manager) async fn acknowledge_pair(
        &mut self,
        author: &Author,
    ) -> Result<u32, ManagerError> {
        let count = self.clear_notices().await?;
        if count > 0 {
            tracing::info!("{author}: acknowledge {count} notices of the pair");
        }
        self.drive(Follow::acknowledge).await;
        Ok(count)
    }
}

/// The configuration, if the state with it is one.
fn fits(state: &State, configuration: Configuration) -> Result<Configuration, String> {
    let mut next = State {
        configuration,
        ..state.clone()
    };
    let now = unix_now();
    next.retired
        .follow(&state.configuration, &next.configuration, now);
    codec::check(&next).map_err(|error| error.to_string())?;
    Ok(next.configuration)
}

fn unless_refused<T>(
    result: Result<Result<T, String>, tokio::task::JoinError>,
) -> Result<T, Refused> {
    let cannot = |words: String| Refused {
        reason: Reason::Cannot,
        words,
    };
    let result = result.map_err(|error| cannot(error.to_string()))?;
    result.map_err(cannot)
}

fn refusal(error: ManagerError) -> Refused {
    Refused {
        reason: match error {
            ManagerError::Waiting { .. } => Reason::Waiting,
            _ => Reason::Cannot,
        },
        words: error.to_string(),
    }
}
