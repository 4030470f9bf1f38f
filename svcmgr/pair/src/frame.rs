//! Where one message ends and the next begins: four octets of length (big endian), then as many of the message.

/// Longest message, octets. A shortest has none.
pub const MAX: usize = 64 << 20;
/// How much is set aside for a message because of what its length says; the rest as it comes.
const FIRST: usize = 64 << 10;

/// A message that is longer than any may be, octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} octets; the longest has {MAX}")]
pub struct TooLong(pub usize);

/// What goes before a message.
///
/// # Errors
/// If it is too long.
pub fn head(message: &[u8]) -> Result<[u8; 4], TooLong> {
    match u32::try_from(message.len()) {
        Ok(len) if message.len() <= MAX => Ok(len.to_be_bytes()),
        _ => Err(TooLong(message.len())),
    }
}

/// Puts messages together from pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; 4],
    /// Octets of the head that have come.
    headed: usize,
    body: Vec<u8>,
}

impl Decoder {
    /// Takes from the front of `input` until a message is complete, or all of it. After an error nothing can be understood any
    /// longer.
    ///
    /// # Errors
    /// If a message is announced that is too long.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
        let missing = 4 - self.headed;
        let (head, rest) = input.split_at(input.len().min(missing));
        self.head[self.headed..self.headed + head.len()].copy_from_slice(head);
        self.headed += head.len();
        *input = rest;
        if self.headed < 4 {
            return Ok(None);
        }
        let len = usize::try_from(u32::from_be_bytes(self.head)).unwrap_or(usize::MAX);
        if len > MAX {
            return Err(TooLong(len));
        }
        if self.body.capacity() == 0 {
            self.body.reserve(len.min(FIRST));
        }
        let (more, rest) = input.split_at(input.len().min(len - self.body.len()));
        self.body.extend_from_slice(more);
        *input = rest;
        if self.body.len() < len {
            return Ok(None);
        }
        self.headed = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Whether no message has begun that is not complete.
    pub const fn is_between(&self) -> bool {
        self.headed == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn encoded(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            out.extend(head(message).unwrap());
            out.extend(message);
        }
        out
    }

    proptest! {
        #[test]
        fn messages_come_back_however_they_are_cut(
            messages in vec(vec(any::<u8>(), 0..300), 0..20),
            cuts in vec(1..400_usize, 1..50),
        ) {
            let octets = encoded(&messages);
            let mut rest = octets.as_slice();
            let (mut decoder, mut back) = (Decoder::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut piece, later) = rest.split_at(rest.len().min(*cut));
                rest = later;
                // An empty message is complete without another octet, so a piece is fed until it is used up.
                while !piece.is_empty() {
                    back.extend(decoder.feed(&mut piece).unwrap());
                }
            }
            prop_assert_eq!(back, messages);
            prop_assert!(decoder.is_between());
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(head(&[]), Ok([0; 4]));
        assert_eq!(head(&vec![0; MAX]), Ok([4, 0, 0, 0]));
        assert_eq!(head(&vec![0; MAX + 1]), Err(TooLong(MAX + 1)));
        let cases = [
            ([0, 0, 0, 0], Ok(Some(Vec::new()))),
            ([4, 0, 0, 0], Ok(None)),
            ([4, 0, 0, 1], Err(TooLong(MAX + 1))),
            ([255; 4], Err(TooLong(u32::MAX as usize))),
        ];
        for (octets, expected) in cases {
            let mut input = octets.as_slice();
            assert_eq!(Decoder::default().feed(&mut input), expected, "{octets:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_not_between_messages() {
        let octets = encoded(&[vec![7; 10]]);
        for end in 0..=octets.len() {
            let mut decoder = Decoder::default();
            let mut input = &octets[..end];
            let complete = decoder.feed(&mut input).unwrap().is_some();
            assert_eq!(complete, end == octets.len());
            assert_eq!(decoder.is_between(), end == 0 || end == octets.len());
        }
    }

    /// A length alone takes no memory.
    #[test]
    fn little_is_set_aside_for_what_has_not_come() {
        let mut decoder = Decoder::default();
        let mut input = [4, 0, 0, 0, 1].as_slice();
        assert_eq!(decoder.feed(&mut input), Ok(None));
        assert!(decoder.body.capacity() <= 2 * FIRST);
    }
}
