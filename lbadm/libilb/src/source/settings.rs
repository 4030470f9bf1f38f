//! What can be said about a source, on a command line, in a document or over D-Bus: always as text, so that all say the same.

use std::net::{IpAddr, SocketAddr};

use super::{Approve, MAX_FOUND, MAX_LISTED, MAX_SUBNET, Origin, Source};
use crate::address::{self, Family, Purpose};
use crate::error::ModelError;
use crate::healthcheck::Time;
use crate::port::PortRange;
use crate::rule::Protocol;
use crate::vip::Prefix;
use crate::words::{self, Word};

/// One thing that can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceField {
    /// A name that is followed; `none` for no source.
    Dns,
    /// A network that is searched; `none` for no source.
    Subnet,
    /// See [`Source::port`].
    Port,
    /// See [`Source::family`].
    Family,
    /// See [`Source::approve`].
    Approve,
    /// See [`Source::limit`].
    Limit,
    /// See [`Source::interval`].
    Interval,
    /// See [`Source::max_interval`].
    MaxInterval,
    /// See [`Source::hold`].
    Hold,
    /// See [`Source::resolver`].
    Resolver,
    /// See [`Source::rate`].
    Rate,
    /// See [`Source::except`].
    Except,
}

/// The words for them.
pub const SOURCE_FIELDS: &[Word<SourceField>] = &[
    (SourceField::Dns, "dns", &["name"]),
    (SourceField::Subnet, "subnet", &["prefix"]),
    (SourceField::Port, "port", &["ports"]),
    (SourceField::Family, "family", &[]),
    (SourceField::Approve, "approve", &["policy"]),
    (SourceField::Limit, "limit", &["max-servers"]),
    (SourceField::Interval, "interval", &["min-interval"]),
    (SourceField::MaxInterval, "max-interval", &[]),
    (SourceField::Hold, "hold", &[]),
    (SourceField::Resolver, "resolver", &["resolvers"]),
    (SourceField::Rate, "rate", &[]),
    (SourceField::Except, "except", &[]),
];

impl SourceField {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        words::name(SOURCE_FIELDS, self)
    }

    /// Whether it may have several values.
    pub const fn is_list(self) -> bool {
        matches!(self, SourceField::Resolver | SourceField::Except)
    }
}

/// The word for no source, and for nothing in a list.
const NONE: &str = "none";
const DAY: u32 = 86_400;

/// What is said about a source. Text that is empty means the default. What is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceSettings(Vec<(SourceField, String)>);

/// Everything that is said about a source; nothing about none.
impl From<Option<&Source>> for SourceSettings {
    fn from(source: Option<&Source>) -> SourceSettings {
        SourceSettings(source.map(Source::pairs).unwrap_or_default())
    }
}

impl SourceSettings {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said, in its order.
    pub fn pairs(&self) -> &[(SourceField, String)] {
        &self.0
    }

    /// Says something. Values of a list that is said again come to those before.
    ///
    /// # Errors
    /// [`ModelError`] for a value that is wrong by itself.
    pub fn set(&mut self, field: SourceField, text: &str) -> Result<(), ModelError> {
        let text = text.trim();
        // By itself, so that what is wrong is said where it stands.
        let mut alone = Source::new(Origin::Dns("example.com".to_string()));
        if !(text.is_empty() || is_none(text) && field <= SourceField::Subnet) {
            alone.set(field, text)?;
        }
        match self.0.iter_mut().find(|(known, _)| *known == field) {
            Some((_, before)) if field.is_list() => {
                before.push(',');
                before.push_str(text);
            }
            Some((_, before)) => *before = text.to_string(),
            None => self.0.push((field, text.to_string())),
        }
        Ok(())
    }

