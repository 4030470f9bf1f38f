//! A packet view: bytes with named offsets, made once per packet by [`parse`]. What the offsets mean for a connection
//! is decided elsewhere.

use crate::address::Addr;
use crate::network::PortIndex;
use crate::table::prefetch;
use crate::verdict::{DropReason, Verdict};

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Where its type lies.
pub(crate) const ETHERTYPE_AT: usize = 12;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 3376. Group membership is between a host and its link: never balanced.
    pub const IGMP: u8 = 2;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4340.
    pub const DCCP: u8 = 33;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// RFC 9568.
    pub const VRRP: u8 = 112;
    /// RFC 9260.
    pub const SCTP: u8 = 132;
    /// RFC 3828.
    pub const UDP_LITE: u8 = 136;
    /// IPv6 extension headers, RFC 8200 section 4, and the authentication header, RFC 4302.
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION: u8 = 60;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// SCTP chunk types (RFC 9260 section 3.2).
pub mod sctp {
    /// Carries data.
    pub const DATA: u8 = 0;
    /// Begins an association.
    pub const INIT: u8 = 1;
    /// Answers [`INIT`].
    pub const INIT_ACK: u8 = 2;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// No more data from the sender.
    pub const SHUTDOWN: u8 = 7;
    /// Answers [`SHUTDOWN`].
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Third packet of the handshake.
    pub const COOKIE_ECHO: u8 = 10;
    /// Fourth packet of the handshake.
    pub const COOKIE_ACK: u8 = 11;
    /// Both are done.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// ICMP and ICMPv6 queries that have an identifier, by which question and answer are told apart from others.
mod query {
    /// Types of questions: echo, timestamp, information, address mask (RFC 792, RFC 950), extended echo (RFC 8335).
    pub const REQUESTS: [u8; 5] = [8, 13, 15, 17, 42];
    /// Types of their answers.
    pub const REPLIES: [u8; 5] = [0, 14, 16, 18, 43];
    /// The same of ICMPv6: echo (RFC 4443), extended echo (RFC 8335).
    pub const REQUESTS6: [u8; 2] = [128, 160];
    /// Types of their answers.
    pub const REPLIES6: [u8; 2] = [129, 161];
}

/// Offsets of header fields within their headers.
pub(crate) mod field {
    pub const IP4_TOTAL_LENGTH: usize = 2;
    pub const IP4_ID: usize = 4;
    pub const IP4_FRAGMENT: usize = 6;
    pub const IP4_TTL: usize = 8;
    pub const IP4_PROTOCOL: usize = 9;
    pub const IP4_CHECKSUM: usize = 10;
    pub const IP4_SRC: usize = 12;
    pub const IP4_DST: usize = 16;
    pub const IP4_HEADER: usize = 20;
    pub const IP6_PAYLOAD_LENGTH: usize = 4;
    pub const IP6_NEXT_HEADER: usize = 6;
    pub const IP6_HOP_LIMIT: usize = 7;
    pub const IP6_SRC: usize = 8;
    pub const IP6_DST: usize = 24;
    pub const IP6_HEADER: usize = 40;
    pub const SPORT: usize = 0;
    pub const DPORT: usize = 2;
    pub const TCP_SEQ: usize = 4;
    pub const TCP_ACK: usize = 8;
    pub const TCP_OFFSET: usize = 12;
    pub const TCP_FLAGS: usize = 13;
    pub const TCP_CHECKSUM: usize = 16;
    pub const TCP_HEADER: usize = 20;
    /// UDP-Lite and DCCP have theirs at the same place.
    pub const UDP_LENGTH: usize = 4;
    pub const UDP_CHECKSUM: usize = 6;
    pub const UDP_HEADER: usize = 8;
    pub const ICMP_CHECKSUM: usize = 2;
    pub const ICMP_ID: usize = 4;
    pub const ICMP_HEADER: usize = 8;
    pub const SCTP_CHECKSUM: usize = 8;
    pub const SCTP_HEADER: usize = 12;
}

/// A frame with room around it, lent to the forwarder for one batch.
#[derive(Debug)]
pub struct Packet<'a> {
    buf: &'a mut [u8],
    start: usize,
    len: usize,
    /// Interface that it came in by.
    pub ingress: PortIndex,
    /// What the forwarder decided.
    pub verdict: Verdict,
}

