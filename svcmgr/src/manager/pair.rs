//! The pair as the manager sees it: what is kept, who is active, what the fast path knows of its peer, and the addresses that are
//! given from one node to the other.

mod failover;
mod leave;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ilb_node::control::{PEER_BANDWIDTH, PEER_PORT, PeerKey, PeerSpec, Request, Response};
use ilb_node::journal::events::{
    MAINTENANCE_BEGAN, MAINTENANCE_OVER, PAIR_JOINED, PAIR_LINK_LOST, PAIR_LINK_UP,
};
use ilb_pair::{Identity, Secret, Token};
use libilb::pair::{Invitation, NodeDescription, Notice, StepDescription};
use libilb::vrrp::VrrpState;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Manager;
use super::catching_up::CatchingUp;
use super::error::{ManagerError, PairError};
use super::vrrp::Stance;
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::{DataPlane, unexpected};
use crate::pair::keep::{Keep, KeepError, Kept, Membership};
use crate::pair::{Admitted, Event, PairLink, Place};

/// How long a token is good for.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How long the other node may take to take the addresses: of intervals of a second it needs up to four.
const GIVING: Duration = Duration::from_secs(15);
/// How long addresses that were given up stay here at most; then another node has them, or nobody.
const LINGER: Duration = Duration::from_secs(3);
/// Pause before the fast path is told of its peer again, when it did not take it: an address may not be there yet.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the disk may take.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// Label of the secret of both fast paths.
const FASTPATH_KEY: &str = "ilb fast path";

/// See the module.
pub struct Pairing {
    keep: Keep,
    pub(super) kept: Kept,
    identity: Option<Arc<Identity>>,
    /// Why what was kept cannot be read: then nothing is changed about it.
    damaged: Option<KeepError>,
    pub(super) link: PairLink,
    /// Our host name.
    name: String,
    pub(super) up: bool,
    /// How often it was lost.
    pub(super) lost: u64,
    /// Since when it is up or down, in milliseconds since 1970.
    pub(super) since: u64,
    /// Why it is not up.
    pub(super) why: String,
    /// What the other node said last.
    pub(super) there: Option<NodeDescription>,
    /// Until when somebody may join.
    open: Option<Open>,
    giving: Option<Giving>,
    told: Told,
    pub(super) catching_up: CatchingUp,
}

struct Open {
    until: Instant,
    /// In seconds since 1970.
    time: u64,
    place: Place,
}

/// Addresses that are being given to the other node.
struct Giving {
    names: Vec<String>,
    until: Instant,
    reply: oneshot::Sender<Result<Vec<String>, ManagerError>>,
}

/// What the fast path knows of its peer.
#[derive(Default)]
struct Told {
    /// Which fast path, and what.
    what: Option<(u64, Option<PeerSpec>)>,
    again: Option<Instant>,
    /// Why it did not take it.
    why: String,
}

impl Pairing {
    /// With what is kept in a folder. Needs a running tokio runtime.
    pub fn start(keep: Keep) -> Pairing {
        let (kept, identity, damaged) = match read(&keep) {
            Ok((kept, identity)) => (kept, identity, None),
            Err(error) => {
                tracing::error!("{error}; nothing is known of the pair");
                (Kept::default(), None, Some(error))
            }
        };
        let pairing = Pairing {
            keep,
            kept,
            identity,
            damaged,
            link: PairLink::start(),
            name: host_name(),
            up: false,
            lost: 0,
            since: 0,
            why: "not connected yet".to_owned(),
            there: None,
            open: None,
            giving: None,
            told: Told::default(),
            catching_up: CatchingUp::default(),
        };
        pairing.be();
        pairing
    }

    fn be(&self) {
        let both = self.identity.clone().zip(self.kept.membership.clone());
        self.link.be(both);
    }

    /// How VRRP instances take part.
    pub fn stance(&self) -> Stance {
        match (&self.giving, self.kept.maintenance, self.kept.yielded) {
            (_, true, _) => Stance::Out("maintenance"),
            (Some(_), false, _) => Stance::Out("its addresses are given to the other node"),
            (None, false, true) => Stance::Yielding,
            (None, false, false) if self.is_member() && self.catching_up.waits() => {
                Stance::Yielding
            }
            (None, false, false) => Stance::Usual,
        }
    }

    /// Whether there is another node.
    pub(super) fn is_member(&self) -> bool {
        self.kept.membership.is_some()
    }

