//! The words that values are made of, for whoever offers a choice.

use crate::algorithm::ALGORITHMS;
use crate::panicmode::PANIC_MODES;
use crate::rule::{ORPHANS, PROTOCOLS, SYNCS, TOPOLOGIES};
use crate::tunnel::CHECKSUMS;
use crate::words::Word;

fn names<T>(list: &'static [Word<T>]) -> Vec<&'static str> {
    list.iter().map(|(_, name, _)| *name).collect()
}

/// The words that a key's value may be, by their usual names; none if it is no word.
pub fn values(key: &str) -> Vec<&'static str> {
    match key {
        "lbalg" => names(ALGORITHMS),
        "flags" => vec!["sh-fallback", "sh-port", "mh-fallback", "mh-port", "none"],
        "type" => names(TOPOLOGIES),
        "protocol" => names(PROTOCOLS),
        "orphans" => names(ORPHANS),
        "sync" => names(SYNCS),
        "panic-mode" => names(PANIC_MODES),
        "tunnel" => vec!["ipip", "gre", "gue"],
        "tunnel-checksum" => names(CHECKSUMS),
        "one-packet" | "manage-addresses" => vec!["yes", "no"],
        "port" | "client" => vec!["any"],
        "pmask" => vec!["none"],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{Algorithm, Flags};
    use crate::rule::{Orphans, PanicMode, Protocol, Synchronise, Topology};
    use crate::tunnel::Tunnel;

    #[test]
    fn every_word_is_understood() {
        for word in values("lbalg") {
            assert!(Algorithm::parse(word).is_ok(), "{word}");
        }
        for word in values("type") {
            assert!(Topology::parse(word).is_ok(), "{word}");
        }
        for word in values("protocol") {
            assert!(Protocol::parse(word).is_ok(), "{word}");
        }
        for word in values("orphans") {
            assert!(Orphans::parse(word).is_ok(), "{word}");
        }
        for word in values("sync") {
            assert!(Synchronise::parse(word).is_ok(), "{word}");
        }
        for word in values("panic-mode") {
            assert!(PanicMode::parse(word).is_ok(), "{word}");
        }
        for word in values("tunnel") {
            assert!(Tunnel::parse(Some(word), None, None).is_ok(), "{word}");
        }
        for word in values("tunnel-checksum") {
            let tunnel = Tunnel::parse(Some("gue"), None, Some(word));
            assert!(tunnel.is_ok(), "{word}");
        }
        for word in values("flags") {
            let of = |algorithm| Flags::parse(algorithm, &[word]).is_ok();
            assert!(of(Algorithm::SourceHash) || of(Algorithm::Maglev), "{word}");
        }
        assert!(values("vip").is_empty());
    }
}
