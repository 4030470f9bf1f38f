//! Accept mode of VRRP (RFC 9568 section 6.1): the addresses at which this node takes nothing for itself, which are those of
//! instances with `accept=no` while they are active here and do not own them. The fast path sees to it, for as long as it is
//! not told otherwise, also over its own restarts; VRRP does not wait for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ilb_node::control::{Request, Response};
use libilb::map::Map;
use libilb::model::Configuration;
use libilb::vrrp::{VrrpInstance, VrrpState, VrrpStatus};
use tokio::time::{Duration, Instant};

use super::Manager;
use crate::addresses::Addresses;
use crate::dataplane::{DataPlane, unexpected};

/// Time between two attempts to tell a fast path what it has refused.
const AGAIN: Duration = Duration::from_secs(5);

/// What the fast path was told of it.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    /// The fast path's interfaces: what comes in by others it does not see.
    interfaces: BTreeSet<String>,
    /// Which start of it, and what it has taken.
    told: Option<(u64, BTreeSet<IpAddr>)>,
    /// Why it has not taken what it was told last.
    why: String,
    /// When to tell it again.
    again: Option<Instant>,
    /// Instances that have been complained about.
    open: BTreeSet<String>,
}

impl Accepting {
    /// Nobody was told anything yet.
    pub fn new(interfaces: &[String]) -> Accepting {
        Accepting {
            interfaces: interfaces.iter().cloned().collect(),
            ..Accepting::default()
        }
    }

    /// The addresses that shall be closed as the instances stand.
    fn wanted(
        &self,
        configuration: &Configuration,
        standing: &Map<String, VrrpStatus>,
    ) -> BTreeSet<IpAddr> {
        active(configuration, standing)
            .filter(|(_, instance)| self.interfaces.contains(&instance.interface))
            .flat_map(|(_, instance)| instance.addresses.iter().copied())
            .collect()
    }

    /// Why an active instance takes packets for this node although it should not; `None` if it does not, or not for long.
    fn trouble(&self, instance: &VrrpInstance, present: bool) -> Option<String> {
        let interface = &instance.interface;
        if !self.interfaces.contains(interface) {
            return Some(format!(
                "accept=no has no effect, because {interface} is none of the fast path's interfaces"
            ));
        }
        let told = self.told.as_ref().map(|(_, told)| told);
        let closed = |address| told.is_some_and(|told| told.contains(address));
        if instance.addresses.iter().all(closed) {
            return None;
        }
        match present {
            false => Some("accept=no has no effect without a fast path".to_owned()),
            true if self.why.is_empty() => None,
            true => Some(format!(
                "accept=no has no effect, because the fast path does not see to it: {}",
                self.why
            )),
        }
    }
}

/// Instances that have their addresses here and shall not accept, with the keys of their names.
fn active<'a>(
    configuration: &'a Configuration,
    standing: &'a Map<String, VrrpStatus>,
) -> impl Iterator<Item = (&'a String, &'a Arc<VrrpInstance>)> {
    let closed = configuration.vrrp.iter();
    closed.filter(|(name, instance)| {
        let is_active = |status: &VrrpStatus| status.state == VrrpState::Active;
        instance.is_closed() && standing.get(*name).is_some_and(is_active)
    })
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Tells the fast path of the addresses that shall be closed, if it does not know.
    pub(super) async fn close_addresses(&mut self) {
        let Some(hello) = &self.link.peer else {
            return;
        };
        let start = hello.start_id;
        let standing = self.vrrp.standing();
        let wanted = self.accepting.wanted(&self.state.configuration, &standing);
        // A new one has those of the one before, whatever we told that.
        let told = self.accepting.told.as_ref();
        if told.is_some_and(|(told, addresses)| *told == start && *addresses == wanted) {
            return;
        }
        if self.accepting.again.is_some_and(|it| it > Instant::now()) {
            return;
        }
        self.accepting.again = None;
        match self.dataplane.request(Request::Close(wanted.clone())).await {
            Ok(Response::Closed) => {
                self.accepting.why.clear();
                self.accepting.told = Some((start, wanted));
            }
            // An earlier version closes nothing, which is as well if there is nothing to close.
            Ok(Response::Error { .. }) if wanted.is_empty() => {
                self.accepting.why.clear();
                self.accepting.told = Some((start, wanted));
            }
            Ok(other) => {
                let why = match other {
                    Response::Error { message } => message,
                    other => unexpected(&other).to_string(),
                };
                if self.accepting.why != why {
                    tracing::error!("the fast path does not close addresses (accept=no): {why}");
                }
                self.accepting.why = why;
                self.accepting.again = Some(Instant::now() + AGAIN);
            }
            Err(error) => {
                tracing::warn!("{error}");
                self.link_lost();
            }
        }
    }

    /// Says once of each instance that it accepts although it should not, because of its interface.
    pub(super) fn mind_open_instances(&mut self) {
        let standing = self.vrrp.standing();
        let served = &self.accepting.interfaces;
        let open: BTreeSet<String> = active(&self.state.configuration, &standing)
            .filter(|(_, instance)| !served.contains(&instance.interface))
            .map(|(_, instance)| instance.name.clone())
            .collect();
        for name in open.difference(&self.accepting.open) {
            tracing::warn!(
                "VRRP instance {name}: accept=no has no effect, because its interface is none of the fast path's"
            );
        }
        self.accepting.open = open;
    }

    /// Where all instances stand, with what an administrator should know of their accept mode.
    pub(super) fn vrrp_standing(&self) -> Map<String, VrrpStatus> {
        let mut standing = self.vrrp.standing();
        let troubles: Vec<(String, String)> = active(&self.state.configuration, &standing)
            .filter_map(|(name, instance)| {
                let trouble = self.accepting.trouble(instance, self.link.peer.is_some())?;
                Some((name.clone(), trouble))
            })
            .collect();
        for (name, trouble) in troubles {
            if let Some(status) = standing.get(&name) {
                let why = match status.why.is_empty() {
                    true => trouble,
                    false => format!("{}; {trouble}", status.why),
                };
                let status = VrrpStatus {
                    why,
                    ..status.clone()
                };
                standing.insert(name, status);
            }
        }
        standing
    }
}
