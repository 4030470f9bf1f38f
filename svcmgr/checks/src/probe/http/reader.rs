//! Reads the answer to a request (RFC 9112), bounded: a head of at most 16 KiB and 100 lines, a body piece by piece.

use libilb::health::{Code, Layer};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::outcome::Failure;

/// Longest head, and longest line of a chunked body.
const MAX_HEAD: usize = 16 << 10;
/// Most lines of a head.
const MAX_LINES: usize = 100;
/// Longest line of the framing of a chunked body.
const MAX_CHUNK_LINE: usize = 1024;
/// Most interim answers (1xx).
const MAX_INTERIM: usize = 4;
/// What is read at once.
const BUFFER: usize = 4096;

/// What stands before a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// 100 to 999.
    pub status: u16,
    /// The server's words for it.
    pub reason: String,
    /// Where it redirects to.
    pub location: Option<String>,
    /// How the body is framed.
    pub body: Body,
}

/// What is still to come of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// So many octets.
    Length(u64),
    /// All until the connection is closed.
    UntilClosed,
    /// Chunks; so many octets of the present one. At its end comes a line end, but not before the first.
    Chunks {
        /// Octets of the present chunk.
        left: u64,
        /// Whether it is the first.
        first: bool,
    },
}

/// Reads an answer.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What of the buffer is used up.
    at: usize,
    /// What of it is filled.
    end: usize,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// Reads from a stream.
    pub fn new(stream: S) -> Reader<S> {
        Reader {
            stream,
            buffer: vec![0; BUFFER],
            at: 0,
            end: 0,
        }
    }

    /// Reads the head, past interim ones.
    ///
    /// # Errors
    /// What is no HTTP, or too large, or breaks off.
    pub async fn head(&mut self) -> Result<Head, Failure> {
        for _ in 0..=MAX_INTERIM {
            let head = self.one_head().await?;
            if head.status >= 200 {
                return Ok(head);
            }
        }
        Err(protocol("one interim answer follows another"))
    }

    async fn one_head(&mut self) -> Result<Head, Failure> {
        let mut room = MAX_HEAD;
        let first = self.line(&mut room).await?;
        let (status, reason) = status_line(&first)?;
        let (mut length, mut chunked, mut location) = (None, false, None);
        for _ in 0..MAX_LINES {
            let line = self.line(&mut room).await?;
            if line.is_empty() {
                let body = match (status, chunked, length) {
                    (100..=199 | 204 | 304, ..) => Body::Length(0),
                    (_, true, _) => Body::Chunks {
                        left: 0,
                        first: true,
                    },
                    (_, false, Some(length)) => Body::Length(length),
                    (_, false, None) => Body::UntilClosed,
                };
                return Ok(Head {
                    status,
                    reason,
                    location,
                    body,
                });
            }
            let text = String::from_utf8_lossy(&line);
            let Some((name, value)) = text.split_once(':') else {
                return Err(protocol(&format!("a header without colon: {text}")));
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                let number = value.parse().ok();
                let number = number.filter(|number| length.is_none_or(|before| before == *number));
                let bad = || protocol(&format!("Content-Length: {value}"));
                length = Some(number.ok_or_else(bad)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().ends_with("chunked");
            } else if name.eq_ignore_ascii_case("location") {
                location = Some(value.to_string());
            }
        }
        Err(too_large("the head has more than 100 lines"))
    }

    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// A body that breaks off or is malformed.
    pub async fn piece(&mut self, body: &mut Body) -> Result<Option<&[u8]>, Failure> {
        if let Body::Chunks {
            left: left @ 0,
            first,
        } = body
        {
            let mut room = MAX_CHUNK_LINE;
            if !std::mem::replace(first, false) && !self.line(&mut room).await?.is_empty() {
                return Err(protocol("a chunk is longer than it says"));
            }
            let line = self.line(&mut room).await?;
            let size = String::from_utf8_lossy(&line);
            let digits = size.split(';').next().unwrap_or_default().trim();
            // from_str_radix would take a sign.
            let good = digits.bytes().all(|b| b.is_ascii_hexdigit());
            let number = u64::from_str_radix(digits, 16).ok().filter(|_| good);
            *left = number.ok_or_else(|| protocol(&format!("a chunk of size '{size}'")))?;
        }
        let most = match body {
            Body::Length(left) | Body::Chunks { left, .. } => *left,
            Body::UntilClosed => u64::MAX,
        };
        if most == 0 {
            return Ok(None);
        }
        if self.at == self.end && !self.fill().await? {
            return match body {
                Body::UntilClosed => Ok(None),
                _ => Err(closed(
                    "the connection was closed in the middle of the body",
                )),
            };
        }
        let held = self.end - self.at;
        let take = usize::try_from(most).unwrap_or(usize::MAX).min(held);
        if let Body::Length(left) | Body::Chunks { left, .. } = body {
            *left -= take as u64;
        }
        self.at += take;
        Ok(Some(&self.buffer[self.at - take..self.at]))
    }

    /// A line without its end, which uses up room.
    async fn line(&mut self, room: &mut usize) -> Result<Vec<u8>, Failure> {
        let mut line = Vec::new();
        loop {
            let held = &self.buffer[self.at..self.end];
            let found = held.iter().position(|b| *b == b'\n');
            let take = found.map_or(held.len(), |at| at + 1);
            if take > *room {
                return Err(too_large("the head is larger than 16 KiB"));
            }
            *room -= take;
            line.extend_from_slice(&held[..take]);
            self.at += take;
            if found.is_some() {
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if !self.fill().await? {
                return Err(match line.is_empty() {
                    true => closed("the connection was closed without an answer"),
                    false => closed("the connection was closed in the middle of the answer"),
                });
            }
        }
    }

    /// Reads more once all is used up; false at the end.
    async fn fill(&mut self) -> Result<bool, Failure> {
        let read = self.stream.read(&mut self.buffer).await;
        self.at = 0;
        self.end = read.map_err(|error| Failure::of_socket(Layer::L7, &error))?;
        Ok(self.end > 0)
    }
}

fn status_line(line: &[u8]) -> Result<(u16, String), Failure> {
    let text = String::from_utf8_lossy(line);
    let bad = || {
        let begin: String = text.chars().take(80).collect();
        protocol(&format!("no HTTP, but: {begin}"))
    };
    let mut words = text.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(bad());
    }
    let digits = words
        .next()
        .filter(|w| w.len() == 3 && w.bytes().all(|b| b.is_ascii_digit()));
    let status = digits
        .and_then(|digits| digits.parse().ok())
        .filter(|status| *status >= 100);
    Ok((
        status.ok_or_else(bad)?,
        words.next().unwrap_or_default().to_string(),
    ))
}

