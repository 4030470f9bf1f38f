//! The control protocol between the service manager (client) and the fast path (server).
//!
//! A Unix stream socket, mode 0600, at [`crate::settings::Settings::control_socket`]. Each message is a frame: its length as
//! a 32-bit big-endian number, then that many bytes of JSON. The client sends a [`Request`] and gets exactly one
//! [`Response`], in order. Fields that a side does not know are ignored and fields that are missing have their default,
//! so that two versions of the programs can talk while one of them is being upgraded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::IpAddr;

use ilb_forwarder::spec::{Limits, RuleId, ServerId, SnapshotSpec, SpecChange};
use ilb_forwarder::{explain, listing};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the protocol that this crate speaks. Grows only when an older peer would misunderstand.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest body of a frame, in bytes (256 MiB; a snapshot of 10,000 rules with 100,000 servers has about 30 MiB).
pub const MAX_FRAME: usize = 256 << 20;

/// Bytes of the length in front of a frame's body.
pub const LENGTH_BYTES: usize = 4;

/// What the service manager asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// First message on every connection.
    Hello {
        /// The client's [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// Forward by this configuration from now on.
    Apply(SnapshotSpec),
    /// Change the configuration that you forward by. A fast path that forwards by another generation than the base of the
    /// change answers [`Response::Gap`], and nothing changes.
    Change(SpecChange),
    /// How the fast path is doing.
    Status,
    /// Every counter.
    Statistics,
    /// Counters of some rules (with server 0) and servers of rules; the answer is [`Response::Statistics`] with no others
    /// and no totals. What is not there is left out.
    StatisticsOf(Vec<(RuleId, ServerId)>),
    /// What would become of a packet, and why. Nothing changes by it.
    Explain(explain::Query),
    /// Connections or persistence entries, a page at a time.
    Connections(listing::Query),
    /// Tell this peer of connections, and hear of its own; nobody any more if there is none. The answer is
    /// [`Response::Peer`] when that is so. It is not remembered by the fast path after its end.
    Peer(Option<PeerSpec>),
    /// Take nothing for this host itself at these addresses, and at all others whatever rules leave. The answer is
    /// [`Response::Closed`] when that is so. It is remembered beyond the end of the fast path.
    Close(BTreeSet<IpAddr>),
    /// Other nodes that may know connections which this one does not, because addresses move between them: all of them,
    /// instead of those that were named before. What belongs to nothing here is sent on to them. The answer is
    /// [`Response::Handover`]. It is not remembered by the fast path after its end.
    Handover(Vec<Giver>),
    /// The versions of a rule's server pool with what they know about its connections, as a peer can be given it.
    PoolExport {
        /// The rule.
        rule: RuleId,
    },
}

/// What the fast path answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Answer to [`Request::Hello`].
    Hello(Hello),
    /// The snapshot is published to all workers and steering follows it.
    Applied {
        /// Its generation.
        generation: u64,
    },
    /// The snapshot cannot be used; the previous one stays in force.
    Rejected {
        /// Generation of the rejected snapshot.
        generation: u64,
        /// Why, in words for a person.
        reason: String,
    },
    /// The change is to another generation than the one in force, which stays.
    Gap {
        /// The generation in force; 0 when there is none.
        generation: u64,
    },
    /// Answer to [`Request::Status`].
    Status(Status),
    /// Answer to [`Request::Statistics`].
    Statistics(Statistics),
    /// Answer to [`Request::Explain`].
    Explanation(Box<explain::Explanation>),
    /// Answer to [`Request::Connections`].
    Connections(listing::Page),
    /// Answer to [`Request::Peer`]: what is in force now.
    Peer(Option<PeerStatus>),
    /// Answer to [`Request::Close`].
    Closed,
    /// Answer to [`Request::Handover`].
    Handover,
    /// Answer to [`Request::PoolExport`]: newest first.
    Pool(Vec<PoolVersion>),
    /// The request was not understood or failed; nothing changed.
    Error {
        /// Why, in words for a person.
        message: String,
    },
}

