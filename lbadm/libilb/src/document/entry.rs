//! What a document says about a rule, a server group and a server. What is `None` was not said.

use std::net::IpAddr;

use crate::algorithm::{Algorithm, Flags};
use crate::error::ModelError;
use crate::healthcheck::{CheckPort, HealthCheck, HealthCheckSettings};
use crate::healthcheck_use::{HealthCheckUse, is_none};
use crate::port::PortRange;
use crate::rule::{
    Notify, Orphans, PANIC_THRESHOLD, PanicMode, Persistence, Rule, Synchronise, Timeouts,
    Topology, Tunnel, Vip,
};
use crate::server::{GroupPlace, Server, ServerSpec, Target};
use crate::source::SourceSettings;
use crate::vip::Prefix;
use crate::vrrp::{VrrpInstance, VrrpSettings};

/// What is said about a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleEntry {
    /// Its name.
    pub name: String,
    /// Whether it takes new connections; yes by default.
    pub enabled: Option<bool>,
    /// Where clients connect to.
    pub vips: Option<Vec<Vip>>,
    /// Clients that it is for; empty (the default) for all.
    pub clients: Option<Vec<Prefix>>,
    /// How a server is chosen.
    pub algorithm: Option<Algorithm>,
    /// Options of the algorithm as LVS names them.
    pub flags: Option<Vec<String>>,
    /// How packets reach the servers.
    pub topology: Option<Topology>,
    /// How packets are wrapped; ipip by default, where there is a tunnel.
    pub tunnel: Option<Tunnel>,
    /// Source addresses towards the servers.
    pub proxy_src: Option<Vec<IpAddr>>,
    /// Name of the server group.
    pub group: Option<String>,
    /// Name of the health check that its servers have to pass; `none` (the default) for none.
    pub check: Option<String>,
    /// Port that it asks, if it shall be another one.
    pub check_port: Option<CheckPort>,
    /// Which clients come back to their server.
    pub mask: Option<Mask>,
    /// Seconds of persistence, at least 1; 60 by default.
    pub persist_timeout: Option<u32>,
    /// Seconds; 0 (the default) waits for the last connection.
    pub conn_drain: Option<u32>,
    /// Seconds; 0 is the default of the protocol.
    pub nat_timeout: Option<u32>,
    /// Idle times of single states, in seconds. All others have their defaults.
    pub timeouts: Option<Timeouts>,
    /// One-packet scheduling.
    pub one_packet: Option<bool>,
    /// What becomes of connections without their server.
    pub orphans: Option<Orphans>,
    /// What the other node is told of its connections; `full` by default.
    pub sync: Option<Synchronise>,
    /// Seconds.
    pub slow_start: Option<u32>,
    /// New flows a second; 0 is no limit.
    pub max_new_flows: Option<u32>,
    /// See [`Rule::quorum`].
    pub quorum: Option<u32>,
    /// See [`Rule::hysteresis`].
    pub hysteresis: Option<u32>,
    /// See [`Rule::panic_mode`].
    pub panic_mode: Option<PanicMode>,
    /// See [`Rule::panic_threshold`].
    pub panic_threshold: Option<u8>,
    /// See [`Rule::notify`].
    pub notify: Option<Notify>,
    /// Whether the manager puts the rule's addresses on an interface; yes by default.
    pub manage_addresses: Option<bool>,
}

/// Which bits of a client's address count for persistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// No persistence.
    None,
    /// The leading ones.
    Bits(u8),
    /// All of them.
    All,
}

