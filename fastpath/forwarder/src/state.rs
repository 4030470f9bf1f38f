//! The life of a TCP connection as a balancer sees it, which under DSR is only the client's half.

use crate::packet::tcp;
use crate::spec::Timeouts;
use crate::table::{Connection, Direction, State};

/// The state after a TCP segment with these flags.
#[inline(always)]
pub fn after(state: State, direction: Direction, flags: u8) -> State {
    if flags & tcp::RST != 0 {
        return State::Reset;
    }
    let state = match (state, direction) {
        // The handshake is over when the client acknowledges.
        (State::Syn, Direction::Forward) if flags & (tcp::ACK | tcp::SYN) == tcp::ACK => {
            State::Established
        }
        (state, _) => state,
    };
    if flags & tcp::FIN == 0 {
        return state;
    }
    match (state, direction) {
        (State::Syn | State::Established, Direction::Forward) => State::ClientClosed,
        (State::Syn | State::Established, Direction::Reverse) => State::ServerClosed,
        (State::ClientClosed, Direction::Reverse) | (State::ServerClosed, Direction::Forward) => {
            State::Closed
        }
        (state, _) => state,
    }
}

/// Whether a segment begins a connection.
#[inline(always)]
pub fn begins(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether the client, when it begins a connection from the same port, cannot mean the one in this state any more.
#[inline(always)]
pub fn is_over_for_client(state: State) -> bool {
    match state {
        State::ClientClosed | State::Closed | State::Reset => true,
        State::Syn | State::Established | State::ServerClosed | State::Udp => false,
    }
}

/// Seconds without a packet after which a connection in this state is forgotten.
pub fn timeout(state: State, timeouts: &Timeouts) -> u32 {
    match state {
        State::Syn => timeouts.tcp_syn,
        State::Established => timeouts.tcp_established,
        State::ClientClosed | State::ServerClosed | State::Closed => timeouts.tcp_fin,
        State::Reset => timeouts.tcp_close,
        State::Udp => timeouts.udp,
    }
}

/// Whether somebody would miss the connection: it is open, or was closed so lately that segments may still be on
/// their way. What is drained is waited for only as long as this holds.
pub fn is_open(connection: &Connection, now: u32) -> bool {
    let idle = now.saturating_sub(connection.last_seen);
    match connection.state {
        State::Established | State::Udp => true,
        // A client repeats its SYN after 1, 3 and 7 s.
        State::Syn => idle <= 8,
        State::ClientClosed | State::ServerClosed => idle <= 5,
        State::Closed | State::Reset => idle <= 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcp::{ACK, FIN, RST, SYN};

    fn run(steps: &[(Direction, u8)]) -> State {
        steps.iter().fold(State::Syn, |state, &(direction, flags)| {
            after(state, direction, flags)
        })
    }

    #[test]
    fn lives_of_connections() {
        use Direction::{Forward, Reverse};
        assert_eq!(run(&[(Reverse, SYN | ACK)]), State::Syn);
        assert_eq!(
            run(&[(Reverse, SYN | ACK), (Forward, ACK)]),
            State::Established
        );
        assert_eq!(
            run(&[(Forward, ACK), (Forward, FIN | ACK)]),
            State::ClientClosed
        );
        assert_eq!(
            run(&[(Forward, ACK), (Forward, FIN | ACK), (Reverse, FIN | ACK)]),
            State::Closed
        );
        assert_eq!(
            run(&[(Forward, ACK), (Reverse, FIN | ACK), (Forward, FIN | ACK)]),
            State::Closed
        );
        assert_eq!(
            run(&[(Forward, ACK), (Reverse, FIN | ACK), (Forward, ACK)]),
            State::ServerClosed
        );
        assert_eq!(run(&[(Forward, SYN)]), State::Syn);
        assert_eq!(run(&[(Reverse, RST | ACK)]), State::Reset);
        assert_eq!(
            run(&[(Forward, ACK), (Forward, RST), (Forward, ACK)]),
            State::Reset
        );
    }

    #[test]
    fn only_a_bare_syn_begins() {
        let beginning: Vec<u8> = (0..=0x3f).filter(|&flags| begins(flags)).collect();
        assert_eq!(beginning, [0x02, 0x0a, 0x22, 0x2a]);
    }
}
