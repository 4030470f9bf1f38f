//! What `ipvsadm-save` writes: each line the options of one `ipvsadm`, with or without the word itself.
//!
//! Services and servers are added, edited and deleted in turn, as `ipvsadm -R` would; what is there at the end is taken.
//! Words and defaults are those of ipvsadm(8).

use std::net::IpAddr;
use std::sync::Arc;

use super::build::Builder;
use super::options::Options;
use super::report::{Kind, Place};
use super::service::{
    Backend, Idle, Method, PERSISTENCE, Persistence, SCHEDULER, Said, Service, clean, name_of,
};
use super::{Failure, Import, Source, lines};
use crate::port::PortRange;
use crate::rule::{Protocol, Tunnel, TunnelChecksum};
use crate::tunnel::GUE_PORT;
use crate::vip::Vip;
use crate::words;

/// An option, how it is written, and whether a value follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opt {
    AddService,
    EditService,
    DeleteService,
    Clear,
    AddServer,
    EditServer,
    DeleteServer,
    Zero,
    Set,
    StartDaemon,
    StopDaemon,
    Tcp,
    Udp,
    Sctp,
    Mark,
    Scheduler,
    Persistent,
    Netmask,
    Engine,
    OnePacket,
    Flags,
    Ipv6,
    Server,
    Direct,
    Ipip,
    Masquerade,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
    Weight,
    Upper,
    Lower,
    Other,
}

/// How many values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    None,
    One,
    /// One, unless what follows is an option.
    Optional,
    Three,
}

const OPTIONS: &[(Opt, &str, &str, Takes)] = &[
    (Opt::AddService, "-A", "--add-service", Takes::None),
    (Opt::EditService, "-E", "--edit-service", Takes::None),
    (Opt::DeleteService, "-D", "--delete-service", Takes::None),
    (Opt::Clear, "-C", "--clear", Takes::None),
    (Opt::AddServer, "-a", "--add-server", Takes::None),
    (Opt::EditServer, "-e", "--edit-server", Takes::None),
    (Opt::DeleteServer, "-d", "--delete-server", Takes::None),
    (Opt::Zero, "-Z", "--zero", Takes::None),
    (Opt::Set, "", "--set", Takes::Three),
    (Opt::StartDaemon, "", "--start-daemon", Takes::One),
    (Opt::StopDaemon, "", "--stop-daemon", Takes::One),
    (Opt::Tcp, "-t", "--tcp-service", Takes::One),
    (Opt::Udp, "-u", "--udp-service", Takes::One),
    (Opt::Sctp, "", "--sctp-service", Takes::One),
    (Opt::Mark, "-f", "--fwmark-service", Takes::One),
    (Opt::Scheduler, "-s", "--scheduler", Takes::One),
    (Opt::Persistent, "-p", "--persistent", Takes::Optional),
    (Opt::Netmask, "-M", "--netmask", Takes::One),
    (Opt::Engine, "", "--pe", Takes::One),
    (Opt::OnePacket, "-o", "--ops", Takes::None),
    (Opt::Flags, "-b", "--sched-flags", Takes::One),
    (Opt::Ipv6, "-6", "--ipv6", Takes::None),
    (Opt::Server, "-r", "--real-server", Takes::One),
    (Opt::Direct, "-g", "--gatewaying", Takes::None),
    (Opt::Ipip, "-i", "--ipip", Takes::None),
    (Opt::Masquerade, "-m", "--masquerading", Takes::None),
    (Opt::TunType, "", "--tun-type", Takes::One),
    (Opt::TunPort, "", "--tun-port", Takes::One),
    (Opt::TunNoCsum, "", "--tun-nocsum", Takes::None),
    (Opt::TunCsum, "", "--tun-csum", Takes::None),
    (Opt::TunRemCsum, "", "--tun-remcsum", Takes::None),
    (Opt::Weight, "-w", "--weight", Takes::One),
    (Opt::Upper, "-x", "--u-threshold", Takes::One),
    (Opt::Lower, "-y", "--l-threshold", Takes::One),
    (Opt::Other, "-n", "--numeric", Takes::None),
    (Opt::Other, "", "--syncid", Takes::One),
    (Opt::Other, "", "--sync-maxlen", Takes::One),
    (Opt::Other, "", "--mcast-interface", Takes::One),
    (Opt::Other, "", "--mcast-group", Takes::One),
    (Opt::Other, "", "--mcast-port", Takes::One),
    (Opt::Other, "", "--mcast-ttl", Takes::One),
];