    /// Says what stands behind `-d`: `dns=app.example.com,port=8080,except=192.0.2.1,192.0.2.2`.
    ///
    /// # Errors
    /// [`ModelError`] for a key that is not known or said twice, or a value that is wrong by itself.
    pub fn parse(&mut self, text: &str) -> Result<(), ModelError> {
        for piece in text.split(',') {
            let (field, value) = match piece.split_once('=') {
                Some((word, value)) => {
                    let field = words::parse(SOURCE_FIELDS, "source key", word.trim())?;
                    if !field.is_list() && self.0.iter().any(|(known, _)| *known == field) {
                        let name = field.name();
                        let once = "give it once";
                        return Err(ModelError::invalid(name, value, "is given twice", once));
                    }
                    (field, value)
                }
                None => match self.0.last() {
                    Some(&(field, _)) if field.is_list() && !piece.is_empty() => (field, piece),
                    _ => {
                        let allowed = "write KEY=VALUE, such as dns=app.example.com,port=8080";
                        let problem = "is not key=value";
                        return Err(ModelError::invalid("source", piece, problem, allowed));
                    }
                },
            };
            if value.trim().is_empty() {
                return Err(ModelError::Missing {
                    field: field.name(),
                    allowed: format!("write {}=VALUE", field.name()),
                });
            }
            self.set(field, value)?;
        }
        Ok(())
    }

    /// The source that there is afterwards; `None` for none.
    ///
    /// # Errors
    /// [`ModelError`] for what is missing, wrong, or does not go together.
    pub fn apply(&self, before: Option<&Source>) -> Result<Option<Source>, ModelError> {
        let said = |field| self.0.iter().find(|(known, _)| *known == field);
        let (dns, subnet) = (said(SourceField::Dns), said(SourceField::Subnet));
        let some = |said: Option<&(SourceField, String)>| said.is_some_and(|(_, t)| !is_none(t));
        if let (true, true, Some((_, text))) = (some(dns), some(subnet), subnet) {
            let other = "is given beside dns";
            let one = "a group follows a name or searches a subnet: give one of them";
            return Err(ModelError::invalid("subnet", text, other, one));
        }
        let none = (dns.is_some() || subnet.is_some()) && !some(dns) && !some(subnet);
        if none {
            return match self
                .0
                .iter()
                .find(|(field, _)| *field > SourceField::Subnet)
            {
                Some((field, text)) => Err(ModelError::invalid(
                    field.name(),
                    text,
                    "is given for no source",
                    "give dns=none or subnet=none alone",
                )),
                None => Ok(None),
            };
        }
        let mut source = match (some(dns) || some(subnet), before) {
            (false, Some(before)) => before.clone(),
            // The origin follows; what does not fit it is forgotten.
            (true, Some(before)) => {
                let mut kept = before.clone();
                if before.is_dns() != some(dns) {
                    kept.resolver.clear();
                    (kept.family, kept.rate) = (None, None);
                    (kept.interval, kept.max_interval, kept.hold) = (None, None, None);
                }
                kept
            }
            (true, None) => Source::new(Origin::Dns(String::new())),
            (false, None) => {
                return Err(ModelError::Missing {
                    field: "dns or subnet",
                    allowed:
                        "say where servers are found: dns=app.example.com or subnet=192.0.2.0/28"
                            .to_string(),
                });
            }
        };
        for (field, text) in &self.0 {
            if *field <= SourceField::Subnet && is_none(text) {
                continue;
            }
            source.set(*field, text)?;
        }
        source.fit(self)?;
        Ok(Some(source))
    }
}

fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case(NONE)
}

