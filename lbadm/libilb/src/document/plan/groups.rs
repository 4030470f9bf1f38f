//! Server groups of a document with their servers: which are new, changed or as they were.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::entry::{GroupEntry, ServerEntry};
use super::super::ids::Ids;
use super::super::report::{Action, Field, Item};
use super::super::write::{server_fields, source_fields};
use super::{NOT_RESOLVED, Planner, fields};
use crate::model::{MAX_SERVERS, key};
use crate::port::PortRange;
use crate::server::{Server, UNPLACED, check_limits};
use crate::servergroup::ServerGroup;
use crate::source::{Source, SourceSettings};

/// Address and ports: what makes a server of a group the same.
pub(in crate::document) type Place = (IpAddr, Option<PortRange>);

impl Planner<'_> {
    /// Makes one group of a document, with its servers.
    pub(super) fn group(&mut self, entry: &GroupEntry) {
        let path = format!("group.{}", entry.name);
        let k = key(&entry.name);
        let old = self.present.groups.get(&k).cloned();
        let mut group = ServerGroup {
            name: old.as_ref().map_or(&entry.name, |old| &old.name).clone(),
            servers: Vec::new(),
            next_index: old.as_ref().map_or(0, |old| old.next_index),
            places: old.as_ref().map_or(0, |old| old.places),
            source: None,
        };
        let followed = old.as_ref().and_then(|old| old.source.as_deref());
        let source = self.source(entry, followed);
        group.source = source.clone().map(Box::new);
        let known: HashMap<Place, &Server> = old
            .iter()
            .flat_map(|old| &old.servers)
            .map(|server| ((server.address, server.ports), server))
            .collect();
        let name = group.name.clone();
        let mut ids = Ids::new(&name, group.next_index, &entry.servers, &known);
        let mut places = self.places_kept(entry, &known);
        let mut seen: HashMap<Place, usize> = HashMap::new();
        let mut changes: Vec<(Action, Server, Vec<Field>)> = Vec::new();
        for (at, said) in entry.servers.iter().enumerate() {
            let path = format!("{path}.servers[{at}]");
            let Some(address) = said.address else {
                let host = said.host.clone().unwrap_or_default();
                let message = format!(
                    "server '{}' {NOT_RESOLVED}: give its address, too: '{host}=ADDRESS'",
                    said.place()
                );
                self.note(&path, message);
                continue;
            };
            let place = (address, said.ports);
            // Whom a source finds it knows better than a text that was written before.
            if said.found == Some(true)
                && source.is_some()
                && followed.is_some()
                && !known.contains_key(&place)
            {
                continue;
            }
            if seen.insert(place, at).is_some() {
                let message = format!(
                    "server {} is in group '{}' twice: each address and port can be there once",
                    said.place(),
                    entry.name
                );
                self.note(&path, message);
                continue;
            }
            let before = known.get(&place).copied();
            let mut server = match before {
                Some(server) => server.clone(),
                None => Server {
                    number: self.next.next_server,
                    id: ids.next(said, &mut self.report.notes),
                    address,
                    host_name: None,
                    ports: said.ports,
                    weight: 1,
                    max_connections: 0,
                    min_connections: 0,
                    tier: 0,
                    enabled: true,
                    place: match said.group_place {
                        Some(wish) if places.insert(wish.place) => {
                            group.places = group.places.max(wish.places);
                            wish.place
                        }
                        Some(wish) => {
                            let note = format!(
                                "server {} gets the lowest vacant place of group '{name}': {wish} was asked for, and is taken",
                                said.place()
                            );
                            self.report.notes.push(note);
                            UNPLACED
                        }
                        None => UNPLACED,
                    },
                    found: false,
                },
            };
            self.say(said, &mut server);
            server.found &= source.is_some();
            let limits = check_limits(server.max_connections, server.min_connections);
            if let Err(error) = limits {
                self.note(&format!("{path}.min-conn"), error);
            }
            match before {
                Some(before) => {
                    if let Some(id) = &said.id
                        && !id.eq_ignore_ascii_case(&before.id)
                    {
                        let note = format!(
                            "server {} keeps its id {}: {id} was asked for",
                            said.place(),
                            before.id
                        );
                        self.report.notes.push(note);
                    }
                    if server != *before {
                        let was = server_fields(&ServerEntry::of(before));
                        let is = server_fields(&ServerEntry::of(&server));
                        changes.push((Action::Changed, server.clone(), fields(&was, &is)));
                    }
                }
                None => {
                    self.next.next_server = server.number.saturating_add(1);
                    let is = server_fields(&ServerEntry::of(&server));
                    changes.push((Action::Created, server.clone(), fields(&[], &is)));
                }
            }
            self.places.insert(server.number, path);
            group.servers.push(server);
        }
        for server in old.iter().flat_map(|old| &old.servers) {
            if seen.contains_key(&(server.address, server.ports)) {
                continue;
            }
            if self.merge || (server.found && source.is_some()) {
                let found = server.found && source.is_some();
                let server = Server {
                    found,
                    ..server.clone()
                };
                group.servers.push(server);
            } else {
                let was = server_fields(&ServerEntry::of(server));
                changes.push((Action::Removed, server.clone(), fields(&was, &[])));
            }
        }
        group.next_index = ids.end();
        // Servers are in the order in which they came to be.
        group.servers.sort_by_key(|server| server.number);
        group.settle();
        if group.servers.len() > MAX_SERVERS {
            let message = format!(
                "group '{}' would have {} servers: there can be at most {MAX_SERVERS}",
                group.name,
                group.servers.len()
            );
            self.note(&path, message);
        }
        let said = |source: Option<&Source>| source_fields(&SourceSettings::from(source));
        let different = fields(&said(followed), &said(source.as_ref()));
        let action = match &old {
            Some(_) if changes.is_empty() && different.is_empty() => return,
            Some(_) => Action::Changed,
            None => Action::Created,
        };
        self.change(action, Item::Group, &group.name, different);
        for (action, server, fields) in changes {
            self.server_change(action, &group, &server, fields);
        }
        self.groups.insert(k.clone());
        self.next.groups.insert(k, Arc::new(group));
    }

    /// The source of a group; what is not said stays as it is if the document is merged.
    fn source(&mut self, entry: &GroupEntry, before: Option<&Source>) -> Option<Source> {
        let before = before.filter(|_| self.merge);
        if entry.source.is_empty() {
            return before.cloned();
        }
        match entry.source.apply(before) {
            Ok(source) => source,
            Err(error) => {
                self.note(&format!("group.{}.source", entry.name), error);
                None
            }
        }
    }

    /// The places of a group whose servers stay.
    fn places_kept(&self, entry: &GroupEntry, known: &HashMap<Place, &Server>) -> HashSet<u32> {
        let said = entry.servers.iter();
        let said: HashSet<Place> = said
            .filter_map(|server| Some((server.address?, server.ports)))
            .collect();
        let stay = known
            .iter()
            .filter(|(at, _)| self.merge || said.contains(*at));
        stay.map(|(_, server)| server.place).collect()
    }

    /// What is said about a server; what is not said has its default, or stays if the document is merged.
    fn say(&self, said: &ServerEntry, server: &mut Server) {
        let other = match self.merge {
            true => server.clone(),
            false => Server {
                host_name: None,
                weight: 1,
                max_connections: 0,
                min_connections: 0,
                tier: 0,
                enabled: true,
                found: false,
                ..server.clone()
            },
        };
        *server = Server {
            host_name: said.host.clone().or(other.host_name),
            weight: said.weight.unwrap_or(other.weight),
            max_connections: said.max_connections.unwrap_or(other.max_connections),
            min_connections: said.min_connections.unwrap_or(other.min_connections),
            tier: said.tier.unwrap_or(other.tier),
            enabled: said.enabled.unwrap_or(other.enabled),
            found: said.found.unwrap_or(other.found),
            ..other
        };
    }

    /// Takes a group out, with its servers.
    pub(super) fn remove_group(&mut self, group: &ServerGroup) {
        self.next.groups.remove(&key(&group.name));
        self.change(Action::Removed, Item::Group, &group.name, Vec::new());
        for server in &group.servers {
            let said = fields(&server_fields(&ServerEntry::of(server)), &[]);
            self.server_change(Action::Removed, group, server, said);
        }
    }
}