    /// What the fast path shall know of its peer.
    fn peer(&self) -> Option<PeerSpec> {
        let it = self.kept.membership.as_ref()?;
        let key = Secret::new(it.secret.derive(FASTPATH_KEY));
        Some(PeerSpec {
            local: it.local,
            address: it.address,
            port: PEER_PORT,
            node: it.node,
            key: PeerKey(key.to_hex()),
            bandwidth: PEER_BANDWIDTH,
        })
    }

    /// When something is due.
    pub fn due(&self) -> Option<Instant> {
        let giving = self.giving.as_ref().map(|giving| giving.until);
        let others = [self.told.again, self.catching_up.due()];
        giving.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Until when somebody may join, in seconds since 1970; 0 if nobody may.
    pub(super) fn open_until(&self) -> u64 {
        let open = self.open.as_ref().filter(|it| it.until > Instant::now());
        open.map_or(0, |open| open.time)
    }

    /// Why the fast path does not know of its peer; empty if it does.
    pub(super) fn peer_trouble(&self) -> &str {
        &self.told.why
    }

    fn set_link(&mut self, up: bool, why: &str) {
        if self.up != up || self.since == 0 {
            self.since = unix_millis();
        }
        self.up = up;
        why.clone_into(&mut self.why);
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname();
    name.map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn read(keep: &Keep) -> Result<(Kept, Option<Arc<Identity>>), KeepError> {
    let kept = keep.load()?;
    let identity = match kept.membership {
        Some(_) => Some(keep.identity()?),
        None => None,
    };
    Ok((kept, identity))
}

pub(super) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Something happens to the link.
    pub(super) async fn pair_event(&mut self, event: Event) {
        match event {
            Event::Up {
                software,
                beat,
                local,
                remote,
            } => {
                tracing::info!(
                    message_id = PAIR_LINK_UP.id,
                    ilb_peer = %remote,
                    "connected with the other node of the pair, {} at {remote}, which runs {software}",
                    beat.name
                );
                self.pair.set_link(true, "");
                self.pair.there = Some(*beat);
                self.peer_is_at(local, remote).await;
                self.follow_up().await;
            }
            Event::Left => self.other_has_left().await,
            // We have ended it ourselves, or the other node has, and said so.
            Event::Down(_) if !self.pair.is_member() => self.follow_down().await,
            Event::Down(why) => {
                self.pair.lost += 1;
                tracing::warn!(
                    message_id = PAIR_LINK_LOST.id,
                    "the other node of the pair is not heard any more: {why}"
                );
                self.pair.set_link(false, &why);
                self.follow_down().await;
            }
            Event::Trouble(why) => {
                if self.pair.why != why {
                    tracing::info!("no connection with the other node of the pair: {why}");
                }
                if !self.pair.up {
                    self.pair.set_link(false, &why);
                }
            }
            Event::Heard(beat) => self.pair.there = Some(*beat),
            Event::Admitted(admitted) => self.admit(*admitted).await,
            Event::Message(message) => self.follow_hear(message).await,
        }
    }

    /// The other node may have another address now.
    async fn peer_is_at(&mut self, local: std::net::IpAddr, remote: std::net::IpAddr) {
        let mut kept = self.pair.kept.clone();
        let Some(membership) = &mut kept.membership else {
            return;
        };
        (membership.local, membership.address) = (local, remote);
        if let Err(error) = self.keep_pair(kept).await {
            tracing::error!("{error}");
        }
    }

    /// Somebody with the token joins.
    async fn admit(&mut self, admitted: Admitted) {
        let Some(open) = self.pair.open.take() else {
            // Another one was first, or the token has expired: dropping the reply says so.
            return;
        };
        if open.until <= Instant::now() {
            return;
        }
        let membership = Membership {
            node: 0,
            peer: admitted.peer,
            secret: admitted.secret,
            address: admitted.remote,
            local: admitted.local,
            listen: open.place.address,
            port: open.place.port,
        };
        match self.become_member(membership).await {
            Ok(()) => {
                tracing::info!(
                    message_id = PAIR_JOINED.id,
                    ilb_peer = %admitted.remote,
                    "{} has joined the pair", admitted.remote
                );
                // It dials as soon as it hears of that.
                self.pair.be();
                self.pair.link.done().await;
                // A joiner that has gone away finds out when it dials.
                let _ = admitted.reply.send(true);
            }
            Err(error) => tracing::error!("{} does not join: {error}", admitted.remote),
        }
    }

    async fn become_member(&mut self, membership: Membership) -> Result<(), ManagerError> {
        let kept = Kept {
            membership: Some(membership),
            yielded: false,
            left: None,
            ..self.pair.kept.clone()
        };
        self.keep_pair(kept).await?;
        self.pair.since = 0;
        self.pair.there = None;
        self.pair.set_link(false, "not connected yet");
        Ok(())
    }

    /// Keeps this durably, if it is another.
    async fn keep_pair(&mut self, kept: Kept) -> Result<(), ManagerError> {
        if kept == self.pair.kept {
            return Ok(());
        }
        if let Some(error) = &self.pair.damaged {
            return Err(PairError::Keep(error.to_string()).into());
        }
        let (keep, new) = (self.pair.keep.clone(), kept.clone());
        let written = tokio::task::spawn_blocking(move || keep.store(&new));
        let failed = |why: String| ManagerError::from(PairError::Keep(why));
        match timeout(DISK_PATIENCE, written).await {
            Ok(Ok(Ok(()))) => {
                self.pair.kept = kept;
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(failed(error.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("the disk does not answer".to_owned())),
        }
    }

    fn pair_identity(&mut self) -> Result<Arc<Identity>, ManagerError> {
        if let Some(error) = &self.pair.damaged {
            return Err(PairError::Keep(error.to_string()).into());
        }
        if let Some(identity) = &self.pair.identity {
            return Ok(identity.clone());
        }
        let identity = self.pair.keep.identity();
        let identity = identity.map_err(|error| PairError::Keep(error.to_string()))?;
        self.pair.identity = Some(identity.clone());
        Ok(identity)
    }

    fn not_in_a_pair(&self) -> Result<(), ManagerError> {
        match &self.pair.kept.membership {
            None => Ok(()),
            Some(membership) => Err(PairError::Paired(membership.address.to_string()).into()),
        }
    }

    /// `CreatePair`.
    pub(super) async fn create_pair(
        &mut self,
        author: &Author,
        place: Place,
    ) -> Result<Invitation, ManagerError> {
        self.not_in_a_pair()?;
        let identity = self.pair_identity()?;
        let internal = |error: &dyn std::fmt::Display| ManagerError::Internal(error.to_string());
        let token = Token {
            secret: Secret::generate().map_err(|error| internal(&error))?,
            creator: identity.public(),
        };
        let until = Instant::now() + TOKEN_LIFE;
        let time = (unix_millis() + u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(0)) / 1000;
        let text = token.to_string();
        self.pair.open = None;
        let opened = self.pair.link.open(identity, token, place, until).await;
        opened.map_err(|error| PairError::Listen {
            whom: place.to_string(),
            why: error.to_string(),
        })?;
        self.pair.open = Some(Open { until, time, place });
        tracing::info!("{author}: create pair: somebody with the token may join for an hour");
        Ok(Invitation {
            token: text,
            host: match place.address {
                Some(address) => address.to_string(),
                None => self.pair.name.clone(),
            },
            port: place.port,
            until: time,
        })
    }

    /// The first part of `JoinPair`: whether this node may, and as whom.
    pub(super) fn may_join(&mut self, replace: bool) -> Result<Arc<Identity>, ManagerError> {
        self.not_in_a_pair()?;
        let configuration = &self.state.configuration;
        let counted = [
            (configuration.rules.len(), "rule"),
            (configuration.groups.len(), "server group"),
            (configuration.checks.len(), "health check"),
            (configuration.vrrp.len(), "VRRP instance"),
        ];
        let there = counted.into_iter().filter(|(count, _)| *count > 0);
        let there: Vec<String> = there
            .map(|(count, what)| match count {
                1 => format!("1 {what}"),
                _ => format!("{count} {what}s"),
            })
            .collect();
        if !there.is_empty() && !replace {
            return Err(PairError::Occupied(there.join(", ")).into());
        }
        self.pair_identity()
    }

    /// The second part of `JoinPair`.
    pub(super) async fn join_pair(
        &mut self,
        author: &Author,
        membership: Membership,
    ) -> Result<(), ManagerError> {
        self.not_in_a_pair()?;
        let whom = membership.address;
        self.close_pair();
        self.become_member(membership).await?;
        tracing::info!(
            message_id = PAIR_JOINED.id,
            ilb_peer = %whom,
            "{author}: joined the pair of {whom}"
        );
        Ok(())
    }

    /// The third part, when the other node keeps it, too, and listens for us instead of for whoever has the token.
    pub(super) fn meet(&self) {
        self.pair.be();
    }

    fn close_pair(&mut self) {
        self.pair.open = None;
        self.pair.link.close();
    }

    /// `SetMaintenance`.
    pub(super) async fn set_maintenance(
        &mut self,
        author: &Author,
        on: bool,
    ) -> Result<bool, ManagerError> {
        if self.pair.kept.maintenance == on {
            return Ok(false);
        }
        let kept = Kept {
            maintenance: on,
            ..self.pair.kept.clone()
        };
        self.keep_pair(kept).await?;
        match on {
            true => tracing::info!(
                message_id = MAINTENANCE_BEGAN.id,
                "{author}: maintenance: this node takes no addresses"
            ),
            false => tracing::info!(
                message_id = MAINTENANCE_OVER.id,
                "{author}: maintenance is over: this node takes part again"
            ),
        }
        Ok(true)
    }

    /// Names of the VRRP instances that have their addresses here.
    fn active_instances(&self) -> Vec<String> {
        let standing = self.vrrp.standing();
        let all = self.state.configuration.vrrp.iter();
        all.filter(|(name, _)| {
            let status = standing.get(*name);
            status.is_some_and(|status| status.state == VrrpState::Active)
        })
        .map(|(_, instance)| instance.name.clone())
        .collect()
    }

    /// This node, as the other one and everybody is told.
    pub(super) fn own_node(&self) -> NodeDescription {
        let instances = self.active_instances();
        let out = matches!(self.pair.stance(), Stance::Out(_));
        NodeDescription {
            node: self.pair.kept.membership.as_ref().map_or(0, |it| it.node),
            name: self.pair.name.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            active: !instances.is_empty() && !out,
            instances,
            maintenance: self.pair.kept.maintenance,
            fastpath: self.forwards(),
            generation: self.state.generation,
        }
    }

    /// What both fast paths tell each other, if ours is there and knows of its peer.
    pub(super) async fn exchange(&mut self) -> Option<ilb_node::control::PeerStatus> {
        self.pair.kept.membership.as_ref()?;
        match self.ask(Request::Status).await.ok()? {
            Response::Status(status) => status.peer,
            _ => None,
        }
    }

    /// After everything that happens: what follows from it for the pair.
    pub(super) async fn tend_pair(&mut self) {
        self.settle_failover().await;
        if self.pair.kept.yielded && self.pair.giving.is_none() && self.own_node().active {
            // The other one has given them back, or is gone: the priorities decide again.
            let kept = Kept {
                yielded: false,
                ..self.pair.kept.clone()
            };
            if let Err(error) = self.keep_pair(kept).await {
                tracing::error!("{error}");
                // It is so all the same, until the next start.
                self.pair.kept.yielded = false;
            }
        }
        self.pair.link.stand(self.own_node());
        self.introduce_peer().await;
        self.tend_catching_up().await;
    }

    /// Tells the fast path of its peer, if it does not know.
    pub(super) async fn introduce_peer(&mut self) {
        let wanted = self.pair.peer();
        let Some(hello) = &self.link.peer else {
            // It has forgotten it, or is another one when it comes back.
            self.pair.told = Told::default();
            return;
        };
        let start = hello.start_id;
        let known = match &self.pair.told.what {
            Some((told, what)) if *told == start => Some(what),
            _ => None,
        };
        // One that was never told of anybody by us is left alone if there is nobody.
        if known == Some(&wanted) || (known.is_none() && wanted.is_none()) {
            return;
        }
        if self
            .pair
            .told
            .again
            .is_some_and(|again| again > Instant::now())
        {
            return;
        }
        self.pair.told.again = None;
        match self.dataplane.request(Request::Peer(wanted.clone())).await {
            Ok(Response::Peer(_)) => {
                if let Some(peer) = &wanted {
                    tracing::info!("the fast path tells {} of its connections", peer.address);
                }
                self.pair.told = Told {
                    what: Some((start, wanted)),
                    ..Told::default()
                };
            }
            Ok(other) => {
                let why = unexpected(&other).to_string();
                if self.pair.told.why != why {
                    tracing::error!("the fast path does not take its peer: {why}");
                }
                self.pair.told.why = why;
                self.pair.told.again = Some(Instant::now() + AGAIN);
            }
            Err(error) => {
                tracing::warn!("{error}");
                self.link_lost();
            }
        }
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// How the configurations stand to each other.
    pub(super) fn pair_step(&self) -> StepDescription {
        self.follow_status().map(|it| it.step).unwrap_or_default()
    }

    /// What happened that nobody has taken note of yet.
    pub(super) fn pair_notices(&self) -> Vec<Notice> {
        let status = self.follow_status();
        status.map(|it| it.notices).unwrap_or_default()
    }
}
