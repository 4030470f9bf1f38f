//! `org.ilb.Ilb1.ServerGroup`, one object for each server group.

use std::sync::Arc;

use libilb::model::ServerGroup;
use zbus::message::Header;
use zbus::{Connection, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct ServerGroupObject {
    handle: ManagerHandle,
    name: String,
}

impl ServerGroupObject {
    /// Speaks for the server group of this name.
    pub fn new(handle: ManagerHandle, name: String) -> ServerGroupObject {
        ServerGroupObject { handle, name }
    }

    fn group(&self) -> fdo::Result<Arc<ServerGroup>> {
        let view = self.handle.view();
        let group = view.state.configuration.group(&self.name).cloned();
        group.ok_or_else(|| {
            fdo::Error::UnknownObject(format!("server group {} is deleted", self.name))
        })
    }
}

#[interface(name = "org.ilb.Ilb1.ServerGroup")]
impl ServerGroupObject {
    /// Deletes the group, if no rule uses it.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        let author = access::check(connection, &header).await?;
        let change = Change::DeleteGroups(vec![self.name.clone()]);
        self.handle.change(author, change).await?;
        Ok(())
    }

    /// The group with its servers and their state as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        let group = description
            .group(&self.name)
            .ok_or(ManagerError::Stopping)?;
        serde_json::to_string(group)
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    /// Its name, as it was written when the group was created.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(&self) -> String {
        self.name.clone()
    }

    /// Where its servers are found, such as dns=app.example.com,port=8080; empty for nowhere.
    #[zbus(property)]
    async fn source(&self) -> fdo::Result<String> {
        let group = self.group()?;
        let source = group.source.as_ref();
        Ok(source.map(|source| source.words()).unwrap_or_default())
    }

    /// Ids of its servers, in the order of their numbers.
    #[zbus(property)]
    async fn servers(&self) -> fdo::Result<Vec<String>> {
        let group = self.group()?;
        Ok(group.servers.iter().map(|s| s.id.clone()).collect())
    }
}
