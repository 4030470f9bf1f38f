//! `org.ilb.Ilb1.Rule`, one object for each rule.

use std::collections::HashMap;
use std::sync::Arc;

use libilb::model::{Rule, Timeout, VipSettings};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::author::Author;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::describe;
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

    async fn enable_or_disable(&self, author: Author, enabled: bool) -> Result<bool, ManagerError> {
        let names = vec![self.name.clone()];
        let change = Change::EnableRules { names, enabled };
        let changed = self.handle.change(author, change).await?;
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
        let author = access::check_state(connection, &header).await?;
        Ok(self.enable_or_disable(author, true).await?)
    }

    /// Disables the rule; true if it was enabled. Its connections live on.
    #[zbus(out_args("changed"))]
    async fn disable(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check_state(connection, &header).await?;
        Ok(self.enable_or_disable(author, false).await?)
    }

    /// Deletes the rule. Its connections live on.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        let author = access::check(connection, &header).await?;
        let change = Change::DeleteRules(vec![self.name.clone()]);
        self.handle.change(author, change).await?;
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

    /// Its name, as it was written when the rule was created.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(&self) -> String {
        self.name.clone()
    }

    /// Whether it takes new connections.
    #[zbus(property)]
    async fn enabled(&self) -> fdo::Result<bool> {
        Ok(self.rule()?.enabled)
    }

    /// Address that clients connect to.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn vip(&self) -> fdo::Result<String> {
        Ok(self.rule()?.vips.column(|vip| vip.address))
    }

    /// Such as `tcp`.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn protocol(&self) -> fdo::Result<String> {
        Ok(self.rule()?.vips.column(|vip| vip.protocol))
    }

    /// Port or range that clients connect to, or `any`.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn port(&self) -> fdo::Result<String> {
        Ok(self.rule()?.vips.column(|vip| vip.ports))
    }

    /// How a server is chosen, such as `roundrobin`.
    #[zbus(property)]
    async fn algorithm(&self) -> fdo::Result<String> {
        Ok(self.rule()?.algorithm.to_string())
    }

    /// `DSR`, `NAT`, `HALF-NAT` or `TUN`.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn topology(&self) -> fdo::Result<String> {
        Ok(self.rule()?.topology.to_string())
    }

    /// Source addresses and ranges towards the servers.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn proxy_src(&self) -> fdo::Result<Vec<String>> {
        let rule = self.rule()?;
        Ok(rule.proxy_src.iter().map(ToString::to_string).collect())
    }

    /// Name of its server group.
    #[zbus(property(emits_changed_signal = "const"), name = "ServerGroup")]
    async fn server_group(&self) -> fdo::Result<String> {
        Ok(self.rule()?.servergroup.clone())
    }

    /// Seconds that connections of a deleted rule or removed server live on; 0 waits for the last of them.
    #[zbus(property)]
    async fn conn_drain(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.conn_drain)
    }

    /// Seconds after which an idle connection is forgotten.
    #[zbus(property)]
    async fn nat_timeout(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.idle_timeout())
    }

    /// Name of the health check that servers have to pass; empty for none.
    #[zbus(property)]
    async fn health_check(&self) -> fdo::Result<String> {
        let used = self.rule()?.health_check.clone();
        Ok(used.map(|used| used.name).unwrap_or_default())
    }

    /// The port of servers that is probed, or `ANY`; empty without a check, or if the check says it.
    #[zbus(property)]
    async fn health_check_port(&self) -> fdo::Result<String> {
        let used = self.rule()?.health_check.clone();
        let port = used.and_then(|used| used.port);
        Ok(port.map(|port| port.to_string()).unwrap_or_default())
    }

    /// Whether its VIPs are put on the node's interfaces.
    #[zbus(property)]
    async fn manage_addresses(&self) -> fdo::Result<bool> {
        Ok(self.rule()?.manage_addresses)
    }

    /// Everywhere that clients connect to, each as `vip=ADDRESS,port=PORT,protocol=PROTOCOL`; `Vip`, `Protocol` and `Port`
    /// have the same, separated by commas.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn vips(&self) -> fdo::Result<Vec<String>> {
        let rule = self.rule()?;
        let text = |vip: &libilb::model::Vip| {
            let settings = VipSettings {
                vip: vip.address.to_string(),
                port: match vip.protocol.has_ports() {
                    true => vip.ports.to_string(),
                    false => String::new(),
                },
                protocol: Some(vip.protocol.to_string()),
            };
            settings.to_string()
        };
        Ok(rule.vips.iter().map(text).collect())
    }

    /// Networks of clients; none for all.
    #[zbus(property)]
    async fn clients(&self) -> fdo::Result<Vec<String>> {
        let rule = self.rule()?;
        Ok(rule.clients.iter().map(ToString::to_string).collect())
    }

    /// Flags of the algorithm, such as `mh-port,mh-fallback`; empty for none.
    #[zbus(property)]
    async fn flags(&self) -> fdo::Result<String> {
        let rule = self.rule()?;
        Ok(rule.flags.words(rule.algorithm))
    }

    /// Such as `gue,gue-port=6080`; empty but with TUN.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn tunnel(&self) -> fdo::Result<String> {
        let tunnel = self.rule()?.tunnel;
        Ok(tunnel.map(|tunnel| tunnel.to_string()).unwrap_or_default())
    }

    /// Bits of a client's address that decide which server it is kept on, such as `/24`; empty without persistence.
    #[zbus(property)]
    async fn pmask(&self) -> fdo::Result<String> {
        let persistence = self.rule()?.persistence;
        Ok(persistence
            .map(|p| format!("/{}", p.mask))
            .unwrap_or_default())
    }

    /// Seconds that a client is kept on its server; 0 without persistence.
    #[zbus(property)]
    async fn persist_timeout(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.persistence.map_or(0, |p| p.timeout))
    }

    /// Whether each packet is scheduled by itself, without a connection.
    #[zbus(property)]
    async fn one_packet(&self) -> fdo::Result<bool> {
        Ok(self.rule()?.one_packet)
    }

    /// What becomes of connections that lost their server: `reschedule`, `reset`, `drop` or `keep`.
    #[zbus(property)]
    async fn orphans(&self) -> fdo::Result<String> {
        Ok(self.rule()?.orphans.to_string())
    }

    /// What the other node of a pair is told of its connections: `full`, `light` or `off`.
    #[zbus(property)]
    async fn sync(&self) -> fdo::Result<String> {
        Ok(self.rule()?.sync.to_string())
    }

    /// Seconds in which a new server's share grows; 0 for none.
    #[zbus(property)]
    async fn slow_start(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.slow_start)
    }

    /// New connections a second; 0 for no limit.
    #[zbus(property)]
    async fn max_new_flows(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.max_new_flows)
    }

    /// Weight of servers that is enough for the lower tiers to serve alone.
    #[zbus(property)]
    async fn quorum(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.quorum)
    }

    /// Weight above the quorum that it takes to have it again, and below it to lose it.
    #[zbus(property)]
    async fn hysteresis(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.hysteresis)
    }

    /// What is done when most of its servers look dead at once: `none`, `keep-last`, `fail-open` or `sorry`.
    #[zbus(property)]
    async fn panic_mode(&self) -> fdo::Result<String> {
        Ok(self.rule()?.panic_mode.to_string())
    }

    /// Percentage of living servers below which that is so.
    #[zbus(property)]
    async fn panic_threshold(&self) -> fdo::Result<u32> {
        Ok(self.rule()?.panic_threshold.into())
    }

    /// The panic mode that holds, with its reason; empty if none does.
    #[zbus(property)]
    async fn panic(&self) -> fdo::Result<String> {
        let rule = self.rule()?;
        let panic = describe::panic(&self.handle.view(), &rule);
        Ok(panic.map(|panic| panic.to_string()).unwrap_or_default())
    }

    /// Commands that are run when its servers come and go (`up`, `down`) or its quorum does (`quorum-up`, `quorum-down`).
    #[zbus(property)]
    async fn notify(&self) -> fdo::Result<HashMap<String, String>> {
        let rule = self.rule()?;
        let all = rule.notify.iter();
        Ok(all
            .map(|(event, command)| (event.to_string(), command.to_string()))
            .collect())
    }

    /// Whether its servers have its quorum, by what health checks have found; false while it is not enabled.
    #[zbus(property)]
    async fn has_quorum(&self) -> fdo::Result<bool> {
        let rule = self.rule()?;
        Ok(self.handle.view().has_quorum(&rule.name) == Some(true))
    }

    /// Who serves, where that is a question, such as `tier 0` or `its sorry servers`; otherwise empty.
    #[zbus(property)]
    async fn served_by(&self) -> fdo::Result<String> {
        let rule = self.rule()?;
        Ok(describe::served_by(&self.handle.view(), &rule).unwrap_or_default())
    }

    /// Idle seconds of every state.
    #[zbus(property)]
    async fn timeouts(&self) -> fdo::Result<HashMap<String, u32>> {
        let rule = self.rule()?;
        let all = Timeout::all().map(|state| (state.name().to_owned(), rule.timeout(state)));
        Ok(all.collect())
    }
}

