//! `key=value,…` lists behind `-i`, `-m`, `-h`, `-t`, `-o` and `-s`.

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
    /// Algorithm.
    Lbalg,
    /// Topology.
    Type,
    /// NAT source addresses.
    ProxySrc,
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
    /// Server group.
    Servergroup,
    /// Server specification or id.
    Server,
}

impl Key {
    /// Whether it may be given several times, and `key=a,b` means `key=a,key=b`.
    const fn is_list(self) -> bool {
        matches!(self, Key::ProxySrc | Key::Server)
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
        (Key::ManageAddresses, "manage-addresses", &[]),
    ],
};
/// How it is balanced.
pub const METHOD: KeyList = KeyList {
    option: "-m",
    keys: &[
        (Key::Lbalg, "lbalg", &["algo"]),
        (Key::Type, "type", &["topo"]),
        (Key::ProxySrc, "proxy-src", &["nat-src"]),
        (Key::Pmask, "pmask", &["persist"]),
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
    ],
};
/// Where it goes.
pub const OUTGOING: KeyList = KeyList {
    option: "-o",
    keys: &[(Key::Servergroup, "servergroup", &["sg"])],
};
/// Servers.
pub const SERVERS: KeyList = KeyList {
    option: "-s",
    keys: &[(Key::Server, "server", &["servers"])],
};

const RULE_LISTS: [&KeyList; 5] = [&INCOMING, &METHOD, &HEALTH, &TIMERS, &OUTGOING];

impl KeyList {
    /// Reads everything that was given behind the option, which may stand there several times.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown key, one that belongs to another option, one without value, or one given twice.
    pub fn parse(&self, texts: &[String]) -> Result<Vec<(Key, String)>, Error> {
        let option = self.option;
        let mut pairs: Vec<(Key, String)> = Vec::new();
        for text in texts {
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
                if !key.is_list() && pairs.iter().any(|&(k, _)| k == key) {
                    return Err(Error::Usage(format!(
                        "{option}: key '{}' is given twice",
                        words::name(self.keys, key)
                    )));
                }
                pairs.push((key, value.to_string()));
            }
        }
        Ok(pairs)
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