/// Whether a line that begins with this word is one of ipvsadm.
pub(super) fn is_command(word: &str) -> bool {
    const COMMANDS: [Opt; 11] = [
        Opt::AddService,
        Opt::EditService,
        Opt::DeleteService,
        Opt::Clear,
        Opt::AddServer,
        Opt::EditServer,
        Opt::DeleteServer,
        Opt::Zero,
        Opt::Set,
        Opt::StartDaemon,
        Opt::StopDaemon,
    ];
    let known = OPTIONS.iter().find(|o| o.1 == word || o.2 == word);
    known.is_some_and(|o| COMMANDS.contains(&o.0))
}

/// Reads a firewall mark: decimal, or hexadecimal after `0x`. 0 is none.
pub(super) fn mark(text: &str) -> Option<u32> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number.filter(|&n| n > 0)
}

/// What is wrong with a line.
type Problem = String;

/// Reads a file.
///
/// # Errors
/// [`Failure::Structure`] for a quote without end.
pub(super) fn import(text: &str, file: &Arc<str>, options: &Options) -> Result<Import, Failure> {
    let place = |line| Place {
        file: file.clone(),
        line,
    };
    let lines = lines::split(text).map_err(|open| Failure::Structure {
        place: place(open.line),
        problem: format!("a quote {} is opened here and has no end", open.quote),
    })?;
    let mut reader = Reader {
        builder: Builder::new(options),
        services: Vec::new(),
        keys: std::collections::HashMap::new(),
        idle: Idle::default(),
    };
    for line in lines {
        let place = place(line.number);
        let what = line.words.join(" ");
        let mut words = &line.words[..];
        if words[0].rsplit('/').next() == Some("ipvsadm") {
            words = &words[1..];
        }
        let done =
            Command::read(words).and_then(|command| reader.carry_out(&command, &place, &what));
        if let Err(problem) = done {
            reader
                .builder
                .report
                .add(&place, Kind::Wrong, &what, problem);
        }
    }
    Ok(reader.finish())
}

/// The options of a line.
#[derive(Debug, Default)]
struct Command(Vec<(Opt, Vec<String>)>);

impl Command {
    fn read(words: &[String]) -> Result<Command, Problem> {
        let mut all = Command::default();
        let mut rest = words.iter().peekable();
        while let Some(word) = rest.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_string())),
                _ => (word.as_str(), None),
            };
            let Some(&(opt, _, long, takes)) = OPTIONS
                .iter()
                .find(|o| (!o.1.is_empty() && o.1 == name) || o.2 == name)
            else {
                let known = OPTIONS.iter().map(|o| o.2);
                let hint = words::nearest(name, known)
                    .map_or(String::new(), |hint| format!("; did you mean '{hint}'?"));
                return Err(format!("'{word}' is no option of ipvsadm{hint}"));
            };
            let count = match takes {
                Takes::None => 0,
                Takes::One => 1,
                Takes::Optional => {
                    usize::from(rest.peek().is_some_and(|next| !next.starts_with('-')))
                }
                Takes::Three => 3,
            };
            let mut values: Vec<String> = attached.into_iter().collect();
            while values.len() < count {
                let value = rest.next().ok_or_else(|| format!("{long} has no value"))?;
                values.push(value.clone());
            }
            if all.get(opt).is_some() && opt != Opt::Other {
                return Err(format!("{long} is given twice"));
            }
            all.0.push((opt, values));
        }
        Ok(all)
    }

    fn get(&self, opt: Opt) -> Option<&[String]> {
        let found = self.0.iter().find(|(o, _)| *o == opt);
        found.map(|(_, values)| values.as_slice())
    }

    fn has(&self, opt: Opt) -> bool {
        self.get(opt).is_some()
    }

    fn value(&self, opt: Opt) -> Option<&str> {
        self.get(opt)?.first().map(String::as_str)
    }

    fn number(&self, opt: Opt, default: u32, most: u32) -> Result<u32, Problem> {
        let Some(text) = self.value(opt) else {
            return Ok(default);
        };
        let number = text.parse::<u32>().ok().filter(|&n| n <= most);
        number.ok_or_else(|| format!("'{text}' is not a number from 0 to {most}"))
    }
}

