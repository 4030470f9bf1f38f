//! Frames between both managers: an octet that says what it is, and what it is about. A frame of a kind that is not known, as
//! from a later version, says nothing.

use libilb::pair::NodeDescription;

const BEAT: u8 = 1;
const FOLLOW: u8 = 2;
const KEPT: u8 = 3;
const LEAVE: u8 = 4;

/// What one node says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Every second, and when it changes: who I am and how I stand.
    Beat(Box<NodeDescription>),
    /// About the configuration.
    Follow(Vec<u8>),
    /// Only while one joins the other: I keep that we are a pair.
    Kept,
    /// I have left the pair.
    Leave,
    /// Something that this version does not know.
    Unknown,
}

impl Frame {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Frame::Beat(beat) => {
                let mut out = vec![BEAT];
                // Names and numbers always have a text.
                out.extend(serde_json::to_vec(beat).unwrap_or_default());
                out
            }
            Frame::Follow(message) => [&[FOLLOW], message.as_slice()].concat(),
            Frame::Kept => vec![KEPT],
            Frame::Leave => vec![LEAVE],
            Frame::Unknown => Vec::new(),
        }
    }

    /// What was sent.
    ///
    /// # Errors
    /// Why it cannot be understood, for a person.
    pub fn decode(mut frame: Vec<u8>) -> Result<Frame, String> {
        Ok(match frame.first() {
            Some(&BEAT) => {
                let beat = serde_json::from_slice(&frame[1..]);
                Frame::Beat(beat.map_err(|error| format!("a beat that is none: {error}"))?)
            }
            Some(&FOLLOW) => Frame::Follow(frame.split_off(1)),
            Some(&KEPT) => Frame::Kept,
            Some(&LEAVE) => Frame::Leave,
            _ => Frame::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_heard() {
        let beat = NodeDescription {
            node: 1,
            name: "lb2".into(),
            active: true,
            ..NodeDescription::default()
        };
        for frame in [
            Frame::Beat(Box::new(beat)),
            Frame::Follow(b"{}".to_vec()),
            Frame::Follow(Vec::new()),
            Frame::Kept,
            Frame::Leave,
            Frame::Unknown,
        ] {
            assert_eq!(Frame::decode(frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn what_a_later_version_says_is_nothing_and_what_nobody_says_is_an_error() {
        assert_eq!(Frame::decode(vec![200, 1, 2]), Ok(Frame::Unknown));
        let later = [&[BEAT], br#"{"node":1,"mood":"good"}"#.as_slice()].concat();
        let Ok(Frame::Beat(beat)) = Frame::decode(later) else {
            panic!("a beat with more in it is a beat");
        };
        assert_eq!(beat.node, 1);
        let error = Frame::decode(vec![BEAT, b'x']).unwrap_err();
        assert!(error.starts_with("a beat that is none"), "{error}");
    }
}