impl<'a> Packet<'a> {
    /// The frame is `buf[start..start + len]`, Ethernet header first; what lies before it is headroom.
    ///
    /// # Panics
    /// If the frame does not lie within `buf`.
    pub fn new(buf: &'a mut [u8], start: usize, len: usize, ingress: PortIndex) -> Packet<'a> {
        assert!(start + len <= buf.len());
        Packet {
            buf,
            start,
            len,
            ingress,
            verdict: Verdict::Drop(DropReason::Malformed),
        }
    }

    /// Asks for the headers ahead of [`crate::Forwarder::process`]: they were written by another processor or by the NIC,
    /// and all of a batch can be on their way at once.
    #[inline(always)]
    pub fn prefetch(&self) {
        if let Some(first) = self.frame().first() {
            prefetch(first);
        }
    }

    /// The frame.
    #[inline(always)]
    pub fn frame(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }

    /// The frame, to be changed.
    #[inline(always)]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }

    /// Where the frame begins in its buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Moves the frame's beginning `bytes` towards the buffer's; what is there is to be written by the caller. False,
    /// and nothing changes, if there is not that much headroom.
    #[inline(always)]
    #[must_use]
    pub fn grow_front(&mut self, bytes: usize) -> bool {
        let Some(start) = self.start.checked_sub(bytes) else {
            return false;
        };
        self.start = start;
        self.len += bytes;
        true
    }

    /// Takes `bytes` off the frame's beginning, at most all.
    #[inline(always)]
    pub fn shrink_front(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len);
        self.start += bytes;
        self.len -= bytes;
    }

    /// Cuts the frame to at most `len` bytes.
    #[inline(always)]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The frame's length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no frame at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Big-endian 16 bits at `at`.
#[inline(always)]
pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes big-endian 16 bits at `at`.
#[inline(always)]
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Addresses, ports and protocol of a packet, in its own direction of travel.
///
/// An ICMP query has its identifier where an answer would go to: a request as its source port, a reply as its destination
/// port; the other one is 0. What has neither ports nor an identifier has 0 twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Transport protocol.
    pub protocol: u8,
}

/// How a protocol tells its flows between two addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Two port numbers in the first four bytes.
    Both,
    /// ICMP: one identifier, see [`Tuple`].
    Identifier,
    /// Not at all.
    None,
}

impl Ports {
    /// Of the protocol with this number, in a packet of this family.
    #[inline(always)]
    pub const fn of(protocol: u8, v4: bool) -> Ports {
        match protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => Ports::Both,
            protocol::ICMP if v4 => Ports::Identifier,
            protocol::ICMPV6 if !v4 => Ports::Identifier,
            _ => Ports::None,
        }
    }
}

impl Tuple {
    /// The tuple of the answer.
    pub fn reversed(self) -> Tuple {
        Tuple {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            protocol: self.protocol,
        }
    }
}

/// What a packet is to the forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// What may belong to a connection: every protocol, of ICMP only queries.
    Transport,
    /// A later fragment: no ports.
    LaterFragment,
    /// An ICMP or ICMPv6 error about another packet.
    IcmpError,
    /// What concerns this host or its link alone: neighbour discovery, router and group messages, redirects, everything
    /// that was sent to a group or to all. Never balanced.
    #[default]
    Other,
}

/// Named offsets and fields of one packet. Offsets count from the beginning of the frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers {
    /// See [`Kind`].
    pub kind: Kind,
    /// Addresses, and ports where there are any.
    pub tuple: Tuple,
    /// Where the IP header begins.
    pub l3: u16,
    /// Where the transport header, or a later fragment's data, begins.
    pub l4: u16,
    /// Where the IP packet ends; Ethernet padding lies behind.
    pub end: u16,
    /// TCP flags, 0 for everything else.
    pub tcp_flags: u8,
    /// Type of the first SCTP chunk ([`sctp`]) or of the ICMP message, 0 for everything else.
    pub message: u8,
    /// Identification, if this is a fragment.
    pub fragment: Option<u32>,
}

impl Headers {
    /// Whether the packet is IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.tuple.src.is_v4()
    }

    /// Whether it is the answer to an ICMP query.
    #[inline(always)]
    pub fn is_icmp_reply(&self) -> bool {
        match (self.tuple.protocol, self.is_v4()) {
            (protocol::ICMP, true) => query::REPLIES.contains(&self.message),
            (protocol::ICMPV6, false) => query::REPLIES6.contains(&self.message),
            _ => false,
        }
    }

    /// Length of the IP packet in bytes.
    #[inline(always)]
    pub fn ip_len(&self) -> usize {
        (self.end - self.l3) as usize
    }
}

