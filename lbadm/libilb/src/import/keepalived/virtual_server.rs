//! `virtual_server` and `virtual_server_group`.

use super::super::build::scale;
use super::super::report::Kind;
use super::super::service::{
    Backend, Method, Persistence, SCHEDULER, Said, Service, clean, protocol,
};
use super::checkers::{self, Defaults};
use super::pool::Pool;
use super::tree::Statement;
use super::values::{addresses, method, number, port_of, too_many};
use super::{Member, Reader, said, switch};
use crate::address::Family;
use crate::port::PortRange;
use crate::rule::Protocol;
use crate::vip::{MAX_VIPS, Vip};

/// Seconds of persistence where only `persistence_timeout` stands.
const PERSISTENCE: u32 = 360;

/// What a virtual server may say, for hints.
const KNOWN: &[&str] = &[
    "lb_algo",
    "lvs_sched",
    "lb_kind",
    "lvs_method",
    "persistence_timeout",
    "persistence_granularity",
    "persistence_engine",
    "protocol",
    "flag-1",
    "flag-2",
    "flag-3",
    "sh-port",
    "sh-fallback",
    "mh-port",
    "mh-fallback",
    "ops",
    "ha_suspend",
    "smtp_alert",
    "snmp_name",
    "virtualhost",
    "alpha",
    "omega",
    "quorum",
    "hysteresis",
    "quorum_up",
    "quorum_down",
    "ip_family",
    "sorry_server",
    "sorry_server_inhibit",
    "sorry_server_lvs_method",
    "connect_timeout",
    "retry",
    "delay_before_retry",
    "warmup",
    "delay_loop",
    "inhibit_on_failure",
    "weight",
    "real_server",
];

/// Where a virtual server takes its traffic from.
enum Target {
    Members(Vec<Member>),
    /// It is reported already.
    Unknown,
}