/// How a service is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Place(IpAddr, u16, Protocol),
    Mark(u32, bool),
}

struct Reader<'a> {
    builder: Builder<'a>,
    /// In the order in which they were added; none where one was deleted.
    services: Vec<Option<(Key, Service)>>,
    keys: std::collections::HashMap<Key, usize>,
    idle: Idle,
}

impl Reader<'_> {
    fn carry_out(&mut self, command: &Command, place: &Place, what: &str) -> Result<(), Problem> {
        let Some((first, values)) = command.0.first() else {
            return Ok(());
        };
        match first {
            Opt::AddService => {
                let key = key(command)?;
                if self.keys.contains_key(&key) {
                    return Err("the service exists already".to_string());
                }
                let service = self.service(command, &key, place, what)?;
                self.keys.insert(key.clone(), self.services.len());
                self.services.push(Some((key, service)));
            }
            Opt::EditService => {
                let key = key(command)?;
                let new = self.service(command, &key, place, what)?;
                let old = self.find(command)?;
                let servers = std::mem::take(&mut old.servers);
                *old = Service { servers, ..new };
            }
            Opt::DeleteService => {
                let key = key(command)?;
                let at = self.keys.remove(&key).ok_or("there is no such service")?;
                self.services[at] = None;
            }
            Opt::Clear => {
                self.services.clear();
                self.keys.clear();
                self.builder.report.entries.clear();
            }
            Opt::AddServer => {
                let server = server(command, place, what)?;
                let service = self.find(command)?;
                if service.servers.iter().any(|s| same(s, &server)) {
                    return Err("the server is there already".to_string());
                }
                service.servers.push(server);
            }
            Opt::EditServer => {
                let server = server(command, place, what)?;
                let service = self.find(command)?;
                let old = service.servers.iter_mut().find(|s| same(s, &server));
                *old.ok_or("there is no such server")? = server;
            }
            Opt::DeleteServer => {
                let server = server(command, place, what)?;
                let service = self.find(command)?;
                let before = service.servers.len();
                service.servers.retain(|s| !same(s, &server));
                if service.servers.len() == before {
                    return Err("there is no such server".to_string());
                }
            }
            Opt::Zero => {
                let note = "counters are not configuration";
                self.builder.report.add(place, Kind::Unneeded, what, note);
            }
            Opt::Set => {
                let seconds: Result<Vec<u32>, _> = values.iter().map(|v| v.parse()).collect();
                let Ok([tcp, tcp_fin, udp]) = seconds.as_deref() else {
                    return Err("three numbers of seconds are wanted".to_string());
                };
                let set =
                    |old: &mut Option<u32>, new: u32| *old = Some(new).filter(|&n| n > 0).or(*old);
                set(&mut self.idle.tcp, *tcp);
                set(&mut self.idle.tcp_fin, *tcp_fin);
                set(&mut self.idle.udp, *udp);
                let note = "idle times of every rule";
                self.builder.report.add(place, Kind::Taken, what, note);
            }
            Opt::StartDaemon => {
                let note = "balancers do not tell each other of their connections yet";
                self.builder.report.add(place, Kind::LeftOut, what, note);
            }
            Opt::StopDaemon => {
                let note = "there is no such daemon here";
                self.builder.report.add(place, Kind::Unneeded, what, note);
            }
            _ => {
                return Err(
                    "a line begins with what to do: -A, -E, -D, -a, -e, -d, -C or --set"
                        .to_string(),
                );
            }
        }
        Ok(())
    }

    fn find(&mut self, command: &Command) -> Result<&mut Service, Problem> {
        let key = key(command)?;
        let at = self.keys.get(&key).copied();
        let found = at.and_then(|at| self.services[at].as_mut());
        let (_, service) = found.ok_or("there is no such service; -A adds one")?;
        Ok(service)
    }

    fn service(
        &mut self,
        command: &Command,
        key: &Key,
        place: &Place,
        what: &str,
    ) -> Result<Service, Problem> {
        let said = |value: &str| Said {
            place: place.clone(),
            what: what.to_string(),
            value: value.to_string(),
        };
        let vips = match *key {
            Key::Place(address, port, protocol) => vec![Vip {
                address,
                protocol,
                ports: match port {
                    0 => PortRange::ANY,
                    port => PortRange::single(port),
                },
            }],
            // Reported once, when all has been read.
            Key::Mark(..) => Vec::new(),
        };
        if let Some(engine) = command.value(Opt::Engine) {
            let note =
                format!("clients are known by their address here, not by what {engine} says");
            self.builder.report.add(place, Kind::LeftOut, what, note);
        }
        let persistence = match command.get(Opt::Persistent) {
            None => None,
            Some([]) => Some(PERSISTENCE),
            Some(_) => Some(command.number(Opt::Persistent, PERSISTENCE, u32::MAX)?),
        };
        if persistence.is_none() && matches!(key, Key::Place(_, 0, _)) {
            return Err("a service for all ports has to be persistent: -p".to_string());
        }
        let flags = command.value(Opt::Flags).unwrap_or_default();
        Ok(Service {
            place: place.clone(),
            what: what.to_string(),
            name: match *key {
                Key::Mark(number, _) => clean(&format!("fwmark-{number}")),
                Key::Place(..) => vips.first().map(name_of).unwrap_or_default(),
            },
            vips,
            scheduler: said(command.value(Opt::Scheduler).unwrap_or(SCHEDULER)),
            flags: flags
                .split(',')
                .filter(|f| !f.is_empty())
                .map(said)
                .collect(),
            persistence: persistence.map(|timeout| Persistence {
                timeout,
                mask: command.value(Opt::Netmask).map(said),
            }),
            one_packet: command.has(Opt::OnePacket).then(|| said("")),
            method: None,
            servers: Vec::new(),
            idle: Idle::default(),
        })
    }

    fn finish(mut self) -> Import {
        for (key, mut service) in self.services.into_iter().flatten() {
            if let Key::Mark(number, _) = key {
                let Some(vips) = self.builder.mark(&service.place, &service.what, number) else {
                    continue;
                };
                service.vips = vips;
            }
            service.idle = self.idle;
            self.builder.add(&service, |_, _| {});
        }
        self.builder.report.sort();
        Import {
            source: Source::Ipvsadm,
            configuration: self.builder.configuration,
            failover: serde_json::Map::new(),
            report: self.builder.report,
        }
    }
}