/// Finds the headers of a frame. Never panics, whatever the bytes.
pub fn parse(frame: &[u8]) -> Result<Headers, DropReason> {
    let mut headers = Headers::default();
    parse_into(frame, &mut headers).map(|()| headers)
}

/// As [`parse`], into a place that is there already.
#[inline(always)]
pub fn parse_into(frame: &[u8], headers: &mut Headers) -> Result<(), DropReason> {
    if frame.len() < ETHERNET || frame.len() > u16::MAX as usize {
        return Err(DropReason::Malformed);
    }
    let packet = match get16(frame, 12) {
        ETHERTYPE_IPV4 => parse_v4(frame, ETHERNET, Strictness::Whole, headers),
        ETHERTYPE_IPV6 => parse_v6(frame, ETHERNET, Strictness::Whole, headers),
        _ => return Err(DropReason::NotIp),
    };
    packet.ok_or(DropReason::Malformed)?;
    // To a group or to all, whatever the IP header says (RFC 1122 section 3.3.6).
    if frame[0] & 1 != 0 {
        headers.kind = Kind::Other;
    }
    Ok(())
}

/// Finds the headers of the packet that an ICMP error quotes at `at`. It may be cut anywhere behind the first eight
/// bytes of its transport header (RFC 792), so its own length fields are not held against it.
pub fn parse_quoted(frame: &[u8], at: usize, v4: bool) -> Option<Headers> {
    let mut headers = Headers::default();
    if v4 {
        parse_v4(frame, at, Strictness::Quoted, &mut headers)?;
    } else {
        parse_v6(frame, at, Strictness::Quoted, &mut headers)?;
    }
    Some(headers)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    Whole,
    Quoted,
}

#[inline(always)]
fn parse_v4(frame: &[u8], l3: usize, strictness: Strictness, headers: &mut Headers) -> Option<()> {
    let ip = frame.get(l3..)?;
    if ip.len() < field::IP4_HEADER || ip[0] >> 4 != 4 {
        return None;
    }
    let header = (ip[0] & 0xf) as usize * 4;
    let total = get16(ip, field::IP4_TOTAL_LENGTH) as usize;
    if header < field::IP4_HEADER || total < header || ip.len() < header {
        return None;
    }
    if strictness == Strictness::Whole && total > ip.len() {
        return None;
    }
    let end = l3 + total.min(ip.len());
    let fragment = get16(ip, field::IP4_FRAGMENT);
    let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
    *headers = Headers {
        tuple: Tuple {
            src: Addr::v4(array(ip, field::IP4_SRC)),
            dst: Addr::v4(array(ip, field::IP4_DST)),
            protocol: ip[field::IP4_PROTOCOL],
            ..Tuple::default()
        },
        l3: l3 as u16,
        l4: (l3 + header) as u16,
        end: end as u16,
        fragment: (more || offset != 0).then(|| get16(ip, field::IP4_ID) as u32),
        ..Headers::default()
    };
    parse_transport(frame, headers, offset != 0, strictness)
}

/// Extension headers that we walk before we give up; real packets have at most three or four.
pub(crate) const MAX_EXTENSIONS: usize = 8;

