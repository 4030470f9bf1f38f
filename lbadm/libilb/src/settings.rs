//! What an administrator says about a rule, as text, to create it or to change it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{self, Family, Purpose};
use crate::error::{Item, ModelError};
use crate::healthcheck_use;
use crate::rule::{
    Algorithm, Flags, Notify, NotifyEvent, Orphans, PANIC_THRESHOLD, PERSIST_TIMEOUT, PanicMode,
    Persistence, Rule, Synchronise, Timeouts, Topology, Tunnel, VipSettings, Vips, check_name,
    check_rule,
};
use crate::{notify, panicmode};

/// What is said about a rule. [`RuleSettings::check`] makes a rule of it, [`RuleSettings::amend`] changes one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSettings {
    /// Whether it takes connections from the start; a rule is created disabled unless this is said.
    pub enabled: bool,
    /// Virtual address.
    pub vip: String,
    /// Port, range or service name; `0` or `any` for all ports.
    pub port: String,
    /// `tcp` if not given.
    pub protocol: Option<String>,
    /// Further virtual addresses, ports and protocols.
    pub more_vips: Vec<VipSettings>,
    /// Networks of clients; none for all.
    pub clients: Vec<String>,
    /// See [`Algorithm::parse`].
    pub algorithm: String,
    /// See [`Flags::parse`].
    pub flags: Vec<String>,
    /// See [`Topology::parse`].
    pub topology: String,
    /// See [`Tunnel::parse`].
    pub tunnel: Option<String>,
    /// UDP port of GUE.
    pub gue_port: Option<u32>,
    /// Checksum of the tunnel.
    pub tunnel_checksum: Option<String>,
    /// Addresses and ranges.
    pub proxy_src: Vec<String>,
    /// Name of an existing server group.
    pub servergroup: String,
    /// Seconds, at least 1; not given waits for the last connection.
    pub conn_drain: Option<u32>,
    /// Seconds; 0 or not given means the default.
    pub nat_timeout: Option<u32>,
    /// Seconds of persistence, at least 1; 60 if not given.
    pub persist_timeout: Option<u32>,
    /// `/n` or `n`: leading bits of the client's address that make it the same client. Empty for all of them, `none` for
    /// no persistence.
    pub pmask: Option<String>,
    /// Idle times of single states in seconds; 0 means the default.
    pub timeouts: Timeouts,
    /// One-packet scheduling.
    pub one_packet: Option<bool>,
    /// See [`Orphans::parse`].
    pub orphans: Option<String>,
    /// See [`Synchronise::parse`]; `full` by default.
    pub sync: Option<String>,
    /// Seconds; 0 for none.
    pub slow_start: Option<u32>,
    /// New flows a second; 0 is no limit.
    pub max_new_flows: Option<u32>,
    /// See [`Rule::quorum`]; 1 by default.
    pub quorum: Option<u32>,
    /// See [`Rule::hysteresis`]; 0 by default.
    pub hysteresis: Option<u32>,
    /// See [`PanicMode::parse`]; `none` by default.
    pub panic_mode: Option<String>,
    /// Percentage of living servers, 1 to 100; 50 by default.
    pub panic_threshold: Option<u32>,
    /// Commands as [`crate::rule::NotifyCommand`] is written; `none` takes one away.
    pub notify: BTreeMap<NotifyEvent, String>,
    /// Yes if not given.
    pub manage_addresses: Option<bool>,
    /// Name of an existing health check; `none` for no check.
    pub health_check: Option<String>,
    /// See [`crate::rule::CheckPort::parse`]; any port of the server if not given.
    pub health_check_port: Option<String>,
}

impl RuleSettings {
    /// All VIPs, as text.
    pub fn vips(&self) -> Vec<VipSettings> {
        let first = VipSettings {
            vip: self.vip.clone(),
            port: self.port.clone(),
            protocol: self.protocol.clone(),
        };
        let given = first != VipSettings::default() || self.more_vips.is_empty();
        let first = given.then_some(first);
        first.into_iter().chain(self.more_vips.clone()).collect()
    }

