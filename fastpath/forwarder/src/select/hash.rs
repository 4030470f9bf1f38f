//! Algorithms that choose by a hash of the packet alone, over a [`Maglev`] table: consistent when a server comes or
//! goes, true to the weights, and the same on two nodes with the same servers. Dh, sh and mh of IPVS (`ip_vs_dh.c`,
//! `ip_vs_sh.c`, `ip_vs_mh.c`) and the three of ilbadm.
//!
//! When the server that the hash names is full, sh and mh without `fallback` give none, as in the kernel; all others
//! look further, always in the same order for the same hash.

use std::sync::Arc;

use super::maglev::Maglev;
use super::{Candidates, HASHER, Mode, NoChoice, Request, Select};
use crate::hash::{FIXED_KEYS, fold};
use crate::spec::{Algorithm, AlgorithmOptions};

/// Places of the table that are looked at when servers are full, before the next server in the list is taken.
const PROBES: u64 = 32;

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Client,
    ClientPort,
    ClientVip,
    Vip,
}

/// See the module's text.
#[derive(Debug)]
pub struct Hashed {
    key: Key,
    fallback: bool,
    table: Arc<Maglev>,
}

impl Hashed {
    /// For an algorithm that hashes.
    pub fn new(algorithm: Algorithm, options: AlgorithmOptions, table: Arc<Maglev>) -> Hashed {
        let ipvs = matches!(algorithm, Algorithm::SourceHash | Algorithm::Maglev);
        let key = match algorithm {
            Algorithm::DestinationHash => Key::Vip,
            Algorithm::HashIpVip => Key::ClientVip,
            Algorithm::HashIpPort => Key::ClientPort,
            _ if ipvs && options.port => Key::ClientPort,
            _ => Key::Client,
        };
        Hashed {
            key,
            fallback: !ipvs || options.fallback,
            table,
        }
    }

    fn hash(&self, request: &Request) -> u64 {
        match self.key {
            Key::Client => HASHER.address(request.client, 0),
            Key::ClientPort => HASHER.address(request.client, 1 << 16 | request.client_port as u64),
            Key::ClientVip => HASHER.flow(request.client, request.vip, 0, 0, 0),
            Key::Vip => HASHER.address(request.vip, 1 << 32),
        }
    }
}

impl Select for Hashed {
    fn select(&self, among: &Candidates, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        let hash = self.hash(request);
        let named = self.table.lookup(hash);
        let full = !among.available().contains(named);
        if !full && among.accepts(named, hash, request.now) {
            return Ok(named);
        }
        if full && !self.fallback {
            return Err(NoChoice::AtLimits);
        }
        let probe = |n: u64| match n {
            0 => named,
            n => self.table.lookup(fold(
                hash ^ FIXED_KEYS[0],
                FIXED_KEYS[1].wrapping_add(n << 1),
            )),
        };
        let probes = (0..PROBES)
            .map(probe)
            .filter(|&index| among.available().contains(index));
        among
            .settle(probes, hash, request)
            .or_else(|_| among.next_available(named))
    }

    fn computed(&self, request: &Request) -> Option<u32> {
        Some(self.table.lookup(self.hash(request)))
    }
}
