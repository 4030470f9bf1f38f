//! The word by which an administrator makes two nodes a pair.
//!
//! ```text
//!   ilb1 …111 letters: base32 of   secret(32) creator's public key(32) checksum(5)
//! ```
//!
//! Letters are those of Douglas Crockford's base32, which has no i, l, o and u: case does not matter, i and l count as 1 and o as
//! 0. White space and hyphens within do not count, so that a word that was broken over lines may be pasted. The checksum (SHA-256
//! over what is before it) tells a typing mistake from a token that another node does not take.

use std::fmt;
use std::str::FromStr;

use ring::digest;

use crate::identity::{PUBLIC_KEY_LEN, PublicKey};
use crate::secret::{SECRET_LEN, Secret};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Before the version.
const MARK: &str = "ilb";
const VERSION: char = '1';
const CHECKSUM_LEN: usize = 5;
const CONTENT_LEN: usize = SECRET_LEN + PUBLIC_KEY_LEN;
const OCTETS: usize = CONTENT_LEN + CHECKSUM_LEN;
/// Letters of a token, without mark and version: five bits each.
const LETTERS: usize = (OCTETS * 8).div_ceil(5);
/// Longest text that is looked at.
const MAX_TEXT: usize = 4096;

/// What the creator of a pair gives to the node that shall join it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Who has it may join: once, and until the creator does not wait any longer.
    pub secret: Secret,
    /// By what the joiner knows that it speaks with the creator and nobody else.
    pub creator: PublicKey,
}

/// Why a text is no token. The words never repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing there.
    #[error("the token is empty: paste the whole word that `lbadm pair create` printed")]
    Empty,
    /// Something else.
    #[error(
        "this is no token: one begins with ilb1; paste the whole word that `lbadm pair create` printed"
    )]
    Foreign,
    /// Of another version of ilb.
    #[error(
        "this token is of version {0}, this node understands version 1: create it on the node that runs the older ilb"
    )]
    Version(char),
    /// A letter that no token has.
    #[error(
        "letter {position} of the token is {letter:?}, which no token has in it: paste it again"
    )]
    Letter {
        /// What is there.
        letter: char,
        /// Where, from 1, white space and hyphens not counted.
        position: usize,
    },
    /// Letters are missing, or there are too many.
    #[error("the token has {0} letters instead of {all}: paste the whole word", all = LETTERS + 4)]
    Length(usize),
    /// All letters are such as tokens have, but not these in this order.
    #[error("the token has a typing mistake: paste it again")]
    Checksum,
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"ilb pair token 1");
    context.update(content);
    let mut out = [0; CHECKSUM_LEN];
    out.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_LEN]);
    out
}

/// Letters for octets, five bits each from the highest; zeros fill the last one.
fn letters(octets: &[u8]) -> String {
    let bit = |at: usize| {
        let octet = octets.get(at / 8).copied().unwrap_or(0);
        usize::from(octet >> (7 - at % 8)) & 1
    };
    let letter = |first: usize| (first..first + 5).fold(0, |value, at| value << 1 | bit(at));
    (0..octets.len() * 8)
        .step_by(5)
        .map(|first| char::from(ALPHABET[letter(first)]))
        .collect()
}

/// The octets of letters, given as their values; None if what fills the last one is not zeros.
fn octets(values: &[u8]) -> Option<[u8; OCTETS]> {
    let bit = |at: usize| values.get(at / 5).copied().unwrap_or(0) >> (4 - at % 5) & 1;
    let mut out = [0; OCTETS];
    for (octet, first) in out.iter_mut().zip((0..).step_by(8)) {
        *octet = (first..first + 8).fold(0, |value, at| value << 1 | bit(at));
    }
    let filled = (OCTETS * 8..values.len() * 5).all(|at| bit(at) == 0);
    filled.then_some(out)
}

/// A letter as if it had been written as meant: i and l for 1, o for 0.
fn meant(letter: char) -> char {
    match letter.to_ascii_lowercase() {
        'i' | 'l' => '1',
        'o' => '0',
        other => other,
    }
}

/// The five bits of a letter.
fn value(letter: char) -> Option<u8> {
    let letter = meant(letter);
    let at = ALPHABET
        .iter()
        .position(|known| char::from(*known) == letter)?;
    u8::try_from(at).ok()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut octets = [self.secret.octets().as_slice(), self.creator.octets()].concat();
        octets.extend(checksum(&octets));
        write!(f, "{MARK}{VERSION}{}", letters(&octets))
    }
}