impl RuleEntry {
    /// The entry that describes a rule. What has its default is not said.
    pub fn of(rule: &Rule) -> RuleEntry {
        fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
            (value != default).then_some(value)
        }
        RuleEntry {
            name: rule.name.clone(),
            enabled: unless(rule.enabled, true),
            vips: Some(rule.vips.0.clone()),
            clients: unless(rule.clients.clone(), Vec::new()),
            algorithm: Some(rule.algorithm),
            flags: match rule.flags.is_none() {
                true => None,
                false => {
                    let words = rule.flags.words(rule.algorithm);
                    Some(words.split(',').map(str::to_string).collect())
                }
            },
            topology: Some(rule.topology),
            tunnel: rule.tunnel,
            proxy_src: unless(rule.proxy_src.clone(), Vec::new()),
            group: Some(rule.servergroup.clone()),
            check: rule.health_check.as_ref().map(|used| used.name.clone()),
            check_port: rule.health_check.as_ref().and_then(|used| used.port),
            mask: rule.persistence.map(|p| Mask::Bits(p.mask)),
            persist_timeout: rule.persistence.map(|p| p.timeout),
            conn_drain: unless(rule.conn_drain, 0),
            nat_timeout: unless(rule.nat_timeout, 0),
            timeouts: unless(rule.timeouts.clone(), Timeouts::new()),
            one_packet: unless(rule.one_packet, false),
            orphans: unless(rule.orphans, Orphans::default()),
            sync: unless(rule.sync, Synchronise::default()),
            slow_start: unless(rule.slow_start, 0),
            max_new_flows: unless(rule.max_new_flows, 0),
            quorum: unless(rule.quorum, 1),
            hysteresis: unless(rule.hysteresis, 0),
            panic_mode: unless(rule.panic_mode, PanicMode::None),
            panic_threshold: unless(rule.panic_threshold, PANIC_THRESHOLD),
            notify: unless(rule.notify.clone(), Notify::new()),
            manage_addresses: unless(rule.manage_addresses, true),
        }
    }

    /// This entry with everything that is not said as `before` has it. What only fits something that is said anew is not
    /// taken over: options of an algorithm, the tunnel and the source addresses of a topology.
    pub(super) fn or(self, before: RuleEntry) -> RuleEntry {
        let same_algorithm = self.algorithm.is_none() || self.algorithm == before.algorithm;
        let topology = self.topology.or(before.topology);
        let tunnelled = topology == Some(Topology::Tun);
        let sourced = tunnelled || topology == Some(Topology::Nat);
        let checked = !self.check.as_deref().is_some_and(is_none);
        let persistent = self.mask != Some(Mask::None);
        RuleEntry {
            name: self.name,
            enabled: self.enabled.or(before.enabled),
            vips: self.vips.or(before.vips),
            clients: self.clients.or(before.clients),
            algorithm: self.algorithm.or(before.algorithm),
            flags: self.flags.or(before.flags.filter(|_| same_algorithm)),
            topology,
            tunnel: self.tunnel.or(before.tunnel.filter(|_| tunnelled)),
            proxy_src: self.proxy_src.or(before.proxy_src.filter(|_| sourced)),
            group: self.group.or(before.group),
            check_port: self.check_port.or(before.check_port.filter(|_| checked)),
            check: self.check.or(before.check),
            mask: self.mask.or(before.mask),
            persist_timeout: self
                .persist_timeout
                .or(before.persist_timeout.filter(|_| persistent)),
            conn_drain: self.conn_drain.or(before.conn_drain),
            nat_timeout: self.nat_timeout.or(before.nat_timeout),
            timeouts: self.timeouts.or(before.timeouts),
            one_packet: self.one_packet.or(before.one_packet),
            orphans: self.orphans.or(before.orphans),
            sync: self.sync.or(before.sync),
            slow_start: self.slow_start.or(before.slow_start),
            max_new_flows: self.max_new_flows.or(before.max_new_flows),
            quorum: self.quorum.or(before.quorum),
            hysteresis: self.hysteresis.or(before.hysteresis),
            panic_mode: self.panic_mode.or(before.panic_mode),
            panic_threshold: self.panic_threshold.or(before.panic_threshold),
            notify: self.notify.or(before.notify),
            manage_addresses: self.manage_addresses.or(before.manage_addresses),
        }
    }

    /// The rule that this is, with number 0. Its group is not looked for, and whether its parts fit together is not asked.
    ///
    /// # Errors
    /// Everything that is missing or makes no sense.
    pub(super) fn rule(&self) -> Result<Rule, Vec<ModelError>> {
        let mut errors = Vec::new();
        let mut missing = |field, allowed: &str| {
            errors.push(ModelError::Missing {
                field,
                allowed: allowed.to_string(),
            });
        };
        if self.vips.is_none() {
            missing(
                "vip",
                "say which address clients connect to, such as vip = \"192.0.2.1\"",
            );
        }
        if self.algorithm.is_none() {
            missing(
                "algorithm",
                "say how servers are chosen, such as algorithm = \"roundrobin\"",
            );
        }
        if self.topology.is_none() {
            missing(
                "topology",
                "say how packets reach the servers: \"DSR\", \"NAT\", \"HALF-NAT\" or \"TUN\"",
            );
        }
        if self.group.is_none() {
            missing(
                "group",
                "name the server group that serves the rule, such as group = \"web\"",
            );
        }
        let flags = match (self.algorithm, &self.flags) {
            (Some(algorithm), Some(words)) => Flags::parse(algorithm, words),
            _ => Ok(Flags::default()),
        };
        let flags = flags.unwrap_or_else(|error| {
            errors.push(error);
            Flags::default()
        });
        let persistence = self.persistence().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let (Some(vips), Some(algorithm), Some(topology), Some(group), true) = (
            &self.vips,
            self.algorithm,
            self.topology,
            &self.group,
            errors.is_empty(),
        ) else {
            return Err(errors);
        };
        let tunnel = match (topology, self.tunnel) {
            (Topology::Tun, None) => Some(Tunnel::Ipip),
            (_, tunnel) => tunnel,
        };
        Ok(Rule {
            number: 0,
            name: self.name.clone(),
            enabled: self.enabled.unwrap_or(true),
            vips: crate::rule::Vips(vips.clone()),
            clients: self.clients.clone().unwrap_or_default(),
            algorithm,
            flags,
            topology,
            tunnel,
            proxy_src: self.proxy_src.clone().unwrap_or_default(),
            persistence,
            one_packet: self.one_packet.unwrap_or(false),
            orphans: self.orphans.unwrap_or_default(),
            sync: self.sync.unwrap_or_default(),
            slow_start: self.slow_start.unwrap_or(0),
            max_new_flows: self.max_new_flows.unwrap_or(0),
            quorum: self.quorum.unwrap_or(1),
            hysteresis: self.hysteresis.unwrap_or(0),
            panic_mode: self.panic_mode.unwrap_or_default(),
            panic_threshold: self.panic_threshold.unwrap_or(PANIC_THRESHOLD),
            notify: self.notify.clone().unwrap_or_default(),
            servergroup: group.clone(),
            conn_drain: self.conn_drain.unwrap_or(0),
            nat_timeout: self.nat_timeout.unwrap_or(0),
            timeouts: self.timeouts.clone().unwrap_or_default(),
            health_check: self.health_check(),
            manage_addresses: self.manage_addresses.unwrap_or(true),
        })
    }

    fn health_check(&self) -> Option<HealthCheckUse> {
        let name = self.check.clone().filter(|name| !is_none(name))?;
        Some(HealthCheckUse {
            name,
            port: self.check_port,
        })
    }

    fn persistence(&self) -> Result<Option<Persistence>, ModelError> {
        let bits = || {
            let first = self.vips.as_ref().and_then(|vips| vips.first());
            first.map_or(32, |vip| crate::address::Family::of(vip.address).bits())
        };
        let mask = match self.mask {
            Some(Mask::Bits(mask)) => mask,
            Some(Mask::All) => bits(),
            Some(Mask::None) | None => {
                return match self.persist_timeout {
                    None => Ok(None),
                    Some(seconds) => Err(ModelError::invalid(
                        "persist-timeout",
                        seconds.to_string(),
                        "is given, but the rule is not persistent",
                        "give pmask too, such as pmask = true, or leave it out",
                    )),
                };
            }
        };
        let timeout = self.persist_timeout.unwrap_or(crate::rule::PERSIST_TIMEOUT);
        Ok(Some(Persistence { mask, timeout }))
    }
}

