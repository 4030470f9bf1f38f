//! How packets are wrapped on their way to the servers of a `TUN` rule.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::words::{self, Word};

/// UDP port of generic UDP encapsulation, as registered.
pub const GUE_PORT: u16 = 6080;

/// Kind of a tunnel with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Tunnel {
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// Generic routing encapsulation (RFC 2784).
    Gre {
        /// Whether the GRE header carries a checksum.
        checksum: bool,
    },
    /// Generic UDP encapsulation (draft-ietf-intarea-gue).
    Gue {
        /// UDP port of the servers.
        port: u16,
        /// What is checksummed.
        checksum: TunnelChecksum,
    },
}

/// Checksums of a tunnel, as `ipvsadm --tun-nocsum`, `--tun-csum` and `--tun-remcsum` have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// One of the tunnel's own.
    Full,
    /// Remote checksum offload, GUE only.
    Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipip,
    Gre,
    Gue,
}

const KINDS: &[Word<Kind>] = &[
    (Kind::Ipip, "ipip", &[]),
    (Kind::Gre, "gre", &[]),
    (Kind::Gue, "gue", &[]),
];

pub(crate) const CHECKSUMS: &[Word<TunnelChecksum>] = &[
    (TunnelChecksum::None, "none", &["no", "nocsum"]),
    (TunnelChecksum::Full, "full", &["yes", "csum"]),
    (TunnelChecksum::Remote, "remote", &["remcsum"]),
];

impl Tunnel {
    /// Reads kind and options; what is not given has its default: ipip, port 6080, no checksum.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`]; [`ModelError::Invalid`] for an option that the kind does not have.
    pub fn parse(
        kind: Option<&str>,
        port: Option<u32>,
        checksum: Option<&str>,
    ) -> Result<Tunnel, ModelError> {
        let kind = match kind {
            Some(word) => words::parse(KINDS, "tunnel", word)?,
            None => Kind::Ipip,
        };
        let sum = match checksum {
            Some(word) => words::parse(CHECKSUMS, "tunnel-checksum", word)?,
            None => TunnelChecksum::None,
        };
        let refuse = |field, value: String, allowed: &str| {
            let problem = format!("is given, but tunnel is {}", words::name(KINDS, kind));
            Err(ModelError::invalid(field, value, problem, allowed))
        };
        if let Some(port) = port.filter(|_| kind != Kind::Gue) {
            return refuse("gue-port", port.to_string(), "only tunnel=gue has a port");
        }
        Ok(match (kind, sum) {
            (Kind::Ipip, TunnelChecksum::None) => Tunnel::Ipip,
            (Kind::Ipip, _) => {
                return refuse(
                    "tunnel-checksum",
                    words::name(CHECKSUMS, sum).to_string(),
                    "ipip has no checksum; use gre or gue, or leave it out",
                );
            }
            (Kind::Gre, TunnelChecksum::Remote) => {
                return refuse(
                    "tunnel-checksum",
                    "remote".to_string(),
                    "gre has none or full; only gue has remote",
                );
            }
            (Kind::Gre, sum) => Tunnel::Gre {
                checksum: sum == TunnelChecksum::Full,
            },
            (Kind::Gue, checksum) => Tunnel::Gue {
                port: match port {
                    None => GUE_PORT,
                    Some(port) => u16::try_from(port).ok().filter(|&p| p > 0).ok_or_else(|| {
                        ModelError::invalid(
                            "gue-port",
                            port.to_string(),
                            "is out of range",
                            "use a UDP port from 1 to 65535, or leave it out for 6080",
                        )
                    })?,
                },
                checksum,
            },
        })
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Tunnel::Ipip => f.write_str("ipip"),
            Tunnel::Gre { checksum: false } => f.write_str("gre"),
            Tunnel::Gre { checksum: true } => f.write_str("gre,tunnel-checksum=full"),
            Tunnel::Gue { port, checksum } => {
                write!(f, "gue,gue-port={port}")?;
                match checksum {
                    TunnelChecksum::None => Ok(()),
                    sum => write!(f, ",tunnel-checksum={}", words::name(CHECKSUMS, sum)),
                }
            }
        }
    }
}