impl Reader<'_> {
    /// `virtual_server_group NAME { … }`.
    pub(super) fn group(&mut self, block: &Statement) {
        let Some(name) = block.value() else {
            self.say(block, Kind::Wrong, "a virtual server group has a name");
            return;
        };
        let mut members = Vec::new();
        for statement in block.inner() {
            match self.member(statement, &statement.words) {
                Ok(member) => members.push(member),
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            }
        }
        if self.groups.insert(name.to_string(), members).is_some() {
            let note = "there is a group of that name before; this one counts";
            self.say(block, Kind::Changed, note);
        }
    }

    /// `ADDRESS [PORT]`, `RANGE [PORT]` or `fwmark NUMBER`.
    fn member(&self, statement: &Statement, words: &[String]) -> Result<Member, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = said(statement, "");
        match words[..] {
            ["fwmark", number] | ["fwmark", number, "inet" | "inet6"] => {
                let mark = super::super::ipvsadm::mark(number);
                let mark = mark.ok_or_else(|| {
                    format!("'{number}' is not a firewall mark: 1 to {}", u32::MAX)
                })?;
                Ok(Member::Mark(said, mark))
            }
            [place] => Ok(Member::Addresses(addresses(place)?, None)),
            [place, port] => {
                let port = Some(port_of(port)?).filter(|&port| port != 0);
                Ok(Member::Addresses(addresses(place)?, port))
            }
            _ => Err("it is not an address, a range or a firewall mark".to_string()),
        }
    }

    /// What stands between `virtual_server` and its block.
    fn target(&mut self, block: &Statement) -> Target {
        if let [kind, name] = block.values()
            && kind == "group"
        {
            if let Some(members) = self.groups.get(name) {
                return Target::Members(members.clone());
            }
            let note = format!("there is no virtual server group '{name}'");
            self.say(block, Kind::Wrong, note);
            return Target::Unknown;
        }
        match self.member(block, block.values()) {
            Ok(member) => Target::Members(vec![member]),
            Err(problem) => {
                self.say(block, Kind::Wrong, problem);
                Target::Unknown
            }
        }
    }

    /// The VIPs of a virtual server.
    fn vips(&mut self, members: &[Member], protocol: Protocol) -> Vec<Vip> {
        let mut vips: Vec<Vip> = Vec::new();
        for member in members {
            match member {
                Member::Mark(said, number) => {
                    vips.extend(self.marked(said, *number).unwrap_or_default())
                }
                Member::Addresses(all, port) => vips.extend(all.iter().map(|&address| Vip {
                    address,
                    protocol,
                    ports: match port {
                        Some(port) => PortRange::single(*port),
                        None => PortRange::ANY,
                    },
                })),
            }
        }
        vips
    }

    /// `virtual_server … { … }`.
    pub(super) fn virtual_server(&mut self, block: &Statement) {
        let Target::Members(members) = self.target(block) else {
            return;
        };
        let mut server = Server {
            service: Service {
                place: block.place.clone(),
                what: block.what(),
                name: String::new(),
                vips: Vec::new(),
                scheduler: said(block, SCHEDULER),
                flags: Vec::new(),
                persistence: None,
                one_packet: None,
                method: Some(Method::Masquerade),
                servers: Vec::new(),
                idle: self.idle,
            },
            protocol: Protocol::Tcp,
            mask: None,
            weight: 1,
            defaults: Defaults::default(),
            checks: Vec::new(),
            pool: Pool::default(),
        };
        // Real servers take over what is said anywhere in the block.
        let real = |s: &&Statement| s.key() == "real_server";
        for statement in block.inner().iter().filter(|s| !real(s)) {
            self.about(statement, &mut server);
        }
        for statement in block.inner().iter().filter(real) {
            self.real_server(statement, &mut server);
        }
        if let (Some(persistence), Some(mask)) =
            (&mut server.service.persistence, server.mask.take())
        {
            persistence.mask = Some(mask);
        }
        let vips = self.vips(&members, server.protocol);
        if vips.is_empty() {
            // Marks that were not said are reported; an empty group is not yet.
            if !members.iter().any(|m| matches!(m, Member::Mark(..))) {
                self.say(block, Kind::Wrong, "it has no virtual address");
            }
            return;
        }
        if vips.iter().any(|vip| vip.ports == PortRange::ANY)
            && server.service.persistence.is_none()
        {
            let note = "without persistence_timeout keepalived refuses a virtual server for all ports; here it is a rule for \
                        all ports";
            self.say(block, Kind::Changed, note);
        }
        self.add(block, server, vips);
    }

    /// Makes a rule for each address family.
    fn add(&mut self, block: &Statement, server: Server, vips: Vec<Vip>) {
        let Server {
            mut service,
            checks,
            mut pool,
            ..
        } = server;
        let check = self.choose(block, checks);
        pool.sorry(self, &mut service, check.is_some());
        let terms = self.terms(block, pool);
        let group = match block.values() {
            [kind, name] if kind == "group" => Some(clean(name)),
            _ => None,
        };
        let servers = std::mem::take(&mut service.servers);
        let both = [Family::Ipv4, Family::Ipv6];
        let families = both.map(|family| {
            let mut of_family: Vec<Vip> = vips.clone();
            of_family.retain(|vip| Family::of(vip.address) == family);
            of_family
        });
        let several = families.iter().all(|f| !f.is_empty());
        for (family, mut vips) in both.into_iter().zip(families) {
            if vips.is_empty() {
                continue;
            }
            if vips.len() > MAX_VIPS {
                let note = format!(
                    "a rule has at most {MAX_VIPS} virtual addresses, this would have {}",
                    vips.len()
                );
                self.say(block, Kind::LeftOut, note);
                continue;
            }
            vips.dedup();
            let own = |s: &&Backend| !several || Family::of(s.address) == family;
            service.name = match &group {
                Some(name) if several => clean(&format!("{name}-{family}").to_ascii_lowercase()),
                Some(name) => name.clone(),
                None => Service::default_name(&vips),
            };
            service.vips = vips;
            let tunnelled = matches!(service.method, Some(Method::Tunnel(_)));
            service.servers = match tunnelled {
                true => servers.clone(),
                false => servers.iter().filter(own).cloned().collect(),
            };
            let scale = scale(service.servers.iter());
            self.builder.add(&service, |settings, configuration| {
                terms.attach(settings, scale);
                if let Some(check) = &check {
                    checkers::attach(check, settings, configuration);
                }
            });
        }
    }

    /// A directive of a virtual server, but for its real servers.
    fn about(&mut self, statement: &Statement, server: &mut Server) {
        if let Some(problem) = too_many(statement) {
            self.say(statement, Kind::Wrong, problem);
            return;
        }
        if self.pool(statement, &mut server.pool) {
            return;
        }
        let service = &mut server.service;
        match statement.key() {
            "lb_algo" | "lvs_sched" => match statement.value() {
                Some(word) => service.scheduler = said(statement, word),
                None => self.say(statement, Kind::Wrong, "it names no scheduler"),
            },
            "lb_kind" | "lvs_method" => match method(statement.values()) {
                Ok(method) => service.method = Some(method),
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            },
            "protocol" => match statement.value().and_then(protocol) {
                Some(protocol) => server.protocol = protocol,
                None => self.say(
                    statement,
                    Kind::Wrong,
                    "the protocols are TCP, UDP and SCTP",
                ),
            },
            "persistence_timeout" => {
                let seconds = match statement.value() {
                    None => Some(PERSISTENCE),
                    Some(text) => text.parse::<u32>().ok().filter(|&s| s > 0),
                };
                match seconds {
                    Some(timeout) => {
                        service.persistence = Some(Persistence {
                            timeout,
                            mask: None,
                        })
                    }
                    None => self.say(
                        statement,
                        Kind::Wrong,
                        "it is not a number of seconds from 1",
                    ),
                }
            }
            "persistence_granularity" => {
                server.mask = statement.value().map(|mask| said(statement, mask))
            }
            "persistence_engine" => {
                let note = "clients are known by their address here, not by what they say";
                self.say(statement, Kind::LeftOut, note);
            }
            flag @ ("flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port"
            | "mh-fallback") => {
                service.flags.push(said(statement, flag));
            }
            "ops" => service.one_packet = Some(said(statement, "")),
            "weight" => match number(statement, 1 << 31) {
                Ok(weight) => server.weight = weight,
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            },
            "ha_suspend" => {
                let note = "servers are checked whether or not this node has the address";
                self.say(statement, Kind::Changed, note);
            }
            "smtp_alert" => self.say(
                statement,
                Kind::Unneeded,
                "ilb sends no mail; 'lbadm monitor' tells of changes",
            ),
            "snmp_name" => self.say(
                statement,
                Kind::Unneeded,
                "statistics go by the name of the rule",
            ),
            "nat_mask" | "ip_family" => {
                self.say(statement, Kind::Unneeded, "addresses say it themselves")
            }
            _ => match server.defaults.take(statement) {
                Some(Ok(())) => note_default(statement, &mut server.pool),
                Some(Err(problem)) => self.say(statement, Kind::Wrong, problem),
                None => self.unknown(statement, KNOWN),
            },
        }
    }
}

/// Takes note of where something stands that is not only about checks.
pub(super) fn note_default(statement: &Statement, pool: &mut Pool) {
    if statement.key() == "inhibit_on_failure" && switch(statement) == Some(true) {
        pool.inhibit(said(statement, ""));
    }
}

/// A virtual server while it is read.
pub(super) struct Server {
    pub(super) service: Service,
    protocol: Protocol,
    mask: Option<Said>,
    pub(super) weight: u32,
    pub(super) defaults: Defaults,
    /// Of each real server.
    pub(super) checks: Vec<(Said, Option<checkers::Check>)>,
    /// What stands around them.
    pub(super) pool: Pool,
}
