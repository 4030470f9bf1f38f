//! The life of a connection as a balancer sees it: the states of the kernel's IPVS
//! (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, `ip_vs_proto_sctp.c`), entered by what either end says.
//!
//! **Half a view.** Under DSR and TUN only the client's packets pass through us. What each TCP state means then:
//!
//! | state | both halves seen | client's half only |
//! |---|---|---|
//! | syn-received | a SYN, no ACK of the client yet | the same |
//! | established | the client has acknowledged | the same; stays when the server alone closes or resets |
//! | fin-wait | the client has closed, the server has not | the client has closed; the server may have before or since |
//! | close-wait, last-ack, time-wait | the server has closed (first; both; second) | never entered |
//! | close | either end has sent a reset | the client has sent a reset |
//!
//! Idle times count from the last packet that was seen. A client that has closed its half and goes on receiving keeps
//! acknowledging, and so keeps its entry in fin-wait; one that is silent for [`Timeouts::tcp_fin_wait`] loses it. A
//! connection that the server ended without a further word of the client leaves by [`Timeouts::tcp_established`].
//!
//! **Forged segments.** We do not follow sequence numbers, so a reset or a SYN from outside the window must not do
//! here what it cannot do at the server (RFC 5961). A SYN on an open connection changes nothing and goes to the same
//! server, which challenges it; a client that really began anew answers the challenge with a reset, and its next SYN
//! finds the connection closed. A reset is forwarded and moves to close, which still forwards everything: the next
//! acknowledgement *of the client* takes the connection back to established, because an end that sent, or got, a
//! valid reset sends no more. The server's packets do not count for that: those that were on their way when a client
//! reset its connection would keep it open for [`Timeouts::tcp_established`]. If a reset was real and the client's
//! last segments come after it, the server answers each with another reset. What remains: a flow that is idle for
//! longer than [`Timeouts::tcp_close`] after a forged reset loses its entry; the pool versions find its server again.

use crate::packet::{Headers, protocol, sctp, tcp};
use crate::spec::{Protocol, Timeouts};
use crate::table::{Connection, Direction, State};

/// What a TCP segment says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// Begins a connection.
    Syn,
    /// Answers a SYN.
    SynAck,
    /// Acknowledges, with or without data.
    Ack,
    /// The sender is done.
    Fin,
    /// There is no such connection.
    Rst,
    /// Flags that no end may act on (RFC 9293 section 3.10.7.4: without ACK, drop).
    Other,
}

impl Segment {
    #[inline(always)]
    fn of(flags: u8) -> Segment {
        if flags & tcp::RST != 0 {
            return Segment::Rst;
        }
        match (
            flags & tcp::SYN != 0,
            flags & tcp::FIN != 0,
            flags & tcp::ACK != 0,
        ) {
            (true, false, false) => Segment::Syn,
            (true, false, true) => Segment::SynAck,
            (false, false, true) => Segment::Ack,
            (false, true, true) => Segment::Fin,
            (true, true, true | false) | (false, true | false, false) => Segment::Other,
        }
    }
}

/// The state after one more packet of a connection.
#[inline(always)]
pub fn next(state: State, direction: Direction, headers: &Headers) -> State {
    match headers.tuple.protocol {
        protocol::TCP => after(state, direction, headers.tcp_flags),
        protocol::SCTP => after_sctp(state, direction, headers.message),
        _ => flows(state, direction),
    }
}

/// The state of a connection whose first packet that we see is this one of the client's. It need not be the first
/// one ever: a connection may have lost its server, or its entry.
pub fn first(headers: &Headers) -> State {
    match headers.tuple.protocol {
        protocol::TCP | protocol::SCTP if begins_with_handshake(headers) => State::SynReceived,
        protocol::TCP | protocol::SCTP => next(State::Established, Direction::Forward, headers),
        _ => State::Fresh,
    }
}