#[inline(always)]
fn parse_v6(frame: &[u8], l3: usize, strictness: Strictness, headers: &mut Headers) -> Option<()> {
    let ip = frame.get(l3..)?;
    if ip.len() < field::IP6_HEADER || ip[0] >> 4 != 6 {
        return None;
    }
    let total = field::IP6_HEADER + get16(ip, field::IP6_PAYLOAD_LENGTH) as usize;
    if strictness == Strictness::Whole && total > ip.len() {
        return None;
    }
    let end = total.min(ip.len());
    let mut at = field::IP6_HEADER;
    let mut next = ip[field::IP6_NEXT_HEADER];
    let mut fragment = None;
    let mut later = false;
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION if !later => {
                let extension = ip[..end].get(at..at + 2)?;
                next = extension[0];
                at += (extension[1] as usize + 1) * 8;
            }
            protocol::AUTHENTICATION if !later => {
                let extension = ip[..end].get(at..at + 2)?;
                next = extension[0];
                at += (extension[1] as usize + 2) * 4;
            }
            protocol::FRAGMENT if fragment.is_none() => {
                let extension = ip[..end].get(at..at + 8)?;
                let offset_and_more = get16(extension, 2);
                later = offset_and_more & 0xfff8 != 0;
                if later || offset_and_more & 1 != 0 {
                    fragment = Some(u32::from_be_bytes(array(extension, 4)));
                }
                next = extension[0];
                at += 8;
            }
            _ => {
                if at > end {
                    return None;
                }
                *headers = Headers {
                    tuple: Tuple {
                        src: Addr::v6(array(ip, field::IP6_SRC)),
                        dst: Addr::v6(array(ip, field::IP6_DST)),
                        protocol: next,
                        ..Tuple::default()
                    },
                    l3: l3 as u16,
                    l4: (l3 + at) as u16,
                    end: (l3 + end) as u16,
                    fragment,
                    ..Headers::default()
                };
                // An IPv4-mapped address on the wire (RFC 4291 section 2.5.5.2 forbids it) would pass for IPv4 inside.
                if headers.tuple.src.is_v4() || headers.tuple.dst.is_v4() {
                    return None;
                }
                return parse_transport(frame, headers, later, strictness);
            }
        }
    }
    None
}

#[inline(always)]
fn parse_transport(
    frame: &[u8],
    headers: &mut Headers,
    later: bool,
    strictness: Strictness,
) -> Option<()> {
    if later {
        headers.kind = Kind::LaterFragment;
        return Some(());
    }
    let l4 = &frame[headers.l4 as usize..headers.end as usize];
    let quoted = strictness == Strictness::Quoted;
    match headers.tuple.protocol {
        protocol::TCP => {
            if l4.len() < if quoted { 8 } else { field::TCP_HEADER } {
                return None;
            }
            if !quoted {
                let header = (l4[field::TCP_OFFSET] >> 4) as usize * 4;
                // A first fragment may end inside the options; a whole segment may not.
                if header < field::TCP_HEADER || (headers.fragment.is_none() && header > l4.len()) {
                    return None;
                }
                headers.tcp_flags = l4[field::TCP_FLAGS];
            }
        }
        protocol::UDP => {
            if l4.len() < field::UDP_HEADER {
                return None;
            }
        }
        protocol::SCTP => {
            // Behind the header comes at least the head of one chunk.
            if l4.len() < if quoted { 8 } else { field::SCTP_HEADER + 4 } {
                return None;
            }
            headers.message = l4.get(field::SCTP_HEADER).copied().unwrap_or_default();
        }
        _ => return parse_rest(l4, headers, quoted),
    }
    headers.kind = Kind::Transport;
    headers.tuple.sport = get16(l4, field::SPORT);
    headers.tuple.dport = get16(l4, field::DPORT);
    Some(())
}

/// What has no ports: ICMP, and every protocol that we know nothing about.
#[inline(never)]
fn parse_rest(l4: &[u8], headers: &mut Headers, quoted: bool) -> Option<()> {
    let v4 = headers.is_v4();
    if Ports::of(headers.tuple.protocol, v4) != Ports::Identifier {
        // Protocol 0 is none in IPv4; entries of the connection table that are no connections have it.
        if !matches!(
            headers.tuple.protocol,
            protocol::IGMP | protocol::HOP_BY_HOP
        ) {
            headers.kind = Kind::Transport;
        }
        return Some(());
    }
    if l4.len() < field::ICMP_HEADER {
        return Some(());
    }
    headers.message = l4[0];
    let (requests, replies, errors): (&[u8], &[u8], &[u8]) = if v4 {
        // RFC 792: destination unreachable, source quench, time exceeded, parameter problem.
        (&query::REQUESTS, &query::REPLIES, &[3, 4, 11, 12])
    } else {
        // RFC 4443 section 2.1: errors have the high bit clear; 1 to 4 are defined.
        (&query::REQUESTS6, &query::REPLIES6, &[1, 2, 3, 4])
    };
    let id = get16(l4, field::ICMP_ID);
    if requests.contains(&l4[0]) {
        headers.kind = Kind::Transport;
        headers.tuple.sport = id;
    } else if replies.contains(&l4[0]) {
        headers.kind = Kind::Transport;
        headers.tuple.dport = id;
    } else if errors.contains(&l4[0]) && !quoted && headers.fragment.is_none() {
        headers.kind = Kind::IcmpError;
    }
    Some(())
}
