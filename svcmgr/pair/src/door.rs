//! The port that tells a stranger nothing.
//!
//! Whoever connects has to greet first. Who does not do it rightly gets not one octet and no reason: whatever he has said,
//! or if he said nothing, the connection ends a few seconds after it began, at a moment that was drawn before. What he says
//! meanwhile is thrown away. A stranger who waits keeps nobody out: there are 64 places, and when all are taken the one who
//! came first has to go. Our peer greets at once, so he needs a place for the time of one round trip.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::dial::{Trust, WELCOME, this_minute};
use crate::greeting::{self, Greeting, Heard, Kind};
use crate::identity::{Identity, PublicKey};
use crate::link::{Link, LinkError};
use crate::refusal::{Reason, Refusal};
use crate::secret::{self, Secret};
use crate::tls::{self, Expected};
use crate::token::Token;

/// How many may be at the door before they are known.
const PLACES: usize = 64;
/// How long is waited for what.
const PATIENCE: Patience = Patience {
    stranger: (Duration::from_secs(3), Duration::from_secs(5)),
    handshake: Duration::from_secs(5),
};
/// What is read of a stranger at most, octets.
const MAX_HEARD: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
struct Patience {
    /// The connection of a stranger ends at a moment between these two, after it began.
    stranger: (Duration, Duration),
    /// How long TLS may take after a right greeting.
    handshake: Duration,
}

/// Who came, since the door was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// How many were let in.
    pub admitted: u64,
    /// How many were not, by their reason, in the order of [`Reason::ALL`].
    pub refused: [(Reason, u64); Reason::ALL.len()],
}

impl Counters {
    /// How many were refused for this reason.
    pub fn refused_for(&self, reason: Reason) -> u64 {
        self.refused[reason.index()].1
    }
}

/// Lets nodes in and nobody else. There should be one in a process, for as long as it lives: it remembers whom it has heard.
pub struct Door {
    places: Mutex<Places>,
    heard: Mutex<Heard>,
    admitted: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    /// This minute; not always that of the system's clock, in tests.
    clock: Box<dyn Fn() -> u32 + Send + Sync>,
    patience: Patience,
}