/// The state after a TCP segment with these flags (RFC 9293 section 3.3.2, and the module's text).
#[inline(always)]
pub fn after(state: State, direction: Direction, flags: u8) -> State {
    use Direction::{Forward, Reverse};
    use Segment::{Ack, Fin, Other, Rst, Syn, SynAck};
    use State::*;
    match (state, direction, Segment::of(flags)) {
        // What nearly all segments are comes first.
        (Established, Forward | Reverse, Syn | SynAck | Ack | Other) => Established,
        (
            SynReceived | Established | FinWait | CloseWait | LastAck | TimeWait | Close,
            Forward | Reverse,
            Rst,
        ) => Close,
        // The handshake is over when the client acknowledges.
        (SynReceived, Forward, Ack) => Established,
        (SynReceived, Forward, Syn | SynAck | Other)
        | (SynReceived, Reverse, Syn | SynAck | Ack | Other) => SynReceived,
        (SynReceived | Established, Forward, Fin) => FinWait,
        (SynReceived | Established, Reverse, Fin) => CloseWait,
        (FinWait, Reverse, Fin) => TimeWait,
        (FinWait, Forward, Syn | SynAck | Ack | Fin | Other)
        | (FinWait, Reverse, Syn | SynAck | Ack | Other) => FinWait,
        (CloseWait, Forward, Fin) => LastAck,
        (CloseWait, Forward, Syn | SynAck | Ack | Other)
        | (CloseWait, Reverse, Syn | SynAck | Ack | Fin | Other) => CloseWait,
        (LastAck, Forward | Reverse, Syn | SynAck | Ack | Fin | Other) => LastAck,
        (TimeWait, Forward | Reverse, Syn | SynAck | Ack | Fin | Other) => TimeWait,
        // The reset was not the client's last word, so it was not valid.
        (Close, Forward, Ack) => Established,
        (Close, Forward, Fin) => FinWait,
        (Close, Forward, Syn | SynAck | Other)
        | (Close, Reverse, Syn | SynAck | Ack | Fin | Other) => Close,
        (
            Fresh | Flowing | Persistence | Offered,
            Forward | Reverse,
            Syn | SynAck | Ack | Fin | Rst | Other,
        ) => state,
    }
}

/// What the first chunk of an SCTP packet says about its association (RFC 9260 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Abort,
    /// Data, acknowledgements, heartbeats, errors and what extensions have.
    Other,
}

impl Chunk {
    #[inline(always)]
    fn of(number: u8) -> Chunk {
        match number {
            sctp::INIT => Chunk::Init,
            sctp::INIT_ACK => Chunk::InitAck,
            sctp::COOKIE_ECHO => Chunk::CookieEcho,
            sctp::COOKIE_ACK => Chunk::CookieAck,
            sctp::SHUTDOWN => Chunk::Shutdown,
            sctp::SHUTDOWN_ACK => Chunk::ShutdownAck,
            sctp::SHUTDOWN_COMPLETE => Chunk::ShutdownComplete,
            sctp::ABORT => Chunk::Abort,
            _ => Chunk::Other,
        }
    }
}

/// The state after an SCTP packet whose first chunk has this type (RFC 9260 sections 4 and 9). The states are TCP's: a
/// cookie that the client echoes opens, SHUTDOWN closes a half, SHUTDOWN COMPLETE and ABORT end. Control chunks come
/// first in their packet (section 6.10), so that the first chunk is enough. Forged ABORTs are treated as forged resets.
pub fn after_sctp(state: State, direction: Direction, chunk: u8) -> State {
    use Chunk::*;
    use Direction::{Forward, Reverse};
    use State::*;
    match (state, direction, Chunk::of(chunk)) {
        (
            SynReceived | Established | FinWait | CloseWait | LastAck | TimeWait | Close,
            Forward | Reverse,
            Abort | ShutdownComplete,
        ) => Close,
        // Only who has got the INIT ACK can echo its cookie.
        (SynReceived, Forward, CookieEcho | CookieAck) | (SynReceived, Reverse, CookieAck) => {
            Established
        }
        (SynReceived, Forward, Init | InitAck | Other)
        | (SynReceived, Reverse, Init | InitAck | CookieEcho | Other) => SynReceived,
        (Established, Forward | Reverse, Init | InitAck | CookieEcho | CookieAck | Other) => {
            Established
        }
        (SynReceived | Established, Forward, Shutdown) => FinWait,
        (SynReceived | Established, Reverse, Shutdown) => CloseWait,
        // It answers a SHUTDOWN that took another way: under DSR, always.
        (SynReceived | Established, Forward, ShutdownAck) => LastAck,
        (SynReceived | Established, Reverse, ShutdownAck) => TimeWait,
        (FinWait, Reverse, Shutdown | ShutdownAck) | (FinWait, Forward, ShutdownAck) => TimeWait,
        (FinWait, Forward, Init | InitAck | CookieEcho | CookieAck | Shutdown | Other)
        | (FinWait, Reverse, Init | InitAck | CookieEcho | CookieAck | Other) => FinWait,
        (CloseWait, Forward, Shutdown | ShutdownAck) | (CloseWait, Reverse, ShutdownAck) => LastAck,
        (CloseWait, Forward, Init | InitAck | CookieEcho | CookieAck | Other)
        | (CloseWait, Reverse, Init | InitAck | CookieEcho | CookieAck | Shutdown | Other) => {
            CloseWait
        }
        (
            LastAck,
            Forward | Reverse,
            Init | InitAck | CookieEcho | CookieAck | Shutdown | ShutdownAck | Other,
        ) => LastAck,
        (
            TimeWait,
            Forward | Reverse,
            Init | InitAck | CookieEcho | CookieAck | Shutdown | ShutdownAck | Other,
        ) => TimeWait,
        (Close, Forward, CookieEcho | CookieAck | Other) => Established,
        (Close, Forward, Shutdown) => FinWait,
        (Close, Forward, ShutdownAck) => LastAck,
        (Close, Forward, Init | InitAck)
        | (
            Close,
            Reverse,
            Init | InitAck | CookieEcho | CookieAck | Shutdown | ShutdownAck | Other,
        ) => Close,
        (
            Fresh | Flowing | Persistence | Offered,
            Forward | Reverse,
            Init | InitAck | CookieEcho | CookieAck | Shutdown | ShutdownAck | ShutdownComplete
            | Abort | Other,
        ) => state,
    }
}

