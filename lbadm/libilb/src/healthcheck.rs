//! A health check: what is asked of a server, how often, and how many answers it takes to believe a change.
//!
//! A check is known by its name and used by any number of rules. What a person writes about one is
//! [`HealthCheckSettings`], the same words in TOML, JSON, over D-Bus and behind `lbadm`'s `-h`; [`HealthCheck`] is what has
//! been checked and can be carried out. Nothing here opens a socket or looks at a file.

mod bytes;
mod check;
mod dbus;
mod keys;
mod load;
mod read;
mod settings;
#[cfg(test)]
mod tests;
mod time;
mod values;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::words::{self, Word};

pub use bytes::{Bytes, Masked};
pub use dbus::{HEALTH_CHECK_SETTINGS, settings_from_dbus, settings_to_dbus};
pub use keys::{FIELDS, Field};
pub use load::{Figure, Load, LoadSource, MAX_COMMUNITY, MAX_OID, SNMP_PORT};
pub use settings::HealthCheckSettings;
pub use time::Time;
pub use values::{CheckPort, Digest, Pattern, RecordType, Reply, StatusSet, Url};

/// Most URLs of a check.
pub const MAX_URLS: usize = 32;
/// Most arguments of a script.
pub const MAX_ARGUMENTS: usize = 64;
/// Most failures or successes that a change of state may be made to wait for, and most retries.
pub const MAX_COUNT: u32 = 255;
/// The certificates of authorities that `verify` trusts unless `ca-file` says otherwise: where Debian's
/// `ca-certificates` puts them.
pub const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A health check. `name` is unique in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HealthCheckSettings", into = "HealthCheckSettings")]
pub struct HealthCheck {
    /// As spelled by the administrator.
    pub name: String,
    /// What is asked.
    pub test: Test,
    /// Whether the server is pinged before each test, so that "unreachable" is told from "dead". Never with
    /// [`Test::Ping`].
    pub ping: bool,
    /// Whether a server counts as down until it has proved to be up.
    pub alpha: bool,
    /// When, and how often until it is believed.
    pub timing: Timing,
    /// Port that is asked, unless the rule says one; without either it is the server's.
    pub port: Option<CheckPort>,
    /// Address that is asked, instead of the server's own.
    pub address: Option<IpAddr>,
    /// Address that is asked from.
    pub source: Option<IpAddr>,
    /// How the load of servers changes their share; not at all by default.
    pub load: Option<Load>,
}

impl HealthCheck {
    /// Whether its test asks a port.
    pub fn needs_port(&self) -> bool {
        self.test.kind().has_port()
    }

    /// Checks that it can be carried out on a server of this address.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for a source of another address family.
    pub fn check_server(&self, server: IpAddr) -> Result<(), ModelError> {
        let asked = self.address.unwrap_or(server);
        match self.source {
            Some(source) if source.is_ipv4() != asked.is_ipv4() => Err(ModelError::invalid(
                "source",
                source.to_string(),
                format!("cannot ask {asked}, which is of another address family"),
                "use a source of the servers' family, or leave it out",
            )),
            _ => Ok(()),
        }
    }
}

/// When a check is made, and how many results it takes. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For the whole test, and again for the ping before it; 0.001 to 3600 s; 5 s by default.
    pub timeout: Time,
    /// From the beginning of one test to that of the next, on average; 0.01 to 86400 s; 30 s by default.
    pub interval: Time,
    /// By how many percent of it the interval is longer or shorter by chance, 0 to 50; 50 by default, as with ilbadm.
    pub jitter: u8,
    /// The first test comes within this time by chance; none is up to one interval and at most 2 s.
    pub warm_up: Option<Time>,
    /// Failures in a row that make a server dead, 1 to 255; 3 by default.
    pub count: u32,
    /// Successes in a row that bring it back, 1 to 255; 1 by default.
    pub rise: u32,
    /// How often a failed test of a server that was well is repeated before the interval is waited for again, 0 to 255;
    /// none is `count` - 1: as often as it takes to be sure.
    pub retries: Option<u32>,
    /// What is waited for before each of them, 0 to 3600 s; 0 by default.
    pub retry_delay: Time,
}

impl Timing {
    /// See [`Timing::retries`].
    pub fn quick_retries(&self) -> u32 {
        self.retries.unwrap_or(self.count.saturating_sub(1))
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            timeout: Time::from_secs(5),
            interval: Time::from_secs(30),
            jitter: 50,
            warm_up: None,
            count: 3,
            rise: 1,
            retries: None,
            retry_delay: Time::ZERO,
        }
    }
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// ICMP or ICMPv6 echo.
    Ping,
    /// A TCP connection is made and closed.
    Tcp,
    /// A datagram is sent.
    Udp(Udp),
    /// Pages are fetched.
    Http(Http),
    /// The same through TLS.
    Https(Http, Tls),
    /// A question is asked over UDP.
    Dns(Dns),
    /// Banner, HELO, QUIT (RFC 5321).
    Smtp(Smtp),
    /// A program of the administrator decides.
    Script(Script),
    /// A file of this machine decides.
    File(File),
}

