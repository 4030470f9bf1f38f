//! Versions of a rule's server pool: by which candidates connections were begun, for as long as any of those lives.
//!
//! A connection keeps its server because its entry in the table says so. What an entry cannot do is outlive itself: it
//! may be lost (a table that was lost or was full, a connection that began on a peer). For those the rule remembers its
//! last pools. Each *version* has the candidates that it chose from, and a Bloom filter of the connections that were
//! established with it ([`filter`]). A packet in mid-connection without an entry asks the versions, newest first: did it
//! begin with you, and with which of your servers ([`Pool::recover`])?
//!
//! The filter always holds pairs of flow and server. For algorithms that compute their choice the version asks about the
//! computed server before all others, so that one question is enough; for all algorithms the others are asked about
//! too, because persistence, thresholds or a fallback may have decided otherwise.
//!
//! A pool has at most [`SLOTS`] versions. When there are more, the two oldest become one with the candidates and the
//! flows of both: it takes more questions, but nothing is lost. A version that no entry names any more and that nobody
//! could come back to is left out when the next snapshot is compiled. Candidates that return while their version is
//! still there bring it back instead of making another, so that a server that flaps costs nothing.
//!
//! Only connections with a handshake can be told to be in their middle, so only they are entered: TCP and SCTP, when the
//! client has confirmed the handshake, so that a flood of first packets does not fill the filters. Under NAT nothing is
//! entered: the source port towards the server is known to the entry alone.

mod care;
mod export;
mod filter;
mod version;

use std::cell::Cell;
use std::sync::Arc;

pub use care::Care;
pub(crate) use care::{is_remembered, longest};
pub use export::{MergeError, Merged};
pub use filter::{BITS_A_FLOW, Filter, Key};
pub use version::{Candidates, Chooser, Version};

use crate::select::Request;
use crate::spec::ServerId;
use crate::table::MAX_POOL_VERSION;

/// Versions that a rule remembers at most.
pub const SLOTS: usize = 8;
/// Servers that a version is asked about at most.
pub const MOST_SERVERS: usize = 1024;
/// Servers that one worker asks about in a second at most: some 20 ms of its time. A flood of packets without a
/// connection costs no more.
pub const QUESTIONS_A_SECOND: u32 = 1 << 22;
/// What a question costs beside its servers, in servers.
const QUESTION: u32 = 16;

/// See the module's text. A clone has the same versions.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Newest first.
    versions: Box<[Arc<Version>]>,
}

/// The server that a connection without an entry had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Number of the version that knew it.
    pub version: u16,
    /// The server.
    pub server: ServerId,
}

impl Pool {
    /// The pool after a change: `previous`, with a version of these candidates in front.
    pub fn next(previous: Option<&Pool>, candidates: Candidates) -> Pool {
        let mut versions: Vec<Arc<Version>> = previous
            .into_iter()
            .flat_map(|pool| &pool.versions)
            .enumerate()
            .filter(|(n, version)| *n == 0 || !version.is_retired())
            .map(|(_, version)| Arc::clone(version))
            .collect();
        // Without candidates nothing begins: the version before stays what it is.
        if candidates.servers.is_empty() {
            return Pool {
                versions: versions.into(),
            };
        }
        match versions
            .iter()
            .position(|version| version.is_of(&candidates))
        {
            Some(at) => versions[..=at].rotate_right(1),
            None => {
                let number = free_number(candidates.digest(), &versions);
                let version = Version::new(number, candidates, versions.first().map(|v| &**v));
                versions.insert(0, Arc::new(version));
            }
        }
        if versions.len() > SLOTS
            && let (Some(oldest), Some(older)) = (versions.pop(), versions.pop())
        {
            versions.push(Arc::new(Version::merged(&older, &oldest)));
        }
        Pool {
            versions: versions.into(),
        }
    }

    /// Number of the version that connections begin with now; 0 if none ever could.
    #[inline]
    pub fn current(&self) -> u16 {
        self.versions.first().map_or(0, |version| version.number())
    }

    /// All versions, newest first.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// Place of the version that an entry names among [`Pool::versions`].
    #[inline]
    pub fn place_of(&self, number: u16) -> Option<usize> {
        self.versions
            .iter()
            .position(|version| version.has_number(number))
    }

    /// The version to which an established connection belongs: the one that its entry names, unless that one does not
    /// know its server (persistence may hold a client to one that is no candidate any more) or is not known itself
    /// (the entry is from before a restart).
    pub fn version_for(&self, number: u16, server: ServerId) -> Option<&Version> {
        let named = self.place_of(number).map(|at| &self.versions[at]);
        named
            .into_iter()
            .chain(&self.versions)
            .find(|version| version.has_server(server))
            .map(|version| &**version)
    }

    /// Remembers an established connection, so that it finds its server without its entry.
    #[inline]
    pub fn remember(&self, flow: u64, number: u16, server: ServerId) {
        if let Some(filter) = self
            .version_for(number, server)
            .and_then(|version| version.filter())
        {
            filter.insert(Key::of(flow), server);
        }
    }

    /// The server of a connection in mid-life that has no entry. `usable` says which servers can be used still.
    pub fn recover(
        &self,
        request: &Request,
        budget: &Budget,
        usable: impl Fn(ServerId) -> bool,
    ) -> Option<Recovered> {
        let key = Key::of(request.hash);
        let asked = || {
            self.versions
                .iter()
                .enumerate()
                .filter(|(n, version)| *n == 0 || !version.is_retired())
                .filter_map(|(_, version)| Some((&**version, version.filter()?)))
        };
        for (version, filter) in asked() {
            if let Some(server) = version.computed(request) {
                budget.take(request.now, QUESTION)?;
                if usable(server) && filter.contains(key, server) {
                    return Some(version.recovered(server));
                }
            }
        }
        for (version, filter) in asked() {
            let servers = version.servers();
            if servers.len() > MOST_SERVERS {
                continue;
            }
            budget.take(request.now, QUESTION)?;
            let question = filter.question(key);
            if question.is_empty() {
                continue;
            }
            budget.take(request.now, servers.len() as u32)?;
            let known = servers
                .iter()
                .map(|&(server, _)| server)
                .find(|&server| question.asks(server) && usable(server));
            if let Some(server) = known {
                return Some(version.recovered(server));
            }
        }
        None
    }
}

/// A number for a version: by its candidates, so that it is the same after a restart and on most peers, but none that
/// is in use. Never 0.
fn free_number(digest: u64, versions: &[Arc<Version>]) -> u16 {
    let begin = (digest % MAX_POOL_VERSION as u64) as u16;
    (0..MAX_POOL_VERSION)
        .map(|n| (begin + n) % MAX_POOL_VERSION + 1)
        .find(|&number| !versions.iter().any(|version| version.has_number(number)))
        .unwrap_or(1)
}

/// What one worker may still ask in this second.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    second: Cell<u32>,
    spent: Cell<u32>,
}

impl Budget {
    /// None if there is nothing left for a question about so many servers.
    pub(crate) fn question(&self, now: u32, servers: usize) -> Option<()> {
        self.take(now, QUESTION + servers as u32)
    }

    /// None if there is nothing left.
    fn take(&self, now: u32, servers: u32) -> Option<()> {
        if self.second.replace(now) != now {
            self.spent.set(0);
        }
        let spent = self.spent.get() + servers;
        if spent > QUESTIONS_A_SECOND {
            return None;
        }
        self.spent.set(spent);
        Some(())
    }
}

#[cfg(test)]
mod tests;