impl RuleObject {
    /// Sends the signals for what is different between `before` and `after`.
    pub async fn announce(
        &self,
        emitter: &SignalEmitter<'_>,
        before: &Rule,
        after: &Rule,
    ) -> zbus::Result<()> {
        macro_rules! changed {
            ($($differs:expr => $signal:ident;)+) => {
                $(if $differs {
                    self.$signal(emitter).await?;
                })+
            };
        }
        changed! {
            before.enabled != after.enabled => enabled_changed;
            before.clients != after.clients => clients_changed;
            before.algorithm != after.algorithm => algorithm_changed;
            before.flags != after.flags => flags_changed;
            before.persistence.map(|p| p.mask) != after.persistence.map(|p| p.mask) => pmask_changed;
            before.persistence.map(|p| p.timeout) != after.persistence.map(|p| p.timeout)
                => persist_timeout_changed;
            before.one_packet != after.one_packet => one_packet_changed;
            before.orphans != after.orphans => orphans_changed;
            before.sync != after.sync => sync_changed;
            before.slow_start != after.slow_start => slow_start_changed;
            before.max_new_flows != after.max_new_flows => max_new_flows_changed;
            before.quorum != after.quorum => quorum_changed;
            before.hysteresis != after.hysteresis => hysteresis_changed;
            before.panic_mode != after.panic_mode => panic_mode_changed;
            before.panic_threshold != after.panic_threshold => panic_threshold_changed;
            before.notify != after.notify => notify_changed;
            before.conn_drain != after.conn_drain => conn_drain_changed;
            before.idle_timeout() != after.idle_timeout() => nat_timeout_changed;
            Timeout::all().any(|state| before.timeout(state) != after.timeout(state))
                => timeouts_changed;
            before.manage_addresses != after.manage_addresses => manage_addresses_changed;
            before.health_check.as_ref().map(|c| &c.name) != after.health_check.as_ref().map(|c| &c.name)
                => health_check_changed;
            before.health_check.as_ref().and_then(|c| c.port) != after.health_check.as_ref().and_then(|c| c.port)
                => health_check_port_changed;
        }
        Ok(())
    }
}
