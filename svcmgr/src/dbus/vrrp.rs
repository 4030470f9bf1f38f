//! `org.ilb.Ilb1.VrrpInstance`, one object for each VRRP instance.

use std::collections::HashMap;
use std::sync::Arc;

use libilb::model::key;
use libilb::vrrp::{VrrpInstance, VrrpSettings, VrrpStatus, settings_to_dbus};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedVariant, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct VrrpObject {
    handle: ManagerHandle,
    name: String,
}

impl VrrpObject {
    /// Speaks for the instance of this name.
    pub fn new(handle: ManagerHandle, name: String) -> VrrpObject {
        VrrpObject { handle, name }
    }

    fn instance(&self) -> fdo::Result<Arc<VrrpInstance>> {
        let view = self.handle.view();
        let instance = view.state.configuration.instance(&self.name).cloned();
        instance.ok_or_else(|| {
            fdo::Error::UnknownObject(format!("VRRP instance {} is deleted", self.name))
        })
    }

    fn status(&self) -> VrrpStatus {
        let view = self.handle.view();
        view.vrrp.get(&key(&self.name)).cloned().unwrap_or_default()
    }
}

#[interface(name = "org.ilb.Ilb1.VrrpInstance")]
impl VrrpObject {
    /// Deletes the instance; its addresses are given up.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        let author = access::check(connection, &header).await?;
        let names = vec![self.name.clone()];
        self.handle
            .change(author, Change::DeleteVrrp(names))
            .await?;
        Ok(())
    }

    /// The instance with where it stands and what was counted, as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        let instance = description
            .instance(&self.name)
            .ok_or(ManagerError::Stopping)?;
        serde_json::to_string(instance)
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    /// Its name, as it was written when the instance was created.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(&self) -> String {
        self.name.clone()
    }

    /// Where it stands on this node: `active`, `backup`, `fault` or `disabled`.
    #[zbus(property)]
    async fn state(&self) -> String {
        self.status().state.to_string()
    }

    /// Why it stands there.
    #[zbus(property)]
    async fn state_reason(&self) -> String {
        self.status().why
    }

    /// The priority by which it takes part, with the weights of what it tracks; 0 when it does not.
    #[zbus(property)]
    async fn effective_priority(&self) -> u32 {
        self.status().priority.into()
    }

    /// Address of another node that is active; empty if none is known.
    #[zbus(property)]
    async fn active_node(&self) -> String {
        self.status().active_node
    }

    /// Everything, as `CreateVrrp` takes it.
    #[zbus(property)]
    async fn settings(&self) -> fdo::Result<HashMap<String, OwnedVariant>> {
        let settings = VrrpSettings::from(self.instance()?.as_ref());
        settings_to_dbus(&settings)
            .into_iter()
            .map(|(key, value)| Ok((key.to_owned(), OwnedVariant::try_from(value)?)))
            .collect::<Result<_, zbus::Error>>()
            .map_err(|error| fdo::Error::Failed(error.to_string()))
    }
}

impl VrrpObject {
    /// Sends the signals for what is different between `before` and `after`.
    pub async fn announce(
        &self,
        emitter: &SignalEmitter<'_>,
        before: &VrrpStatus,
        after: &VrrpStatus,
    ) -> zbus::Result<()> {
        // The reason first: who waits for the state finds it.
        if before.why != after.why {
            self.state_reason_changed(emitter).await?;
        }
        if before.priority != after.priority {
            self.effective_priority_changed(emitter).await?;
        }
        if before.active_node != after.active_node {
            self.active_node_changed(emitter).await?;
        }
        if before.state != after.state {
            self.state_changed(emitter).await?;
        }
        Ok(())
    }
}
