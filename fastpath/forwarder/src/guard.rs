//! What all workers share beside connections: counts of the current second and who is known to be real, to keep floods
//! out, and where first fragments went. It goes from
//! snapshot to snapshot.

use crate::admission::{Admission, Window};
use crate::fragment::Fragments;
use crate::known_clients::KnownClients;

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
}
