//! What goes between two nodes that know each other: messages, in frames, over TLS 1.3.
//!
//! ```text
//!   TCP:   greeting ▸          by the one who dials; the other one answers nothing before it is right
//!          TLS 1.3 ◂▸          both keys are tested
//!   in TLS:  welcome(1) ◂      by the one who was dialled, when it has tested the key of the other one
//!            frames ◂▸         length(4) message(length)
//! ```

use std::io;
use std::net::SocketAddr;

#[cfg(test)]
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::frame::{self, Decoder, TooLong};
use crate::identity::PublicKey;
use crate::secret::{NoRandom, SECRET_LEN};

/// Octets that are read at once.
const CHUNK: usize = 32 << 10;
/// What is kept of a buffer for sending.
const KEPT: usize = 1 << 20;

/// Why there is no link, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end hung up on us without an answer.
    #[error(
        "the other node hung up without a word, as it does with strangers: it does not know this node or its token (any longer), or their clocks differ by more than an hour"
    )]
    Refused,
    /// Nothing that belongs to a node came in time.
    #[error("no answer of a node of ilb within {0} seconds")]
    Late(u64),
    /// Somebody else answers there.
    #[error("another node answers there: its key is not the one of our peer")]
    OtherKey,
    /// TLS did not begin, or was broken off.
    #[error("no TLS session: {0}")]
    Handshake(String),
    /// What TLS 1.3 promises was not kept; only a mistake in this program could be the cause.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// See [`NoRandom`].
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// A message to be sent, or announced by the other end, is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The other end is gone without a good-bye, or in the middle of a message.
    #[error("the connection broke off")]
    Cut,
    /// Something else happened to the connection.
    #[error("connection: {0}")]
    Io(io::Error),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => LinkError::Cut,
            _ => LinkError::Io(error),
        }
    }
}

/// A session with the other node: it is who we think, and nobody else can read, change or repeat what is said.
#[derive(Debug)]
pub struct Link {
    stream: TlsStream<TcpStream>,
    peer: PublicKey,
    local_address: SocketAddr,
    peer_address: SocketAddr,
}

impl Link {
    /// Of a handshake that is over, with a key that was tested.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Result<Link, LinkError> {
        let (tcp, session) = stream.get_ref();
        let raw = session.peer_certificates().and_then(<[_]>::first);
        let peer = raw.and_then(|raw| PublicKey::from_spki(raw));
        let local_address = tcp.local_addr()?;
        let peer_address = tcp.peer_addr()?;
        let peer = peer.ok_or_else(|| LinkError::Handshake("there is no key".to_string()))?;
        Ok(Link {
            stream,
            peer,
            local_address,
            peer_address,
        })
    }

    pub(crate) fn stream(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.stream
    }

    /// Who the other end is.
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Where we are, seen from here.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Where the other end is, seen from here.
    pub const fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Octets that both ends of this session can compute and nobody else, other ones for each label (RFC 8446 section 7.5).
    ///
    /// # Errors
    /// Never, for a session that has begun.
    pub fn export(&self, label: &str) -> Result<[u8; SECRET_LEN], LinkError> {
        const LABEL: &[u8] = b"EXPORTER ilb pair";
        let out = [0; SECRET_LEN];
        let context = Some(label.as_bytes());
        let exported = match &self.stream {
            TlsStream::Client(stream) => {
                let (_, session) = stream.get_ref();
                session.export_keying_material(out, LABEL, context)
            }
            TlsStream::Server(stream) => {
                let (_, session) = stream.get_ref();
                session.export_keying_material(out, LABEL, context)
            }
        };
        Ok(exported?)
    }

    /// Version, key exchange and kind of handshake.
    #[cfg(test)]
    pub(crate) fn session(
        &self,
    ) -> (
        Option<ProtocolVersion>,
        Option<NamedGroup>,
        Option<HandshakeKind>,
    ) {
        let (_, session) = self.stream.get_ref();
        (
            session.protocol_version(),
            session
                .negotiated_key_exchange_group()
                .map(|group| group.name()),
            session.handshake_kind(),
        )
    }

    /// One half to send by and one to receive by, for a task each: two ends that send without receiving wait for each other.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        let (reader, writer) = tokio::io::split(self.stream);
        let sender = LinkSender {
            writer,
            pending: Vec::new(),
            sent: 0,
        };
        let receiver = LinkReceiver {
            reader,
            decoder: Decoder::default(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            held: 0..0,
        };
        (sender, receiver)
    }
}

/// Sends messages.
#[derive(Debug)]
pub struct LinkSender {
    writer: WriteHalf<TlsStream<TcpStream>>,
    /// Frames, of which `sent` octets have gone.
    pending: Vec<u8>,
    sent: usize,
}

impl LinkSender {
    /// Sends a message of at most 64 MiB. It is on its way when this returns, which says nothing of its arrival. If this is
    /// dropped before it returns, the message goes with the next one.
    ///
    /// # Errors
    /// If it is too long (nothing is sent then), or the link is gone.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let head = frame::head(message)?;
        self.pending.drain(..self.sent);
        self.sent = 0;
        self.pending.extend(head);
        self.pending.extend_from_slice(message);
        while self.sent < self.pending.len() {
            match self.writer.write(&self.pending[self.sent..]).await? {
                0 => return Err(LinkError::Cut),
                more => self.sent += more,
            }
        }
        self.writer.flush().await?;
        self.pending.clear();
        self.pending.shrink_to(KEPT);
        self.sent = 0;
        Ok(())
    }

    /// Says good-bye, so that the other end knows that nothing is missing.
    ///
    /// # Errors
    /// If the link is gone.
    pub async fn close(mut self) -> Result<(), LinkError> {
        Ok(self.writer.shutdown().await?)
    }
}

/// Receives messages.
#[derive(Debug)]
pub struct LinkReceiver {
    reader: ReadHalf<TlsStream<TcpStream>>,
    decoder: Decoder,
    chunk: Box<[u8]>,
    /// What of the chunk has not been looked at.
    held: std::ops::Range<usize>,
}

impl LinkReceiver {
    /// The next message; None when the other end has said good-bye between two of them. It may be dropped before it returns,
    /// as by `select!`: nothing gets lost.
    ///
    /// # Errors
    /// If the link is gone, or the other end announces a message that is too long: the link is of no use any longer.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            let mut input = &self.chunk[self.held.clone()];
            let before = input.len();
            let message = self.decoder.feed(&mut input)?;
            self.held.start += before - input.len();
            if message.is_some() {
                return Ok(message);
            }
            let len = self.reader.read(&mut self.chunk).await?;
            if len == 0 {
                return match self.decoder.is_between() {
                    true => Ok(None),
                    false => Err(LinkError::Cut),
                };
            }
            self.held = 0..len;
        }
    }
}

#[cfg(test)]
mod tests;
