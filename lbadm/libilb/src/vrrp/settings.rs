//! What an administrator says about an instance, to create it or to change it: words and texts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{
    Checksum, MAX_ADDRESSES, MAX_INTERVAL_V2, MAX_INTERVAL_V3, MAX_PEERS, MAX_TRACKED, Mac, OWNER,
    Time, Track, Version, VrrpInstance,
};
use crate::error::{Item, ModelError};
use crate::rule::check_name;
use crate::words::{self, Word};

/// One thing that can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is explained where it goes: VrrpInstance")]
pub enum Field {
    Interface,
    Vrid,
    Addresses,
    Version,
    Priority,
    Interval,
    Preempt,
    PreemptDelay,
    Source,
    Peers,
    Checksum,
    Mac,
    Accept,
    Track,
    SyncGroup,
    Notify,
    Announcements,
    AnnounceDelay,
    AnnounceInterval,
    Enabled,
}

/// The words, in the order in which they are written.
pub const FIELDS: &[Word<Field>] = &[
    (Field::Interface, "interface", &["dev", "if"]),
    (Field::Vrid, "vrid", &["virtual-router-id"]),
    (
        Field::Addresses,
        "addresses",
        &["address", "vip", "virtual-ipaddress"],
    ),
    (Field::Version, "version", &[]),
    (Field::Priority, "priority", &["prio"]),
    (Field::Interval, "interval", &["advert-int"]),
    (Field::Preempt, "preempt", &[]),
    (Field::PreemptDelay, "preempt-delay", &[]),
    (Field::Source, "source", &["src", "unicast-src-ip"]),
    (Field::Peers, "peers", &["peer", "unicast-peer"]),
    (Field::Checksum, "checksum", &[]),
    (Field::Mac, "mac", &[]),
    (Field::Accept, "accept", &["accept-mode"]),
    (Field::Track, "track", &[]),
    (Field::SyncGroup, "sync-group", &[]),
    (Field::Notify, "notify", &[]),
    (Field::Announcements, "announcements", &["garp-repeat"]),
    (Field::AnnounceDelay, "announce-delay", &["garp-delay"]),
    (
        Field::AnnounceInterval,
        "announce-interval",
        &["garp-refresh"],
    ),
    (Field::Enabled, "enabled", &[]),
];

const CHECKSUMS: &[Word<Checksum>] = &[
    (Checksum::PseudoHeader, "pseudo-header", &["pseudo"]),
    (Checksum::Message, "message", &["rfc9568"]),
];

const MACS: &[Word<Mac>] = &[
    (Mac::Interface, "interface", &["real"]),
    (Mac::Virtual, "virtual", &["vmac"]),
];

const VERSIONS: &[Word<Version>] = &[(Version::V2, "2", &["v2"]), (Version::V3, "3", &["v3"])];

pub(crate) const YES_OR_NO: &[Word<bool>] = &[
    (true, "yes", &["true", "on", "y", "1"]),
    (false, "no", &["false", "off", "n", "0"]),
];

/// What is said; what is not has its default, or stays as it is. Nothing as text means the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VrrpSettings {
    /// The texts.
    pub fields: BTreeMap<Field, String>,
}

