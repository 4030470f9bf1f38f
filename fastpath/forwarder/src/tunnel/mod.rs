//! Type TUN: the client's packet travels to the server unchanged within another one. What goes before it is written
//! into the headroom of its frame; not a byte of the packet is copied.
//!
//! What all kinds have in common:
//! - The inner packet has been forwarded and has lost one hop (RFC 2003 section 3.1, RFC 2473 section 3.1). The outer one
//!   begins with a TTL of 64, whatever the inner one has left. (IPVS takes off a hop, too, and copies what is left to the
//!   outer header, so that a tunnel may cut a packet's life short; ip_vs_xmit.c, `ip_vs_tunnel_xmit`.)
//! - DSCP and ECN are copied (RFC 6040 section 4.1, normal mode; RFC 2983 section 3, uniform model), congestion that was
//!   met before us included.
//! - An outer IPv4 header always has DF: what does not fit is answered with an ICMP error before it is wrapped, and no
//!   server has to put fragments together. (IPVS copies the inner DF, or clears it with `pmtu_disc=0`.)
//! - The outer source is one of the rule's `proxy_src`, chosen by the flow, so that the queues of the server's NIC share
//!   the work; GUE varies its UDP source port, too, and IPv6 its flow label (RFC 6438).

mod gre;
mod gue;
mod inner;
mod ipip;
mod outer;
mod path_mtu;
mod quoted;
mod server;

pub use path_mtu::PathMtu;
pub use quoted::{Quoted, reported_mtu};
pub use server::{Ends, Sources};

use crate::address::Addr;
use crate::packet::{ETHERNET, Headers, Packet};
use crate::spec::{GueChecksum, Tunnel};
use crate::verdict::DropReason;
use inner::Inner;
use outer::Outer;
use std::sync::Arc;

/// Most bytes that any kind puts before a packet: IPv6, UDP, GUE with remote checksum offload.
pub const MOST_OVERHEAD: usize = 40 + gue::MOST;

/// Numbers of the IP protocols that carry packets (IANA "Assigned Internet Protocol Numbers").
mod carried {
    /// IPv4 (RFC 2003).
    pub const IPV4: u8 = 4;
    /// IPv6 (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// RFC 2784.
    pub const GRE: u8 = 47;
}

/// How packets get to one server of a TUN rule.
#[derive(Debug)]
pub struct Encapsulation {
    kind: Tunnel,
    outer: Outer,
    sources: Arc<[Addr]>,
    path_mtu: Arc<PathMtu>,
}

impl Encapsulation {
    /// Towards `server`, from one of `sources`, which are of its family and not empty.
    pub fn new(
        kind: Tunnel,
        server: Addr,
        sources: Arc<[Addr]>,
        path_mtu: Arc<PathMtu>,
    ) -> Encapsulation {
        let protocol = match kind {
            Tunnel::Ipip => None,
            Tunnel::Gre { .. } => Some(carried::GRE),
            Tunnel::Gue { .. } => Some(crate::packet::protocol::UDP),
        };
        Encapsulation {
            kind,
            outer: Outer::new(server, protocol),
            sources,
            path_mtu,
        }
    }

    /// How packets are wrapped.
    pub fn kind(&self) -> Tunnel {
        self.kind
    }

    /// Most bytes that are put before a packet.
    #[inline]
    pub fn overhead(&self) -> usize {
        let shim = match self.kind {
            Tunnel::Ipip => 0,
            Tunnel::Gre { checksum } => gre::len(checksum),
            Tunnel::Gue { checksum, .. } => gue::len(checksum == GueChecksum::Remote),
        };
        self.outer.len() + shim
    }

    /// What the way to the server takes, if it has told lately.
    pub fn path_mtu(&self) -> &PathMtu {
        &self.path_mtu
    }

    /// The outer source of a flow.
    #[inline]
    pub fn source(&self, hash: u64) -> Addr {
        self.sources[(((hash >> 32) * self.sources.len() as u64) >> 32) as usize]
    }

    /// Puts the outer headers before a packet that has been parsed and has lost its hop. The Ethernet header moves
    /// with the beginning of the frame and has the right type then; its addresses are the caller's to write. `hash` is
    /// that of the flow.
    pub fn wrap(
        &self,
        packet: &mut Packet<'_>,
        headers: &Headers,
        hash: u64,
    ) -> Result<(), DropReason> {
        let mut inner = Inner::new(packet.frame(), headers);
        // The inner header says what belongs to the packet, but no outer one would say so of Ethernet's padding.
        packet.truncate(headers.end as usize);
        let remote = match self.kind {
            Tunnel::Gue {
                checksum: GueChecksum::Remote,
                ..
            } => inner.leave_checksum_to_receiver(packet.frame_mut()),
            _ => None,
        };
        let shim = match self.kind {
            Tunnel::Ipip => 0,
            Tunnel::Gre { checksum } => gre::len(checksum),
            Tunnel::Gue { .. } => gue::len(remote.is_some()),
        };
        if !packet.grow_front(self.outer.len() + shim) {
            return Err(DropReason::EncapsulationRoom);
        }
        let source = self.source(hash);
        let frame = packet.frame_mut();
        self.outer.write_ethertype(frame);
        let (ip, rest) = frame[ETHERNET..].split_at_mut(self.outer.len());
        self.outer.write(ip, &inner, rest.len(), source, hash);
        let (shim, payload) = rest.split_at_mut(shim);
        match self.kind {
            Tunnel::Ipip => {}
            Tunnel::Gre { checksum } => {
                gre::write(shim, &inner, checksum.then(|| inner.sum(payload)));
            }
            Tunnel::Gue { port, checksum } => {
                gue::write(
                    shim,
                    &inner,
                    payload.len(),
                    gue::source_port(hash),
                    port,
                    remote,
                );
                if checksum != GueChecksum::None {
                    let initial = inner.sum(payload);
                    gue::write_checksum(shim, payload.len(), source, self.outer.server(), initial);
                }
            }
        }
        Ok(())
    }

    /// Whether an ICMP error's quotation is one of a packet that went to this server like that.
    pub fn recognises(&self, quoted: &Quoted) -> bool {
        quoted.destination == self.outer.server()
            && self.sources.contains(&quoted.source)
            && match self.kind {
                Tunnel::Ipip => quoted.is_ipip(),
                Tunnel::Gre { .. } => quoted.is_gre(),
                Tunnel::Gue { port, .. } => quoted.gue_port() == Some(port),
            }
    }
}