    /// Reads and checks all that can be checked without knowing what else is configured. The result has number 0.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Invalid`] or [`ModelError::UnknownWord`].
    pub fn check(&self, name: &str) -> Result<Rule, ModelError> {
        check_name(Item::Rule, name)?;
        let vips: Result<Vec<_>, _> = self.vips().iter().map(VipSettings::check).collect();
        let vips = Vips(vips?);
        for (field, value, allowed) in [
            (
                "lbalg",
                &self.algorithm,
                "say how servers are chosen, such as lbalg=roundrobin",
            ),
            (
                "type",
                &self.topology,
                "say how packets reach the servers: DSR, NAT, HALF-NAT or TUN",
            ),
            (
                "servergroup",
                &self.servergroup,
                "name the server group that serves the rule",
            ),
        ] {
            if value.is_empty() {
                return Err(ModelError::Missing {
                    field,
                    allowed: allowed.to_string(),
                });
            }
        }
        if self.conn_drain == Some(0) {
            return Err(ModelError::invalid(
                "conn-drain",
                "0",
                "is out of range",
                "use 1 or more seconds, or leave it out to wait for the last connection",
            ));
        }
        let topology = Topology::parse(&self.topology)?;
        let tunnelled =
            self.tunnel.is_some() || self.gue_port.is_some() || self.tunnel_checksum.is_some();
        let tunnel = match topology == Topology::Tun || tunnelled {
            true => Some(Tunnel::parse(
                self.tunnel.as_deref(),
                self.gue_port,
                self.tunnel_checksum.as_deref(),
            )?),
            false => None,
        };
        let mut rule = Rule {
            number: 0,
            name: name.to_string(),
            enabled: self.enabled,
            vips,
            clients: Vec::new(),
            algorithm: Algorithm::parse(&self.algorithm)?,
            flags: Flags::default(),
            topology,
            tunnel,
            proxy_src: self.proxy_src()?,
            persistence: None,
            one_packet: false,
            orphans: Orphans::default(),
            sync: Synchronise::default(),
            slow_start: 0,
            max_new_flows: 0,
            quorum: 1,
            hysteresis: 0,
            panic_mode: PanicMode::None,
            panic_threshold: PANIC_THRESHOLD,
            notify: Notify::new(),
            servergroup: self.servergroup.clone(),
            conn_drain: 0,
            nat_timeout: 0,
            timeouts: Timeouts::new(),
            health_check: None,
            manage_addresses: self.manage_addresses.unwrap_or(true),
        };
        self.change(&mut rule)?;
        check_rule(&rule)?;
        Ok(rule)
    }

    /// A rule with everything changed that is given here.
    ///
    /// # Errors
    /// As [`RuleSettings::check`]; [`ModelError::Invalid`] for what a rule keeps for its life: a connection remembers it.
    pub fn amend(&self, rule: &Rule) -> Result<Rule, ModelError> {
        let vips = VipSettings::default();
        let given = |list: &[String]| list.join(",");
        for (field, value) in [
            ("vip", {
                let first = self.vips().into_iter().find(|vip| *vip != vips);
                first.map(|vip| vip.vip).unwrap_or_default()
            }),
            ("type", self.topology.clone()),
            ("tunnel", self.tunnel.clone().unwrap_or_default()),
            (
                "gue-port",
                self.gue_port.map(|p| p.to_string()).unwrap_or_default(),
            ),
            (
                "tunnel-checksum",
                self.tunnel_checksum.clone().unwrap_or_default(),
            ),
            ("proxy-src", given(&self.proxy_src)),
            ("servergroup", self.servergroup.clone()),
        ] {
            if !value.is_empty() {
                return Err(ModelError::invalid(
                    field,
                    value,
                    "cannot be changed",
                    "connections of the rule depend on it; create another rule and delete this one",
                ));
            }
        }
        let mut changed = rule.clone();
        self.change(&mut changed)?;
        if let Some(manage) = self.manage_addresses {
            changed.manage_addresses = manage;
        }
        check_rule(&changed)?;
        Ok(changed)
    }

