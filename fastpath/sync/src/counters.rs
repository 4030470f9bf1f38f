//! What a session has counted.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        /// What has been counted since the start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            /// All of them with their names.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams sent.
    sent_datagrams;
    /// Octets of them, without headers.
    sent_octets;
    /// Records sent, those that were told again included.
    sent_records;
    /// Traces sent, those that were told again included.
    sent_traces;
    /// Datagrams of the peer that counted.
    received_datagrams;
    /// Octets of them, without headers.
    received_octets;
    /// Records that came.
    received_records;
    /// Traces that came.
    received_traces;
    /// Datagrams of ours that did not arrive in time, and whose records were told again.
    lost_datagrams;
    /// Ends that found no room.
    forgotten_ends;
    /// Sessions that have begun.
    sessions;
}
