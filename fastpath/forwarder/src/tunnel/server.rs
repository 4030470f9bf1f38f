//! The far ends of all tunnels, by address: what is true of the way to a server whichever rule uses it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Encapsulation, PathMtu, Quoted};
use crate::address::Addr;
use crate::hash::FoldBuild;
use crate::spec::Tunnel;

/// A rule's outer source addresses, by family.
#[derive(Debug)]
pub struct Sources {
    v4: Arc<[Addr]>,
    v6: Arc<[Addr]>,
}

impl Sources {
    /// Out of a rule's `proxy_src`.
    pub fn new(proxy_src: &[IpAddr]) -> Sources {
        let family = |v4: bool| {
            proxy_src
                .iter()
                .filter(|address| address.is_ipv4() == v4)
                .map(|&address| address.into())
                .collect()
        };
        Sources {
            v4: family(true),
            v6: family(false),
        }
    }

    /// Those of the family of `server`.
    fn towards(&self, server: Addr) -> &Arc<[Addr]> {
        if server.is_v4() { &self.v4 } else { &self.v6 }
    }
}

#[derive(Debug, Clone, Default)]
struct End {
    path_mtu: Arc<PathMtu>,
    /// Of all rules that have this server.
    sources: Vec<Arc<[Addr]>>,
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Ends(HashMap<u128, End, FoldBuild>);

impl Ends {
    /// Adds a server of a rule; what `previous` has learned about it is kept. None if the rule has no source of the
    /// server's family.
    pub fn add(
        &mut self,
        previous: &Ends,
        kind: Tunnel,
        server: Addr,
        sources: &Sources,
    ) -> Option<Encapsulation> {
        let sources = sources.towards(server);
        if sources.is_empty() {
            return None;
        }
        let end = self.0.entry(server.0).or_insert_with(|| End {
            path_mtu: previous
                .0
                .get(&server.0)
                .map(|end| end.path_mtu.clone())
                .unwrap_or_default(),
            sources: Vec::new(),
        });
        if !end.sources.iter().any(|known| known[..] == sources[..]) {
            end.sources.push(sources.clone());
        }
        let path_mtu = end.path_mtu.clone();
        Some(Encapsulation::new(kind, server, sources.clone(), path_mtu))
    }

    /// The way that a quoted outer packet took; None if it is none of ours.
    pub fn path_of(&self, quoted: &Quoted) -> Option<&PathMtu> {
        let end = self.0.get(&quoted.destination.0)?;
        end.sources
            .iter()
            .any(|sources| sources.contains(&quoted.source))
            .then_some(&*end.path_mtu)
    }
}
