//! Addresses that one node gives to the other.

use ilb_node::journal::events::PAIR_FAILOVER;
use libilb::model::key;
use libilb::pair::Step;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{GIVING, Giving, LINGER};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::manager::Manager;
use crate::manager::error::{ManagerError, PairError};
use crate::pair::keep::Kept;

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// `Failover`: begins it; `reply` is answered when the other node has the addresses.
    pub(in crate::manager) async fn fail_over(
        &mut self,
        author: &Author,
        force: bool,
        reply: oneshot::Sender<Result<Vec<String>, ManagerError>>,
    ) {
        match self.begin_failover(author, force).await {
            Ok(names) => {
                let patience = if self.pair.up { GIVING } else { LINGER };
                let until = Instant::now() + patience;
                self.pair.giving = Some(Giving {
                    names,
                    until,
                    reply,
                });
            }
            Err(error) => {
                tracing::info!("{author}: failover: refused: {error}");
                // Who asked may have gone away.
                let _ = reply.send(Err(error));
            }
        }
    }

    async fn begin_failover(
        &mut self,
        author: &Author,
        force: bool,
    ) -> Result<Vec<String>, ManagerError> {
        if self.pair.kept.membership.is_none() {
            return Err(PairError::NotPaired.into());
        }
        if self.pair.giving.is_some() {
            return Err(PairError::Giving.into());
        }
        let names = self.active_instances();
        if names.is_empty() || self.pair.kept.maintenance {
            return Err(PairError::NotActive.into());
        }
        if !force && let Some(why) = self.not_ready().await {
            return Err(PairError::NotReady(why).into());
        }
        let kept = Kept {
            yielded: true,
            ..self.pair.kept.clone()
        };
        self.keep_pair(kept).await?;
        tracing::info!(
            message_id = PAIR_FAILOVER.id,
            "{author}: failover: giving the addresses of {} to the other node",
            names.join(", ")
        );
        Ok(names)
    }

    /// Why the other node cannot take over, if it cannot.
    async fn not_ready(&mut self) -> Option<String> {
        if !self.pair.up {
            return Some(format!("it is not heard ({})", self.pair.why));
        }
        let there = self.pair.there.as_ref()?;
        if there.maintenance {
            return Some("it is in maintenance".to_owned());
        }
        if !there.fastpath {
            return Some("its fast path is not there, or has nothing to forward by".to_owned());
        }
        let step = self.pair_step();
        if step.step != Step::InStep {
            return Some("it has not the same configuration ('lbadm show-pair' says more)".into());
        }
        match self.exchange().await {
            None => Some(
                "connections do not follow to it: this node's fast path does not know it".into(),
            ),
            Some(peer) if !peer.up => {
                Some("connections do not follow to it: its fast path does not answer ours".into())
            }
            Some(peer) if !peer.complete => {
                Some("both fast paths have not told each other of all connections yet".into())
            }
            Some(_) => None,
        }
    }

    /// Whether the addresses that were given are taken.
    pub(super) async fn settle_failover(&mut self) {
        let active = self.active_instances();
        let Some(giving) = &self.pair.giving else {
            return;
        };
        let left = giving.names.iter().all(|name| !active.contains(name));
        let there = self.pair.there.as_ref().filter(|_| self.pair.up);
        let taken = there.is_some_and(|node| {
            let has = |name: &String| node.instances.iter().any(|it| key(it) == key(name));
            giving.names.iter().all(has)
        });
        let over = giving.until <= Instant::now();
        if !over && (!left || !taken) {
            return;
        }
        let Some(giving) = self.pair.giving.take() else {
            return;
        };
        let result = match taken || !self.pair.up {
            true => Ok(giving.names),
            false => {
                let kept = Kept {
                    yielded: false,
                    ..self.pair.kept.clone()
                };
                if let Err(error) = self.keep_pair(kept).await {
                    tracing::error!("{error}");
                }
                Err(PairError::NotTaken(GIVING.as_secs()).into())
            }
        };
        // Who asked may have gone away.
        let _ = giving.reply.send(result);
    }
}
