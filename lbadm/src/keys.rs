//! `key=value,…` lists behind `-i`, `-m`, `-h`, `-t`, `-o` and `-s`.

use libilb::rule::Timeout;
use libilb::server::ServerKey;
use libilb::words::{self, Word};

use crate::error::Error;

/// Every key of every list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Virtual address.
    Vip,
    /// Port of the rule.
    Port,
    /// Transport protocol.
    Protocol,
    /// Whether the manager puts the rule's addresses on an interface.
    ManageAddresses,
    /// Network of clients.
    Client,
    /// Algorithm.
    Lbalg,
    /// Options of the algorithm.
    Flags,
    /// Topology.
    Type,
    /// Kind of tunnel.
    Tunnel,
    /// UDP port of GUE.
    GuePort,
    /// Checksum of the tunnel.
    TunnelChecksum,
    /// Source addresses towards the servers.
    ProxySrc,
    /// One-packet scheduling.
    OnePacket,
    /// What becomes of connections without server.
    Orphans,
    /// What the other node is told.
    Sync,
    /// New flows a second.
    MaxNewFlows,
    /// Weight that is enough.
    Quorum,
    /// Weight more or less for a change.
    Hysteresis,
    /// What to do when most servers look dead.
    PanicMode,
    /// From which percentage on.
    PanicThreshold,
    /// Persistence mask.
    Pmask,
    /// Health check.
    HcName,
    /// Port of the health check.
    HcPort,
    /// Seconds that connections may live on.
    ConnDrain,
    /// Idle seconds of a connection.
    NatTimeout,
    /// Seconds of persistence.
    PersistTimeout,
    /// Seconds in which a server comes up to its share.
    SlowStart,
    /// Idle seconds of a state.
    Timeout(Timeout),
    /// Server group.
    Servergroup,
    /// Server specification or id.
    Server,
    /// Share and limits of a server.
    Limit(ServerKey),
    /// The id that a server shall have.
    Id,
    /// Its place in the group.
    Place,
    /// Whether the group's source has found it.
    Found,
}

impl Key {
    /// Whether it may be given several times, and `key=a,b` means `key=a,key=b`.
    const fn is_list(self) -> bool {
        matches!(self, Key::ProxySrc | Key::Server | Key::Client | Key::Flags)
    }
}

/// An option with the keys of its list.
#[derive(Debug)]
pub struct KeyList {
    /// The option.
    pub option: &'static str,
    /// What it takes.
    pub keys: &'static [Word<Key>],
}