impl Source {
    /// What is said, so that the same comes of it again.
    pub fn pairs(&self) -> Vec<(SourceField, String)> {
        let mut all = Vec::new();
        let mut say = |field, text: Option<String>| all.extend(text.map(|text| (field, text)));
        match &self.origin {
            Origin::Dns(name) => say(SourceField::Dns, Some(name.clone())),
            Origin::Subnet(prefix) => say(SourceField::Subnet, Some(prefix.to_string())),
        }
        fn time(time: Option<Time>) -> Option<String> {
            time.map(|time| time.to_string())
        }
        fn list<T: ToString>(items: &[T]) -> Option<String> {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            (!items.is_empty()).then(|| items.join(","))
        }
        let resolver: Vec<String> = self
            .resolver
            .iter()
            .map(|server| match server.port() {
                53 => server.ip().to_string(),
                _ => server.to_string(),
            })
            .collect();
        say(SourceField::Port, self.port.map(|port| port.to_string()));
        let family = self.family.map(|family| family.to_string().to_lowercase());
        say(SourceField::Family, family);
        let ask = self.approve != Approve::default();
        say(
            SourceField::Approve,
            ask.then(|| self.approve.name().to_string()),
        );
        let limit = (self.limit != Source::LIMIT).then(|| self.limit.to_string());
        say(SourceField::Limit, limit);
        say(SourceField::Interval, time(self.interval));
        say(SourceField::MaxInterval, time(self.max_interval));
        say(SourceField::Hold, time(self.hold));
        say(SourceField::Resolver, list(&resolver));
        say(SourceField::Rate, self.rate.map(|rate| rate.to_string()));
        say(SourceField::Except, list(&self.except));
        all
    }

    fn set(&mut self, field: SourceField, text: &str) -> Result<(), ModelError> {
        let name = field.name();
        let refuse =
            |problem: &str, allowed: &str| Err(ModelError::invalid(name, text, problem, allowed));
        let usual = text.is_empty();
        let number = |least: u32, most: u32| match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(ModelError::invalid(
                name,
                text,
                "is out of range",
                format!("use {least} to {most}"),
            )),
        };
        let time = |least: u32, most: u32| {
            let time = Time::parse(name, text)?;
            match (Time::from_secs(least)..=Time::from_secs(most)).contains(&time) {
                true => Ok(Some(time)),
                false => Err(ModelError::invalid(
                    name,
                    text,
                    "is out of range",
                    format!("use {least} to {most} seconds"),
                )),
            }
        };
        match field {
            SourceField::Dns => self.origin = Origin::Dns(dns_name(text)?),
            SourceField::Subnet => self.origin = Origin::Subnet(subnet(text)?),
            SourceField::Port if usual => self.port = None,
            SourceField::Port => {
                let tcp = PortRange::parse(name, text, Protocol::Tcp);
                let port = tcp.or_else(|error| {
                    PortRange::parse(name, text, Protocol::Udp).map_err(|_| error)
                });
                self.port = Some(port?);
            }
            SourceField::Family => {
                self.family = match text.to_ascii_lowercase().as_str() {
                    "" | "auto" => None,
                    "ipv4" | "4" => Some(Family::Ipv4),
                    "ipv6" | "6" => Some(Family::Ipv6),
                    _ => return refuse("is not a family", "use ipv4, ipv6 or auto"),
                };
            }
            SourceField::Approve => {
                self.approve = match text.to_ascii_lowercase().as_str() {
                    "" | "auto" => Approve::Auto,
                    "ask" => Approve::Ask,
                    _ => {
                        return refuse(
                            "is not a policy",
                            "use auto, to take servers as they are found, or ask, to approve each",
                        );
                    }
                };
            }
            SourceField::Limit if usual => self.limit = Source::LIMIT,
            SourceField::Limit => self.limit = number(1, MAX_FOUND)?,
            SourceField::Interval if usual => self.interval = None,
            SourceField::Interval => self.interval = time(1, DAY)?,
            SourceField::MaxInterval if usual => self.max_interval = None,
            SourceField::MaxInterval => self.max_interval = time(1, DAY)?,
            SourceField::Hold if usual => self.hold = None,
            SourceField::Hold => self.hold = time(0, 7 * DAY)?,
            SourceField::Rate if usual => self.rate = None,
            SourceField::Rate => self.rate = Some(number(1, 50)?),
            SourceField::Resolver => self.resolver = list(name, text, name_server)?,
            SourceField::Except => {
                self.except = list(name, text, |item| Prefix::parse_as("except", item))?;
            }
        }
        Ok(())
    }

    /// Whether everything that is said goes together.
    fn fit(&self, said: &SourceSettings) -> Result<(), ModelError> {
        let alien: &[SourceField] = match self.origin {
            Origin::Dns(_) => &[SourceField::Rate],
            Origin::Subnet(_) => &[
                SourceField::Family,
                SourceField::MaxInterval,
                SourceField::Resolver,
            ],
        };
        let wrong =
            |(field, text): &&(SourceField, String)| alien.contains(field) && !text.is_empty();
        if let Some((field, text)) = said.0.iter().find(wrong) {
            let (problem, allowed) = match self.origin {
                Origin::Dns(_) => ("is for subnets", "leave it out with dns"),
                Origin::Subnet(_) => ("is for names", "leave it out with subnet"),
            };
            return Err(ModelError::invalid(field.name(), text, problem, allowed));
        }
        if self.max_interval() < self.interval() {
            return Err(ModelError::invalid(
                "max-interval",
                self.max_interval().to_string(),
                format!("is shorter than interval {}", self.interval()),
                "give one that is as long or longer",
            ));
        }
        Ok(())
    }
}

