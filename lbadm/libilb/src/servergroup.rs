//! A server group: the servers that a rule chooses from.

use serde::{Deserialize, Serialize};

use crate::address::{self, Purpose};
use crate::error::{Item, ModelError};
use crate::rule::check_name;
use crate::server::{Server, check_limits};

/// Servers under one name. `name` is unique in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// As spelled by the administrator.
    pub name: String,
    /// In the order in which they were added.
    pub servers: Vec<Server>,
    /// The `<n>` of the next server's id. Grows only, so that an id is not given twice while the group lives.
    pub next_index: u32,
}

impl ServerGroup {
    /// The server with this id, in any case.
    pub fn server(&self, id: &str) -> Option<&Server> {
        self.servers.iter().find(|s| s.id.eq_ignore_ascii_case(id))
    }
}

/// Checks a group by itself: its name, its addresses, its limits, nothing twice.
///
/// # Errors
/// [`ModelError::Invalid`] or [`ModelError::DuplicateServer`].
pub fn check_group(group: &ServerGroup) -> Result<(), ModelError> {
    check_name(Item::ServerGroup, &group.name)?;
    let mut seen = std::collections::HashMap::new();
    for server in &group.servers {
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
