//! From virtual services of IPVS to rules and server groups.

use std::collections::HashMap;

use super::options::Options;
use super::report::{Kind, Place, Report};
use super::service::{Backend, Method, Service, mask_bits, name_of, place_of};
use crate::address::Family;
use crate::error::ModelError;
use crate::model::{Configuration, RuleSettings};
use crate::port::PortRange;
use crate::rule::{Algorithm, Protocol, Timeout, Tunnel, TunnelChecksum};
use crate::server::{SORRY, ServerSettings, ServerSpec, Target};
use crate::vip::{Vip, VipSettings};

/// Servers of one service that are tried one by one when not all of them fit.
const ONE_BY_ONE: usize = 4096;

/// What has been read so far.
pub(super) struct Builder<'a> {
    pub configuration: Configuration,
    pub report: Report,
    pub options: &'a Options,
}

impl<'a> Builder<'a> {
    pub fn new(options: &'a Options) -> Builder<'a> {
        Builder {
            configuration: Configuration::default(),
            report: Report::default(),
            options,
        }
    }

    /// What a firewall mark stands for. If the user has not said it, that is reported.
    pub fn mark(&mut self, place: &Place, what: &str, number: u32) -> Option<Vec<Vip>> {
        if let Some(vips) = self.options.marks.get(&number) {
            return Some(vips.clone());
        }
        let note = format!(
            "what the firewall marks with {number} does not stand here; say it: --fwmark {number}=tcp:ADDRESS:PORT"
        );
        self.report.add(place, Kind::LeftOut, what, note);
        None
    }

    /// Makes a rule with its server group, or reports why not. `also` says more about the rule. Returns its name.
    pub fn add(
        &mut self,
        service: &Service,
        also: impl FnOnce(&mut RuleSettings, &mut Configuration),
    ) -> Option<String> {
        let method = self.method(service);
        let servers = self.of_method(service, method);
        let proxy_src = match method {
            Method::Tunnel(_) => self.proxy_src(service, &servers)?,
            _ => Vec::new(),
        };
        let name = self.free_name(&service.name);
        let mut next = self.configuration.clone();
        next.create_group::<&str>(&name, &[])
            .map_err(|e| self.wrong(&service.place, &service.what, &e))
            .ok()?;
        let specs = self.specs(service, method, &servers);
        let mut fits = match next.add_servers(&name, &specs) {
            Ok(_) => servers,
            Err(_) if specs.is_empty() => servers,
            Err(_) => self.one_by_one(&mut next, &name, &servers, &specs),
        };
        let mut settings = self.settings(service, method, &name);
        settings.proxy_src = proxy_src;
        also(&mut settings, &mut next);
        while let Err(error) = next.create_rule(&name, &settings) {
            if !self.without_misfit(&mut next, &name, &mut fits, &error) {
                self.wrong(&service.place, &service.what, &error);
                return None;
            }
        }
        let note = format!("rule and server group {name}, {method}");
        self.report
            .add(&service.place, Kind::Taken, &service.what, note);
        let ids = next.group(&name).map(|g| g.servers.clone());
        for (server, made) in fits.iter().zip(ids.unwrap_or_default()) {
            let note = format!("server {}", made.id);
            self.report
                .add(&server.place, Kind::Taken, &server.what, note);
        }
        self.configuration = next;
        Some(name)
    }

    /// Reports something that is not allowed.
    pub fn wrong(&mut self, place: &Place, what: &str, error: &ModelError) {
        self.report.add(place, Kind::Wrong, what, error.to_string());
    }

    /// The method of most servers; of several the first.
    fn method(&self, service: &Service) -> Method {
        let own = service.method.unwrap_or(Method::Direct);
        let mut counts: Vec<(Method, usize)> = Vec::new();
        for server in &service.servers {
            let method = server.method.unwrap_or(own);
            match counts.iter_mut().find(|(m, _)| *m == method) {
                Some((_, count)) => *count += 1,
                None => counts.push((method, 1)),
            }
        }
        let most = counts.iter().map(|&(_, count)| count).max();
        let first = counts.iter().find(|&&(_, count)| Some(count) == most);
        first.map_or(own, |&(method, _)| method)
    }

    /// The servers that a rule of this method can have. The others are reported.
    fn of_method<'s>(&mut self, service: &'s Service, method: Method) -> Vec<&'s Backend> {
        let own = service.method.unwrap_or(Method::Direct);
        let mut fit = Vec::new();
        for server in &service.servers {
            let its = server.method.unwrap_or(own);
            if its == method {
                fit.push(server);
                continue;
            }
            let local = match its {
                Method::Direct => {
                    "; if it is the balancer itself, which IPVS shows as direct, add it: it is recognised by its address"
                }
                _ => "",
            };
            let note =
                format!("it has {its}, but most servers of the service have {method}{local}");
            self.report
                .add(&server.place, Kind::LeftOut, &server.what, note);
        }
        fit
    }

    /// The source addresses of the families that the servers have.
    fn proxy_src(&mut self, service: &Service, servers: &[&Backend]) -> Option<Vec<String>> {
        let has = |family| servers.iter().any(|s| Family::of(s.address) == family);
        let mut all = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            let wanted = has(family) || (servers.is_empty() && service.vips_family() == family);
            if !wanted {
                continue;
            }
            let of_family = self.options.proxy_src.iter();
            let of_family: Vec<String> = of_family
                .filter(|&&address| Family::of(address) == family)
                .map(ToString::to_string)
                .collect();
            if of_family.is_empty() {
                let note = format!(
                    "tunnels need an {family} address of the balancer as source, which does not stand here; say it: \
                     --proxy-src ADDRESS"
                );
                self.report
                    .add(&service.place, Kind::LeftOut, &service.what, note);
                return None;
            }
            all.extend(of_family);
        }
        Some(all)
    }

    fn free_name(&self, wanted: &str) -> String {
        let taken = |name: &str| {
            self.configuration.rule(name).or(None).is_some()
                || self.configuration.group(name).is_some()
        };
        if !taken(wanted) {
            return wanted.to_string();
        }
        let numbered = (2u32..).map(|n| {
            let end = format!("-{n}");
            let room = crate::rule::MAX_NAME.saturating_sub(end.len());
            let head: String = wanted.chars().take(room).collect();
            format!("{head}{end}")
        });
        let mut free = numbered.filter(|name| !taken(name));
        free.next().unwrap_or_default()
    }

    /// The servers as they are written on a command line.
    fn specs(&mut self, service: &Service, method: Method, servers: &[&Backend]) -> Vec<String> {
        let scale = scale(servers.iter().copied());
        if scale > 1 {
            let note = format!(
                "weights end at {}: those of the service are divided by {scale}",
                u16::MAX
            );
            self.report
                .add(&service.place, Kind::Changed, &service.what, note);
        }
        servers
            .iter()
            .map(|server| {
                let keeps = method != Method::Masquerade;
                let ports = PortRange::single(server.port);
                let mut port = server.port;
                if keeps && port != 0 && service.vips.iter().any(|vip| vip.ports != ports) {
                    let note = format!("port {port} is left out: with {method} packets keep their port, as they did there");
                    self.report
                        .add(&server.place, Kind::Changed, &server.what, note);
                    port = 0;
                }
                let mut limits = ServerSettings::default();
                // A server that took connections goes on taking some.
                let weight = (server.weight / scale).max(u32::from(server.weight > 0));
                limits.weight = u16::try_from(weight).ok().filter(|&w| w != 1);
                limits.max_connections = Some(server.upper).filter(|&n| n != 0);
                limits.min_connections = Some(server.lower).filter(|&n| n != 0);
                limits.tier = server.sorry.then_some(SORRY);
                if server.lower > server.upper {
                    let note = format!(
                        "the lower threshold {} is left out: it is above the upper one, {}",
                        server.lower, server.upper
                    );
                    self.report
                        .add(&server.place, Kind::Changed, &server.what, note);
                    limits.min_connections = None;
                }
                ServerSpec {
                    target: Target::Address(server.address),
                    host_name: None,
                    ports: (port != 0).then(|| PortRange::single(port)),
                    limits,
                    id: None,
                    place: None,
                    found: false,
                }
                .to_string()
            })
            .collect()
    }

    /// Adds servers one at a time and reports those that do not fit.
    fn one_by_one<'s>(
        &mut self,
        next: &mut Configuration,
        group: &str,
        servers: &[&'s Backend],
        specs: &[String],
    ) -> Vec<&'s Backend> {
        let mut fit = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (n, (server, spec)) in servers.iter().zip(specs).enumerate() {
            let place = place_of(server.address, server.port);
            if let Some(&first) = seen.get(&place) {
                let note = format!("it is the same as {}", servers[first].place);
                self.report
                    .add(&server.place, Kind::Wrong, &server.what, note);
                continue;
            }
            if n >= ONE_BY_ONE {
                let note = format!(
                    "only the first {ONE_BY_ONE} servers of a group with mistakes are looked at"
                );
                self.report
                    .add(&server.place, Kind::Wrong, &server.what, note);
                break;
            }
            match next.add_servers(group, std::slice::from_ref(spec)) {
                Ok(_) => {
                    seen.insert(place, n);
                    fit.push(*server);
                }
                Err(error) => self.wrong(&server.place, &server.what, &error),
            }
        }
        fit
    }

    /// Takes the server out of its group that does not fit the rule, and reports it. False if the error is another one.
    fn without_misfit(
        &mut self,
        next: &mut Configuration,
        group: &str,
        fits: &mut Vec<&Backend>,
        error: &ModelError,
    ) -> bool {
        let ModelError::Mismatch {
            server, problem, ..
        } = error
        else {
            return false;
        };
        let id = server.split(' ').next().unwrap_or_default();
        let servers = next
            .group(group)
            .map(|g| &g.servers[..])
            .unwrap_or_default();
        let Some(at) = servers.iter().position(|s| s.id == id) else {
            return false;
        };
        if next.remove_servers(group, &[id]).is_err() {
            return false;
        }
        let server = fits.remove(at);
        self.report
            .add(&server.place, Kind::Wrong, &server.what, problem.clone());
        true
    }

    fn settings(&mut self, service: &Service, method: Method, group: &str) -> RuleSettings {
        let mut vips = service.vips.iter().map(|vip| VipSettings {
            vip: vip.address.to_string(),
            port: match vip.protocol.has_ports() {
                true => vip.ports.to_string(),
                false => String::new(),
            },
            protocol: Some(vip.protocol.to_string()),
        });
        let first = vips.next().unwrap_or_default();
        let mut settings = RuleSettings {
            enabled: true,
            vip: first.vip,
            port: first.port,
            protocol: first.protocol,
            more_vips: vips.collect(),
            servergroup: group.to_string(),
            ..RuleSettings::default()
        };
        self.scheduler(service, &mut settings);
        self.persistence(service, &mut settings);
        match method {
            Method::Masquerade => settings.topology = "HALF-NAT".to_string(),
            Method::Direct => settings.topology = "DSR".to_string(),
            Method::Tunnel(tunnel) => set_tunnel(tunnel, &mut settings),
        }
        if let Some(said) = &service.one_packet {
            let udp = service.vips.iter().all(|vip| vip.protocol == Protocol::Udp);
            let problem = match (udp, method) {
                (false, _) => Some("it is for udp only"),
                (true, Method::Masquerade) => {
                    Some("with HALF-NAT answers would find no connection")
                }
                (true, _) if settings.pmask.is_some() => {
                    Some("each packet is a choice of its own, persistence the opposite")
                }
                (true, _) => None,
            };
            match problem {
                None => settings.one_packet = Some(true),
                Some(why) => self.report.add(
                    &said.place,
                    Kind::Changed,
                    &said.what,
                    format!("one-packet scheduling is left out: {why}"),
                ),
            }
        }
        set_idle(service, method, &mut settings);
        settings
    }

    fn scheduler(&mut self, service: &Service, settings: &mut RuleSettings) {
        let said = &service.scheduler;
        let algorithm = Algorithm::parse(&said.value);
        settings.algorithm = match &algorithm {
            Ok(algorithm) => algorithm.name().to_string(),
            Err(error) => {
                let note = format!("{error}; wlc is taken instead");
                self.report
                    .add(&said.place, Kind::LeftOut, &said.what, note);
                super::service::SCHEDULER.to_string()
            }
        };
        let algorithm = algorithm.unwrap_or(Algorithm::WeightedLeastConnection);
        for flag in &service.flags {
            let (fallback, port) = match algorithm {
                Algorithm::SourceHash => ("sh-fallback", "sh-port"),
                Algorithm::Maglev => ("mh-fallback", "mh-port"),
                _ => {
                    let note = format!("{} has no flags", settings.algorithm);
                    self.report
                        .add(&flag.place, Kind::Unneeded, &flag.what, note);
                    continue;
                }
            };
            let word = match flag.value.as_str() {
                "flag-1" => fallback,
                "flag-2" => port,
                own if own == fallback || own == port => own,
                "flag-3" => {
                    let note = format!("{} has no third flag", settings.algorithm);
                    self.report
                        .add(&flag.place, Kind::Unneeded, &flag.what, note);
                    continue;
                }
                _ => {
                    let note =
                        format!("{} has the flags {fallback} and {port}", settings.algorithm);
                    self.report.add(&flag.place, Kind::Wrong, &flag.what, note);
                    continue;
                }
            };
            if !settings.flags.iter().any(|f| f == word) {
                settings.flags.push(word.to_string());
            }
        }
    }

    fn persistence(&mut self, service: &Service, settings: &mut RuleSettings) {
        let Some(persistence) = &service.persistence else {
            return;
        };
        let bits = service.vips_family().bits();
        let mask = persistence.mask.as_ref();
        let mask = match mask.map(|said| (said, mask_bits(&said.value, bits))) {
            None => bits,
            Some((_, Some(mask))) => mask,
            Some((said, None)) => {
                let note = format!(
                    "a persistence mask is a number of leading bits here, 0 to {bits}; all are taken"
                );
                self.report
                    .add(&said.place, Kind::LeftOut, &said.what, note);
                bits
            }
        };
        settings.pmask = Some(format!("/{mask}"));
        settings.persist_timeout = Some(persistence.timeout.max(1));
    }
}