impl Test {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Test::Ping => Kind::Ping,
            Test::Tcp => Kind::Tcp,
            Test::Udp(_) => Kind::Udp,
            Test::Http(_) => Kind::Http,
            Test::Https(..) => Kind::Https,
            Test::Dns(_) => Kind::Dns,
            Test::Smtp(_) => Kind::Smtp,
            Test::Script(_) => Kind::Script,
            Test::File(_) => Kind::File,
        }
    }
}

/// As `show-healthcheck` shows it: the kind, or the path of a script.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Script(script) => f.pad(&script.path),
            _ => f.pad(self.kind().name()),
        }
    }
}

/// Kind of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Test::Ping`].
    Ping,
    /// [`Test::Tcp`].
    Tcp,
    /// [`Test::Udp`].
    Udp,
    /// [`Test::Http`].
    Http,
    /// [`Test::Https`].
    Https,
    /// [`Test::Dns`].
    Dns,
    /// [`Test::Smtp`].
    Smtp,
    /// [`Test::Script`].
    Script,
    /// [`Test::File`].
    File,
}

/// The words for them.
pub const KINDS: &[Word<Kind>] = &[
    (Kind::Ping, "ping", &[]),
    (Kind::Tcp, "tcp", &[]),
    (Kind::Udp, "udp", &[]),
    (Kind::Http, "http", &[]),
    (Kind::Https, "https", &["ssl"]),
    (Kind::Dns, "dns", &[]),
    (Kind::Smtp, "smtp", &[]),
    (Kind::Script, "script", &["misc"]),
    (Kind::File, "file", &[]),
];

impl Kind {
    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(KINDS, self)
    }

    /// Reads a word or its alias, in any case.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<Kind, ModelError> {
        words::parse(KINDS, "test", text)
    }

    /// Whether it asks a port.
    pub const fn has_port(self) -> bool {
        !matches!(self, Kind::Ping | Kind::File)
    }

    /// The port that is usual for the service, which is asked where nothing else names one.
    pub const fn usual_port(self) -> Option<u16> {
        match self {
            Kind::Http => Some(80),
            Kind::Https => Some(443),
            Kind::Dns => Some(53),
            Kind::Smtp => Some(25),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A datagram and what has to come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Udp {
    /// What is sent; may be empty.
    pub payload: Bytes,
    /// What has to come back. An ICMP error means dead in any case.
    pub reply: Reply,
}

/// Pages that have to be there, all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// 1 to [`MAX_URLS`].
    pub urls: Vec<Url>,
    /// Virtual host of those that name none; the server's address if that is none, too.
    pub host: Option<String>,
}

/// How TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Name that is asked for (RFC 6066); the virtual host by default.
    pub sni: Option<String>,
    /// Whether the certificate has to be trusted, in its time, and for that name or address. Not by default: what is asked
    /// is whether the server lives, and its certificate is often for another name.
    pub verify: bool,
    /// Certificates that are trusted; [`CA_FILE`] by default.
    pub ca_file: Option<String>,
}

/// A question to a name server, asked over UDP. Any answer without error will do unless `answer` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Name that is asked for; `.` by default.
    pub query: String,
    /// Type that is asked for; SOA by default.
    pub record_type: RecordType,
    /// What one of the answers has to be: an address or a name as the record shows it.
    pub answer: Option<String>,
}

/// A greeting of a mail server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smtp {
    /// Name in HELO; this machine's by default.
    pub helo: Option<String>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Where it is.
    pub path: String,
    /// What it is given; with [`Contract::Ilbadm`] nothing but what that says.
    pub arguments: Vec<String>,
    /// How it answers.
    pub contract: Contract,
    /// Whether exit codes 2 to 255 mean "well, and my weight is two less than this" (keepalived's `misc_dynamic`); only
    /// with [`Contract::ExitCode`].
    pub weight: bool,
}

/// How a script is called and answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// Arguments: VIP, server, TCP or UDP, DSR or NAT or HALF_NAT or TUN, port, timeout in seconds. The first line that it
    /// writes decides: -1 is dead, 0 is well, more is well with this round-trip time in microseconds. Nothing is dead.
    #[default]
    Ilbadm,
    /// Exit code 0 is well, 1 is dead; others are dead unless they are weights.
    ExitCode,
}

/// The words for them.
pub const CONTRACTS: &[Word<Contract>] = &[
    (Contract::Ilbadm, "ilbadm", &["output"]),
    (Contract::ExitCode, "exit-code", &["exit", "keepalived"]),
];

/// A file of this machine, such as one that an agent writes. It has to be there; its first word, if it has one, is a number:
/// down from -254 on means dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// Whether the number, -253 to 253, is added to the server's weight.
    pub weight: bool,
}
