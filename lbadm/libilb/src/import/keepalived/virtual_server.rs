//! `virtual_server`, `virtual_server_group` and `real_server`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::report::Kind;
use super::super::service::{
    Backend, Method, Persistence, SCHEDULER, Said, Service, clean, protocol,
};
use super::checkers::{self, Defaults};
use super::tree::Statement;
use super::{Member, Reader, said, switch};
use crate::address::Family;
use crate::port::PortRange;
use crate::rule::{Protocol, Tunnel, TunnelChecksum};
use crate::tunnel::GUE_PORT;
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

/// What a real server may say, for hints.
const KNOWN_REAL: &[&str] = &[
    "weight",
    "lb_kind",
    "lvs_method",
    "uthreshold",
    "lthreshold",
    "notify_up",
    "notify_down",
    "smtp_alert",
    "virtualhost",
    "snmp_name",
    "alpha",
    "connect_timeout",
    "retry",
    "delay_before_retry",
    "warmup",
    "delay_loop",
    "inhibit_on_failure",
    "HTTP_GET",
    "SSL_GET",
    "TCP_CHECK",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "FILE_CHECK",
    "BFD_CHECK",
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
            ..
        } = server;
        let check = self.choose(block, checks);
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
            self.builder.add(&service, |settings, configuration| {
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
            "quorum" | "hysteresis" => {
                let usual = ["1", "0"][usize::from(statement.key() == "hysteresis")];
                match statement.value() == Some(usual) {
                    true => self.say(statement, Kind::Unneeded, "this is how it is"),
                    false => self.say(
                        statement,
                        Kind::LeftOut,
                        "a rule serves as long as one of its servers does; quorums come with host pools",
                    ),
                }
            }
            "sorry_server" | "sorry_server_inhibit" | "sorry_server_lvs_method" => {
                let note = "ilb has no sorry servers yet; a server of lower weight with lbalg=fo comes near";
                self.say(statement, Kind::LeftOut, note);
            }
            "quorum_up" | "quorum_down" => self.say(statement, Kind::LeftOut, checkers::SCRIPTS),
            "omega" => self.say(
                statement,
                Kind::Unneeded,
                "there are no scripts that could run at the end",
            ),
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
                Some(Ok(())) => self.note_default(statement),
                Some(Err(problem)) => self.say(statement, Kind::Wrong, problem),
                None => self.unknown(statement, KNOWN),
            },
        }
    }

    /// What is to be said about a default of checks where it stands.
    fn note_default(&mut self, statement: &Statement) {
        if statement.key() == "inhibit_on_failure" && switch(statement) == Some(true) {
            let note = "a server that fails its check takes no new connections; those that it has are given to others \
                        (orphans=reschedule), it does not keep them";
            self.say(statement, Kind::Changed, note);
        }
    }

    /// `real_server ADDRESS [PORT] { … }`.
    fn real_server(&mut self, block: &Statement, server: &mut Server) {
        let place = match block.values() {
            [address] => address.parse::<IpAddr>().ok().map(|a| (a, Ok(0))),
            [address, port] => address.parse::<IpAddr>().ok().map(|a| (a, port_of(port))),
            _ => None,
        };
        let Some((address, port)) = place else {
            let note = "a real server is an address and a port";
            self.say(block, Kind::Wrong, note);
            return;
        };
        let port = match port {
            Ok(port) => port,
            Err(problem) => {
                self.say(block, Kind::Wrong, problem);
                return;
            }
        };
        let mut backend = Backend {
            place: block.place.clone(),
            what: block.what(),
            address,
            port,
            method: server.service.method,
            weight: server.weight,
            upper: 0,
            lower: 0,
        };
        let mut defaults = server.defaults.clone();
        let mut tests: Vec<&Statement> = Vec::new();
        for statement in block.inner() {
            if let Some(problem) = too_many(statement) {
                self.say(statement, Kind::Wrong, problem);
                continue;
            }
            let mut count = |field: &mut u32, most| match number(statement, most) {
                Ok(n) => *field = n,
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            };
            match statement.key() {
                "weight" => count(&mut backend.weight, 1 << 31),
                "uthreshold" => count(&mut backend.upper, u32::MAX),
                "lthreshold" => count(&mut backend.lower, u32::MAX),
                "lb_kind" | "lvs_method" => match method(statement.values()) {
                    Ok(method) => backend.method = Some(method),
                    Err(problem) => self.say(statement, Kind::Wrong, problem),
                },
                "notify_up" | "notify_down" => {
                    self.say(statement, Kind::LeftOut, checkers::SCRIPTS)
                }
                "smtp_alert" => self.say(
                    statement,
                    Kind::Unneeded,
                    "ilb sends no mail; 'lbadm monitor' tells of changes",
                ),
                "snmp_name" => self.say(
                    statement,
                    Kind::Unneeded,
                    "statistics go by the id of the server",
                ),
                key if checkers::is_checker(key) => tests.push(statement),
                _ => match defaults.take(statement) {
                    Some(Ok(())) => self.note_default(statement),
                    Some(Err(problem)) => self.say(statement, Kind::Wrong, problem),
                    None => self.unknown(statement, KNOWN_REAL),
                },
            }
        }
        let check = self.checks_of(&tests, &defaults);
        server.checks.push((said(block, ""), check));
        server.service.servers.push(backend);
    }
}

