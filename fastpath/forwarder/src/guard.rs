//! What all workers share beside connections: counts of the current second and who is known to be real, to keep floods
//! out, where first fragments went, what the peer has told of connections that it has, and who may know those that we do
//! not. It goes from snapshot to snapshot.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::admission::{Admission, Window};
use crate::fragment::Fragments;
use crate::known_clients::KnownClients;
use crate::nat::Share;
use crate::relay::Relay;
use crate::traces::Traces;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Guard {
    /// New flows of all rules together.
    pub new_flows: Admission,
    /// ICMP errors that are carried.
    pub icmp_carried: Window,
    /// ICMP errors that we make ourselves.
    pub icmp_made: Window,
    /// Where first fragments went.
    pub fragments: Fragments,
    /// Clients that are known to be real.
    pub clients: KnownClients,
    /// What the peer has told of its connections, the light way.
    pub traces: Traces,
    /// Who may know the connections that we do not.
    pub relay: Relay,
    /// [`Share`] by its number.
    share: AtomicU8,
}

impl Guard {
    /// Which NAT ports new connections may take.
    #[inline]
    pub fn share(&self) -> Share {
        match self.share.load(Ordering::Relaxed) {
            1 => Share::Even,
            2 => Share::Odd,
            _ => Share::All,
        }
    }

    /// Says which NAT ports new connections may take from now on.
    pub fn set_share(&self, share: Share) {
        let number = match share {
            Share::All => 0,
            Share::Even => 1,
            Share::Odd => 2,
        };
        self.share.store(number, Ordering::Relaxed);
    }
}
