use super::*;
use Direction::{Forward, Reverse};
use tcp::{ACK, FIN, RST, SYN};

const TCP: [State; 7] = [
    State::SynReceived,
    State::Established,
    State::FinWait,
    State::CloseWait,
    State::LastAck,
    State::TimeWait,
    State::Close,
];

/// Packets of one life.
type Steps<'a> = &'a [(Direction, u8)];

fn run(steps: Steps) -> State {
    steps
        .iter()
        .fold(State::SynReceived, |state, &(direction, flags)| {
            after(state, direction, flags)
        })
}

/// Two letters for a state.
fn short(state: State) -> &'static str {
    match state {
        State::SynReceived => "SR",
        State::Established => "ES",
        State::FinWait => "FW",
        State::CloseWait => "CW",
        State::LastAck => "LA",
        State::TimeWait => "TW",
        State::Close => "CL",
        State::Fresh => "fr",
        State::Flowing => "fl",
        State::Persistence => "pe",
        State::Offered => "of",
    }
}

/// Checks a table of transitions: a line for an event, a column for each state in the order of `State::ALL`.
fn check(table: &[(&str, Direction, u8, &str)], after: fn(State, Direction, u8) -> State) {
    for (name, direction, event, expected) in table {
        let got: Vec<_> = State::ALL
            .iter()
            .map(|&state| short(after(state, *direction, *event)))
            .collect();
        assert_eq!(got.join(" "), *expected, "{name} {direction:?}");
    }
}

#[test]
fn every_pair_of_tcp() {
    #[rustfmt::skip]
    let table = [
        // from state:                   SR ES FW CW LA TW CL fr fl pe of
        ("SYN",     Forward, SYN,       "SR ES FW CW LA TW CL fr fl pe of"),
        ("SYN",     Reverse, SYN,       "SR ES FW CW LA TW CL fr fl pe of"),
        ("SYN ACK", Forward, SYN | ACK, "SR ES FW CW LA TW CL fr fl pe of"),
        ("SYN ACK", Reverse, SYN | ACK, "SR ES FW CW LA TW CL fr fl pe of"),
        ("ACK",     Forward, ACK,       "ES ES FW CW LA TW ES fr fl pe of"),
        ("ACK",     Reverse, ACK,       "SR ES FW CW LA TW CL fr fl pe of"),
        ("FIN",     Forward, FIN | ACK, "FW FW FW LA LA TW FW fr fl pe of"),
        ("FIN",     Reverse, FIN | ACK, "CW CW TW CW LA TW CL fr fl pe of"),
        ("RST",     Forward, RST,       "CL CL CL CL CL CL CL fr fl pe of"),
        ("RST",     Reverse, RST | ACK, "CL CL CL CL CL CL CL fr fl pe of"),
        ("nothing", Forward, 0,         "SR ES FW CW LA TW CL fr fl pe of"),
        ("nothing", Reverse, 0,         "SR ES FW CW LA TW CL fr fl pe of"),
    ];
    check(&table, after);
}

#[test]
fn every_pair_of_sctp() {
    const DATA: u8 = 0;
    #[rustfmt::skip]
    let table = [
        // from state:                                   SR ES FW CW LA TW CL fr fl pe of
        ("INIT",         Forward, sctp::INIT,           "SR ES FW CW LA TW CL fr fl pe of"),
        ("INIT",         Reverse, sctp::INIT,           "SR ES FW CW LA TW CL fr fl pe of"),
        ("INIT ACK",     Forward, sctp::INIT_ACK,       "SR ES FW CW LA TW CL fr fl pe of"),
        ("INIT ACK",     Reverse, sctp::INIT_ACK,       "SR ES FW CW LA TW CL fr fl pe of"),
        ("COOKIE ECHO",  Forward, sctp::COOKIE_ECHO,    "ES ES FW CW LA TW ES fr fl pe of"),
        ("COOKIE ECHO",  Reverse, sctp::COOKIE_ECHO,    "SR ES FW CW LA TW CL fr fl pe of"),
        ("COOKIE ACK",   Forward, sctp::COOKIE_ACK,     "ES ES FW CW LA TW ES fr fl pe of"),
        ("COOKIE ACK",   Reverse, sctp::COOKIE_ACK,     "ES ES FW CW LA TW CL fr fl pe of"),
        ("SHUTDOWN",     Forward, sctp::SHUTDOWN,       "FW FW FW LA LA TW FW fr fl pe of"),
        ("SHUTDOWN",     Reverse, sctp::SHUTDOWN,       "CW CW TW CW LA TW CL fr fl pe of"),
        ("SHUTDOWN ACK", Forward, sctp::SHUTDOWN_ACK,   "LA LA TW LA LA TW LA fr fl pe of"),
        ("SHUTDOWN ACK", Reverse, sctp::SHUTDOWN_ACK,   "TW TW TW LA LA TW CL fr fl pe of"),
        ("COMPLETE",     Forward, sctp::SHUTDOWN_COMPLETE, "CL CL CL CL CL CL CL fr fl pe of"),
        ("COMPLETE",     Reverse, sctp::SHUTDOWN_COMPLETE, "CL CL CL CL CL CL CL fr fl pe of"),
        ("ABORT",        Forward, sctp::ABORT,          "CL CL CL CL CL CL CL fr fl pe of"),
        ("ABORT",        Reverse, sctp::ABORT,          "CL CL CL CL CL CL CL fr fl pe of"),
        ("DATA",         Forward, DATA,                 "SR ES FW CW LA TW ES fr fl pe of"),
        ("DATA",         Reverse, DATA,                 "SR ES FW CW LA TW CL fr fl pe of"),
    ];
    check(&table, after_sctp);
    for direction in [Forward, Reverse] {
        for state in State::ALL {
            for chunk in (0..=255).filter(|&chunk| Chunk::of(chunk) == Chunk::Other) {
                let as_data = after_sctp(state, direction, DATA);
                assert_eq!(after_sctp(state, direction, chunk), as_data, "{chunk}");
            }
        }
    }
}

