//! A version's filter as bytes, to be given to a peer, and the way back.
//!
//! ```text
//!   "ilbP" format(1) bits-a-flow(1) words(1) algorithm(1) rule(4) number(2) levels(1) 0(1) digest(8) servers(4)
//!   servers times:  id(4) weight(2)
//!   levels times:   level(1), then all words of its blocks (8 each)
//!   sum(8)
//! ```
//!
//! Little-endian. A level holds both halves together. Everything is checked on the way in, and what does not belong to
//! a pool that this node has, or had lately, is refused: nobody here could be asked about its servers.

use super::filter::{BITS_A_FLOW, LEVELS, WORDS, blocks};
use super::{Pool, Version};
use crate::hash::{FIXED_KEYS, fold};
use crate::spec::{RuleId, ServerId};
use std::sync::atomic::Ordering;

const MAGIC: [u8; 4] = *b"ilbP";
const FORMAT: u8 = 1;
const SUM: usize = 8;
/// Share of bits set, in thousandths, that two full halves together do not reach.
const TOO_FULL: u64 = 650;

/// Why bytes cannot be merged into a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Too short, too long, or not what an export begins with.
    #[error("these are not the bytes of an exported pool")]
    NotAPool,
    /// Written by a program whose filters are made otherwise.
    #[error(
        "the pool was exported in format {format} with {bits} bits a flow and {words} words a block; this program reads format 1 with 16 and 8"
    )]
    Geometry {
        /// Its format.
        format: u8,
        /// Its bits a flow.
        bits: u8,
        /// Its words a block.
        words: u8,
    },
    /// Its sum does not fit.
    #[error("the bytes of the exported pool were changed on their way")]
    Damaged,
    /// It belongs elsewhere.
    #[error("the pool belongs to rule {found}, not to rule {wanted}")]
    OtherRule {
        /// The rule that it belongs to.
        found: RuleId,
        /// The rule that it was to be merged into.
        wanted: RuleId,
    },
    /// So many bits are set that it would say yes to nearly everybody.
    #[error("the exported pool is too full to tell one connection from another")]
    TooFull,
    /// No version has these candidates.
    #[error("the rule has no version of its pool with these candidates")]
    UnknownPool,
}

/// What was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Our number of the version that knows the flows now.
    pub version: u16,
}

/// Takes fields from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

pub(super) fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        fold(
            sum ^ u64::from_le_bytes(word) ^ FIXED_KEYS[0],
            FIXED_KEYS[1],
        )
        .wrapping_add(FIXED_KEYS[2])
    })
}

impl Version {
    /// Everything that a peer needs to find the servers of this version's connections; None if it knows none.
    pub fn export(&self, rule: RuleId) -> Option<Vec<u8>> {
        let filter = self.filter()?;
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend([
            FORMAT,
            BITS_A_FLOW as u8,
            WORDS as u8,
            self.algorithm() as u8,
        ]);
        out.extend(rule.to_le_bytes());
        out.extend(self.number().to_le_bytes());
        let levels = out.len();
        out.extend([0, 0]);
        out.extend(self.digest().to_le_bytes());
        out.extend((self.servers().len() as u32).to_le_bytes());
        for (server, weight) in self.servers() {
            out.extend(server.to_le_bytes());
            out.extend(weight.to_le_bytes());
        }
        for (level, words) in filter.words() {
            out[levels] += 1;
            out.push(level as u8);
            words.for_each(|word| out.extend(word.to_le_bytes()));
        }
        out.extend(sum(&out).to_le_bytes());
        Some(out)
    }
}

/// A checked export.
struct Export<'a> {
    rule: RuleId,
    algorithm: u8,
    digest: u64,
    servers: Vec<ServerId>,
    levels: Vec<(usize, &'a [u8])>,
}

fn read(bytes: &[u8]) -> Result<Export<'_>, MergeError> {
    let not = || MergeError::NotAPool;
    let mut head = Reader(bytes);
    if head.array().ok_or_else(not)? != MAGIC {
        return Err(MergeError::NotAPool);
    }
    let [format, bits, words, algorithm] = head.array().ok_or_else(not)?;
    if (format, bits as usize, words as usize) != (FORMAT, BITS_A_FLOW, WORDS) {
        return Err(MergeError::Geometry {
            format,
            bits,
            words,
        });
    }
    let (body, mut tail) = bytes
        .len()
        .checked_sub(SUM)
        .and_then(|end| bytes.split_at_checked(end))
        .map(|(body, tail)| (body, Reader(tail)))
        .ok_or_else(not)?;
    if tail.u64() != Some(sum(body)) {
        return Err(MergeError::Damaged);
    }
    contents(body, algorithm).ok_or(MergeError::NotAPool)
}

fn contents(body: &[u8], algorithm: u8) -> Option<Export<'_>> {
    let mut reader = Reader(body);
    reader.bytes(MAGIC.len() + 4)?;
    let rule = reader.u32()?;
    let _number = reader.u16()?;
    let count = reader.u8()? as usize;
    reader.u8()?;
    let digest = reader.u64()?;
    let servers = reader.u32()? as usize;
    let servers = reader
        .bytes(servers.checked_mul(6)?)?
        .chunks_exact(6)
        .map(|item| u32::from_le_bytes([item[0], item[1], item[2], item[3]]))
        .collect();
    let mut levels = Vec::new();
    for _ in 0..count {
        let level = reader.u8()? as usize;
        if level >= LEVELS.len() || levels.iter().any(|&(n, _)| n == level) {
            return None;
        }
        levels.push((level, reader.bytes(blocks(level) * WORDS * 8)?));
    }
    reader.0.is_empty().then_some(Export {
        rule,
        algorithm,
        digest,
        servers,
        levels,
    })
}

fn too_full(words: &[u8]) -> bool {
    let set: u64 = words.iter().map(|byte| byte.count_ones() as u64).sum();
    set * 1000 > words.len() as u64 * 8 * TOO_FULL
}

impl Pool {
    /// Takes over what a peer's version knows. The version with the same candidates gets it; if there is none, the
    /// newest that has all of them, since flows are known together with their server.
    ///
    /// # Errors
    /// See [`MergeError`]; nothing has changed then. Never panics, whatever the bytes.
    pub fn merge(&self, rule: RuleId, bytes: &[u8]) -> Result<Merged, MergeError> {
        let export = read(bytes)?;
        if export.rule != rule {
            return Err(MergeError::OtherRule {
                found: export.rule,
                wanted: rule,
            });
        }
        if export.levels.iter().any(|(_, words)| too_full(words)) {
            return Err(MergeError::TooFull);
        }
        let with_filter = || {
            self.versions()
                .iter()
                .filter_map(|version| Some((version, version.filter()?)))
        };
        let knows_all = |version: &Version| {
            export
                .servers
                .iter()
                .all(|&server| version.has_server(server))
        };
        let (version, filter) = with_filter()
            .find(|(version, _)| {
                version.digest() == export.digest
                    && version.algorithm() as u8 == export.algorithm
                    && knows_all(version)
            })
            .or_else(|| with_filter().find(|(version, _)| knows_all(version)))
            .ok_or(MergeError::UnknownPool)?;
        for (level, words) in export.levels {
            let words = words
                .chunks_exact(8)
                .map(|word| Reader(word).u64().unwrap_or(0));
            filter.merge(level, words);
        }
        // Somebody may need it for as long as if it had just been replaced.
        version.unused_since.store(0, Ordering::Relaxed);
        version.retired.store(false, Ordering::Relaxed);
        Ok(Merged {
            version: version.number(),
        })
    }
}