/// A virtual server while it is read.
struct Server {
    service: Service,
    protocol: Protocol,
    mask: Option<Said>,
    weight: u32,
    defaults: Defaults,
    /// Of each real server.
    checks: Vec<(Said, Option<checkers::Check>)>,
}

/// What is wrong with a directive that has one value, if it has more. keepalived would not look at them.
pub(super) fn too_many(statement: &Statement) -> Option<String> {
    const SEVERAL: [&str; 13] = [
        "lb_kind",
        "lvs_method",
        "quorum_up",
        "quorum_down",
        "notify_up",
        "notify_down",
        "sorry_server",
        "sorry_server_lvs_method",
        "misc_path",
        "user",
        "payload",
        "require_reply",
        "weight",
    ];
    match statement.values() {
        [_, more, ..] if statement.block.is_none() && !SEVERAL.contains(&statement.key()) => Some(
            format!("'{more}' is too much: each directive has a line of its own"),
        ),
        _ => None,
    }
}

/// Reads the number behind a word.
fn number(statement: &Statement, most: u32) -> Result<u32, String> {
    let value = statement.value().and_then(|text| text.parse().ok());
    value
        .filter(|&n| n <= most)
        .ok_or_else(|| format!("it is not a number from 0 to {most}"))
}

/// Reads a port: a number, or the name of a service; 0 stands for none.
fn port_of(text: &str) -> Result<u16, String> {
    if let Ok(port) = text.parse() {
        return Ok(port);
    }
    let port = PortRange::parse("port", text, Protocol::Tcp).map_err(|e| e.to_string())?;
    match port.size() {
        1 => Ok(port.first),
        _ => Err(format!("'{text}' is not one port")),
    }
}

/// Reads `NAT`, `DR` or `TUN [type …]`.
fn method(words: &[String]) -> Result<Method, String> {
    let mut words = words.iter().map(String::as_str);
    match words.next().map(str::to_ascii_uppercase).as_deref() {
        Some("NAT") => Ok(Method::Masquerade),
        Some("DR") => Ok(Method::Direct),
        Some("TUN") => {
            let (mut kind, mut port, mut checksum) = ("ipip", GUE_PORT, TunnelChecksum::None);
            while let Some(word) = words.next() {
                match word {
                    "type" => kind = words.next().ok_or("a type is missing: ipip, gue or gre")?,
                    "port" => {
                        let number = words.next().and_then(|text| text.parse().ok());
                        port = number.filter(|&p| p > 0).ok_or("it is not a port")?;
                    }
                    "nocsum" => checksum = TunnelChecksum::None,
                    "csum" => checksum = TunnelChecksum::Full,
                    "remcsum" => checksum = TunnelChecksum::Remote,
                    other => {
                        return Err(format!(
                            "'{other}' is not known for tunnels: type, port, nocsum, csum, remcsum"
                        ));
                    }
                }
            }
            match (kind, checksum) {
                ("ipip", _) => Ok(Method::Tunnel(Tunnel::Ipip)),
                ("gre", TunnelChecksum::Remote) => {
                    Err("gre has no remote checksum offload".to_string())
                }
                ("gre", sum) => Ok(Method::Tunnel(Tunnel::Gre {
                    checksum: sum == TunnelChecksum::Full,
                })),
                ("gue", checksum) => Ok(Method::Tunnel(Tunnel::Gue { port, checksum })),
                (other, _) => Err(format!(
                    "there is no tunnel type '{other}': ipip, gue or gre"
                )),
            }
        }
        _ => Err("packets are forwarded by NAT, DR or TUN".to_string()),
    }
}

