use super::*;
use ilb_forwarder::spec::{
    Algorithm, PortMap, PortRange, Protocol, RuleSpec, ServerSpec, Topology, VipSpec,
};

fn spec() -> SnapshotSpec {
    SnapshotSpec {
        generation: 7,
        rules: vec![RuleSpec {
            id: 1,
            name: "web".into(),
            accepting: true,
            vips: vec![VipSpec {
                address: "2001:db8::80".parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: PortRange::single(80),
            }],
            topology: Topology::HalfNat,
            algorithm: Algorithm::HashIpVip,
            proxy_src: vec![],
            servers: vec![ServerSpec {
                id: 3,
                name: "_web.0".into(),
                address: "2001:db8::1".parse().unwrap(),
                ports: PortMap::Shift(8080),
                weight: 1,
                accepting: true,
                ..ServerSpec::default()
            }],
            ..RuleSpec::default()
        }],
        ..SnapshotSpec::default()
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(messages: &[T]) {
    let mut wire = Vec::new();
    for message in messages {
        write_frame(&mut wire, message).unwrap();
    }
    let mut reader = wire.as_slice();
    for message in messages {
        assert_eq!(&read_frame::<_, T>(&mut reader).unwrap().unwrap(), message);
    }
    assert!(read_frame::<_, T>(&mut reader).unwrap().is_none());
}

#[test]
fn every_message_survives_the_wire() {
    round_trip(&[
        Request::Hello {
            version: PROTOCOL_VERSION,
        },
        Request::Apply(spec()),
        Request::Change(SpecChange {
            base: 7,
            generation: 9,
            rules: spec().rules,
            removed: vec![2],
            ..SpecChange::default()
        }),
        Request::Status,
        Request::Statistics,
        Request::StatisticsOf(vec![(1, 0), (2, 3)]),
        Request::Explain(explain::Query::default()),
        Request::Connections(listing::Query::default()),
        Request::PoolExport { rule: 7 },
        Request::Close(BTreeSet::from(
            ["192.0.2.80", "2001:db8::80"].map(|it| it.parse().unwrap()),
        )),
    ]);
    let counters = Counters {
        packets: u64::MAX,
        connections_open: 3,
        ..Counters::default()
    };
    round_trip(&[
        Response::Hello(Hello {
            version: 1,
            pid: 4711,
            start_id: u64::MAX,
            generation: 7,
            limits: Limits {
                new_flows_per_second: 9,
                ..Limits::default()
            },
        }),
        Response::Applied { generation: 7 },
        Response::Gap { generation: 6 },
        Response::Closed,
        Response::Rejected {
            generation: 8,
            reason: "two rules claim 192.0.2.1 tcp 80".into(),
        },
        Response::Status(Status {
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                mode: XdpMode::Native,
                copy_reason: "veth has no zero copy".into(),
                ..InterfaceStatus::default()
            }],
            ..Status::default()
        }),
        Response::Statistics(Statistics {
            start_id: 1,
            totals: counters,
            drops: BTreeMap::from([("malformed".into(), 2)]),
            rules: vec![RuleStatistics {
                id: 1,
                counters,
                servers: vec![ServerStatistics { id: 3, counters }],
            }],
        }),
        Response::Connections(listing::Page {
            next: Some(3),
            ..listing::Page::default()
        }),
        Response::Pool(vec![PoolVersion {
            number: 5,
            servers: vec![(1, 100)],
            bytes: "696c62".into(),
            ..PoolVersion::default()
        }]),
        Response::Error {
            message: "no".into(),
        },
    ]);
}

#[test]
fn the_wire_format_is_fixed() {
    let frame = encode(&Request::Hello { version: 1 }).unwrap();
    assert_eq!(frame, b"\x00\x00\x00\x17{\"hello\":{\"version\":1}}");
    assert_eq!(
        encode(&Request::Status).unwrap(),
        b"\x00\x00\x00\x08\"status\""
    );
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_defaulted() {
    let hello: Response = decode(br#"{"hello":{"version":9,"colour":"red"}}"#).unwrap();
    assert_eq!(
        hello,
        Response::Hello(Hello {
            version: 9,
            ..Hello::default()
        })
    );
    let counters: Counters = decode(br#"{"packets":4,"later":1}"#).unwrap();
    assert_eq!(counters.packets, 4);
}

#[test]
fn bad_lengths_are_refused_before_anything_is_read() {
    assert!(matches!(frame_length([0; 4]), Err(FrameError::Length(0))));
    let mut huge: &[u8] = &[0xff, 0xff, 0xff, 0xff, b'{'];
    assert!(matches!(
        read_frame::<_, Request>(&mut huge),
        Err(FrameError::Length(0xffff_ffff))
    ));
    let limit = u32::try_from(MAX_FRAME).unwrap();
    assert_eq!(frame_length(limit.to_be_bytes()).unwrap(), MAX_FRAME);
    assert!(frame_length((limit + 1).to_be_bytes()).is_err());
}

#[test]
fn a_cut_frame_is_named_as_such() {
    let frame = encode(&Request::Statistics).unwrap();
    for end in 1..frame.len() {
        assert!(
            matches!(
                read_frame::<_, Request>(&mut &frame[..end]),
                Err(FrameError::Truncated { .. })
            ),
            "cut after {end} bytes"
        );
    }
}

#[test]
fn a_bad_body_leaves_the_next_frame_readable() {
    let mut wire = vec![0, 0, 0, 5];
    wire.extend(b"\"fly\"");
    write_frame(&mut wire, &Request::Status).unwrap();
    let mut reader = wire.as_slice();
    let error = read_frame::<_, Request>(&mut reader).unwrap_err();
    assert!(matches!(error, FrameError::Body(_)), "{error}");
    assert_eq!(
        read_frame::<_, Request>(&mut reader).unwrap(),
        Some(Request::Status)
    );
}

#[test]
fn counters_add_up_and_forget_their_gauges() {
    let one = Counters {
        packets: 2,
        connections_open: 5,
        connections_total: 6,
        ..Counters::default()
    };
    let mut sum = one;
    sum.add(&one);
    assert_eq!((sum.packets, sum.connections_open), (4, 10));
    let rest = sum.without_gauges();
    assert_eq!(
        (rest.packets, rest.connections_open, rest.connections_total),
        (4, 0, 0)
    );
    assert_eq!(one.entries().count(), Counters::LABELS.len());
    assert!(one.entries().any(|e| e == ("connections-open", 5)));
}
