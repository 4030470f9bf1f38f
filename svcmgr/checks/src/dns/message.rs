//! Questions and answers of the DNS as octets (RFC 1035): pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libilb::health::{Code, Layer};
use libilb::healthcheck::RecordType;

use crate::outcome::Failure;

const HEADER: usize = 12;
/// Internet.
const CLASS_IN: u16 = 1;
/// Most jumps within one name.
const MAX_JUMPS: usize = 16;

/// An answer that is not to our question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

/// What a name server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 0 for no error.
    pub code: u8,
    /// Whether there was more than fits.
    pub truncated: bool,
    /// Those of the answer section that we can read.
    pub records: Vec<Entry>,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is, in lower case, with the dot at its end.
    pub owner: String,
    /// Seconds for which it may be remembered.
    pub ttl: u32,
    /// What it says.
    pub record: Record,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME: the name that has the records.
    Alias(String),
    /// NS, PTR; the target of MX; the server of SOA.
    Name(String),
    /// SRV (RFC 2782).
    Service(Service),
    /// TXT.
    Text(String),
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Lower ones are to be used first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// The name of the host.
    pub target: String,
}

impl Record {
    /// The address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Record::Address(address) => Some(*address),
            Record::Alias(_) | Record::Name(_) | Record::Service(_) | Record::Text(_) => None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Address(address) => address.fmt(f),
            Record::Alias(text) | Record::Name(text) | Record::Text(text) => f.write_str(text),
            Record::Service(service) => f.write_str(&service.target),
        }
    }
}

/// A question with recursion desired. The name has been validated with the check.
pub fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + name.len() + 6);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        packet.push(u8::try_from(label.len()).unwrap_or(63));
        packet.extend(label);
    }
    packet.push(0);
    packet.extend(kind.number().to_be_bytes());
    packet.extend(CLASS_IN.to_be_bytes());
    packet
}

/// Reads what came back for a question: `most` records, others are left out.
///
/// # Errors
/// [`NotOurs`] for another question's answer; a [`Failure`] for ours if it is malformed.
pub fn answer(
    packet: &[u8],
    question: &[u8],
    most: u16,
) -> Result<Result<Answer, Failure>, NotOurs> {
    let (Some(header), Some(id)) = (packet.get(..HEADER), question.get(..2)) else {
        return Err(NotOurs);
    };
    // A response with our id.
    if &header[..2] != id || header[2] & 0x80 == 0 {
        return Err(NotOurs);
    }
    let asked = question.get(HEADER..).unwrap_or_default();
    let code = header[3] & 15;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    // Servers may leave the question out where they answer with an error.
    let at = match questions {
        0 if code != 0 => HEADER,
        1 => {
            let echoed = packet.get(HEADER..HEADER + asked.len()).ok_or(NotOurs)?;
            if !echoed.eq_ignore_ascii_case(asked) {
                return Err(NotOurs);
            }
            HEADER + asked.len()
        }
        _ => return Err(NotOurs),
    };
    let truncated = header[2] & 2 != 0;
    let count = u16::from_be_bytes([header[6], header[7]]).min(most);
    let mut records = Vec::new();
    let mut at = at;
    for _ in 0..count {
        match record(packet, &mut at) {
            Some(record) => records.extend(record),
            None if truncated => break,
            None => {
                let words = "the answer is malformed";
                return Ok(Err(Failure::new(Layer::L7, Code::Protocol, words)));
            }
        }
    }
    Ok(Ok(Answer {
        code,
        truncated,
        records,
    }))
}

/// The record at this place, `Some(None)` if it is of a kind that we do not know.
fn record(packet: &[u8], at: &mut usize) -> Option<Option<Entry>> {
    let owner = name(packet, at)?.to_ascii_lowercase();
    let fixed = packet.get(*at..*at + 10)?;
    let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
    // The highest bit means nothing (RFC 2181): such a time is none.
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
    let record = data(packet, at, fixed, kind)?;
    Some(record.map(|record| Entry { owner, ttl, record }))
}