/// Reads an address, `a.b.c.d-e`, `first-last` or `network/length`; at most as many as a rule may have.
fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let bad = || format!("'{text}' is not an address or a range of addresses");
    let (first, last): (IpAddr, IpAddr) = if let Some((base, len)) = text.split_once('/') {
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let bits = Family::of(base).bits();
        let len = len
            .parse::<u8>()
            .ok()
            .filter(|&len| len <= bits)
            .ok_or_else(bad)?;
        let host = u128::MAX
            .checked_shr(128 - u32::from(bits - len))
            .unwrap_or(0);
        let number = to_number(base) & !host;
        (from_number(number, base), from_number(number | host, base))
    } else if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().map_err(|_| bad())?;
        let last = match (last.parse::<IpAddr>(), first) {
            (Ok(last), _) => last,
            (Err(_), IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                let end = last.parse::<u8>().map_err(|_| bad())?;
                IpAddr::V4(Ipv4Addr::new(a, b, c, end))
            }
            (Err(_), IpAddr::V6(v6)) => {
                let end = u16::from_str_radix(last, 16).map_err(|_| bad())?;
                let mut groups = v6.segments();
                groups[7] = end;
                IpAddr::V6(Ipv6Addr::from(groups))
            }
        };
        (first, last)
    } else {
        let one: IpAddr = text.parse().map_err(|_| bad())?;
        (one, one)
    };
    let (from, to) = (to_number(first), to_number(last));
    if Family::of(first) != Family::of(last) || from > to {
        return Err(format!("'{text}' ends before it begins"));
    }
    if to - from >= MAX_VIPS as u128 {
        return Err(format!(
            "'{text}' has more addresses than a rule may have: {MAX_VIPS}"
        ));
    }
    Ok((from..=to).map(|n| from_number(n, first)).collect())
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of this number in the family of another.
fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_addresses() {
        for (text, count, first, last) in [
            ("192.0.2.1", 1, "192.0.2.1", "192.0.2.1"),
            ("192.0.2.3-10", 8, "192.0.2.3", "192.0.2.10"),
            ("192.0.2.250-192.0.3.5", 12, "192.0.2.250", "192.0.3.5"),
            ("192.0.2.9/29", 8, "192.0.2.8", "192.0.2.15"),
            ("192.0.2.9/32", 1, "192.0.2.9", "192.0.2.9"),
            ("2001:db8::2-9", 8, "2001:db8::2", "2001:db8::9"),
            ("2001:db8::2/127", 2, "2001:db8::2", "2001:db8::3"),
        ] {
            let all = addresses(text).unwrap();
            let ends = (all[0].to_string(), all[all.len() - 1].to_string());
            assert_eq!(
                (all.len(), ends),
                (count, (first.to_string(), last.to_string())),
                "{text}"
            );
        }
        for text in [
            "",
            "192.0.2.5-1",
            "192.0.2.1-300",
            "0.0.0.0/0",
            "::/0",
            "a",
            "192.0.2.1-2001:db8::1",
            "192.0.2.0/33",
        ] {
            assert!(addresses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn methods_have_their_options() {
        let read = |text: &str| {
            let words: Vec<String> = text.split(' ').map(String::from).collect();
            method(&words).map(|m| m.to_string())
        };
        for (text, expected) in [
            ("NAT", "type=HALF-NAT"),
            ("DR", "type=DSR"),
            ("TUN", "type=TUN,tunnel=ipip"),
            (
                "TUN type gue port 6081 remcsum",
                "type=TUN,tunnel=gue,gue-port=6081,tunnel-checksum=remote",
            ),
            (
                "TUN type gre csum",
                "type=TUN,tunnel=gre,tunnel-checksum=full",
            ),
        ] {
            assert_eq!(read(text).unwrap(), expected);
        }
        for text in [
            "",
            "FOO",
            "TUN type",
            "TUN type x",
            "TUN port 0",
            "TUN type gre remcsum",
            "TUN what",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