/// A node that has, or has had, addresses that this one is to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Giver {
    /// The interface that both are on.
    pub interface: String,
    /// An address of its own there, whose link-layer address is the node's.
    pub address: IpAddr,
    /// For how long packets are sent on to it; until it is said otherwise if there is nothing.
    #[serde(default)]
    pub milliseconds: Option<u64>,
}

/// The other node, and how to speak with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSpec {
    /// Our address, one of the node itself.
    pub local: IpAddr,
    /// Its address, of the same family.
    pub address: IpAddr,
    /// UDP port, on both nodes.
    #[serde(default = "peer_port")]
    pub port: u16,
    /// Our number, 0 or 1; the peer has the other one.
    pub node: u8,
    /// What both nodes know and nobody else does.
    pub key: PeerKey,
    /// Octets a second that are sent at most, headers included; 0 is no limit.
    #[serde(default = "peer_bandwidth")]
    pub bandwidth: u32,
}

/// UDP port if nothing else is said: one of the dynamic ones (RFC 6335).
pub const PEER_PORT: u16 = 49_280;

/// Octets a second if nothing else is said: 100 Mbit/s.
pub const PEER_BANDWIDTH: u32 = 12_500_000;

fn peer_port() -> u16 {
    PEER_PORT
}

fn peer_bandwidth() -> u32 {
    PEER_BANDWIDTH
}

/// 32 random octets in 64 hexadecimal digits. Not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerKey(pub String);

impl std::fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerKey(…)")
    }
}

/// How it stands with the peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Its address and port.
    pub address: String,
    /// Our number.
    pub node: u8,
    /// Whether it answers.
    pub up: bool,
    /// Whether it has told us everything since it, or we, started.
    pub complete: bool,
    /// Seconds since it told us everything; `None` if it never has.
    pub complete_ago: Option<u64>,
    /// For how many milliseconds something has been waiting to be told of.
    pub lag_ms: u64,
    /// Entries that wait to be told of.
    pub pending: u64,
    /// Datagrams, octets and records, by name.
    pub counters: BTreeMap<String, u64>,
    /// What became of its records, by outcome.
    pub records: BTreeMap<String, u64>,
    /// Datagrams that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One version of a rule's server pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolVersion {
    /// Its number within the rule, as connections carry it.
    pub number: u16,
    /// Its candidates with their weights.
    pub servers: Vec<(ServerId, u16)>,
    /// Connections that began with it, as of the last census.
    pub live: u32,
    /// Whether nobody needs it any more.
    pub retired: bool,
    /// `ilb_forwarder::pool::Version::export` in hexadecimal digits; empty if it cannot know its connections.
    pub bytes: String,
}

/// Who answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The server's [`PROTOCOL_VERSION`].
    pub version: u32,
    /// Process id of the fast path.
    pub pid: u32,
    /// Differs between any two starts of the fast path (nanoseconds of CLOCK_BOOTTIME at the start do): counters
    /// begin at zero with a new one.
    pub start_id: u64,
    /// Generation that it forwards by; 0 when it has none yet.
    pub generation: u64,
    /// Limits of the node that it forwards by. They come from settings and may change without the generation.
    pub limits: Limits,
}

/// How the fast path is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Generation that it forwards by; 0 when it has none yet.
    pub generation: u64,
    /// Worker threads.
    pub workers: u32,
    /// Seconds since the fast path started.
    pub uptime_seconds: u64,
    /// Interfaces of the node settings, in their order.
    pub interfaces: Vec<InterfaceStatus>,
    /// The connection table.
    pub table: TableStatus,
    /// Rules that it forwards by, those included that only serve their last connections; `None` from an earlier version.
    pub rules: Option<u64>,
    /// What was found other than it had been left in the kernel: what is not right yet, and the latest that is again.
    pub drift: Vec<Drift>,
    /// The peer; `None` if there is none.
    pub peer: Option<PeerStatus>,
}

