//! A server group: the servers that a rule chooses from.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::address::{self, Purpose};
use crate::error::{Item, ModelError};
use crate::rule::check_name;
use crate::server::{GroupPlace, Server, UNPLACED, check_limits};
use crate::source::Source;

/// Servers under one name. `name` is unique in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// As spelled by the administrator.
    pub name: String,
    /// In the order in which they were added.
    pub servers: Vec<Server>,
    /// The `<n>` of the next server's id. Grows only, so that an id is not given twice while the group lives.
    pub next_index: u32,
    /// Places that the group has, taken or vacant. Grows only: as many as it had servers at one time.
    #[serde(default)]
    pub places: u32,
    /// Where servers are found, if the group has them found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<Source>>,
}

impl ServerGroup {
    /// The server with this id, in any case.
    pub fn server(&self, id: &str) -> Option<&Server> {
        self.servers.iter().find(|s| s.id.eq_ignore_ascii_case(id))
    }

    /// Goes by this source from now on. Without one, the servers that were found become ordinary ones.
    pub fn follow(&mut self, source: Option<Source>) {
        if source.is_none() {
            for server in &mut self.servers {
                server.found = false;
            }
        }
        self.source = source.map(Box::new);
    }

    /// What has to be said of the place of each server, so that a new group with these servers has the same places: nothing
    /// of those that stand where they would by themselves, all of the others, and of the last one how many there are.
    pub fn places_told(&self) -> Vec<Option<GroupPlace>> {
        let usual = self.servers.iter().zip(0u32..);
        let usual = usual.take_while(|(server, n)| server.place == *n).count();
        let last = self.servers.len().saturating_sub(1);
        let complete = usual == self.servers.len() && usual == self.places as usize;
        let place = |(n, server): (usize, &Server)| {
            let told = n >= usual || (n == last && !complete);
            told.then_some(GroupPlace {
                place: server.place,
                places: self.places,
            })
        };
        self.servers.iter().enumerate().map(place).collect()
    }

    /// Gives servers without a place the lowest vacant ones, in their order.
    pub fn settle(&mut self) {
        let places = |servers: &[Server]| servers.iter().map(|s| s.place).collect::<Vec<u32>>();
        if places(&self.servers).contains(&UNPLACED) {
            let taken: HashSet<u32> = places(&self.servers).into_iter().collect();
            let mut vacant = (0..UNPLACED).filter(|place| !taken.contains(place));
            for server in self.servers.iter_mut().filter(|s| s.place == UNPLACED) {
                server.place = vacant.next().unwrap_or(UNPLACED);
            }
        }
        let last = self.servers.iter().map(|server| server.place).max();
        let needed = last.map_or(0, |last| last.saturating_add(1));
        self.places = self.places.max(needed);
    }
}

/// The `<n>` of an id that a new server of `group` may have. The ids of a group rise, so that none is given twice.
///
/// # Errors
/// [`ModelError::Invalid`].
pub(crate) fn index(group: &ServerGroup, id: &str) -> Result<u32, ModelError> {
    let refuse = |problem: &str, next: u32| {
        let allowed = format!(
            "use _{}.{next} or a higher number, or leave the id out",
            group.name
        );
        ModelError::invalid("server id", id, problem, allowed)
    };
    let number = id
        .strip_prefix('_')
        .and_then(|rest| rest.rsplit_once('.'))
        .filter(|(name, _)| name.eq_ignore_ascii_case(&group.name))
        .and_then(|(_, n)| n.parse::<u32>().ok());
    match number {
        Some(n) if n >= group.next_index => Ok(n),
        Some(_) => Err(refuse("has been given before", group.next_index)),
        None => Err(refuse("is not an id of this group", group.next_index)),
    }
}

/// Checks a group by itself: its name, its addresses, its limits, nothing twice.
///
/// # Errors
/// [`ModelError::Invalid`] or [`ModelError::DuplicateServer`].
pub fn check_group(group: &ServerGroup) -> Result<(), ModelError> {
    check_name(Item::ServerGroup, &group.name)?;
    if let Some(source) = &group.source {
        source.check()?;
    }
    let mut seen = std::collections::HashMap::new();
    let mut places = HashSet::new();
    for server in &group.servers {
        if server.place >= group.places || !places.insert(server.place) {
            return Err(ModelError::invalid(
                "place",
                server.place.to_string(),
                format!("is not free for server {}", server.id),
                format!(
                    "places are those below {}, one for each server",
                    group.places
                ),
            ));
        }
        address::check(Purpose::Server, server.address)?;
        check_limits(server.max_connections, server.min_connections)?;
        if let Some(id) = seen.insert((server.address, server.ports), &server.id) {
            return Err(ModelError::DuplicateServer {
                group: group.name.clone(),
                server: server.spec(),
                id: id.clone(),
            });
        }
    }
    Ok(())
}