#[test]
fn every_combination_of_flags_is_one_segment() {
    for flags in 0..=0xff_u8 {
        let has = |flag| flags & flag != 0;
        let expected = if has(RST) {
            Segment::Rst
        } else if has(SYN) && has(FIN) || !has(SYN) && !has(ACK) {
            Segment::Other
        } else if has(SYN) {
            if has(ACK) {
                Segment::SynAck
            } else {
                Segment::Syn
            }
        } else if has(FIN) {
            Segment::Fin
        } else {
            Segment::Ack
        };
        assert_eq!(Segment::of(flags), expected, "{flags:#x}");
        assert_eq!(begins(flags), expected == Segment::Syn, "{flags:#x}");
    }
}

#[test]
fn lives_of_connections() {
    let open = [(Reverse, SYN | ACK), (Forward, ACK)];
    #[rustfmt::skip]
    let table: [(&str, Steps, State); 12] = [
        ("answered", &[(Reverse, SYN | ACK)], State::SynReceived),
        ("repeated", &[(Forward, SYN)], State::SynReceived),
        ("refused", &[(Reverse, RST | ACK)], State::Close),
        ("open", &[], State::Established),
        ("client closes", &[(Forward, FIN | ACK)], State::FinWait),
        ("client closes first", &[(Forward, FIN | ACK), (Reverse, FIN | ACK), (Forward, ACK)], State::TimeWait),
        ("server closes first", &[(Reverse, FIN | ACK), (Forward, FIN | ACK), (Reverse, ACK)], State::LastAck),
        ("server closes", &[(Reverse, FIN | ACK), (Forward, ACK)], State::CloseWait),
        ("client receives on after its FIN, DSR", &[(Forward, FIN | ACK), (Forward, ACK)], State::FinWait),
        ("client resets while the server sends", &[(Forward, RST), (Reverse, ACK)], State::Close),
        ("server resets while the client sends", &[(Reverse, RST), (Forward, ACK), (Reverse, RST)], State::Close),
        ("forged reset", &[(Forward, RST), (Reverse, ACK), (Forward, ACK)], State::Established),
    ];
    for (what, steps, expected) in table {
        let handshake = matches!(what, "answered" | "repeated" | "refused");
        let all: Vec<_> = if handshake {
            steps.to_vec()
        } else {
            open.iter().chain(steps).copied().collect()
        };
        assert_eq!(run(&all), expected, "{what}");
    }
}

#[test]
fn a_blind_syn_never_moves_anything() {
    for state in State::ALL {
        assert_eq!(after(state, Forward, SYN), state);
        assert_eq!(after_sctp(state, Forward, sctp::INIT), state);
    }
}

#[test]
fn only_a_bare_syn_begins() {
    let beginning: Vec<u8> = (0..=0x3f).filter(|&flags| begins(flags)).collect();
    assert_eq!(beginning, [0x02, 0x0a, 0x22, 0x2a]);
}

#[test]
fn first_states() {
    let headers = |protocol, tcp_flags, message| Headers {
        tuple: crate::packet::Tuple {
            protocol,
            ..Default::default()
        },
        tcp_flags,
        message,
        ..Headers::default()
    };
    #[rustfmt::skip]
    let table = [
        (headers(protocol::TCP, SYN, 0), State::SynReceived),
        (headers(protocol::TCP, ACK, 0), State::Established),
        (headers(protocol::TCP, FIN | ACK, 0), State::FinWait),
        (headers(protocol::TCP, RST, 0), State::Close),
        (headers(protocol::SCTP, 0, sctp::INIT), State::SynReceived),
        (headers(protocol::SCTP, 0, 0), State::Established),
        (headers(protocol::SCTP, 0, sctp::SHUTDOWN), State::FinWait),
        (headers(protocol::UDP, 0, 0), State::Fresh),
        (headers(47, 0, 0), State::Fresh),
    ];
    for (headers, expected) in table {
        assert_eq!(first(&headers), expected, "{headers:?}");
    }
}

#[test]
fn each_state_has_its_own_time() {
    let timeouts = Timeouts {
        tcp_established: 1,
        tcp_syn_received: 2,
        tcp_fin_wait: 3,
        tcp_time_wait: 4,
        tcp_close: 5,
        tcp_close_wait: 6,
        tcp_last_ack: 7,
        udp: 8,
        sctp: 9,
        icmp: 10,
        other: 11,
    };
    let tcp: Vec<_> = TCP.iter().map(|&s| timeout(s, 6, &timeouts)).collect();
    assert_eq!(tcp, [2, 1, 3, 6, 7, 4, 5]);
    let sctp: Vec<_> = TCP.iter().map(|&s| timeout(s, 132, &timeouts)).collect();
    assert_eq!(sctp, [2, 9, 3, 6, 7, 4, 5]);
    for state in [State::Fresh, State::Flowing] {
        let others = [17, 1, 58, 47].map(|protocol| timeout(state, protocol, &timeouts));
        assert_eq!(others, [8, 10, 10, 11]);
    }
}