fn protocol(words: &str) -> Failure {
    Failure::new(Layer::L7, Code::Protocol, words)
}

fn too_large(words: &str) -> Failure {
    Failure::new(Layer::L7, Code::TooLarge, words)
}

fn closed(words: &str) -> Failure {
    Failure::new(Layer::L7, Code::Closed, words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that is read of an answer that comes in pieces of this size: status and body.
    fn read(answer: &[u8], size: usize) -> Result<(u16, Vec<u8>), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut mock = tokio_pieces(answer, size);
            let mut reader = Reader::new(&mut mock);
            let head = reader.head().await?;
            let (mut framing, mut body) = (head.body, Vec::new());
            while let Some(piece) = reader.piece(&mut framing).await? {
                body.extend_from_slice(piece);
            }
            Ok((head.status, body))
        })
    }

    /// A stream that gives its octets out in pieces.
    struct Pieces<'a>(&'a [u8], usize);

    fn tokio_pieces(octets: &[u8], size: usize) -> Pieces<'_> {
        Pieces(octets, size)
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let take = self.1.min(self.0.len()).min(buffer.remaining());
            let (now, later) = self.0.split_at(take);
            buffer.put_slice(now);
            self.0 = later;
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn answers_are_read_however_they_come() {
        for (answer, status, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, more",
                200,
                "hello",
            ),
            ("HTTP/1.0 200 OK\r\n\r\nall of it", 200, "all of it"),
            ("HTTP/1.1 200\n\n", 200, ""),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                204,
                "",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0A;x=y\r\n, you there\r\n0\r\n\r\n",
                200,
                "hello, you ther",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n5\r\nhello\r\n6\r\n, you!\r\n0\r\n\r\n",
                200,
                "hello, you!",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n",
                503,
                "",
            ),
        ] {
            for size in [1, 2, 7, 4096] {
                let read = read(answer.as_bytes(), size);
                match body {
                    // Its second chunk is one octet longer than it says.
                    "hello, you ther" => {
                        assert_eq!(read.unwrap_err().words, "a chunk is longer than it says");
                    }
                    _ => assert_eq!(read.unwrap(), (status, body.as_bytes().to_vec())),
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_with_an_answer_is_said() {
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(200));
        let wide = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(20_000));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(6);
        for (answer, code, words) in [
            (
                "",
                Code::Closed,
                "the connection was closed without an answer",
            ),
            (
                "HTTP/1.1 200 OK\r\n",
                Code::Closed,
                "the connection was closed without an answer",
            ),
            (
                "HTTP/1.1 20",
                Code::Closed,
                "the connection was closed in the middle of the answer",
            ),
            (
                "SSH-2.0-OpenSSH\r\n",
                Code::Protocol,
                "no HTTP, but: SSH-2.0-OpenSSH",
            ),
            (
                "HTTP/1.1 +20 OK\r\n\r\n",
                Code::Protocol,
                "no HTTP, but: HTTP/1.1 +20 OK",
            ),
            (
                "HTTP/2 200 OK\r\n\r\n",
                Code::Protocol,
                "no HTTP, but: HTTP/2 200 OK",
            ),
            (
                "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
                Code::Protocol,
                "a header without colon: nonsense",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                Code::Protocol,
                "Content-Length: -1",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Code::Protocol,
                "Content-Length: 2",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
                Code::Closed,
                "the connection was closed in the middle of the body",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello",
                Code::Protocol,
                "a chunk of size '+5'",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
                Code::Protocol,
                "a chunk of size 'ffffffffffffffffff'",
            ),
            (&endless, Code::TooLarge, "the head has more than 100 lines"),
            (&wide, Code::TooLarge, "the head is larger than 16 KiB"),
            (
                &interim,
                Code::Protocol,
                "one interim answer follows another",
            ),
        ] {
            for size in [1, 4096] {
                let failure = read(answer.as_bytes(), size).unwrap_err();
                assert_eq!((failure.layer, failure.code), (Layer::L7, code), "{words}");
                assert_eq!(failure.words, words);
            }
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_a_surprise(
            answer in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "HTTP/1.[01] [0-9]{2,3} OK\r\n((Content-Length|Transfer-Encoding|X): ([0-9]{1,3}|chunked)\r\n){0,3}\r\n\
                 ([0-9a-f]{1,2}\r\n[a-z]{0,9}\r\n){0,4}".prop_map(String::into_bytes),
            ],
            size in 1..64usize,
        ) {
            let whole = read(&answer, 4096);
            prop_assert_eq!(read(&answer, size), whole);
        }
    }
}