impl VrrpSettings {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Reads what stands behind `-i`: `key=value` with commas between; values that are lists have commas in them, too.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`] for a key, [`ModelError::Invalid`] for a value or a key that is there twice.
    pub fn parse(&mut self, text: &str) -> Result<(), ModelError> {
        let mut pairs: Vec<(Field, String)> = Vec::new();
        for piece in text.split(',') {
            match (piece.split_once('='), pairs.last_mut()) {
                (Some((key, value)), _) => {
                    let field = words::parse(FIELDS, "key", key.trim())?;
                    pairs.push((field, value.trim().to_owned()));
                }
                (None, Some((_, value))) => {
                    value.push(',');
                    value.push_str(piece.trim());
                }
                (None, None) => {
                    let allowed = "write it like interface=eth0,vrid=51";
                    return Err(ModelError::invalid(
                        "setting",
                        piece,
                        "is not key=value",
                        allowed,
                    ));
                }
            }
        }
        pairs
            .into_iter()
            .try_for_each(|(field, value)| self.set(field, &value))
    }

    /// Says one thing.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] or [`ModelError::UnknownWord`] for the value, or if it was said before.
    pub fn set(&mut self, field: Field, text: &str) -> Result<(), ModelError> {
        if !text.is_empty() {
            read(&mut VrrpInstance::unsaid(""), field, text)?;
        }
        match self.fields.insert(field, text.to_owned()) {
            None => Ok(()),
            Some(_) => {
                let name = words::name(FIELDS, field);
                Err(ModelError::invalid(
                    "key",
                    name,
                    "is given twice",
                    "give it once",
                ))
            }
        }
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, missing or contradicts another.
    pub fn check(&self, name: &str) -> Result<VrrpInstance, ModelError> {
        check_name(Item::Vrrp, name)?;
        let mut instance = VrrpInstance::unsaid(name);
        for (field, text) in &self.fields {
            if !text.is_empty() {
                read(&mut instance, *field, text)?;
            }
        }
        instance.check()?;
        Ok(instance)
    }

    /// What an instance will be that these settings are said about.
    ///
    /// # Errors
    /// As [`VrrpSettings::check`].
    pub fn amend(&self, old: &VrrpInstance) -> Result<VrrpInstance, ModelError> {
        let mut all = VrrpSettings::from(old);
        for (field, text) in &self.fields {
            all.fields.insert(*field, text.clone());
        }
        all.check(&old.name)
    }

    /// Without what has its default.
    pub fn brief(mut self) -> VrrpSettings {
        let defaults = VrrpSettings::from(&VrrpInstance::unsaid(""));
        self.fields
            .retain(|field, text| defaults.fields.get(field) != Some(text));
        self
    }

    /// As [`VrrpSettings::parse`] reads it.
    pub fn words(&self) -> String {
        let said = FIELDS
            .iter()
            .filter_map(|(field, name, _)| Some(format!("{name}={}", self.fields.get(field)?)));
        said.collect::<Vec<_>>().join(",")
    }
}

impl From<&VrrpInstance> for VrrpSettings {
    fn from(instance: &VrrpInstance) -> VrrpSettings {
        let fields = FIELDS
            .iter()
            .map(|(field, ..)| (*field, write(instance, *field)));
        VrrpSettings {
            fields: fields.collect(),
        }
    }
}

impl VrrpInstance {
    /// One that nothing is said about.
    fn unsaid(name: &str) -> VrrpInstance {
        VrrpInstance {
            name: name.to_owned(),
            enabled: true,
            interface: String::new(),
            vrid: 0,
            addresses: Vec::new(),
            version: Version::default(),
            priority: 100,
            interval: 100,
            preempt: true,
            preempt_delay: Time::ZERO,
            peers: Vec::new(),
            source: None,
            checksum: Checksum::default(),
            mac: Mac::default(),
            accept: super::yes(),
            track: vec![Track::FASTPATH],
            sync_group: None,
            notify: None,
            announcements: 5,
            announce_delay: super::announce_delay(),
            announce_interval: Time::ZERO,
        }
    }

    /// Whether everything is there and fits together.
    fn check(&self) -> Result<(), ModelError> {
        let missing = |field, allowed: &str| {
            Err(ModelError::Missing {
                field,
                allowed: allowed.to_owned(),
            })
        };
        if self.interface.is_empty() {
            return missing("interface", "name one, such as interface=eth0");
        }
        if self.vrid == 0 {
            return missing("vrid", "give the virtual router's number, 1 to 255");
        }
        let Some(first) = self.addresses.first() else {
            return missing(
                "addresses",
                "name at least one, such as addresses=192.0.2.80",
            );
        };
        let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
        let others = [
            ("addresses", &self.addresses[1..]),
            ("peers", &self.peers[..]),
            ("source", self.source.as_slice()),
        ];
        for (field, addresses) in others {
            if let Some(other) = addresses.iter().find(|a| a.is_ipv4() != first.is_ipv4()) {
                return Err(ModelError::invalid(
                    field,
                    other.to_string(),
                    format!("is not {family} like {first}"),
                    "an instance has one family: create another one for the other",
                ));
            }
        }
        if self.version == Version::V2 && first.is_ipv6() {
            return Err(ModelError::invalid(
                "version",
                "2",
                "has no IPv6",
                "use version 3",
            ));
        }
        let refuse = |problem: &str, allowed: &str| {
            let interval = Time::from_millis(u32::from(self.interval) * 10);
            Err(ModelError::invalid(
                "interval",
                interval.to_string(),
                problem,
                allowed,
            ))
        };
        match self.version {
            Version::V2 if !self.interval.is_multiple_of(100) => {
                return refuse("is not whole seconds", "version 2 has 1 to 255 s");
            }
            Version::V3 if self.interval > MAX_INTERVAL_V3 => {
                return refuse("is too long", "version 3 has 0.01 to 40.95 s");
            }
            Version::V2 | Version::V3 => {}
        }
        if self
            .source
            .is_some_and(|source| self.peers.contains(&source))
        {
            let source = self.source.map(|source| source.to_string());
            return Err(ModelError::invalid(
                "peers",
                source.unwrap_or_default(),
                "is this node's own source",
                "name the other nodes",
            ));
        }
        Ok(())
    }
}

fn read(instance: &mut VrrpInstance, field: Field, text: &str) -> Result<(), ModelError> {
    let name = words::name(FIELDS, field);
    match field {
        Field::Interface => instance.interface = interface(name, text)?,
        Field::Vrid => instance.vrid = number(name, text, 1, 255)?,
        Field::Addresses => instance.addresses = addresses(name, text, MAX_ADDRESSES)?,
        Field::Version => instance.version = words::parse(VERSIONS, name, text)?,
        Field::Priority => instance.priority = number(name, text, 1, OWNER)?,
        Field::Interval => instance.interval = interval(name, text)?,
        Field::Preempt => instance.preempt = words::parse(YES_OR_NO, name, text)?,
        Field::PreemptDelay => instance.preempt_delay = Time::parse(name, text)?,
        Field::Source => instance.source = Some(address(name, text)?),
        Field::Peers => instance.peers = addresses(name, text, MAX_PEERS)?,
        Field::Checksum => instance.checksum = words::parse(CHECKSUMS, name, text)?,
        Field::Mac => instance.mac = words::parse(MACS, name, text)?,
        Field::Accept => instance.accept = words::parse(YES_OR_NO, name, text)?,
        Field::Track => instance.track = tracked(text)?,
        Field::SyncGroup => {
            check_name(Item::SyncGroup, text)?;
            instance.sync_group = Some(text.to_owned());
        }
        Field::Notify => {
            if !text.starts_with('/') || text.contains('\0') {
                let allowed = "name a program by its absolute path";
                return Err(ModelError::invalid(
                    name,
                    text,
                    "is no absolute path",
                    allowed,
                ));
            }
            instance.notify = Some(text.to_owned());
        }
        Field::Announcements => instance.announcements = number(name, text, 1, 60)?,
        Field::AnnounceDelay => {
            let time = Time::parse(name, text)?;
            if time.millis() < 100 {
                let allowed = "use 0.1 s and more";
                return Err(ModelError::invalid(name, text, "is too short", allowed));
            }
            instance.announce_delay = time;
        }
        Field::AnnounceInterval => {
            let time = Time::parse(name, text)?;
            if time != Time::ZERO && time.millis() < 1000 {
                let allowed = "use 0 for none, or 1 s and more";
                return Err(ModelError::invalid(name, text, "is too short", allowed));
            }
            instance.announce_interval = time;
        }
        Field::Enabled => instance.enabled = words::parse(YES_OR_NO, name, text)?,
    }
    Ok(())
}

fn write(instance: &VrrpInstance, field: Field) -> String {
    fn list<T: ToString>(items: &[T]) -> String {
        let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
        texts.join(",")
    }
    let yes = |yes: bool| words::name(YES_OR_NO, yes).to_owned();
    match field {
        Field::Interface => instance.interface.clone(),
        Field::Vrid => instance.vrid.to_string(),
        Field::Addresses => list(&instance.addresses),
        Field::Version => instance.version.to_string(),
        Field::Priority => instance.priority.to_string(),
        Field::Interval => Time::from_millis(u32::from(instance.interval) * 10).to_string(),
        Field::Preempt => yes(instance.preempt),
        Field::PreemptDelay => instance.preempt_delay.to_string(),
        Field::Source => list(instance.source.as_slice()),
        Field::Peers => list(&instance.peers),
        Field::Checksum => instance.checksum.to_string(),
        Field::Mac => instance.mac.to_string(),
        Field::Accept => yes(instance.accept),
        Field::Track if instance.track.is_empty() => "none".to_owned(),
        Field::Track => list(&instance.track),
        Field::SyncGroup => instance.sync_group.clone().unwrap_or_default(),
        Field::Notify => instance.notify.clone().unwrap_or_default(),
        Field::Announcements => instance.announcements.to_string(),
        Field::AnnounceDelay => instance.announce_delay.to_string(),
        Field::AnnounceInterval => instance.announce_interval.to_string(),
        Field::Enabled => yes(instance.enabled),
    }
}

/// The name of an interface.
pub(super) fn interface(field: &'static str, text: &str) -> Result<String, ModelError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/:,=".contains(c);
    if text.is_empty() || text.len() > 15 || [".", ".."].contains(&text) || text.contains(bad) {
        return Err(ModelError::invalid(
            field,
            text.escape_debug().to_string(),
            "is no name of an interface",
            "use 1 to 15 characters without space, '/', ':', ',' or '='",
        ));
    }
    Ok(text.to_owned())
}

fn number(field: &'static str, text: &str, least: u8, most: u8) -> Result<u8, ModelError> {
    let number = text.parse::<u8>().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            ModelError::invalid(
                field,
                text,
                "is out of range",
                format!("use a whole number from {least} to {most}"),
            )
        })
}

/// Hundredths of a second.
fn interval(field: &'static str, text: &str) -> Result<u16, ModelError> {
    let millis = Time::parse(field, text)?.millis();
    let allowed = "use 0.01 to 40.95 s, of version 2 whole seconds from 1 to 255";
    let hundredths = u16::try_from(millis / 10).ok();
    hundredths
        .filter(|cs| millis.is_multiple_of(10) && (1..=MAX_INTERVAL_V2).contains(cs))
        .ok_or_else(|| ModelError::invalid(field, text, "cannot be advertised", allowed))
}

fn address(field: &'static str, text: &str) -> Result<IpAddr, ModelError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let refuse = |problem| {
        let allowed = "use an address such as 192.0.2.80 or 2001:db8::80";
        ModelError::invalid(field, text, problem, allowed)
    };
    let address: IpAddr = bare.parse().map_err(|_| refuse("is not an IP address"))?;
    let local = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.to_ipv4_mapped().is_some(),
    };
    match local || address.is_unspecified() || address.is_multicast() {
        true => Err(refuse("cannot be the address of a node")),
        false => Ok(address),
    }
}

fn addresses(field: &'static str, text: &str, most: usize) -> Result<Vec<IpAddr>, ModelError> {
    let mut list = Vec::new();
    for piece in text.split(',') {
        let address = address(field, piece.trim())?;
        if list.contains(&address) {
            return Err(ModelError::invalid(
                field,
                piece,
                "is given twice",
                "give it once",
            ));
        }
        list.push(address);
    }
    match list.len() <= most {
        true => Ok(list),
        false => Err(ModelError::invalid(
            field,
            list.len().to_string(),
            "is too many",
            format!("there can be at most {most}"),
        )),
    }
}

fn tracked(text: &str) -> Result<Vec<Track>, ModelError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let mut list: Vec<Track> = Vec::new();
    for piece in text.split(',') {
        let track = Track::parse(piece.trim())?;
        if list.iter().any(|other| other.probe == track.probe) {
            return Err(ModelError::invalid(
                "track",
                piece,
                "is given twice",
                "give it once",
            ));
        }
        list.push(track);
    }
    match list.len() <= MAX_TRACKED {
        true => Ok(list),
        false => Err(ModelError::invalid(
            "track",
            list.len().to_string(),
            "is too many",
            format!("there can be at most {MAX_TRACKED}"),
        )),
    }
}
