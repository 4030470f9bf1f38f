//! Records, frames and secrets as they are written and read.

use ilb_sync::frame::{Frame, Payload};
use ilb_sync::{Claim, Connection, Record, Secret, State, Traces};
use proptest::prelude::*;

fn address() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Into::into),
        any::<[u8; 16]>().prop_map(Into::into),
    ]
}

prop_compose! {
    fn connection()(
        state in prop::sample::select(&State::ALL[..]), protocol: u8, vip_index: u8, place: u64, client in address(),
        client_port: u16, vip_port: u16, nat: Option<(u16, u8)>, idle: u16,
    ) -> Connection {
        Connection { state, protocol, vip_index, place, client, client_port, vip_port, nat, idle }
    }
}

fn record() -> impl Strategy<Value = Record> {
    let claim = (any::<u64>(), address(), any::<u8>(), any::<u16>());
    prop_oneof![
        connection().prop_map(Record::Connection),
        claim.prop_map(|(place, client, nat_index, idle)| Record::Claim(Claim {
            place,
            client,
            nat_index,
            idle
        })),
        connection().prop_map(|it| Record::End(it.end())),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        prop::collection::vec(record(), 0..30).prop_map(Frame::Records),
        (
            any::<u64>(),
            prop::collection::vec(any::<(u64, u32)>(), 0..32)
        )
            .prop_map(|(upto, gaps)| Frame::Ack { upto, gaps }),
        any::<u32>().prop_map(Frame::Want),
        any::<u32>().prop_map(Frame::Done),
        (
            any::<u32>(),
            any::<Option<u16>>(),
            any::<bool>(),
            prop::collection::btree_set(any::<u32>(), 0..300)
        )
            .prop_map(|(round, inherited, over, traces)| Frame::Traces(Traces {
                round,
                inherited,
                over,
                traces: traces.into_iter().collect(),
            })),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(floor: u64, wants_ack: bool, frames in prop::collection::vec(frame(), 0..5)) {
        let payload = Payload { floor, wants_ack, frames };
        prop_assert_eq!(Payload::decode(&payload.encode()), Some(payload));
    }

    #[test]
    fn what_is_cut_off_is_not_read(frames in prop::collection::vec(frame(), 1..4), cut in 1usize..20) {
        let bytes = Payload { frames, ..Payload::default() }.encode();
        let short = &bytes[..bytes.len().saturating_sub(cut)];
        if let Some(read) = Payload::decode(short) {
            // Cut between two frames.
            prop_assert_eq!(read.encode(), short);
        }
    }
}

#[test]
fn a_record_has_the_size_that_is_documented() {
    let v4 = Connection {
        state: State::Established,
        protocol: 6,
        vip_index: 0,
        place: 1,
        client: [192, 0, 2, 1].into(),
        client_port: 4000,
        vip_port: 80,
        nat: None,
        idle: 0,
    };
    let nat = Connection {
        nat: Some((1024, 1)),
        ..v4
    };
    let v6 = Connection {
        client: [0; 16].into(),
        ..nat
    };
    let length = |record: Record| {
        let mut out = Vec::new();
        record.encode(&mut out);
        out.len()
    };
    assert_eq!(
        [v4, nat, v6].map(|it| length(Record::Connection(it))),
        [22, 25, 37]
    );
    assert_eq!(ilb_sync::record::LONGEST, 37);
}

#[test]
fn what_is_not_understood_is_nothing_and_unknown_frames_are_left_out() {
    let head = [0u8; 9];
    let with = |rest: &[u8]| Payload::decode(&[&head, rest].concat());
    let frames = |rest| with(rest).map(|payload| payload.frames);
    type Case = (&'static str, &'static [u8], Option<Vec<Frame>>);
    #[rustfmt::skip]
    let table: [Case; 13] = [
        ("nothing", &[], Some(vec![])),
        ("a frame of a later version", &[99, 0, 2, 1, 2], Some(vec![])),
        ("one, and one that we know", &[99, 0, 0, 3, 0, 4, 0, 0, 0, 7], Some(vec![Frame::Want(7)])),
        ("a frame that is cut off", &[3, 0, 4, 0, 0, 0], None),
        ("a frame that is too long", &[3, 0, 5, 0, 0, 0, 7, 0], None),
        ("a record of no kind", &[2, 0, 1, 0x0f], None),
        ("a record with flags that it cannot have", &[2, 0, 1, 0x83], None),
        ("a record in a state that is not told of", &[2, 0, 2, 1, 0], None),
        ("a piece, as the first version knew it", &[5, 0, 1, 9], Some(vec![])),
        ("traces with a flag that there is not", &[6, 0, 10, 0, 0, 0, 1, 4, 0, 0, 3, 0, 0], None),
        ("traces with an age that nobody gave them", &[6, 0, 10, 0, 0, 0, 1, 0, 0, 1, 3, 0, 0], None),
        ("more traces than there are octets for", &[6, 0, 14, 0, 0, 0, 1, 0, 0, 0, 3, 0, 9, 1, 2, 3, 4], None),
        ("a trace above the highest", &[6, 0, 15, 0, 0, 0, 1, 0, 0, 0, 3, 0, 2, 255, 255, 255, 255, 0], None),
    ];
    for (what, bytes, expected) in table {
        assert_eq!(frames(bytes), expected, "{what}");
    }
    assert_eq!(Payload::decode(&[0; 8]), None);
}

#[test]
fn secrets_are_64_hexadecimal_digits_and_are_not_shown() {
    let digits = "00112233445566778899aabbccddeeff".repeat(2);
    let secret = Secret::from_hex(&digits).unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(…)");
    assert_eq!(Secret::from_hex(&digits.to_uppercase()), Some(secret));
    for wrong in [
        "",
        "00",
        &digits[1..],
        &digits.replace('f', "g"),
        &digits.replacen("00", "+1", 1),
    ] {
        assert_eq!(Secret::from_hex(wrong), None, "{wrong}");
    }
}
