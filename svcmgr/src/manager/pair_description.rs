//! Questions and orders about the pair, and the answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ilb_node::control::PeerStatus;
use ilb_pair::Token;
use libilb::pair::{
    ExchangeDescription, FollowingDescription, Invitation, LeftDescription, LinkDescription,
    PairDescription,
};

use super::command::PairCommand;
use super::error::{ManagerError, PairError};
use super::{Command, Manager, ManagerHandle, Publisher};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::pair::{Place, join};

impl ManagerHandle {
    async fn ask_pair<T>(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> PairCommand,
    ) -> Result<T, ManagerError> {
        self.ask(|reply| Command::Pair(command(reply))).await
    }

    /// How it stands with the pair.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn describe_pair(&self) -> Result<PairDescription, ManagerError> {
        self.ask_pair(|reply| PairCommand::Describe { reply }).await
    }

    /// Makes this node the first of a pair. No address and port 0 mean what the settings say.
    ///
    /// # Errors
    /// [`PairError`].
    pub async fn create_pair(
        &self,
        author: Author,
        address: &str,
        port: u16,
    ) -> Result<Invitation, ManagerError> {
        let address = match address {
            "" => self.listen.address,
            text => Some(address_of(text)?),
        };
        let place = Place {
            address,
            port: match port {
                0 => self.listen.port,
                port => port,
            },
        };
        self.ask_pair(|reply| PairCommand::Create {
            author,
            place,
            reply,
        })
        .await?
    }

    /// Joins the pair of another node.
    ///
    /// # Errors
    /// [`PairError`]; then this node is in no pair.
    pub async fn join_pair(
        &self,
        author: Author,
        address: &str,
        port: u16,
        token: &str,
        replace: bool,
    ) -> Result<(), ManagerError> {
        let address = address_of(address)?;
        let token: Token = token
            .parse()
            .map_err(|error: ilb_pair::token::TokenError| PairError::Token(error.to_string()))?;
        let prepared = self.ask_pair(|reply| PairCommand::Prepare { replace, reply });
        let identity = prepared.await??;
        let begun = join::begin(address, usual(port), &token, &identity).await;
        let joining = begun.map_err(PairError::Join)?;
        // Who keeps it first is this side: the other one spends its token with that.
        let membership = joining.membership.clone();
        let member = author.clone();
        self.ask_pair(|reply| PairCommand::Join {
            author: member,
            membership,
            reply,
        })
        .await??;
        if let Err(why) = joining.finish().await {
            let left = self.ask_pair(|reply| PairCommand::Leave { author, reply });
            left.await??;
            return Err(PairError::Join(why).into());
        }
        self.ask_pair(|reply| PairCommand::Meet { reply }).await
    }

    /// Ends the pair for this node; false if there was none.
    ///
    /// # Errors
    /// [`PairError::Keep`].
    pub async fn leave_pair(&self, author: Author) -> Result<bool, ManagerError> {
        self.ask_pair(|reply| PairCommand::Leave { author, reply })
            .await?
    }

    /// Takes note of what happened, and says how much that was.
    ///
    /// # Errors
    /// Those of a change.
    pub async fn acknowledge_pair(&self, author: Author) -> Result<u32, ManagerError> {
        self.ask_pair(|reply| PairCommand::Acknowledge { author, reply })
            .await?
    }

    /// Gives the addresses of this node to the other one, and returns when it has them.
    ///
    /// # Errors
    /// [`PairError`].
    pub async fn fail_over(
        &self,
        author: Author,
        force: bool,
    ) -> Result<Vec<String>, ManagerError> {
        self.ask_pair(|reply| PairCommand::Failover {
            author,
            force,
            reply,
        })
        .await?
    }

    /// Takes this node out of service, or in again; false if it was so already.
    ///
    /// # Errors
    /// [`PairError::Keep`].
    pub async fn set_maintenance(&self, author: Author, on: bool) -> Result<bool, ManagerError> {
        self.ask_pair(|reply| PairCommand::Maintenance { author, on, reply })
            .await?
    }
}

fn address_of(text: &str) -> Result<IpAddr, PairError> {
    let address = text.parse::<IpAddr>().ok();
    let usable = address.filter(|it| !it.is_unspecified() && !it.is_multicast());
    usable.ok_or_else(|| PairError::Invalid {
        field: "address",
        value: text.to_owned(),
        problem: "is no address of a node",
        allowed: "use one such as 192.0.2.1 or 2001:db8::1",
    })
}