fn same(a: &Backend, b: &Backend) -> bool {
    (a.address, a.port) == (b.address, b.port)
}

/// Which service a line is about.
fn key(command: &Command) -> Result<Key, Problem> {
    let mut found = None;
    for (opt, protocol) in [
        (Opt::Tcp, Protocol::Tcp),
        (Opt::Udp, Protocol::Udp),
        (Opt::Sctp, Protocol::Sctp),
    ] {
        if let Some(text) = command.value(opt) {
            let (address, port) = end(text, protocol)?;
            if found.replace(Key::Place(address, port, protocol)).is_some() {
                return Err("several services are named".to_string());
            }
        }
    }
    if let Some(text) = command.value(Opt::Mark) {
        let number = mark(text)
            .ok_or_else(|| format!("'{text}' is not a firewall mark: 1 to {}", u32::MAX))?;
        if found
            .replace(Key::Mark(number, command.has(Opt::Ipv6)))
            .is_some()
        {
            return Err("several services are named".to_string());
        }
    }
    found.ok_or_else(|| "no service is named: -t, -u, --sctp-service or -f".to_string())
}

/// Reads `address[:port]`.
fn end(text: &str, protocol: Protocol) -> Result<(IpAddr, u16), Problem> {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or(rest)),
        None if text.parse::<IpAddr>().is_ok() => (text, ""),
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let address = host.parse::<IpAddr>().map_err(|_| {
        format!("'{host}' is not an address; 'ipvsadm-save -n' writes addresses and numbers")
    })?;
    let port = match port {
        "" | "0" => 0,
        port => match PortRange::parse("port", port, protocol) {
            Ok(range) if range.size() == 1 => range.first,
            Ok(_) => return Err(format!("'{port}' is not one port")),
            Err(error) => return Err(error.to_string()),
        },
    };
    Ok((address, port))
}

