//! A question to a name server over UDP.

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use libilb::health::{Code, Layer};
use libilb::healthcheck::Dns;

use super::socket::Way;
use crate::dns::message::{self, Answer, NotOurs};
use crate::outcome::{Failure, Success};
use crate::random::Random;

/// Longest answer that is looked at: what a server may send to a question without EDNS is 512.
const MAX_ANSWER: usize = 4096;
/// Most records that are looked at.
const MAX_RECORDS: u16 = 64;

pub async fn probe(place: SocketAddr, way: &Way, dns: &Dns) -> Result<Success, Failure> {
    let failed = |error: std::io::Error| Failure::of_socket(Layer::L4, &error);
    let mut socket = way.datagrams(place).await.map_err(failed)?;
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let id = Random::new(u64::try_from(clock.as_nanos()).unwrap_or(0)).any();
    let id = u16::try_from(id & 0xffff).unwrap_or_default();
    let question = message::question(id, &dns.query, dns.record_type);
    socket.send(&question).await.map_err(failed)?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(failed)?;
        match message::answer(&buffer[..length], &question, MAX_RECORDS) {
            // From somebody who guesses, or to another question: ours may still come.
            Err(NotOurs) => {}
            Ok(answer) => return judge(dns, &answer?),
        }
    }
}

fn judge(dns: &Dns, answer: &Answer) -> Result<Success, Failure> {
    if answer.code != 0 {
        let words = message::response_code(answer.code);
        return Err(Failure::new(Layer::L7, Code::Status, words).with_number(answer.code));
    }
    let records = answer.records.iter();
    let texts: Vec<String> = records.map(|entry| entry.record.to_string()).collect();
    if let Some(expected) = &dns.answer {
        let same = |text: &String| {
            let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            bare(text) == bare(expected)
        };
        // Addresses may be written in several ways.
        let address: Option<IpAddr> = expected.parse().ok();
        let found = answer
            .records
            .iter()
            .any(|entry| address.is_some() && entry.record.address() == address);
        if !found && !texts.iter().any(same) {
            let words = match (texts.is_empty(), answer.truncated) {
                (_, true) => "the answer is cut off".to_string(),
                (true, _) => "the answer is empty".to_string(),
                (false, _) => format!("the answer is {}", texts.join(", ")),
            };
            return Err(Failure::new(Layer::L7, Code::Answer, words));
        }
    }
    Ok(Success {
        words: texts.join(", "),
        ..Success::at(Layer::L7)
    })
}