/// Something that was found other than it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// What kind of thing, such as `program`.
    pub what: String,
    /// Which one, such as the name of an interface.
    pub item: String,
    /// How it should be, for a person.
    pub wanted: String,
    /// How it was found, for a person.
    pub actual: String,
    /// When it was found, in milliseconds since 1970.
    pub since: u64,
    /// When it was put right, likewise; 0 if it is not.
    pub repaired: u64,
    /// Why it could not be put right; empty otherwise.
    pub trouble: String,
}

/// How one interface is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// Why it does not run in the driver; empty when it does.
    pub mode_reason: String,
    /// Whether the interface is there and has the XDP program; `None` from an earlier version.
    pub attached: Option<bool>,
    /// Whether frames are received and sent without copying them.
    pub zero_copy: bool,
    /// Why they are copied; empty when they are not.
    pub copy_reason: String,
    /// Receive queues that have a worker.
    pub queues: u32,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
}

/// Where the XDP program of an interface runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// Behind the driver, in the kernel's generic receive path.
    #[default]
    Generic,
}

impl XdpMode {
    /// The mode's word in settings, logs and output.
    pub const fn label(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

/// How full the connection table is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableStatus {
    /// Connections that fit.
    pub capacity: u64,
    /// Entries in use.
    pub used: u64,
}

/// Every counter since the fast path started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// [`Hello::start_id`] of the process that counted.
    pub start_id: u64,
    /// The whole node, packets that no rule could be found for included.
    pub totals: Counters,
    /// Dropped packets by `DropReason::label`.
    pub drops: BTreeMap<String, u64>,
    /// Each rule of the snapshot in force, retired ones included.
    pub rules: Vec<RuleStatistics>,
}

/// Counters of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleStatistics {
    /// The rule.
    pub id: RuleId,
    /// The rule as a whole; may exceed the sum of its servers, as with packets dropped before a server was chosen.
    pub counters: Counters,
    /// Each of its servers.
    pub servers: Vec<ServerStatistics>,
}

/// Counters of one server within one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatistics {
    /// The server.
    pub id: ServerId,
    /// What it got from this rule, both directions.
    pub counters: Counters,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident = $label:literal, $kind:ident;)+) => {
        /// Packets, bytes and connections. Fields marked as gauges go up and down, all others only grow.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl Counters {
            /// Names of all fields as they appear on D-Bus, in order.
            pub const LABELS: &'static [&'static str] = &[$($label),+];

            /// Every field with its name.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($label, self.$field)),+].into_iter()
            }

            /// Adds each field of `other`, gauges included.
            pub fn add(&mut self, other: &Counters) {
                $(self.$field = self.$field.saturating_add(other.$field);)+
            }

            /// The same counters with all gauges at 0: what remains true of a process that has ended.
            #[must_use]
            pub fn without_gauges(&self) -> Counters {
                Counters { $($field: counters!(@$kind self.$field),)+ }
            }
        }
    };
    (@counter $value:expr) => { $value };
    (@gauge $value:expr) => { 0 };
}