/// Nothing, `none`, or items with commas between them.
fn list<T>(
    field: &'static str,
    text: &str,
    item: impl Fn(&str) -> Result<T, ModelError>,
) -> Result<Vec<T>, ModelError> {
    let items: Vec<&str> = match text.is_empty() || is_none(text) {
        true => Vec::new(),
        false => text.split(',').map(str::trim).collect(),
    };
    if items.len() > MAX_LISTED {
        return Err(ModelError::invalid(
            field,
            items.len().to_string(),
            "are too many",
            format!("give at most {MAX_LISTED}"),
        ));
    }
    items.into_iter().map(item).collect()
}

fn dns_name(text: &str) -> Result<String, ModelError> {
    let address = text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let allowed =
        "use a whole name such as app.example.com, or _http._tcp.example.com for SRV records";
    if address {
        let servers = "addresses do not change: add them with server=ADDRESS";
        return Err(ModelError::invalid("dns", text, "is an address", servers));
    }
    match crate::server::is_host_name(text) {
        true => Ok(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()),
        false => Err(ModelError::invalid("dns", text, "is not a name", allowed)),
    }
}

fn subnet(text: &str) -> Result<Prefix, ModelError> {
    let prefix = Prefix::parse_as("subnet", text)?;
    let family = Family::of(prefix.address);
    let least = family.bits() - u8::try_from(MAX_SUBNET.ilog2()).unwrap_or(0);
    if prefix.len < least {
        return Err(ModelError::invalid(
            "subnet",
            text,
            format!("has more than {MAX_SUBNET} addresses"),
            format!("use /{least} to /{} with {family}", family.bits()),
        ));
    }
    // Of all its addresses the same can be said but for 0.0.0.0 and the like, which are in networks that are refused.
    match address::check(Purpose::Server, prefix.address) {
        Err(ModelError::Invalid {
            problem, allowed, ..
        }) => Err(ModelError::invalid("subnet", text, problem, allowed)),
        other => other.map(|()| prefix),
    }
}

/// An address, with or without a port.
fn name_server(text: &str) -> Result<SocketAddr, ModelError> {
    let bare = text.trim_matches(['[', ']']);
    let found = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    let found = found.ok().or_else(|| text.parse::<SocketAddr>().ok());
    let usable = |server: &SocketAddr| {
        !server.ip().is_unspecified() && !server.ip().is_multicast() && server.port() != 0
    };
    found.filter(usable).ok_or_else(|| {
        ModelError::invalid(
            "resolver",
            text,
            "is not the address of a name server",
            "use an address with or without a port: 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353",
        )
    })
}