/// Reads the server of a line.
fn server(command: &Command, place: &Place, what: &str) -> Result<Backend, Problem> {
    let key = key(command)?;
    let text = command.value(Opt::Server).ok_or("no server is named: -r")?;
    let protocol = match key {
        Key::Place(_, _, protocol) => protocol,
        Key::Mark(..) => Protocol::Tcp,
    };
    let (address, mut port) = end(text, protocol)?;
    if let (Key::Place(_, own, _), 0) = (&key, port) {
        port = *own;
    }
    let methods = [Opt::Direct, Opt::Ipip, Opt::Masquerade];
    let mut given = methods.into_iter().filter(|&opt| command.has(opt));
    let method = given.next();
    if given.next().is_some() {
        return Err("several of -g, -i and -m are given".to_string());
    }
    let method = match method {
        Some(Opt::Masquerade) => Method::Masquerade,
        Some(Opt::Ipip) => Method::Tunnel(tunnel(command)?),
        _ => Method::Direct,
    };
    Ok(Backend {
        place: place.clone(),
        what: what.to_string(),
        address,
        port,
        method: Some(method),
        weight: command.number(Opt::Weight, 1, i32::MAX.cast_unsigned())?,
        upper: command.number(Opt::Upper, 0, u32::MAX)?,
        lower: command.number(Opt::Lower, 0, u32::MAX)?,
        sorry: false,
    })
}

fn tunnel(command: &Command) -> Result<Tunnel, Problem> {
    let checksum = match (command.has(Opt::TunCsum), command.has(Opt::TunRemCsum)) {
        (false, false) => TunnelChecksum::None,
        (true, false) => TunnelChecksum::Full,
        (false, true) => TunnelChecksum::Remote,
        (true, true) => return Err("several checksums are given".to_string()),
    };
    match command.value(Opt::TunType).unwrap_or("ipip") {
        "ipip" => Ok(Tunnel::Ipip),
        "gre" if checksum == TunnelChecksum::Remote => {
            Err("gre has no remote checksum offload".to_string())
        }
        "gre" => Ok(Tunnel::Gre {
            checksum: checksum == TunnelChecksum::Full,
        }),
        "gue" => {
            let port = command.number(Opt::TunPort, u32::from(GUE_PORT), u32::from(u16::MAX))?;
            let port = u16::try_from(port).ok().filter(|&p| p > 0);
            Ok(Tunnel::Gue {
                port: port.ok_or("the tunnel's port is 0")?,
                checksum,
            })
        }
        other => Err(format!(
            "there is no tunnel type '{other}': ipip, gre or gue"
        )),
    }
}