/// The state after one more packet of a protocol without connections.
#[inline(always)]
pub fn flows(state: State, direction: Direction) -> State {
    match (state, direction) {
        // An answer shows nothing: its packet may have had an invented source.
        (State::Fresh, Direction::Forward) => State::Flowing,
        (other, _) => other,
    }
}

/// Whether a segment begins a connection.
#[inline(always)]
pub fn begins(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether the middle of a connection can be told from its beginning.
#[inline(always)]
pub fn has_handshake(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::SCTP)
}

/// Whether the packet is the first of a handshake: a new connection is meant, whatever was before.
#[inline(always)]
pub fn begins_with_handshake(headers: &Headers) -> bool {
    match headers.tuple.protocol {
        protocol::TCP => begins(headers.tcp_flags),
        protocol::SCTP => headers.message == sctp::INIT,
        _ => false,
    }
}

/// Whether a packet may begin a connection, as far as its own words go.
pub fn may_begin(headers: &Headers) -> bool {
    match headers.tuple.protocol {
        protocol::TCP | protocol::SCTP => begins_with_handshake(headers),
        _ => !headers.is_icmp_reply(),
    }
}

/// Whether the client, when it begins a connection from the same port, cannot mean the one in this state any more, so
/// that a server is chosen anew (`conn_reuse_mode` of IPVS).
#[inline(always)]
pub fn is_over_for_client(state: State) -> bool {
    match state {
        State::FinWait | State::TimeWait | State::LastAck | State::Close => true,
        State::SynReceived
        | State::Established
        | State::CloseWait
        | State::Fresh
        | State::Flowing
        | State::Persistence
        | State::Offered => false,
    }
}

/// Longest idle time of a UDP flow in which the client has sent one packet, so that a flood is soon forgotten. Linux's
/// conntrack does the same: `nf_conntrack_udp_timeout` is 30 s, and 120 s only for a stream that has been answered and has
/// lasted for 2 s (net/netfilter/nf_conntrack_proto_udp.c).
const FRESH_UDP: u32 = 30;

/// Seconds without a packet after which a connection in this state is forgotten. SCTP has a time of its own while it
/// is open, and TCP's otherwise. Claims are not for here: their time is the rule's.
pub fn timeout(state: State, protocol: u8, timeouts: &Timeouts) -> u32 {
    match (state, Protocol::from_number(protocol)) {
        (State::SynReceived, _) => timeouts.tcp_syn_received,
        (State::Established, Protocol::Sctp) => timeouts.sctp,
        (State::Established, _) => timeouts.tcp_established,
        (State::FinWait, _) => timeouts.tcp_fin_wait,
        (State::CloseWait, _) => timeouts.tcp_close_wait,
        (State::LastAck, _) => timeouts.tcp_last_ack,
        (State::TimeWait, _) => timeouts.tcp_time_wait,
        (State::Close, _) => timeouts.tcp_close,
        (State::Fresh, Protocol::Udp) => timeouts.udp.min(FRESH_UDP),
        (State::Flowing | State::Persistence | State::Offered, Protocol::Udp) => timeouts.udp,
        (State::Fresh | State::Flowing | State::Persistence | State::Offered, Protocol::Icmp) => {
            timeouts.icmp
        }
        (State::Fresh | State::Flowing | State::Persistence | State::Offered, _) => timeouts.other,
    }
}

/// Whether somebody would miss the connection: it is open, or was closed so lately that segments may still be on
/// their way. What is drained is waited for only as long as this holds.
pub fn is_open(connection: &Connection, now: u32) -> bool {
    let idle = connection.idle(now);
    match connection.state {
        State::Established | State::Fresh | State::Flowing => true,
        // A client repeats its SYN after 1, 3 and 7 s.
        State::SynReceived => idle <= 8,
        State::FinWait | State::CloseWait => idle <= 5,
        State::TimeWait | State::LastAck | State::Close => idle <= 2,
        State::Persistence | State::Offered => false,
    }
}

#[cfg(test)]
mod tests;