/// What a record of this kind says, behind its fixed part.
fn data(packet: &[u8], at: &mut usize, fixed: &[u8], kind: u16) -> Option<Option<Record>> {
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let begin = *at + 10;
    let data = packet.get(begin..begin + length)?;
    *at = begin + length;
    let named = |skip: usize| {
        let mut at = begin + skip;
        (length > skip).then_some(())?;
        Some(Some(Record::Name(name(packet, &mut at)?)))
    };
    match kind {
        1 => {
            let octets: [u8; 4] = data.try_into().ok()?;
            Some(Some(Record::Address(Ipv4Addr::from(octets).into())))
        }
        28 => {
            let octets: [u8; 16] = data.try_into().ok()?;
            Some(Some(Record::Address(Ipv6Addr::from(octets).into())))
        }
        5 => {
            let mut at = begin;
            (length > 0).then_some(())?;
            Some(Some(Record::Alias(name(packet, &mut at)?)))
        }
        // NS, SOA, PTR.
        2 | 6 | 12 => named(0),
        // MX: behind the preference.
        15 => named(2),
        33 => {
            (length > 6).then_some(())?;
            let number = |n: usize| u16::from_be_bytes([data[n], data[n + 1]]);
            let mut at = begin + 6;
            Some(Some(Record::Service(Service {
                priority: number(0),
                weight: number(2),
                port: number(4),
                target: name(packet, &mut at)?.to_ascii_lowercase(),
            })))
        }
        16 => {
            let mut text = Vec::new();
            let mut rest = data;
            while let Some((length, behind)) = rest.split_first() {
                text.extend_from_slice(behind.get(..usize::from(*length))?);
                rest = &behind[usize::from(*length)..];
            }
            Some(Some(Record::Text(
                String::from_utf8_lossy(&text).into_owned(),
            )))
        }
        _ => Some(None),
    }
}

/// The name at this place, which moves behind it.
fn name(packet: &[u8], at: &mut usize) -> Option<String> {
    let mut name = String::new();
    let mut here = *at;
    let mut end = None;
    let mut jumps = 0;
    loop {
        let length = *packet.get(here)?;
        match length >> 6 {
            0 if length == 0 => {
                *at = end.unwrap_or(here + 1);
                return Some(if name.is_empty() {
                    ".".to_string()
                } else {
                    name
                });
            }
            0 => {
                let label = packet.get(here + 1..here + 1 + usize::from(length))?;
                name.push_str(&String::from_utf8_lossy(label));
                name.push('.');
                // 255 octets on the wire; not more than three for each in text.
                (name.len() <= 765).then_some(())?;
                here += 1 + usize::from(length);
            }
            3 => {
                let low = *packet.get(here + 1)?;
                end.get_or_insert(here + 2);
                here = usize::from(length & 63) << 8 | usize::from(low);
                jumps += 1;
                (jumps <= MAX_JUMPS).then_some(())?;
            }
            _ => return None,
        }
    }
}