counters! {
    /// Packets forwarded (P).
    packets = "packets", counter;
    /// Bytes forwarded, from the IP header on (P).
    bytes = "bytes", counter;
    /// Packets that were handed to the kernel unchanged (U).
    unprocessed_packets = "unprocessed-packets", counter;
    /// Bytes that were handed to the kernel unchanged (U).
    unprocessed_bytes = "unprocessed-bytes", counter;
    /// Packets dropped (D).
    dropped_packets = "dropped-packets", counter;
    /// Bytes dropped (D).
    dropped_bytes = "dropped-bytes", counter;
    /// ICMP errors other than "too big" that were carried to the right end.
    icmp_p = "icmp-p", counter;
    /// ICMP errors other than "too big" that were dropped.
    icmp_d = "icmp-d", counter;
    /// ICMP "fragmentation needed" and ICMPv6 "packet too big" that were carried to the right end.
    icmp2big_p = "icmp2big-p", counter;
    /// ICMP "fragmentation needed" and ICMPv6 "packet too big" that were dropped.
    icmp2big_d = "icmp2big-d", counter;
    /// Packets dropped because the connection table was full.
    nomem_d = "nomem-d", counter;
    /// Packets dropped because no NAT port was free.
    noport_d = "noport-d", counter;
    /// Packets dropped because their new flow was over a limit: new flows a second, or embryonic ones.
    admission_d = "admission-d", counter;
    /// Connections that came to nothing and were ended to make way for others.
    replaced_connections = "replaced-connections", counter;
    /// Connections begun.
    new_connections = "new-connections", counter;
    /// Gauge: connections that are open (TCP: established; UDP: not idle).
    connections_open = "connections-open", gauge;
    /// Gauge: all entries of the connection table, those that are closing included.
    connections_total = "connections-total", gauge;
}

/// Why a frame could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the connection in the middle of a frame.
    #[error("the peer closed the control connection after {got} of {expected} bytes of a frame")]
    Truncated {
        /// Bytes that the frame should have had.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The frame's length is not allowed. The connection cannot be used any further.
    #[error("a control frame of {0} bytes is not allowed; 1 to {MAX_FRAME} are")]
    Length(usize),
    /// The body is not a message of this protocol. The next frame can be read.
    #[error("a control frame is not understood: {0}")]
    Body(#[from] serde_json::Error),
}

/// The length that stands in front of a frame's body, checked.
///
/// # Errors
/// [`FrameError::Length`] for 0 and for more than [`MAX_FRAME`].
pub fn frame_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix) as usize;
    check_length(length)?;
    Ok(length)
}

fn check_length(length: usize) -> Result<(), FrameError> {
    if length == 0 || length > MAX_FRAME {
        return Err(FrameError::Length(length));
    }
    Ok(())
}

/// A whole frame, length included, for `message`.
///
/// # Errors
/// [`FrameError::Length`] when the message is too large.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - LENGTH_BYTES;
    check_length(length)?;
    let prefix = u32::try_from(length).map_err(|_| FrameError::Length(length))?;
    frame[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(frame)
}

/// The message in a frame's body (without its length).
///
/// # Errors
/// [`FrameError::Body`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Writes one frame and flushes.
///
/// # Errors
/// [`FrameError::Length`] before anything is written, [`FrameError::Io`] otherwise.
pub fn write_frame<W: Write, T: Serialize>(writer: &mut W, message: &T) -> Result<(), FrameError> {
    writer.write_all(&encode(message)?)?;
    writer.flush()?;
    Ok(())
}

/// Reads one frame; `None` when the peer closed the connection between two frames. Memory grows with the bytes that
/// arrive, not with the length that the peer claims.
///
/// # Errors
/// After [`FrameError::Body`] the next frame can be read; after all others the connection has to be closed.
pub fn read_frame<R: Read, T: DeserializeOwned>(reader: &mut R) -> Result<Option<T>, FrameError> {
    let mut prefix = Vec::with_capacity(LENGTH_BYTES);
    reader
        .by_ref()
        .take(LENGTH_BYTES as u64)
        .read_to_end(&mut prefix)?;
    if prefix.is_empty() {
        return Ok(None);
    }
    let Ok(prefix) = <[u8; LENGTH_BYTES]>::try_from(prefix.as_slice()) else {
        return Err(FrameError::Truncated {
            expected: LENGTH_BYTES,
            got: prefix.len(),
        });
    };
    let length = frame_length(prefix)?;
    let mut body = Vec::new();
    reader.by_ref().take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(FrameError::Truncated {
            expected: length,
            got: body.len(),
        });
    }
    decode(&body).map(Some)
}

#[cfg(test)]
mod tests;