impl Service {
    /// The family of its VIPs.
    pub(super) fn vips_family(&self) -> Family {
        self.vips
            .first()
            .map_or(Family::Ipv4, |vip| Family::of(vip.address))
    }

    /// A name for the rule that nobody gave one.
    pub(super) fn default_name(vips: &[Vip]) -> String {
        vips.first().map(name_of).unwrap_or_default()
    }
}

/// What weights are divided by, so that the largest can be had.
pub(super) fn scale<'s>(servers: impl Iterator<Item = &'s Backend>) -> u32 {
    let most = servers.map(|server| server.weight).max().unwrap_or(0);
    most.div_ceil(u32::from(u16::MAX)).max(1)
}

fn set_tunnel(tunnel: Tunnel, settings: &mut RuleSettings) {
    settings.topology = "TUN".to_string();
    let sum = |checksum| match checksum {
        TunnelChecksum::None => None,
        TunnelChecksum::Full => Some("full".to_string()),
        TunnelChecksum::Remote => Some("remote".to_string()),
    };
    let (kind, port, checksum) = match tunnel {
        Tunnel::Ipip => ("ipip", None, None),
        Tunnel::Gre { checksum: true } => ("gre", None, sum(TunnelChecksum::Full)),
        Tunnel::Gre { checksum: false } => ("gre", None, None),
        Tunnel::Gue { port, checksum } => ("gue", Some(u32::from(port)), sum(checksum)),
    };
    settings.tunnel = Some(kind.to_string());
    settings.gue_port = port;
    settings.tunnel_checksum = checksum;
}

/// Idle times as IPVS has them. DSR and TUN have its defaults; HALF-NAT has ilbadm's, which are shorter.
fn set_idle(service: &Service, method: Method, settings: &mut RuleSettings) {
    let has = |protocol| service.vips.iter().any(|vip| vip.protocol == protocol);
    let masquerade = method == Method::Masquerade;
    let default = |timeout: Timeout| masquerade.then(|| timeout.default_seconds());
    let mut set = |timeout: Timeout, seconds: Option<u32>| {
        if let Some(seconds) = seconds {
            settings.timeouts.insert(timeout, seconds);
        }
    };
    let idle = &service.idle;
    if has(Protocol::Tcp) {
        let open = Timeout::TcpEstablished;
        set(open, idle.tcp.or(default(open)));
        set(Timeout::FinWait, idle.tcp_fin);
    }
    if has(Protocol::Udp) {
        set(Timeout::Udp, idle.udp.or(default(Timeout::Udp)));
    }
}