/// Those who are at the door, the oldest first.
#[derive(Default)]
struct Places {
    next: u64,
    taken: VecDeque<(u64, Arc<Notify>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place at the door, until it is dropped.
struct Place<'d> {
    door: &'d Door,
    number: u64,
    must_go: Arc<Notify>,
}

impl<'d> Place<'d> {
    fn take(door: &'d Door) -> Place<'d> {
        let mut places = lock(&door.places);
        if places.taken.len() >= PLACES
            && let Some((_, oldest)) = places.taken.pop_front()
        {
            oldest.notify_one();
        }
        let (number, must_go) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.taken.push_back((number, must_go.clone()));
        Place {
            door,
            number,
            must_go,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = lock(&self.door.places);
        places.taken.retain(|(number, _)| *number != self.number);
    }
}

impl Default for Door {
    fn default() -> Door {
        Door::new()
    }
}

impl Door {
    /// One at which nobody was yet.
    pub fn new() -> Door {
        Door::with(Box::new(this_minute), PATIENCE)
    }

    fn with(clock: Box<dyn Fn() -> u32 + Send + Sync>, patience: Patience) -> Door {
        Door {
            places: Mutex::default(),
            heard: Mutex::default(),
            admitted: AtomicU64::new(0),
            refused: Default::default(),
            clock,
            patience,
        }
    }

    /// Who came so far. A stranger is counted when it is clear what he is, which may be before his connection ends.
    pub fn counters(&self) -> Counters {
        let count = |reason: Reason| self.refused[reason.index()].load(Ordering::Relaxed);
        Counters {
            admitted: self.admitted.load(Ordering::Relaxed),
            refused: Reason::ALL.map(|reason| (reason, count(reason))),
        }
    }

    /// Lets our peer in, from a connection that was just accepted. Takes up to ten seconds, so every connection needs a task
    /// of its own.
    ///
    /// # Errors
    /// If it is somebody else. The connection has ended by then.
    pub async fn accept(&self, stream: TcpStream, trust: &Trust) -> Result<Link, Refusal> {
        let visitor = Visitor {
            kind: Kind::Peer,
            secret: &trust.secret,
            peer: Some(trust.peer),
        };
        self.receive(stream, &trust.identity, &visitor).await
    }

    /// Lets in who has this token, and says who it is. What lasts is by [`Link::export`], not by the token. Whether the token
    /// is still good is for the caller to know, before and after.
    ///
    /// # Errors
    /// As [`accept`](Door::accept).
    pub async fn admit(
        &self,
        stream: TcpStream,
        identity: &Arc<Identity>,
        token: &Token,
    ) -> Result<(PublicKey, Link), Refusal> {
        let visitor = Visitor {
            kind: Kind::Join,
            secret: &token.secret,
            peer: None,
        };
        let link = self.receive(stream, identity, &visitor).await?;
        Ok((link.peer(), link))
    }

    async fn receive(
        &self,
        mut stream: TcpStream,
        identity: &Identity,
        visitor: &Visitor<'_>,
    ) -> Result<Link, Refusal> {
        let from = stream.peer_addr().ok();
        let greeting = self.hear(&mut stream, visitor, from).await?;
        let expected = match visitor.peer {
            Some(peer) => Expected::Key(peer),
            None => Expected::Maker(Box::new(greeting)),
        };
        let most = self.patience.handshake;
        let welcomed = timeout(most, welcome(stream, identity, expected)).await;
        let detail = match welcomed {
            Ok(Ok(link)) => {
                self.admitted.fetch_add(1, Ordering::Relaxed);
                return Ok(link);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("none within {} seconds", most.as_secs()),
        };
        self.count(Reason::Handshake);
        Err(Refusal {
            reason: Reason::Handshake,
            from,
            detail,
        })
    }

    fn count(&self, reason: Reason) {
        self.refused[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Listens for a greeting; returns with it at once, or without one when the connection is to end.
    async fn hear(
        &self,
        stream: &mut TcpStream,
        visitor: &Visitor<'_>,
        from: Option<SocketAddr>,
    ) -> Result<Greeting, Refusal> {
        let end = Instant::now() + self.patience();
        let place = Place::take(self);
        let mut said = Said::default();
        let crowded = tokio::select! {
            _ = timeout_at(end, said.listen(stream)) => false,
            () = place.must_go.notified() => true,
        };
        let reason = match self.judge(&said, visitor) {
            Ok(greeting) => return Ok(greeting),
            Err(_) if crowded => Reason::Crowded,
            Err(reason) => reason,
        };
        self.count(reason);
        if !crowded {
            tokio::select! {
                _ = timeout_at(end, throw_away(stream)) => {}
                () = place.must_go.notified() => {}
            }
        }
        Err(Refusal {
            reason,
            from,
            detail: String::new(),
        })
    }

    /// When the connection of somebody who has just come is to end, should he be a stranger.
    fn patience(&self) -> Duration {
        let (least, most) = self.patience.stranger;
        // Without random numbers no session begins anyway.
        let drawn = secret::random().map_or(0, u16::from_be_bytes);
        least + (most - least) * u32::from(drawn) / u32::from(u16::MAX)
    }

    fn judge(&self, said: &Said, visitor: &Visitor<'_>) -> Result<Greeting, Reason> {
        if !greeting::may_become(said.octets()) {
            return Err(Reason::Foreign);
        }
        match said.len {
            0 => return Err(Reason::Silent),
            greeting::LEN => {}
            _ => return Err(Reason::Incomplete),
        }
        let greeting = greeting::read(&said.octets, visitor.kind, visitor.secret)?;
        // Of two that come at the same moment only one is the first.
        let mut heard = lock(&self.heard);
        heard.is_new(&greeting, (self.clock)())?;
        if visitor.peer.is_some_and(|peer| !greeting.is_by(&peer)) {
            return Err(Reason::Key);
        }
        heard.remember(&greeting);
        Ok(greeting)
    }
}

/// Who may come.
struct Visitor<'v> {
    kind: Kind,
    secret: &'v Secret,
    /// Nobody in particular, if it is whoever has the token.
    peer: Option<PublicKey>,
}

/// What somebody has said so far.
struct Said {
    octets: [u8; greeting::LEN],
    len: usize,
}

impl Default for Said {
    fn default() -> Said {
        Said {
            octets: [0; greeting::LEN],
            len: 0,
        }
    }
}

impl Said {
    fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// Until it has the length of a greeting, cannot become one, or no more will come. May be dropped at any time.
    async fn listen(&mut self, stream: &mut TcpStream) {
        while self.len < greeting::LEN && greeting::may_become(self.octets()) {
            match stream.read(&mut self.octets[self.len..]).await {
                Ok(more) if more > 0 => self.len += more,
                _ => return,
            }
        }
    }
}

/// Reads what a stranger says, until he is through or has said too much.
async fn throw_away(stream: &mut TcpStream) {
    let mut nothing = [0; 4096];
    let mut heard = 0;
    while let Ok(more) = stream.read(&mut nothing).await {
        heard += more;
        if more == 0 || heard > MAX_HEARD {
            return;
        }
    }
}

/// TLS, and the word that tells the other one that his key was right.
async fn welcome(
    stream: TcpStream,
    identity: &Identity,
    expected: Expected,
) -> Result<Link, LinkError> {
    stream.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(identity, expected)?));
    let stream = acceptor.accept(stream).await?;
    let mut link = Link::new(TlsStream::Server(stream))?;
    link.stream().write_u8(WELCOME).await?;
    link.stream().flush().await?;
    Ok(link)
}

#[cfg(test)]
mod tests;