/// What comes in.
pub const INCOMING: KeyList = KeyList {
    option: "-i",
    keys: &[
        (Key::Vip, "vip", &[]),
        (Key::Port, "port", &[]),
        (Key::Protocol, "protocol", &["prot"]),
        (Key::Client, "client", &["src"]),
        (Key::ManageAddresses, "manage-addresses", &[]),
    ],
};
/// How it is balanced.
pub const METHOD: KeyList = KeyList {
    option: "-m",
    keys: &[
        (Key::Lbalg, "lbalg", &["algo"]),
        (Key::Flags, "flags", &[]),
        (Key::Type, "type", &["topo"]),
        (Key::Tunnel, "tunnel", &["tun-type"]),
        (Key::GuePort, "gue-port", &["tun-port"]),
        (Key::TunnelChecksum, "tunnel-checksum", &["tun-csum"]),
        (Key::ProxySrc, "proxy-src", &["nat-src"]),
        (Key::Pmask, "pmask", &["persist"]),
        (Key::OnePacket, "one-packet", &["ops"]),
        (Key::Orphans, "orphans", &[]),
        (Key::Sync, "sync", &[]),
        (Key::MaxNewFlows, "max-new-flows", &[]),
        (Key::Quorum, "quorum", &[]),
        (Key::Hysteresis, "hysteresis", &[]),
        (Key::PanicMode, "panic-mode", &[]),
        (Key::PanicThreshold, "panic-threshold", &[]),
    ],
};
/// How servers are checked.
pub const HEALTH: KeyList = KeyList {
    option: "-h",
    keys: &[
        (Key::HcName, "hc-name", &["hcn"]),
        (Key::HcPort, "hc-port", &["hcp"]),
    ],
};
/// Times.
pub const TIMERS: KeyList = KeyList {
    option: "-t",
    keys: &[
        (Key::ConnDrain, "conn-drain", &[]),
        (Key::NatTimeout, "nat-timeout", &[]),
        (Key::PersistTimeout, "persist-timeout", &[]),
        (Key::SlowStart, "slow-start", &[]),
        (
            Key::Timeout(Timeout::TcpEstablished),
            "tcp-established",
            &["established"],
        ),
        (
            Key::Timeout(Timeout::SynReceived),
            "syn-received",
            &["tcp-syn-received"],
        ),
        (
            Key::Timeout(Timeout::FinWait),
            "fin-wait",
            &["tcp-fin-wait"],
        ),
        (
            Key::Timeout(Timeout::TimeWait),
            "time-wait",
            &["tcp-time-wait"],
        ),
        (Key::Timeout(Timeout::Close), "close", &["tcp-close"]),
        (
            Key::Timeout(Timeout::CloseWait),
            "close-wait",
            &["tcp-close-wait"],
        ),
        (
            Key::Timeout(Timeout::LastAck),
            "last-ack",
            &["tcp-last-ack"],
        ),
        (Key::Timeout(Timeout::Udp), "udp", &[]),
        (Key::Timeout(Timeout::Sctp), "sctp", &[]),
        (Key::Timeout(Timeout::Icmp), "icmp", &[]),
        (Key::Timeout(Timeout::Other), "other", &[]),
    ],
};
/// Where it goes.
pub const OUTGOING: KeyList = KeyList {
    option: "-o",
    keys: &[(Key::Servergroup, "servergroup", &["sg"])],
};
/// Servers that are added.
pub const SERVERS: KeyList = KeyList {
    option: "-s",
    keys: &[
        (Key::Server, "server", &["servers"]),
        WEIGHT,
        MAX_CONNECTIONS,
        MIN_CONNECTIONS,
        TIER,
        (Key::Id, libilb::server::ID_KEY, &[]),
        (Key::Place, libilb::server::PLACE_KEY, &[]),
        (Key::Found, libilb::server::FOUND_KEY, &[]),
    ],
};
/// Servers that are there.
pub const NAMED_SERVERS: KeyList = KeyList {
    option: "-s",
    keys: &[(Key::Server, "server", &["servers"])],
};
/// What can be changed about a server.
pub const LIMITS: KeyList = KeyList {
    option: "-s",
    keys: &[WEIGHT, MAX_CONNECTIONS, MIN_CONNECTIONS, TIER],
};

const WEIGHT: Word<Key> = (Key::Limit(ServerKey::Weight), "weight", &[]);
const MAX_CONNECTIONS: Word<Key> = (
    Key::Limit(ServerKey::MaxConnections),
    "max-conn",
    &["max-connections", "u-threshold"],
);
const MIN_CONNECTIONS: Word<Key> = (
    Key::Limit(ServerKey::MinConnections),
    "min-conn",
    &["min-connections", "l-threshold"],
);
const TIER: Word<Key> = (Key::Limit(ServerKey::Tier), "tier", &["priority"]);

const RULE_LISTS: [&KeyList; 5] = [&INCOMING, &METHOD, &HEALTH, &TIMERS, &OUTGOING];

impl KeyList {
    /// Reads everything that was given behind the option, which may stand there several times.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown key, one that belongs to another option, one without value, or one given twice.
    pub fn parse(&self, texts: &[String]) -> Result<Vec<(Key, String)>, Error> {
        let mut pairs = Vec::new();
        for text in texts {
            self.parse_into(&mut pairs, text)?;
        }
        Ok(pairs)
    }

