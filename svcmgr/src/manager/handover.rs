//! Nodes that addresses are taken over from: the fast path sends packets on to them that belong to nothing here, because these nodes
//! may know their connections.
//!
//! While this node is a backup, the fast path is told who is active, so that nothing has to be told in the moment of a takeover; and
//! for a short time after this node has taken over from one that lives. Whoever was found to be dead is not told of. Only in a pair:
//! nobody else can be expected to know what to do with such packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ilb_node::control::{Giver, Request, Response};
use ilb_vrrp::News;
use libilb::map::Map;
use libilb::model::key;
use libilb::vrrp::{VrrpInstance, VrrpState};
use std::sync::Arc;
use tokio::time::Instant;

use super::Manager;
use crate::addresses::Addresses;
use crate::dataplane::{DataPlane, unexpected};

/// For how long after a takeover. Neighbours have heard of it by then, and both fast paths know the same connections.
const WINDOW: Duration = Duration::from_secs(2);

/// Another node, as an instance has found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Other {
    address: IpAddr,
    /// Until when it counts; for as long as the instance is a backup if there is nothing.
    until: Option<Instant>,
}

/// Other nodes, by key of the names of the instances that have found them.
#[derive(Debug, Default)]
pub struct Others(BTreeMap<String, Other>);

impl Others {
    /// What an instance says.
    pub fn hear(&mut self, news: &News, now: Instant) {
        let name = key(&news.name);
        let Some(address) = news.other else {
            self.0.remove(&name);
            return;
        };
        let before = self.0.get(&name).filter(|it| it.address == address);
        let until = match news.status.state {
            VrrpState::Backup => None,
            VrrpState::Active | VrrpState::Fault | VrrpState::Disabled => {
                Some(before.and_then(|it| it.until).unwrap_or(now + WINDOW))
            }
        };
        self.0.insert(name, Other { address, until });
    }

    /// Where they are, and until when they count: interfaces and addresses, each once.
    fn places(
        &self,
        instances: &Map<String, Arc<VrrpInstance>>,
        now: Instant,
    ) -> Vec<(String, Other)> {
        let others = self.0.iter();
        let living = others.filter(|(_, it)| it.until.is_none_or(|until| until > now));
        let mut places: Vec<(String, Other)> = living
            .filter_map(|(name, it)| Some((instances.get(name)?.interface.clone(), *it)))
            .collect();
        places.sort();
        places.dedup();
        places
    }
}

/// What the fast path was told last: which one, and what.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(u64, Vec<(String, Other)>)>);

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Tells the fast path of other nodes, if it does not know.
    pub(super) async fn tell_of_others(&mut self) {
        let Some(hello) = &self.link.peer else {
            self.told_of_others = Told::default();
            return;
        };
        let (start, now, member) = (hello.start_id, Instant::now(), self.pair.is_member());
        let places = match member {
            true => {
                let instances = &self.state.configuration.vrrp;
                self.vrrp.others().places(instances, now)
            }
            false => Vec::new(),
        };
        let known = match &self.told_of_others.0 {
            Some((told, known)) if *told == start => *known == places,
            // One that was told by an earlier manager may have it otherwise.
            _ => !member,
        };
        if known {
            return;
        }
        let giver = |(interface, other): &(String, Other)| Giver {
            interface: interface.clone(),
            address: other.address,
            milliseconds: other.until.map(|until| {
                let left = until.saturating_duration_since(now).as_millis();
                u64::try_from(left).unwrap_or(0).max(1)
            }),
        };
        let givers = places.iter().map(giver).collect();
        self.told_of_others = Told(Some((start, places)));
        match self.dataplane.request(Request::Handover(givers)).await {
            Ok(Response::Handover) => {}
            // An older one: it has to do without.
            Ok(other) => tracing::info!(
                "the fast path does not send on what another node may know: {}",
                unexpected(&other)
            ),
            Err(error) => {
                tracing::warn!("{error}");
                self.link_lost();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libilb::vrrp::{VrrpSettings, VrrpStatus};

    use super::*;

    fn news(state: VrrpState, other: Option<&str>) -> News {
        News {
            name: "Outer".into(),
            status: VrrpStatus {
                state,
                ..VrrpStatus::default()
            },
            other: other.map(|it| it.parse().unwrap()),
        }
    }

    #[test]
    fn the_active_node_counts_until_a_while_after_it_gave_its_addresses() {
        let mut settings = VrrpSettings::default();
        settings
            .parse("interface=eth7,vrid=1,addresses=192.0.2.80")
            .unwrap();
        let mut instances = Map::default();
        instances.insert(
            "outer".to_owned(),
            Arc::new(settings.check("Outer").unwrap()),
        );
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let (one, two) = ("192.0.2.1", "192.0.2.2");
        let mut others = Others::default();
        // (at; what the instance says; who counts then, and for how many milliseconds from the beginning)
        #[rustfmt::skip]
        let table = [
            (0, news(VrrpState::Backup, None), None),
            (10, news(VrrpState::Backup, Some(one)), Some((one, None))),
            (20, news(VrrpState::Active, Some(one)), Some((one, Some(2020)))),
            (900, news(VrrpState::Active, Some(one)), Some((one, Some(2020)))),
            (1000, news(VrrpState::Backup, Some(two)), Some((two, None))),
            (1100, news(VrrpState::Active, None), None),
            (1200, news(VrrpState::Disabled, Some(two)), Some((two, Some(3200)))),
            (3200, news(VrrpState::Disabled, Some(two)), None),
        ];
        for (at, said, expected) in table {
            others.hear(&said, after(at));
            let found = others.places(&instances, after(at));
            let expected: Vec<(String, Other)> = expected
                .iter()
                .map(|(address, until)| {
                    let other = Other {
                        address: address.parse().unwrap(),
                        until: until.map(after),
                    };
                    ("eth7".to_owned(), other)
                })
                .collect();
            assert_eq!(found, expected, "given {said:?} after {at} ms");
        }
        others.hear(&news(VrrpState::Backup, Some(one)), begin);
        assert_eq!(
            others.places(&Map::default(), begin),
            [],
            "given no instance any more"
        );
    }
}
