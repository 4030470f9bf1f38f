//! The life of a TCP connection as a balancer sees it, which under DSR is only the client's half.

use crate::packet::{Headers, protocol, sctp, tcp};
use crate::spec::{Protocol, Timeouts};
use crate::table::{Connection, Direction, State};

/// The state after a TCP segment with these flags.
#[inline(always)]
pub fn after(state: State, direction: Direction, flags: u8) -> State {
    if flags & tcp::RST != 0 {
        return State::Close;
    }
    let state = match (state, direction) {
        // The handshake is over when the client acknowledges.
        (State::SynReceived, Direction::Forward) if flags & (tcp::ACK | tcp::SYN) == tcp::ACK => {
            State::Established
        }
        (state, _) => state,
    };
    if flags & tcp::FIN == 0 {
        return state;
    }
    match (state, direction) {
        (State::SynReceived | State::Established, Direction::Forward) => State::FinWait,
        (State::SynReceived | State::Established, Direction::Reverse) => State::CloseWait,
        (State::FinWait, Direction::Reverse) | (State::CloseWait, Direction::Forward) => {
            match state {
                State::FinWait => State::TimeWait,
                _ => State::LastAck,
            }
        }
        (state, _) => state,
    }
}

/// The state after one more packet of a protocol without connections.
#[inline(always)]
pub fn flows(state: State) -> State {
    match state {
        State::Fresh => State::Flowing,
        other => other,
    }
}

/// Whether a segment begins a connection.
#[inline(always)]
pub fn begins(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether a packet may begin a connection, as far as its own words go.
pub fn may_begin(headers: &Headers) -> bool {
    match headers.tuple.protocol {
        protocol::TCP => begins(headers.tcp_flags),
        protocol::SCTP => headers.message == sctp::INIT,
        _ => !headers.is_icmp_reply(),
    }
}

/// Whether the client, when it begins a connection from the same port, cannot mean the one in this state any more.
#[inline(always)]
pub fn is_over_for_client(state: State) -> bool {
    match state {
        State::FinWait | State::TimeWait | State::LastAck | State::Close => true,
        State::SynReceived
        | State::Established
        | State::CloseWait
        | State::Fresh
        | State::Flowing
        | State::Persistence => false,
    }
}

/// Seconds without a packet after which a connection in this state is forgotten.
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
        (State::Fresh | State::Flowing | State::Persistence, Protocol::Udp) => timeouts.udp,
        (State::Fresh | State::Flowing | State::Persistence, Protocol::Icmp) => timeouts.icmp,
        (State::Fresh | State::Flowing | State::Persistence, _) => timeouts.other,
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
        State::Persistence => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcp::{ACK, FIN, RST, SYN};

    fn run(steps: &[(Direction, u8)]) -> State {
        steps
            .iter()
            .fold(State::SynReceived, |state, &(direction, flags)| {
                after(state, direction, flags)
            })
    }

    #[test]
    fn lives_of_connections() {
        use Direction::{Forward, Reverse};
        assert_eq!(run(&[(Reverse, SYN | ACK)]), State::SynReceived);
        assert_eq!(
            run(&[(Reverse, SYN | ACK), (Forward, ACK)]),
            State::Established
        );
        assert_eq!(run(&[(Forward, ACK), (Forward, FIN | ACK)]), State::FinWait);
        assert_eq!(
            run(&[(Forward, ACK), (Forward, FIN | ACK), (Reverse, FIN | ACK)]),
            State::TimeWait
        );
        assert_eq!(
            run(&[(Forward, ACK), (Reverse, FIN | ACK), (Forward, FIN | ACK)]),
            State::LastAck
        );
        assert_eq!(
            run(&[(Forward, ACK), (Reverse, FIN | ACK), (Forward, ACK)]),
            State::CloseWait
        );
        assert_eq!(run(&[(Forward, SYN)]), State::SynReceived);
        assert_eq!(run(&[(Reverse, RST | ACK)]), State::Close);
        assert_eq!(
            run(&[(Forward, ACK), (Forward, RST), (Forward, ACK)]),
            State::Close
        );
    }

    #[test]
    fn only_a_bare_syn_begins() {
        let beginning: Vec<u8> = (0..=0x3f).filter(|&flags| begins(flags)).collect();
        assert_eq!(beginning, [0x02, 0x0a, 0x22, 0x2a]);
    }
}
