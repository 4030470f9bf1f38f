//! What comes from a peer, or from who would like to pass for one: any bytes as a datagram, and any bytes below a seal.

use ilb_sync::frame::Payload;
use ilb_sync::seal::{self, Greeter, Greeting, Token};
use ilb_sync::{Claim, End, Event, Record, Secret, Session, Settings, Table};

struct Nothing;

impl Table for Nothing {
    fn size(&self) -> u32 {
        4
    }
    fn read(&mut self, entry: u32) -> Option<Record> {
        Some(Record::Claim(Claim {
            place: u64::from(entry),
            client: [192, 0, 2, 1].into(),
            nat_index: 0,
            idle: 0,
        }))
    }
    fn has(&mut self, _: &End) -> bool {
        false
    }
    fn trace(&mut self, entry: u32) -> Option<u32> {
        Some(entry << 20)
    }
    fn inherited(&mut self) -> Option<(Vec<u32>, u16)> {
        Some((vec![7, 3], 60))
    }
}

const SECRET: Secret = Secret::new([3; seal::SECRET_LEN]);
/// What the other end says in its greetings.
const THEIRS: Token = [9; 16];

fn session() -> Session {
    let settings = Settings {
        node: 0,
        secret: SECRET,
        bandwidth: 0,
        datagram: 600,
    };
    let mut drawn = 0;
    let draw = move || -> Token {
        drawn += 1;
        [drawn; 16]
    };
    Session::new(settings, 4, draw, 0)
}

/// The first byte chooses: datagrams as they are, or payloads that a peer with our key sends.
pub fn sync(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    if let Some(payload) = Payload::decode(rest) {
        let written = payload.encode();
        assert_eq!(
            Payload::decode(&written),
            Some(payload),
            "it is read as it was written"
        );
    }
    match choice % 2 {
        0 => strangers(rest),
        _ => peer(rest),
    }
}

/// Nothing that a stranger says begins a session, and nothing makes us say more than he did.
fn strangers(bytes: &[u8]) {
    let (mut session, mut events) = (session(), Vec::new());
    for (at, part) in bytes.split(|byte| *byte == 0xfe).enumerate() {
        let mut part = part.to_vec();
        assert!(session.handle(&mut part, at as u64, &mut events).is_err());
    }
    assert!(events.is_empty() && !session.is_up());
}

/// A peer may say what it likes: it is understood, or counted; a bounded number of datagrams comes of each.
fn peer(bytes: &[u8]) {
    let (mut session, mut events) = (session(), Vec::new());
    let other = Greeter::new(&SECRET, 1);
    // The second number that was drawn is the nonce of our first greeting.
    let ours: Token = [2; 16];
    let mut greeting = other.greet(&Greeting {
        nonce: THEIRS,
        echo: ours,
        incarnation: 5,
    });
    assert_eq!(session.handle(&mut greeting, 0, &mut events), Ok(()));
    let keys = other.session(&THEIRS, &ours);
    let (mut now, mut number) = (0, 0);
    for part in bytes.split(|byte| *byte == 0xfe) {
        number += 1 + u64::from(part.first().copied().unwrap_or(0) % 4);
        now += 50;
        let mut datagram = keys.seal(number, part);
        let (up, readable) = (session.is_up(), Payload::decode(part).is_some());
        let understood = session.handle(&mut datagram, now, &mut events).is_ok();
        assert!(readable || !understood, "what cannot be read is refused");
        // Who says nothing that is understood for long is gone, and its session with it.
        assert!(understood || !(up && readable), "in a session it is taken");
        let mut sent = 0;
        while let Some(datagram) = session.poll(&mut Nothing, now, &mut events) {
            assert!(datagram.len() <= 1500);
            sent += 1;
            assert!(sent < 100, "it comes to an end");
        }
    }
    let (mut records, mut traces) = (0, 0);
    for event in &events {
        match event {
            Event::Record(_) => records += 1,
            Event::Traces(it) => {
                assert!(
                    it.traces.is_sorted_by(|a, b| a < b),
                    "ascending, none twice"
                );
                traces += it.traces.len() as u64;
            }
            _ => {}
        }
    }
    let counters = session.counters();
    assert_eq!(
        (records, traces),
        (counters.received_records, counters.received_traces)
    );
}
