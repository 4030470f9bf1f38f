//! Where clients connect to, and which clients: the traffic that a rule claims.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{self, Family, Purpose};
use crate::error::ModelError;
use crate::port::PortRange;
use crate::rule::Protocol;

/// Most VIPs of a rule.
pub const MAX_VIPS: usize = 256;
/// Most client prefixes of a rule.
pub const MAX_CLIENTS: usize = 256;

/// A virtual address with protocol and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vip {
    /// The address that clients connect to.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports; [`PortRange::ANY`] for protocols that have none.
    pub ports: PortRange,
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.protocol)?;
        match self.protocol.has_ports() {
            true => write!(f, " port {}", self.ports),
            false => Ok(()),
        }
    }
}

/// The VIPs of a rule, at least one. A connection remembers an index into the list, so its order stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct Vips(pub Vec<Vip>);

impl Deref for Vips {
    type Target = [Vip];

    fn deref(&self) -> &[Vip] {
        &self.0
    }
}

/// How VIPs are stored: a single one as every version has stored it, several as a list.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Several {
        vips: Vec<Vip>,
    },
    One {
        vip: IpAddr,
        protocol: Protocol,
        ports: PortRange,
    },
}

impl From<Wire> for Vips {
    fn from(wire: Wire) -> Vips {
        Vips(match wire {
            Wire::Several { vips } => vips,
            Wire::One {
                vip: address,
                protocol,
                ports,
            } => vec![Vip {
                address,
                protocol,
                ports,
            }],
        })
    }
}

impl From<Vips> for Wire {
    fn from(vips: Vips) -> Wire {
        match vips.0[..] {
            [vip] => Wire::One {
                vip: vip.address,
                protocol: vip.protocol,
                ports: vip.ports,
            },
            _ => Wire::Several { vips: vips.0 },
        }
    }
}

impl Vips {
    /// The address of the first, which stands for the rule where there is room for one.
    pub fn first(&self) -> Option<&Vip> {
        self.0.first()
    }

    /// The family of all of them.
    pub fn family(&self) -> Family {
        self.first()
            .map_or(Family::Ipv4, |vip| Family::of(vip.address))
    }

    /// One property of each, separated by commas; once if all are the same.
    pub fn column<T: fmt::Display>(&self, of: impl Fn(&Vip) -> T) -> String {
        let mut all: Vec<String> = self.iter().map(|vip| of(vip).to_string()).collect();
        if all.iter().all(|one| *one == all[0]) {
            all.truncate(1);
        }
        all.join(",")
    }
}

/// A VIP as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VipSettings {
    /// The address.
    pub vip: String,
    /// Port, range, service name, or `any`; not given for protocols without ports.
    pub port: String,
    /// `tcp` if not given.
    pub protocol: Option<String>,
}

impl VipSettings {
    /// Reads and checks it.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Invalid`] or [`ModelError::UnknownWord`].
    pub fn check(&self) -> Result<Vip, ModelError> {
        let missing = |field, allowed: &str| ModelError::Missing {
            field,
            allowed: allowed.to_string(),
        };
        if self.vip.is_empty() {
            return Err(missing(
                "vip",
                "say which address clients connect to, such as vip=192.0.2.1",
            ));
        }
        let protocol = match &self.protocol {
            Some(word) => Protocol::parse(word)?,
            None => Protocol::Tcp,
        };
        let ports = match (protocol.has_ports(), self.port.as_str()) {
            (true, "") => {
                return Err(missing(
                    "port",
                    "say which port clients connect to, such as port=80",
                ));
            }
            (true, port) => PortRange::parse_rule("port", port, protocol)?,
            (false, "") => PortRange::ANY,
            (false, port) => {
                return Err(ModelError::invalid(
                    "port",
                    port,
                    format!("is given, but protocol is {protocol}"),
                    "icmp and any have no ports; leave port out, or use tcp, udp or sctp",
                ));
            }
        };
        Ok(Vip {
            address: address::parse(Purpose::Vip, &self.vip)?,
            protocol,
            ports,
        })
    }
}

impl fmt::Display for VipSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vip={}", self.vip)?;
        if !self.port.is_empty() {
            write!(f, ",port={}", self.port)?;
        }
        match &self.protocol {
            Some(protocol) => write!(f, ",protocol={protocol}"),
            None => Ok(()),
        }
    }
}

impl FromStr for VipSettings {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<VipSettings, ModelError> {
        let mut settings = VipSettings::default();
        for item in text.split(',') {
            match item.split_once('=') {
                Some(("vip", value)) => settings.vip = value.to_string(),
                Some(("port", value)) => settings.port = value.to_string(),
                Some(("protocol", value)) => settings.protocol = Some(value.to_string()),
                _ => {
                    return Err(ModelError::invalid(
                        "vips",
                        text,
                        "is not understood",
                        "write vip=ADDRESS,port=PORT,protocol=PROTOCOL",
                    ));
                }
            }
        }
        Ok(settings)
    }
}

