//! A mail server is greeted and left again (RFC 5321): banner, HELO, QUIT.

use std::net::SocketAddr;

use libilb::health::{Code, Layer};
use libilb::healthcheck::Smtp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socket::{Stream, Way};
use crate::outcome::{Failure, Success};

/// Longest reply, with all its lines.
const MAX_REPLY: usize = 8 << 10;

pub async fn probe(place: SocketAddr, way: &Way, smtp: &Smtp) -> Result<Success, Failure> {
    let stream = way
        .connect(place)
        .await
        .map_err(|error| Failure::of_socket(Layer::L4, &error))?;
    let mut talk = Talk {
        stream,
        held: Vec::new(),
    };
    let banner = talk.expect(220).await?;
    let name = smtp.helo.clone().unwrap_or_else(host_name);
    talk.say(&format!("HELO {name}\r\n")).await?;
    talk.expect(250).await?;
    // It lives; how it says goodbye does not matter, but it may have the time to.
    if talk.say("QUIT\r\n").await.is_ok() {
        let _ = talk.reply().await;
    }
    Ok(Success {
        number: Some(220),
        words: banner,
        ..Success::at(Layer::L7)
    })
}

fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_string())
}

struct Talk {
    stream: Stream,
    /// What has come and is not used up.
    held: Vec<u8>,
}

impl Talk {
    async fn say(&mut self, line: &str) -> Result<(), Failure> {
        let said = self.stream.write_all(line.as_bytes()).await;
        said.map_err(|error| Failure::of_socket(Layer::L7, &error))
    }

    /// A reply with this code, and its words.
    async fn expect(&mut self, code: u16) -> Result<String, Failure> {
        let (found, words) = self.reply().await?;
        match found == code {
            true => Ok(words),
            false => Err(Failure::new(Layer::L7, Code::Status, words).with_number(found)),
        }
    }

    /// A reply of one or several lines: its code, and the words of the first.
    async fn reply(&mut self) -> Result<(u16, String), Failure> {
        let mut room = MAX_REPLY;
        let mut first: Option<(u16, String)> = None;
        loop {
            let line = self.line(&mut room).await?;
            let text = String::from_utf8_lossy(&line);
            let bad = || {
                let begin: String = text.chars().take(80).collect();
                Failure::new(Layer::L7, Code::Protocol, format!("no SMTP, but: {begin}"))
            };
            let code = text
                .get(..3)
                .filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
            let code: u16 = code.and_then(|code| code.parse().ok()).ok_or_else(bad)?;
            let words = text.get(4..).unwrap_or_default().trim().to_string();
            let (code_of_first, words) = first.get_or_insert((code, words)).clone();
            if code != code_of_first {
                return Err(bad());
            }
            match text.as_bytes().get(3) {
                None | Some(b' ') => return Ok((code, words)),
                Some(b'-') => {}
                Some(_) => return Err(bad()),
            }
        }
    }

    async fn line(&mut self, room: &mut usize) -> Result<Vec<u8>, Failure> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.held[seen..].iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.held.drain(..=seen + at).collect();
                *room = room.saturating_sub(line.len());
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            seen = self.held.len();
            if seen >= *room {
                let words = "the reply is larger than 8 KiB";
                return Err(Failure::new(Layer::L7, Code::TooLarge, words));
            }
            let mut buffer = [0; 1024];
            let read = self.stream.read(&mut buffer).await;
            let length = read.map_err(|error| Failure::of_socket(Layer::L7, &error))?;
            if length == 0 {
                let words = "the connection was closed before the reply";
                return Err(Failure::new(Layer::L7, Code::Closed, words));
            }
            self.held.extend_from_slice(&buffer[..length]);
        }
    }
}
