//! `org.ilb.Ilb1.Rule`, one object for each rule.

use std::sync::Arc;

use libilb::model::Rule;
use zbus::message::Header;
use zbus::{Connection, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct RuleObject {
    handle: ManagerHandle,
    name: String,
}

impl RuleObject {
    /// Speaks for the rule of this name.
    pub fn new(handle: ManagerHandle, name: String) -> RuleObject {
        RuleObject { handle, name }
    }

    fn rule(&self) -> fdo::Result<Arc<Rule>> {
        let view = self.handle.view();
        let rule = view.state.configuration.rule(&self.name).cloned();
        rule.ok_or_else(|| fdo::Error::UnknownObject(format!("rule {} is deleted", self.name)))
    }

    async fn enable_or_disable(&self, enabled: bool) -> Result<bool, ManagerError> {
        let names = vec![self.name.clone()];
        let changed = self
            .handle
            .change(Change::EnableRules { names, enabled })
            .await?;
        Ok(!changed.is_empty())
    }
}

#[interface(name = "org.ilb.Ilb1.Rule")]
impl RuleObject {
    /// Enables the rule; true if it was disabled.
    #[zbus(out_args("changed"))]
    async fn enable(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        access::check(connection, &header).await?;
        Ok(self.enable_or_disable(true).await?)
    }

    /// Disables the rule; true if it was enabled. Its connections live on.
    #[zbus(out_args("changed"))]
    async fn disable(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        access::check(connection, &header).await?;
        Ok(self.enable_or_disable(false).await?)
    }

    /// Deletes the rule. Its connections live on.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        access::check(connection, &header).await?;
        let names = vec![self.name.clone()];
        self.handle.change(Change::DeleteRules(names)).await?;
        Ok(())
    }

    /// The rule with its state as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        let rule = description.rule(&self.name).ok_or(ManagerError::Stopping)?;
        serde_json::to_string(rule)
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(&self) -> String {
        self.name.clone()
    }

    #[zbus(property)]
    async fn enabled(&self) -> fdo::Result<bool> {
        Ok(self.rule()?.enabled)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn vip(&self) -> fdo::Result<String> {
        Ok(self.rule()?.vip.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn protocol(&self) -> fdo::Result<String> {
        Ok(self.rule()?.protocol.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn port(&self) -> fdo::Result<String> {
        Ok(self.rule()?.ports.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn algorithm(&self) -> fdo::Result<String> {
        Ok(self.rule()?.algorithm.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn topology(&self) -> fdo::Result<String> {
        Ok(self.rule()?.topology.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn proxy_src(&self) -> fdo::Result<Vec<String>> {
        let rule = self.rule()?;
        Ok(rule.proxy_src.iter().map(ToString::to_string).collect())
    }

    #[zbus(property(emits_changed_signal = "const"), name = "ServerGroup")]
    async fn server_group(&self) -> fdo::Result<String> {
        Ok(self.rule()?.servergroup.clone())
    }

    /// Seconds; 0 waits for the last connection.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn conn_drain(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.conn_drain)
    }

    /// Seconds after which an idle connection is forgotten.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn nat_timeout(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.idle_timeout())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn manage_addresses(&self) -> fdo::Result<bool> {
        Ok(self.rule()?.manage_addresses)
    }
}
