//! A connection to a web server that stays open and goes on asking who is there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::load;

/// A connection that stays open, to a server that was not chosen but found.
#[derive(Debug)]
pub struct Held {
    stream: BufReader<TcpStream>,
    /// Who answered first.
    pub server: String,
}

impl Held {
    /// Opens it, to a service that is healthy.
    #[track_caller]
    pub fn open(target: SocketAddr) -> Held {
        let stream = load::connect(target, None).expect("a healthy service takes connections");
        let mut held = Held {
            stream: BufReader::new(stream),
            server: String::new(),
        };
        held.server = held.ask().expect("a healthy service answers");
        held
    }

    /// Asks who is there.
    ///
    /// # Errors
    /// Those of the connection, and its end.
    pub fn ask(&mut self) -> std::io::Result<String> {
        let request = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
        self.stream.get_mut().write_all(request)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).trim_end().to_string())
    }
}
