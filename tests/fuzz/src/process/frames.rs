//! What holds for every frame, and where one should arrive.

use super::*;

/// The MTU of all interfaces ([`network`]).
const MTU: usize = 1500;

/// ICMP "fragmentation needed" and ICMPv6 "packet too big".
const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];
/// ICMP and ICMPv6 "port unreachable".
const PORT_UNREACHABLE: [(u8, u8); 2] = [(3, 3), (1, 4)];

impl World {
    /// What holds for every frame. True if it was answered because it was too big, which counts as a drop, too.
    pub(super) fn conserved(&self, before: &[u8], verdict: Verdict, after: &[u8]) -> bool {
        let resets = || {
            self.reference
                .rules
                .iter()
                .any(|rule| rule.orphans == Orphans::Reset)
        };
        match verdict {
            Verdict::Kernel => assert_eq!(after, before, "the kernel gets it unchanged"),
            Verdict::Hold { .. } => assert_eq!(after, before, "it waits unchanged"),
            Verdict::Drop(_) => return false,
            Verdict::Transmit(port) => assert!(port == FRONT || port == BACK),
            Verdict::Unresolved { .. } => {}
        }
        if !is_sent(verdict) {
            return false;
        }
        if let Some(said) = wire::error_about(after, before) {
            let is_too_big = TOO_BIG.contains(&said);
            if is_too_big {
                assert!(
                    before.len() > 14 + MTU - MOST_OVERHEAD,
                    "it would have fitted"
                );
            } else {
                assert!(PORT_UNREACHABLE.contains(&said) && resets(), "{said:?}");
            }
            return is_too_big;
        }
        if resets() && wire::is_reset_of(after, before) {
            return false;
        }
        let wrapped = wire::unwrap_if(after, GUE_PORT, is_tunnel_source);
        let after = match &wrapped {
            Some(unwrapped) => {
                assert!(unwrapped.frame.len() <= before.len());
                &unwrapped.frame
            }
            None => after,
        };
        // The error that a client gets about a packet in a tunnel is made of the error about that.
        if wrapped.is_none() && before.len() != after.len() && self.is_about_a_tunnel(before) {
            assert_eq!(wire::checksums(after), Some(true), "our own checksums");
            return false;
        }
        assert!(wrapped.is_some() || after.len() == before.len());
        if matches!(verdict, Verdict::Transmit(_)) {
            let read = packet::parse(after).expect("what is sent can be read");
            assert_ne!(read.kind, Kind::Other, "what is sent is balanced");
        }
        if wire::checksums(before) == Some(true) {
            assert_eq!(wire::checksums(after), Some(true), "checksums stay right");
            let outer = wrapped.is_none_or(|unwrapped| unwrapped.is_intact);
            assert!(outer, "outer checksums come from right ones");
        }
        false
    }

    /// Whether a frame is an ICMP error to one of our outer addresses.
    fn is_about_a_tunnel(&self, frame: &[u8]) -> bool {
        packet::parse(frame).is_ok_and(|read| is_tunnel_source(read.tuple.dst.into()))
    }
}

/// Whether a packet leaves, now or when its next hop is known.
pub(super) fn is_sent(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Transmit(_) | Verdict::Unresolved { .. })
}

/// Whether this is an outer source of a tunnel.
fn is_tunnel_source(address: IpAddr) -> bool {
    TUNNEL_SOURCES.contains(&address)
}

/// The frame has become what it should and goes to this address, by its neighbour or the gateway ([`network`]).
pub(super) fn arrives(address: IpAddr, port: u8, expected: &[u8], verdict: Verdict, out: &[u8]) {
    let family = FAMILIES[usize::from(!address.is_ipv4())];
    let all = if port == FRONT {
        Family::client
    } else {
        Family::server
    };
    if (1..=253).any(|n| n != SILENT && all(family, n) == address) {
        assert_eq!(verdict, Verdict::Transmit(port));
        assert_eq!(out[..6], mac(address));
        assert_eq!(out[6..12], [2, 0, 0, 0, 0, port]);
    } else if family.on_link(address) {
        assert_eq!(
            verdict,
            Verdict::Unresolved {
                port,
                next_hop: address
            }
        );
    } else {
        assert_eq!(
            verdict,
            Verdict::Unresolved {
                port: FRONT,
                next_hop: family.gateway()
            }
        );
    }
    assert_eq!(out[12..], expected[12..]);
}

impl Family {
    fn gateway(self) -> IpAddr {
        self.client(254)
    }

    /// Whether an address is in one of the two networks that we are in.
    fn on_link(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => matches!(v4.octets(), [10, 1 | 2, 0, _]),
            IpAddr::V6(v6) => matches!(v6.segments(), [0xfd01 | 0xfd02, 0, 0, 0, ..]),
        }
    }
}

/// The Ethernet address of a client or a server ([`network`]).
pub(super) fn mac(address: IpAddr) -> [u8; 6] {
    let (net, host) = match address {
        IpAddr::V4(v4) => (v4.octets()[1], v4.octets()[3]),
        IpAddr::V6(v6) => (v6.octets()[1], v6.octets()[15]),
    };
    [4, 0, 0, 0, net, host]
}
