//! What becomes of a frame: exactly one verdict each, and one enum that names every reason for a drop.

use std::net::IpAddr;

use crate::network::PortIndex;

/// What the caller has to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it out of this interface; the frame is complete, Ethernet addresses included.
    Transmit(PortIndex),
    /// It is complete but for the Ethernet addresses, because the link-layer address of `next_hop` is not known yet.
    /// Keep it, have `next_hop` resolved, then give it to [`crate::network::Network::finish`].
    Unresolved {
        /// Interface on which `next_hop` lives.
        port: PortIndex,
        /// Neighbour to resolve.
        next_hop: IpAddr,
    },
    /// It is none of ours after all; the kernel may have it, unchanged.
    Kernel,
    /// A later fragment that came before its first one. Keep it unchanged for a second or two, and process it again when
    /// [`crate::Forwarder::is_awaited_no_more`] says so.
    Hold {
        /// What it waits for.
        key: u64,
    },
    /// Give the frame back and count the reason (already counted in the forwarder's statistics).
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal, $words:literal;)+) => {
        /// Why a packet was dropped. The one list from which counters, metric labels and explanations come.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),+];

            /// Number of reasons.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The reason's name in counters and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$variant => $label,)+ }
            }

            /// What a person reads: what happened and what to look at.
            pub const fn words(self) -> &'static str {
                match self { $(DropReason::$variant => $words,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say, or with impossible header fields.
    Malformed = "malformed", "the packet is truncated or its headers contradict each other";
    /// Neither IPv4 nor IPv6 behind the Ethernet header.
    NotIp = "not-ip", "the frame does not carry IPv4 or IPv6";
    /// No server of the rule takes new connections.
    NoServer = "no-server", "no server of the rule accepts new connections: all are disabled, dead, removed or of weight 0";
    /// Every server that might take the connection has as many as its threshold allows.
    ServerLimits = "server-limits", "the servers that might take the connection are at their max-connections";
    /// A fast path that has no configuration yet: the packet is one of ours, but nobody knows whose.
    Unconfigured = "unconfigured", "the fast path has just started and waits for ilb-svcmgr to tell it the configuration";
    /// The server of this connection is gone from the configuration.
    ServerGone = "server-gone", "the server of this connection is no longer configured";
    /// More new flows in this second than the rule or the node lets in.
    Admission = "admission", "more new flows in one second than new-flows-per-second of the rule or of the node allows";
    /// Too many flows of which only the first packets have been seen, and none of them could make way.
    Embryonic = "embryonic", "embryonic flows fill their share of the connection table, as in a SYN flood, and the client is not known to be real";
    /// The server of this connection is dead or gone, and the rule says not to choose another.
    Orphaned = "orphaned", "the server of this connection is dead or no longer configured, and the rule's orphans setting is reset or drop";
    /// A local server's port differs from the VIP's.
    LocalPort = "local-port", "the server is this host itself, which takes packets unchanged, but its port is not the VIP's";
    /// A TCP packet in mid-connection of which no entry is known.
    NoConnection = "no-connection", "a TCP packet that does not begin a connection belongs to none that is known";
    /// The connection table has no room.
    TableFull = "table-full", "the connection table is full: raise table-size in the node settings";
    /// Several workers tried to enter the same connection at once, again and again.
    InsertRace = "insert-race", "several workers entered the same connection at once; the sender will try again";
    /// Every port of every proxy-src address is taken towards this server.
    NatPortsExhausted = "nat-ports-exhausted", "all NAT source ports towards the server are taken: add proxy-src addresses";
    /// A HALF-NAT client uses this port towards every server tried, through another VIP.
    ReplyCollision = "reply-collision", "the client already uses this port to reach the same server through another VIP; replies could not be told apart";
    /// No route to the next hop.
    NoRoute = "no-route", "the kernel's routing table has no route to the destination";
    /// The route leads to an interface that the fast path does not serve.
    NoEgress = "no-egress", "the route leaves by an interface that is not in the node settings";
    /// Resolution of the next hop failed or too many packets wait for it.
    NeighbourUnresolved = "neighbour-unresolved", "the next hop does not answer ARP or neighbour discovery";
    /// Sent to an address at which this node takes nothing for itself.
    AddressClosed = "address-closed", "no rule takes the packet, and the VRRP instance of its destination has accept=no: this node takes nothing for itself there";
    /// Larger than the egress interface's MTU.
    TooBig = "too-big", "the packet is larger than the MTU of the interface that it has to leave by";
    /// TTL or hop limit used up.
    TtlExpired = "ttl-expired", "the packet's TTL or hop limit is used up";
    /// A fragment whose first fragment has not been seen.
    FragmentUnknown = "fragment-unknown", "a later fragment arrived without its first one";
    /// A later fragment that waited for its first one had to make way for others.
    FragmentLimit = "fragment-limit", "too many later fragments wait for their first one";
    /// A first fragment without the headers that decide where it belongs (RFC 1858, RFC 8200 section 4.5).
    FragmentTiny = "fragment-tiny", "a first fragment is too short to hold the transport header";
    /// A later fragment that would overwrite the first one's headers (RFC 1858, RFC 3128, RFC 5722).
    FragmentOverlap = "fragment-overlap", "a later fragment overlaps the first one";
    /// More ICMP errors in this second than may be carried.
    IcmpLimit = "icmp-limit", "more ICMP errors in one second than icmp-errors-per-second of the node allows";
    /// A first fragment of an SCTP packet that would need other ports.
    SctpFragment = "sctp-fragment", "an SCTP packet in fragments cannot get other ports: its checksum covers what is not there; use DSR, or server ports equal to the VIP's";
    /// TUN: no room before the packet for the outer headers.
    EncapsulationRoom = "encapsulation-room", "there is no room before the packet in its frame for the headers of the tunnel";
    /// The transmit ring stayed full.
    TxFull = "tx-full", "the transmit ring of the egress interface stayed full";
    /// The packet that waited for the kernel could not be handed over.
    KernelRefused = "kernel-refused", "the packet could not be handed to the kernel";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_label_and_words_of_its_own() {
        let labels: HashSet<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        let words: HashSet<_> = DropReason::ALL.iter().map(|r| r.words()).collect();
        assert_eq!(labels.len(), DropReason::COUNT);
        assert_eq!(words.len(), DropReason::COUNT);
        assert!(
            DropReason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
    }
}
