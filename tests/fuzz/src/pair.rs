//! What the manager of another node says, or somebody who pretends to be one: tokens, greetings, frames.

use std::sync::OnceLock;

use ilb_pair::frame::{self, Decoder};
use ilb_pair::greeting::{self, Heard, Kind, WINDOW};
use ilb_pair::{Identity, Reason, Secret, Token};

use crate::bytes::Bytes;

/// The first byte chooses what is decoded.
pub fn pair(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    match choice % 6 {
        0 => token(&String::from_utf8_lossy(rest)),
        1 => mistyped(rest),
        2 => stranger(rest),
        3 => changed(rest),
        4 => repeated(&mut Bytes(rest)),
        _ => frames(rest),
    }
}

fn identity() -> &'static Identity {
    static ONE: OnceLock<Identity> = OnceLock::new();
    ONE.get_or_init(|| Identity::generate().expect("random numbers"))
}

const SECRET: Secret = Secret::new([0x11; 32]);

/// What is understood is written as one word, which is understood as the same.
fn token(text: &str) {
    match text.parse::<Token>() {
        Ok(token) => {
            let word = token.to_string();
            assert_eq!((word.len(), word.parse()), (115, Ok(token)));
        }
        Err(error) => assert!(error.to_string().len() < 120),
    }
}

/// Edits of a good token: only what reads as the same letters is taken.
fn mistyped(data: &[u8]) {
    let (secret, edits) = data.split_at(data.len().min(32));
    let mut octets = [0; 32];
    octets[..secret.len()].copy_from_slice(secret);
    let good = Token {
        secret: Secret::new(octets),
        creator: identity().public(),
    };
    let mut letters: Vec<char> = good.to_string().chars().collect();
    for edit in edits.chunks_exact(2) {
        let at = usize::from(edit[0]) % letters.len();
        letters[at] = char::from(edit[1]);
    }
    let text: String = letters.into_iter().collect();
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token, good, "{text}");
    }
}

/// Whoever does not know the secret makes no greeting, whatever he says.
fn stranger(data: &[u8]) {
    let mut said = [0; greeting::LEN];
    let len = data.len().min(said.len());
    said[..len].copy_from_slice(&data[..len]);
    for kind in [Kind::Peer, Kind::Join] {
        let refused = greeting::read(&said, kind, &SECRET).expect_err("a forged greeting");
        let foreign = refused == Reason::Foreign;
        assert_eq!(foreign, !greeting::may_become(&said));
    }
}

/// A good greeting with any octets changed is none.
fn changed(data: &[u8]) {
    static GOOD: OnceLock<[u8; greeting::LEN]> = OnceLock::new();
    let make = || greeting::make(Kind::Peer, &SECRET, identity(), 7, &[3; 16]);
    let good = GOOD.get_or_init(make);
    let mut said = *good;
    for edit in data.chunks_exact(2) {
        said[usize::from(edit[0]) % greeting::LEN] ^= edit[1];
    }
    match greeting::read(&said, Kind::Peer, &SECRET) {
        Ok(greeting) => {
            assert_eq!(&said, good);
            assert!(greeting.is_by(&identity().public()));
        }
        Err(_) => assert_ne!(&said, good),
    }
}

/// Greetings of all times, some more than once, while the clock goes on: held against one who forgets nothing.
fn repeated(bytes: &mut Bytes) {
    let mut heard = Heard::default();
    let (mut now, mut taken) = (1000_u32, Vec::new());
    for _ in 0..40 {
        if bytes.is_over() {
            return;
        }
        now += u32::from(bytes.byte() % 16);
        let minute = now + u32::from(bytes.byte() % 128) - 64;
        let nonce = [bytes.byte() % 4; 16];
        let said = greeting::make(Kind::Join, &SECRET, identity(), minute, &nonce);
        let greeting = greeting::read(&said, Kind::Join, &SECRET).expect("a good one");
        let expected = match (minute.abs_diff(now), taken.contains(&(minute, nonce))) {
            (minutes, _) if minutes > WINDOW => Err(Reason::Clock),
            (_, true) => Err(Reason::Repeated),
            (_, false) => Ok(()),
        };
        assert_eq!(heard.is_new(&greeting, now), expected);
        if expected.is_ok() && !bytes.once_in(4) {
            heard.remember(&greeting);
            taken.push((minute, nonce));
        }
    }
}

/// However the octets are cut, the same messages come out of them, and nothing else.
fn frames(data: &[u8]) {
    let (cuts, mut rest) = data.split_at(data.len().min(4));
    let all = rest;
    let (mut decoder, mut said) = (Decoder::default(), Vec::new());
    let mut cuts = cuts.iter().map(|cut| usize::from(*cut) + 1).cycle();
    while !rest.is_empty() {
        let cut = cuts.next().unwrap_or(1).min(rest.len());
        let (mut piece, later) = rest.split_at(cut);
        rest = later;
        while !piece.is_empty() {
            match decoder.feed(&mut piece) {
                Ok(Some(message)) => {
                    said.extend(frame::head(&message).expect("not too long"));
                    said.extend(message);
                }
                Ok(None) => assert!(piece.is_empty()),
                Err(too_long) => {
                    assert!(all.starts_with(&said));
                    let length = &all[said.len()..][..4];
                    let length = u32::from_be_bytes(length.try_into().expect("four octets"));
                    assert_eq!(too_long.0, length as usize);
                    assert!(too_long.0 > frame::MAX);
                    return;
                }
            }
        }
    }
    assert!(all.starts_with(&said));
    assert_eq!(decoder.is_between(), said.len() == all.len());
}