impl fmt::Debug for Token {
    /// Without what makes it worth something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("secret", &self.secret)
            .field("creator", &self.creator)
            .finish()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let counts = |letter: &char| !letter.is_whitespace() && *letter != '-';
        let said: Vec<char> = text.chars().filter(counts).take(MAX_TEXT).collect();
        if said.is_empty() {
            return Err(TokenError::Empty);
        }
        let (mark, rest) = said.split_at(said.len().min(MARK.len()));
        if !mark.iter().copied().map(meant).eq(MARK.chars().map(meant)) {
            return Err(TokenError::Foreign);
        }
        let Some((version, rest)) = rest.split_first() else {
            return Err(TokenError::Length(said.len()));
        };
        match meant(*version) {
            VERSION => {}
            other if other.is_ascii_digit() => return Err(TokenError::Version(other)),
            _ => return Err(TokenError::Foreign),
        }
        let mut values = Vec::with_capacity(rest.len());
        for (letter, position) in rest.iter().zip(MARK.len() + 2..) {
            values.push(value(*letter).ok_or(TokenError::Letter {
                letter: *letter,
                position,
            })?);
        }
        if values.len() != LETTERS {
            return Err(TokenError::Length(said.len()));
        }
        let octets = octets(&values).ok_or(TokenError::Checksum)?;
        let (content, sum) = octets.split_at(CONTENT_LEN);
        if sum != checksum(content) {
            return Err(TokenError::Checksum);
        }
        let (mut secret, mut creator) = ([0; SECRET_LEN], [0; PUBLIC_KEY_LEN]);
        secret.copy_from_slice(&content[..SECRET_LEN]);
        creator.copy_from_slice(&content[SECRET_LEN..]);
        Ok(Token {
            secret: Secret::new(secret),
            creator: PublicKey::new(creator),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            secret: Secret::new(*b"an open sesame of 32 octets: yes"),
            creator: PublicKey::new(*b"and a public key of 32 octets ok"),
        }
    }

    /// What is printed by one version is pasted into another: it never changes. (Letters by Python's int and divmod.)
    #[test]
    fn a_token_is_one_word() {
        let said = token().to_string();
        assert_eq!(said, WORD);
        assert_eq!(said.len(), LETTERS + 4);
        assert!(said.chars().all(|letter| letter.is_ascii_alphanumeric()));
        assert_eq!(said.parse(), Ok(token()));
    }
    const WORD: &str = "ilb1c5q20vvgcnq20wv5edgpts90dxk20csj41qp6x35ehskm83scnsp2vk441gj0w3nc9p6jrs0ddjqj83fcrg36ch0dxhq8sbmecg6ytr5cndq0rr";

    #[test]
    fn what_people_do_to_a_word_does_not_harm_it() {
        let said = token().to_string();
        let cases = [
            ("capitals", said.to_uppercase()),
            ("blanks around it", format!("  {said}\n")),
            (
                "broken over lines",
                format!("{}\r\n  {}", &said[..60], &said[60..]),
            ),
            (
                "grouped",
                said.chars().flat_map(|letter| [letter, '-']).collect(),
            ),
            ("o for 0, l for 1", said.replace('0', "O").replace('1', "l")),
            ("i for 1", said.replace('1', "I")),
        ];
        for (what, text) in cases {
            assert_eq!(text.parse(), Ok(token()), "{what}: {text}");
        }
    }

    #[test]
    fn what_is_no_token() {
        let said = token().to_string();
        let with = |at: usize, letter: &str| format!("{}{letter}{}", &said[..at], &said[at + 1..]);
        let letter = |letter, position| TokenError::Letter { letter, position };
        let cases = [
            ("", TokenError::Empty),
            (" \t\n-", TokenError::Empty),
            ("TOKEN", TokenError::Foreign),
            ("il", TokenError::Foreign),
            ("ilbadm", TokenError::Foreign),
            (&said[1..], TokenError::Foreign),
            (&with(3, "2"), TokenError::Version('2')),
            (&with(3, "o"), TokenError::Version('0')),
            ("ilb9", TokenError::Version('9')),
            ("ilb", TokenError::Length(3)),
            ("ilb1", TokenError::Length(4)),
            (&said[..said.len() - 1], TokenError::Length(114)),
            (&said[..50], TokenError::Length(50)),
            (&format!("{said}0"), TokenError::Length(116)),
            (&format!("{said}{said}"), TokenError::Length(230)),
            (&"ilb1".repeat(5000), TokenError::Length(MAX_TEXT)),
            (&with(10, "u"), letter('u', 11)),
            (&with(10, "…"), letter('…', 11)),
            (&format!("{said}."), letter('.', 116)),
            (
                &format!("ilb1{}", "0".repeat(LETTERS)),
                TokenError::Checksum,
            ),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Token>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn every_typing_mistake_of_one_letter_is_seen() {
        let said: Vec<char> = token().to_string().chars().collect();
        for at in 4..said.len() {
            for letter in ALPHABET.iter().copied().map(char::from) {
                if letter == said[at] {
                    continue;
                }
                let mut typed = said.clone();
                typed[at] = letter;
                let typed: String = typed.into_iter().collect();
                assert_eq!(typed.parse::<Token>(), Err(TokenError::Checksum), "{at}");
            }
            if at > 4 && said[at] != said[at - 1] {
                let mut typed = said.clone();
                typed.swap(at - 1, at);
                let typed: String = typed.into_iter().collect();
                assert_eq!(typed.parse::<Token>(), Err(TokenError::Checksum), "{at}");
            }
        }
    }

    #[test]
    fn neither_debug_nor_any_error_shows_it() {
        let digits = token().secret.to_hex();
        let shown = format!("{:?}", token());
        assert!(
            !shown.contains(&digits) && shown.contains("Secret(…)"),
            "{shown}"
        );
        let said = token().to_string();
        for text in [&said[..100], &format!("{said}u"), &said.replace('c', "d")] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(!error.contains(&said[10..20]), "{error}");
        }
    }
}