    /// Like [`KeyList::parse`], with what was given each time the option stands there.
    ///
    /// # Errors
    /// As [`KeyList::parse`].
    pub fn parse_each(&self, texts: &[String]) -> Result<Vec<Vec<(Key, String)>>, Error> {
        let each = texts.iter().map(|text| {
            let mut pairs = Vec::new();
            self.parse_into(&mut pairs, text)?;
            Ok(pairs)
        });
        each.collect()
    }

    /// A key that is given twice.
    pub fn twice(&self, key: Key) -> Error {
        Error::Usage(format!(
            "{}: key '{}' is given twice",
            self.option,
            words::name(self.keys, key)
        ))
    }

    /// The usual name of a key that goes by this name or alias.
    pub fn name(&self, word: &str) -> Option<&'static str> {
        let key = words::find(self.keys, word.trim())?;
        Some(words::name(self.keys, key))
    }

    /// Every key by its usual name, and whether it may be given again.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let keys = self.keys.iter();
        keys.map(|(key, name, _)| (*name, key.is_list() || matches!(key, Key::Limit(_))))
    }

    fn parse_into(&self, pairs: &mut Vec<(Key, String)>, text: &str) -> Result<(), Error> {
        let option = self.option;
        for piece in text.split(',') {
            let Some((word, value)) = piece.split_once('=') else {
                match pairs.last() {
                    Some(&(key, _)) if key.is_list() && !piece.is_empty() => {
                        pairs.push((key, piece.to_string()));
                        continue;
                    }
                    _ => return Err(self.no_value(text, piece)),
                }
            };
            let key = words::find(self.keys, word.trim()).ok_or_else(|| self.unknown(word))?;
            let value = value.trim();
            if value.is_empty() {
                return Err(Error::Usage(format!(
                    "{option}: key '{word}' has no value: write {word}=VALUE"
                )));
            }
            // A limit belongs to the servers before it, id, place and found to the one before them.
            let limits = matches!(key, Key::Limit(_) | Key::Id | Key::Place | Key::Found)
                && self.keys.len() == SERVERS.keys.len();
            if !key.is_list() && !limits && pairs.iter().any(|&(k, _)| k == key) {
                return Err(self.twice(key));
            }
            pairs.push((key, value.to_string()));
        }
        Ok(())
    }

    fn no_value(&self, text: &str, piece: &str) -> Error {
        let (option, example) = (self.option, self.keys[0].1);
        if piece.is_empty() {
            return Error::Usage(format!(
                "{option}: '{text}' has an empty item: write key=value,key=value"
            ));
        }
        if words::find(self.keys, piece).is_some() {
            return Error::Usage(format!(
                "{option}: key '{piece}' has no value: write {piece}=VALUE"
            ));
        }
        Error::Usage(format!(
            "{option}: '{piece}' is not key=value: write it like {example}=VALUE; keys are {}",
            words::all(self.keys)
        ))
    }

    fn unknown(&self, word: &str) -> Error {
        let option = self.option;
        let home = RULE_LISTS
            .iter()
            .find(|list| list.option != option && words::find(list.keys, word).is_some());
        if let Some(home) = home.filter(|_| option != SERVERS.option) {
            return Error::Usage(format!(
                "{option}: key '{word}' belongs to option {}: write {} {word}=VALUE",
                home.option, home.option
            ));
        }
        let known = self
            .keys
            .iter()
            .flat_map(|(_, name, aliases)| std::iter::once(*name).chain(aliases.iter().copied()));
        let hint = words::nearest(word, known)
            .map_or(String::new(), |word| format!("; did you mean '{word}'?"));
        Error::Usage(format!(
            "{option}: key '{word}' is not known: use {}{hint}",
            words::all(self.keys)
        ))
    }
}