    /// Sets what can be set at any time.
    fn change(&self, rule: &mut Rule) -> Result<(), ModelError> {
        if !self.clients.is_empty() {
            rule.clients = match &self.clients[..] {
                [all] if ["any", "all"].iter().any(|w| w.eq_ignore_ascii_case(all)) => Vec::new(),
                list => list
                    .iter()
                    .map(|text| crate::vip::Prefix::parse(text))
                    .collect::<Result<_, _>>()?,
            };
        }
        if !self.algorithm.is_empty() {
            let algorithm = Algorithm::parse(&self.algorithm)?;
            if algorithm != rule.algorithm {
                rule.flags = Flags::default();
            }
            rule.algorithm = algorithm;
        }
        if !self.flags.is_empty() {
            rule.flags = Flags::parse(rule.algorithm, &self.flags)?;
        }
        self.change_persistence(rule)?;
        if let Some(orphans) = &self.orphans {
            rule.orphans = Orphans::parse(orphans)?;
        }
        if let Some(sync) = &self.sync {
            rule.sync = Synchronise::parse(sync)?;
        }
        if let Some(mode) = &self.panic_mode {
            rule.panic_mode = PanicMode::parse(mode)?;
        }
        if let Some(percent) = self.panic_threshold {
            rule.panic_threshold = panicmode::check_threshold(percent)?;
        }
        notify::change(&self.notify, &mut rule.notify)?;
        for (&state, &seconds) in &self.timeouts {
            match seconds {
                0 => rule.timeouts.remove(&state),
                _ => rule.timeouts.insert(state, seconds),
            };
        }
        let set = |value: Option<u32>, field: &mut u32| *field = value.unwrap_or(*field);
        set(self.conn_drain, &mut rule.conn_drain);
        set(self.nat_timeout, &mut rule.nat_timeout);
        set(self.slow_start, &mut rule.slow_start);
        set(self.max_new_flows, &mut rule.max_new_flows);
        set(self.quorum, &mut rule.quorum);
        set(self.hysteresis, &mut rule.hysteresis);
        rule.one_packet = self.one_packet.unwrap_or(rule.one_packet);
        healthcheck_use::change(
            rule,
            self.health_check.as_deref(),
            self.health_check_port.as_deref(),
        )
    }

    fn change_persistence(&self, rule: &mut Rule) -> Result<(), ModelError> {
        if let Some(text) = &self.pmask {
            let off = ["none", "no", "off"];
            if off.iter().any(|w| w.eq_ignore_ascii_case(text)) {
                rule.persistence = None;
            } else {
                let timeout = rule.persistence.map_or(PERSIST_TIMEOUT, |p| p.timeout);
                let mask = mask(text, rule.family())?;
                rule.persistence = Some(Persistence { mask, timeout });
            }
        }
        match (self.persist_timeout, &mut rule.persistence) {
            (None, _) => Ok(()),
            (Some(seconds), Some(persistence)) => {
                persistence.timeout = seconds;
                Ok(())
            }
            (Some(seconds), None) => Err(ModelError::invalid(
                "persist-timeout",
                seconds.to_string(),
                "is given, but the rule is not persistent",
                "give -p or pmask too, or leave it out",
            )),
        }
    }

    fn proxy_src(&self) -> Result<Vec<IpAddr>, ModelError> {
        let mut all = Vec::new();
        for text in &self.proxy_src {
            all.extend(address::parse_range(Purpose::ProxySrc, text)?);
        }
        Ok(all)
    }
}

/// Reads `/n` or `n`; nothing means every bit.
fn mask(text: &str, family: Family) -> Result<u8, ModelError> {
    if text.is_empty() {
        return Ok(family.bits());
    }
    let digits = text.strip_prefix('/').unwrap_or(text);
    digits
        .parse::<u8>()
        .ok()
        .filter(|&bits| bits <= family.bits())
        .ok_or_else(|| {
            ModelError::invalid(
                "pmask",
                text,
                "is not a prefix length",
                format!("use /0 to /{} with {family}, or none", family.bits()),
            )
        })
}