/// A network of clients: all addresses that share the first `len` bits of `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// The network's address; its bits behind the first `len` are 0.
    pub address: IpAddr,
    /// 0..=32 or 0..=128.
    pub len: u8,
}

impl Prefix {
    /// Reads `address/len`, or an address alone.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn parse(text: &str) -> Result<Prefix, ModelError> {
        Prefix::parse_as("client", text)
    }

    /// The same for another field, as messages call it.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn parse_as(field: &'static str, text: &str) -> Result<Prefix, ModelError> {
        let refuse = |problem: &str, allowed: String| {
            Err(ModelError::invalid(field, text, problem, allowed))
        };
        let (bare, len) = match text.split_once('/') {
            Some((bare, len)) => (bare, Some(len)),
            None => (text, None),
        };
        let bare = bare
            .strip_prefix('[')
            .and_then(|b| b.strip_suffix(']'))
            .unwrap_or(bare);
        let Ok(address) = bare.parse::<IpAddr>() else {
            return refuse(
                "is not a network",
                "use an address, or a network such as 10.0.0.0/8 or 2001:db8::/32".to_string(),
            );
        };
        let most = Family::of(address).bits();
        let len = match len {
            None => most,
            Some(len) => match len.parse::<u8>().ok().filter(|&len| len <= most) {
                Some(len) => len,
                None => {
                    return refuse(
                        "has no such length",
                        format!("use /0 to /{most} with {}", Family::of(address)),
                    );
                }
            },
        };
        let network = masked(address, len);
        if network != address {
            return refuse(
                "has bits set behind its length",
                format!("write {network}/{len}"),
            );
        }
        Ok(Prefix { address, len })
    }

    /// Whether an address is in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.len) == self.address
    }
}

/// The first `len` bits of `address`, the others 0.
fn masked(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl TryFrom<String> for Prefix {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Prefix, ModelError> {
        Prefix::parse(&text)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

/// The ports that two VIPs both claim with nothing to tell them apart: same address and protocol, and neither range lies
/// within the other, which would make it the more specific one.
pub(crate) fn conflict(a: &Vip, b: &Vip) -> Option<PortRange> {
    if a.address != b.address || a.protocol != b.protocol {
        return None;
    }
    let common = a.ports.common(b.ports)?;
    let nested = a.ports != b.ports && (common == a.ports || common == b.ports);
    (!nested).then_some(common)
}

/// Checks the VIPs and clients of a rule by themselves.
///
/// # Errors
/// [`ModelError::Invalid`] or [`ModelError::Missing`].
pub(crate) fn check(vips: &Vips, clients: &[Prefix]) -> Result<(), ModelError> {
    let Some(first) = vips.first() else {
        return Err(ModelError::Missing {
            field: "vip",
            allowed: "a rule has at least one".to_string(),
        });
    };
    for (field, count, most) in [
        ("vip", vips.len(), MAX_VIPS),
        ("client", clients.len(), MAX_CLIENTS),
    ] {
        if count > most {
            return Err(ModelError::invalid(
                field,
                count.to_string(),
                "is too many",
                format!("a rule has at most {most}"),
            ));
        }
    }
    let other_family = |field, value: String, family| {
        ModelError::invalid(
            field,
            value,
            format!(
                "is {family}, but the vip {} is {}",
                first.address,
                vips.family()
            ),
            "use one address family in a rule; make a rule for each",
        )
    };
    for (n, vip) in vips.iter().enumerate() {
        address::check(Purpose::Vip, vip.address)?;
        if Family::of(vip.address) != vips.family() {
            let family = Family::of(vip.address);
            return Err(other_family("vip", vip.address.to_string(), family));
        }
        let ports = vip.ports;
        let any = ports == PortRange::ANY;
        if (ports.first == 0 && !any)
            || ports.first > ports.last
            || (!vip.protocol.has_ports() && !any)
        {
            return Err(ModelError::invalid(
                "port",
                ports.to_string(),
                "is out of range",
                "use ports from 1 to 65535",
            ));
        }
        if let Some(twice) = vips[..n].iter().find(|other| {
            other.address == vip.address
                && other.protocol == vip.protocol
                && other.ports.common(ports).is_some()
        }) {
            return Err(ModelError::invalid(
                "vip",
                vip.to_string(),
                format!("overlaps {twice} of the same rule"),
                "give each address, protocol and port once",
            ));
        }
    }
    for (n, client) in clients.iter().enumerate() {
        let family = Family::of(client.address);
        if family != vips.family() {
            return Err(other_family("client", client.to_string(), family));
        }
        if clients[..n].contains(client) {
            return Err(ModelError::invalid(
                "client",
                client.to_string(),
                "is given twice",
                "give each network once",
            ));
        }
    }
    Ok(())
}