const fn usual(port: u16) -> u16 {
    match port {
        0 => libilb::pair::PAIR_PORT,
        port => port,
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    pub(super) async fn handle_pair<P: Publisher>(
        &mut self,
        command: PairCommand,
        publisher: &mut P,
    ) {
        // A caller that has gone away does not need its answer.
        match command {
            PairCommand::Describe { reply } => {
                let exchange = self.exchange().await;
                let mut description = self.describe_pair();
                description.connections = exchange.map(exchanged);
                drop(reply.send(description));
            }
            PairCommand::Create {
                author,
                place,
                reply,
            } => drop(reply.send(self.create_pair(&author, place).await)),
            PairCommand::Prepare { replace, reply } => drop(reply.send(self.may_join(replace))),
            PairCommand::Join {
                author,
                membership,
                reply,
            } => {
                let result = self.join_pair(&author, membership).await;
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            PairCommand::Meet { reply } => {
                self.meet();
                let _ = reply.send(());
            }
            PairCommand::Leave { author, reply } => {
                let result = self.leave_pair(&author).await;
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            PairCommand::Acknowledge { author, reply } => {
                drop(reply.send(self.acknowledge_pair(&author).await));
            }
            PairCommand::Failover {
                author,
                force,
                reply,
            } => self.fail_over(&author, force, reply).await,
            PairCommand::Maintenance { author, on, reply } => {
                let result = self.set_maintenance(&author, on).await;
                self.publish(publisher).await;
                drop(reply.send(result));
            }
        }
    }

    /// Everything but what the fast paths tell each other.
    fn describe_pair(&self) -> PairDescription {
        let pair = &self.pair;
        let membership = pair.kept.membership.as_ref();
        PairDescription {
            paired: membership.is_some(),
            open_until: pair.open_until(),
            address: membership.map_or_else(String::new, |it| match it.node {
                0 => it.address.to_string(),
                _ => std::net::SocketAddr::new(it.address, it.port).to_string(),
            }),
            link: LinkDescription {
                up: pair.up,
                since: pair.since,
                why: pair.why.clone(),
                lost: pair.lost,
            },
            configuration: self.pair_step(),
            connections: None,
            connections_why: pair.peer_trouble().to_owned(),
            here: self.own_node(),
            there: pair.there.clone(),
            notices: self.pair_notices(),
            left: pair.kept.left.as_ref().map(|left| LeftDescription {
                time: left.time,
                name: left.name.clone(),
                address: left.address.to_string(),
            }),
            following: self.follow_counts(),
            refused: pair.link.refused(),
        }
    }

    /// The same for machines, if there is a pair, or was until the other node has left it.
    pub(super) fn pair_numbers(&self) -> Option<Box<PairDescription>> {
        let kept = &self.pair.kept;
        let some = kept.membership.is_some() || kept.left.is_some();
        some.then(|| Box::new(self.describe_pair()))
    }

    /// The same with what the fast paths tell each other.
    pub(super) async fn pair_status(&mut self) -> Option<Box<PairDescription>> {
        let exchange = self.exchange().await;
        let mut description = self.pair_numbers()?;
        description.connections = exchange.map(exchanged);
        Some(description)
    }

    /// What has become of changes on their way.
    fn follow_counts(&self) -> FollowingDescription {
        let Some(counts) = self.counts() else {
            return FollowingDescription::default();
        };
        let named = |counts: &BTreeMap<&'static str, u64>| {
            let counts = counts.iter();
            counts
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        FollowingDescription {
            offers: named(&counts.offers),
            refused: named(&counts.refused),
            taken: counts.taken,
            wholes_taken: counts.wholes_taken,
            wholes_given: counts.wholes_given,
            whole_octets: self.following.whole_octets,
            forks_won: counts.forks_won,
            forks_lost: counts.forks_lost,
        }
    }
}

fn exchanged(status: PeerStatus) -> ExchangeDescription {
    ExchangeDescription {
        up: status.up,
        complete: status.complete,
        lag: status.lag_ms,
        pending: status.pending,
        counters: status.counters,
        records: status.records,
        refused: status.refused,
    }
}