/// What is said about a health check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckEntry {
    /// Its name.
    pub name: String,
    /// What it does; without name.
    pub settings: HealthCheckSettings,
}

impl CheckEntry {
    /// The entry that describes a health check. What has its default is not said.
    pub fn of(check: &HealthCheck) -> CheckEntry {
        CheckEntry {
            name: check.name.clone(),
            settings: HealthCheckSettings {
                name: None,
                ..HealthCheckSettings::from(check).brief()
            },
        }
    }
}

/// What is said about a VRRP instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VrrpEntry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub settings: VrrpSettings,
}

impl VrrpEntry {
    /// The entry that describes a VRRP instance. What has its default is not said.
    pub fn of(instance: &VrrpInstance) -> VrrpEntry {
        VrrpEntry {
            name: instance.name.clone(),
            settings: VrrpSettings::from(instance).brief(),
        }
    }
}

/// What is said about a server group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEntry {
    /// Its name.
    pub name: String,
    /// Its servers, in the order of the text.
    pub servers: Vec<ServerEntry>,
    /// Where servers are found; nothing said is no source.
    pub source: SourceSettings,
}

/// What is said about a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEntry {
    /// Where it is; `None` while only its name is known, which has to be resolved before the document is planned.
    pub address: Option<IpAddr>,
    /// Its host name, if it has one.
    pub host: Option<String>,
    /// Its ports; none means those of the rule.
    pub ports: Option<PortRange>,
    /// Share of new connections; 1 by default.
    pub weight: Option<u16>,
    /// Connections at which it takes no new ones; 0 (the default) is no limit.
    pub max_connections: Option<u32>,
    /// Connections below which it takes new ones again; 0 (the default) is three quarters of the maximum.
    pub min_connections: Option<u32>,
    /// See [`Server::tier`]; 0 by default.
    pub tier: Option<u8>,
    /// Whether it takes new connections; yes by default.
    pub enabled: Option<bool>,
    /// The id that it shall have if it is new. A server that is there keeps its id whatever is said.
    pub id: Option<String>,
    /// The place in the group that it shall have if it is new. A server that is there keeps its place whatever is said.
    pub group_place: Option<GroupPlace>,
    /// Whether the group's source has found it; no by default.
    pub found: Option<bool>,
}