/// What a response code means (RFC 1035, RFC 2136).
pub fn response_code(code: u8) -> String {
    match code {
        1 => "FORMERR: the server does not understand the question",
        2 => "SERVFAIL: the server has failed",
        3 => "NXDOMAIN: there is no such name",
        4 => "NOTIMP: the server does not support such questions",
        5 => "REFUSED: the server refuses to answer",
        9 => "NOTAUTH: the server is not responsible",
        other => return format!("response code {other}"),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u16 = 4;

    /// The answer to a question with records as they stand in the packet.
    fn packet(question: &[u8], flags: [u8; 2], records: &[Vec<u8>]) -> Vec<u8> {
        let mut packet = question.to_vec();
        packet[2..4].copy_from_slice(&flags);
        packet[7] = records.len() as u8;
        packet.extend(records.concat());
        packet
    }

    /// A record for the name in the question.
    fn record(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0xc0, 12];
        record.extend(kind.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend((data.len() as u16).to_be_bytes());
        record.extend(data);
        record
    }

    fn read(kind: RecordType, records: &[Vec<u8>]) -> Result<Answer, Failure> {
        let question = question(7, "www.example.com", kind);
        answer(&packet(&question, [0x81, 0x80], records), &question, MOST).unwrap()
    }

    #[test]
    fn a_question_is_written_as_rfc_1035_says() {
        let expected = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x1c\x00\x01";
        assert_eq!(question(7, "www.example.com", RecordType::Aaaa), expected);
        assert_eq!(question(7, "www.example.com.", RecordType::Aaaa), expected);
        assert_eq!(question(7, ".", RecordType::Soa)[HEADER..], [0, 0, 6, 0, 1]);
    }

    #[test]
    fn records_are_read() {
        for (kind, number, data, text) in [
            (RecordType::A, 1, &[192, 0, 2, 1][..], "192.0.2.1"),
            (
                RecordType::Aaaa,
                28,
                &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                "2001:db8::1",
            ),
            // Compressed: a label, then the name of the question from its second label on.
            (RecordType::Cname, 5, b"\x03ftp\xc0\x10", "ftp.example.com."),
            (RecordType::Ns, 2, b"\x02ns\x00", "ns."),
            (
                RecordType::Mx,
                15,
                b"\x00\x0a\x04mail\xc0\x10",
                "mail.example.com.",
            ),
            (
                RecordType::Srv,
                33,
                b"\x00\x01\x00\x02\x00\x50\xc0\x0c",
                "www.example.com.",
            ),
            (RecordType::Soa, 6, b"\x00\x00\x00", "."),
            (RecordType::Txt, 16, b"\x03one\x04 two", "one two"),
        ] {
            let answer = read(kind, &[record(number, data)]).unwrap();
            assert_eq!(answer.records.len(), 1);
            assert_eq!(answer.records[0].record.to_string(), text);
        }
        let answer = read(
            RecordType::A,
            &[record(99, b"?"), record(1, &[192, 0, 2, 1])],
        )
        .unwrap();
        let expected = Entry {
            owner: "www.example.com.".to_string(),
            ttl: 60,
            record: Record::Address("192.0.2.1".parse().unwrap()),
        };
        assert_eq!(answer.records, [expected]);
    }

    #[test]
    fn only_the_answer_to_our_question_counts() {
        let ours = question(7, "www.example.com", RecordType::A);
        for other in [
            question(8, "www.example.com", RecordType::A),
            question(7, "www.example.org", RecordType::A),
            question(7, "www.example.com", RecordType::Aaaa),
        ] {
            let packet = packet(&other, [0x81, 0x80], &[]);
            assert_eq!(answer(&packet, &ours, MOST), Err(NotOurs));
        }
        // A question is no answer.
        assert_eq!(answer(&ours, &ours, MOST), Err(NotOurs));
        assert_eq!(answer(&ours[..11], &ours, MOST), Err(NotOurs));
        let shouted = question(7, "WWW.Example.COM", RecordType::A);
        assert!(answer(&packet(&shouted, [0x81, 0x80], &[]), &ours, MOST).is_ok());
        let error = answer(&packet(&ours, [0x81, 0x85], &[]), &ours, MOST)
            .unwrap()
            .unwrap();
        assert_eq!(error.code, 5);
        assert!(response_code(error.code).starts_with("REFUSED"));
    }

    #[test]
    fn malformed_answers_are_refused() {
        for data in [
            // Data that is too short, a name that points to itself, one that runs out.
            record(1, &[1, 2, 3]),
            record(5, b"\xc0\x2d"),
            record(5, b"\x3fabc"),
            record(16, b"\x09abc"),
            record(15, b"\x00"),
            vec![0xc0, 12, 0, 1],
        ] {
            let failure = read(RecordType::Any, &[data]).unwrap_err();
            assert_eq!(
                (failure.code, &*failure.words),
                (Code::Protocol, "the answer is malformed")
            );
        }
        // Cut off where the server says so, it is not malformed.
        let ours = question(7, "www.example.com", RecordType::A);
        let packet = packet(&ours, [0x83, 0x80], &[vec![0xc0, 12, 0, 1]]);
        let read = answer(&packet, &ours, MOST).unwrap().unwrap();
        assert!(read.truncated && read.records.is_empty());
    }

    proptest! {
        #[test]
        fn no_packet_is_a_surprise(
            records in prop::collection::vec(
                (prop::sample::select(vec![1u16, 2, 5, 6, 12, 15, 16, 28, 33, 99]),
                 prop::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), Just(12)], 0..24)),
                0..6,
            ),
            cut in 0..200usize,
            noise in prop::collection::vec((0..200usize, any::<u8>()), 0..4),
        ) {
            let ours = question(7, "www.example.com", RecordType::Any);
            let records: Vec<_> = records.iter().map(|(kind, data)| record(*kind, data)).collect();
            let mut packet = packet(&ours, [0x81, 0x80], &records);
            for (at, octet) in noise {
                if let Some(place) = packet.get_mut(at) {
                    *place = octet;
                }
            }
            packet.truncate(cut);
            if let Ok(Ok(answer)) = answer(&packet, &ours, MOST) {
                prop_assert!(answer.records.len() <= usize::from(MOST));
            }
        }
    }
}
