//! What a datagram says once its seal is off.
//!
//! ```text
//!   floor(8) flags(1: 1 = wants an acknowledgement)   then frames, each  type(1) length(2) body
//!
//!   1 acknowledgement  upto(8), then  first(8) count(4)  for each gap below it
//!   2 records          one behind the other
//!   3 want             id(4)           everything, please
//!   4 done             id(4)           that was everything
//!   6 traces           as in [`crate::traces`]
//! ```
//!
//! Frames of a type that we do not know are left out, so that a later version may add some. An end that does not know
//! traces acknowledges the datagrams that they come in, and keeps nothing of them. Type 5 is not to be used again: the first
//! version knew it.

use crate::bytes::Reader;
use crate::record::Record;
use crate::traces::{Parcel, Traces};

/// Largest number of gaps in one acknowledgement.
pub const MOST_GAPS: usize = 32;

const ACK: u8 = 1;
const RECORDS: u8 = 2;
const WANT: u8 = 3;
const DONE: u8 = 4;
const TRACES: u8 = 6;
const WANTS_ACK: u8 = 1;

/// Octets of a payload before its first frame.
pub const HEAD: usize = 9;
/// Octets of a frame before its body.
pub const FRAME_HEAD: usize = 3;
/// Datagrams that did not come: the number of the first, and how many.
pub type Gap = (u64, u32);

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Everything up to this number has come, but for the gaps.
    Ack {
        /// The number.
        upto: u64,
        /// What did not come, ascending.
        gaps: Vec<Gap>,
    },
    /// Records.
    Records(Vec<Record>),
    /// The sender asks for everything; the number of the question.
    Want(u32),
    /// The sender has told everything that was asked for by this question.
    Done(u32),
    /// Traces.
    Traces(Traces),
}

/// All that a datagram says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// The sender has no more interest in what became of datagrams below this number.
    pub floor: u64,
    /// Whether it wants an acknowledgement.
    pub wants_ack: bool,
    /// What it says.
    pub frames: Vec<Frame>,
}

/// Begins a payload.
pub fn begin(out: &mut Vec<u8>, floor: u64) {
    out.extend(floor.to_be_bytes());
    out.push(0);
}

/// Makes a begun payload one that wants an acknowledgement.
pub fn want_ack(payload: &mut [u8]) {
    if let Some(flags) = payload.get_mut(HEAD - 1) {
        *flags |= WANTS_ACK;
    }
}

/// Appends a frame whose body `write` writes; a body is never longer than a datagram.
fn append(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend([kind, 0, 0]);
    let at = out.len();
    write(out);
    let length = (out.len() - at).min(usize::from(u16::MAX)) as u16;
    out[at - 2..at].copy_from_slice(&length.to_be_bytes());
}

/// Appends a frame of records that are encoded already.
pub fn append_records(out: &mut Vec<u8>, records: &[u8]) {
    append(out, RECORDS, |out| out.extend(records));
}

/// Appends a frame of traces that are encoded already, as they are told in this round.
pub(crate) fn append_parcel(out: &mut Vec<u8>, parcel: &Parcel, round: u32) {
    append(out, TRACES, |out| parcel.encode(round, out));
}

impl Frame {
    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Ack { upto, gaps } => append(out, ACK, |out| {
                out.extend(upto.to_be_bytes());
                for (first, count) in gaps {
                    out.extend(first.to_be_bytes());
                    out.extend(count.to_be_bytes());
                }
            }),
            Frame::Records(records) => append(out, RECORDS, |out| {
                records.iter().for_each(|record| record.encode(out));
            }),
            Frame::Want(id) => append(out, WANT, |out| out.extend(id.to_be_bytes())),
            Frame::Done(id) => append(out, DONE, |out| out.extend(id.to_be_bytes())),
            Frame::Traces(it) => append(out, TRACES, |out| it.encode(out)),
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Option<Option<Frame>> {
    let mut reader = Reader(body);
    let frame = match kind {
        ACK => {
            let upto = reader.u64()?;
            let mut gaps = Vec::new();
            while !reader.is_empty() {
                gaps.push((reader.u64()?, reader.u32()?));
            }
            if gaps.len() > MOST_GAPS {
                return None;
            }
            Frame::Ack { upto, gaps }
        }
        RECORDS => {
            let mut records = Vec::new();
            while !reader.is_empty() {
                records.push(Record::decode(&mut reader)?);
            }
            Frame::Records(records)
        }
        WANT => Frame::Want(reader.u32()?),
        DONE => Frame::Done(reader.u32()?),
        TRACES => Frame::Traces(Traces::decode(&mut reader)?),
        _ => return Some(None),
    };
    reader.is_empty().then_some(Some(frame))
}

impl Payload {
    /// Reads a payload; None if a part of it is not understood, and then nothing of it counts.
    pub fn decode(bytes: &[u8]) -> Option<Payload> {
        let mut reader = Reader(bytes);
        let (floor, flags) = (reader.u64()?, reader.u8()?);
        let mut payload = Payload {
            floor,
            wants_ack: flags & WANTS_ACK != 0,
            frames: Vec::new(),
        };
        while !reader.is_empty() {
            let (kind, length) = (reader.u8()?, reader.u16()?);
            payload
                .frames
                .extend(frame(kind, reader.bytes(usize::from(length))?)?);
        }
        Some(payload)
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out, self.floor);
        if self.wants_ack {
            want_ack(&mut out);
        }
        self.frames.iter().for_each(|frame| frame.encode(&mut out));
        out
    }
}
