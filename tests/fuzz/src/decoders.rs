//! Everything that reads bytes which somebody else wrote.

use ilb_forwarder::Snapshot;
use ilb_forwarder::packet::{self, Headers, Kind};
use ilb_forwarder::spec::SnapshotSpec;
use ilb_node::control::{self, FrameError, Request, Response};
use ilb_node::settings::Settings;

fn within(headers: &Headers, frame: &[u8], at: usize) {
    let (l3, l4, end) = (
        headers.l3 as usize,
        headers.l4 as usize,
        headers.end as usize,
    );
    assert!(
        at == l3 && l3 < l4 && l4 <= end && end <= frame.len(),
        "{headers:?} of {} bytes",
        frame.len()
    );
    if headers.kind == Kind::Transport && matches!(headers.tuple.protocol, 6 | 17 | 132) {
        assert!(end - l4 >= 8, "ports lie within the packet: {headers:?}");
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(
            (port(l4), port(l4 + 2)),
            (headers.tuple.sport, headers.tuple.dport)
        );
    }
}

/// A received frame: offsets lie within it, and what lies behind the IP packet does not matter.
pub fn packet(data: &[u8]) {
    let Ok(headers) = packet::parse(data) else {
        return;
    };
    within(&headers, data, packet::ETHERNET);
    let exact =
        packet::parse(&data[..headers.end as usize]).expect("without padding it parses, too");
    assert_eq!(exact.tuple, headers.tuple);
    assert_eq!(
        (exact.kind, exact.l4, exact.end, exact.fragment),
        (headers.kind, headers.l4, headers.end, headers.fragment)
    );
}

/// A packet that an ICMP error quotes, anywhere in a frame.
pub fn quoted(data: &[u8]) {
    let Some((&first, frame)) = data.split_first() else {
        return;
    };
    let at = (first >> 1) as usize;
    if let Some(headers) = packet::parse_quoted(frame, at, first & 1 == 0) {
        within(&headers, frame, at);
    }
}

/// What comes in by the control socket, as either side reads it: no panic, no more memory than bytes that came, and
/// a message that was understood is understood again after it was written.
pub fn control(data: &[u8]) {
    let mut requests = data;
    loop {
        match control::read_frame::<_, Request>(&mut requests) {
            Ok(Some(request)) => {
                let wire = control::encode(&request).expect("what was read can be written");
                let again: Request =
                    control::decode(&wire[control::LENGTH_BYTES..]).expect("and read again");
                assert_eq!(again, request);
                if let Request::Apply(spec) = request {
                    compile(&spec);
                }
            }
            Err(FrameError::Body(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let mut responses = data;
    while let Ok(Some(_)) | Err(FrameError::Body(_)) =
        control::read_frame::<_, Response>(&mut responses)
    {}
    if let Ok(request) = control::decode::<Request>(data) {
        control::encode(&request).expect("what was read can be written");
    }
}

/// The node settings file: no panic, and every mistake has words.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Settings::parse(text) {
        Ok(settings) => {
            settings.control_socket();
            settings.table_file();
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(
                mistakes
                    .iter()
                    .all(|mistake| !mistake.to_string().is_empty()),
                "a mistake without words"
            );
        }
    }
}

/// A snapshot as JSON (`snapshot.last`, or the manager's): compiled or refused with words, never a panic.
pub fn snapshot(data: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<SnapshotSpec>(data) {
        compile(&spec);
    }
}

fn compile(spec: &SnapshotSpec) {
    match Snapshot::compile(spec, None, 1) {
        Ok(first) => {
            assert_eq!(first.generation(), spec.generation);
            assert_eq!(first.rules().len(), spec.rules.len());
            let second = Snapshot::compile(spec, Some(&first), 1);
            assert!(
                second.is_ok(),
                "what compiled once compiles as its own successor"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