impl ServerEntry {
    /// The entry that describes a server, without its id and its place in the group. What has its default is not said.
    pub fn of(server: &Server) -> ServerEntry {
        let some = |number: u32| (number != 0).then_some(number);
        ServerEntry {
            address: Some(server.address),
            host: server.host_name.clone(),
            ports: server.ports,
            weight: (server.weight != 1).then_some(server.weight),
            max_connections: some(server.max_connections),
            min_connections: some(server.min_connections),
            tier: (server.tier != 0).then_some(server.tier),
            enabled: (!server.enabled).then_some(false),
            id: None,
            group_place: None,
            found: server.found.then_some(true),
        }
    }

    /// What a specification says, as `lbadm` takes it.
    pub(super) fn from_spec(spec: ServerSpec) -> ServerEntry {
        let (address, host) = match spec.target {
            Target::Address(address) => (Some(address), spec.host_name),
            Target::Host(host) => (None, Some(host)),
        };
        ServerEntry {
            address,
            host,
            ports: spec.ports,
            weight: spec.limits.weight,
            max_connections: spec.limits.max_connections,
            min_connections: spec.limits.min_connections,
            tier: spec.limits.tier,
            enabled: None,
            id: spec.id,
            group_place: spec.place,
            found: spec.found.then_some(true),
        }
    }

    /// Address and ports, or name and ports, as they can be written again.
    pub fn place(&self) -> String {
        let target = match (self.address, &self.host) {
            (Some(address), _) => Target::Address(address),
            (None, host) => Target::Host(host.clone().unwrap_or_default()),
        };
        ServerSpec {
            target,
            host_name: None,
            ports: self.ports,
            limits: Default::default(),
            id: None,
            place: None,
            found: false,
        }
        .to_string()
    }
}
