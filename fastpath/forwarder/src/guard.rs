//! What all workers share to keep floods out: counts of the current second, and who is known to be real. It goes from
//! snapshot to snapshot.

use crate::admission::{Admission, Window};
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
    /// Clients that are known to be real.
    pub clients: KnownClients,
}
