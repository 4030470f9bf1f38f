//! The one who dials.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::greeting::{self, Kind};
use crate::identity::{Identity, PublicKey};
use crate::link::{Link, LinkError};
use crate::secret::{self, Secret};
use crate::tls::{self, Expected};
use crate::token::Token;

/// How long the whole beginning may take, from the greeting to the welcome. More than a door waits before it hangs up on a
/// stranger, so that one learns that he is one.
const PATIENCE: Duration = Duration::from_secs(8);
/// What says that the key was right.
pub(crate) const WELCOME: u8 = 1;

/// What a node of a pair knows of the other one.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Who the other node is.
    pub peer: PublicKey,
    /// What both know.
    pub secret: Secret,
}

/// Minutes since 1970, by the clock of this machine.
pub(crate) fn this_minute() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let minutes = since.map_or(0, |since| since.as_secs() / 60);
    u32::try_from(minutes).unwrap_or(u32::MAX)
}

/// Greets the peer at the other end of a connection that has just been made, and begins a session with it.
///
/// # Errors
/// If the peer does not answer, or somebody else does, within eight seconds.
pub async fn connect(stream: TcpStream, trust: &Trust) -> Result<Link, LinkError> {
    let (identity, secret) = (&trust.identity, &trust.secret);
    let greeted = greet(stream, identity, secret, Kind::Peer, trust.peer);
    within(PATIENCE, greeted).await
}

/// Greets the creator of a pair with the token that it has made. What lasts is by [`Link::export`], not by the token.
///
/// # Errors
/// As [`connect`].
pub async fn join(
    stream: TcpStream,
    identity: &Arc<Identity>,
    token: &Token,
) -> Result<Link, LinkError> {
    let greeted = greet(stream, identity, &token.secret, Kind::Join, token.creator);
    within(PATIENCE, greeted).await
}

async fn within(
    patience: Duration,
    greeted: impl Future<Output = Result<Link, LinkError>>,
) -> Result<Link, LinkError> {
    match tokio::time::timeout(patience, greeted).await {
        Ok(link) => link,
        Err(_) => Err(LinkError::Late(patience.as_secs())),
    }
}

async fn greet(
    mut stream: TcpStream,
    identity: &Identity,
    secret: &Secret,
    kind: Kind,
    peer: PublicKey,
) -> Result<Link, LinkError> {
    stream.set_nodelay(true)?;
    let nonce = secret::random()?;
    let greeting = greeting::make(kind, secret, identity, this_minute(), &nonce);
    // No name is sent; the library wants one all the same.
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let connector = TlsConnector::from(Arc::new(tls::client(identity, Expected::Key(peer))?));
    stream.write_all(&greeting).await.map_err(hung_up)?;
    let stream = connector.connect(name, stream).await.map_err(hung_up)?;
    let mut link = Link::new(TlsStream::Client(stream))?;
    // In TLS 1.3 the one who dials is ready before the other one has seen his key.
    match link.stream().read_u8().await.map_err(hung_up)? {
        WELCOME => Ok(link),
        other => Err(LinkError::Handshake(format!(
            "the other node begins with {other} instead of a welcome"
        ))),
    }
}

/// What it means when it happens before the welcome.
fn hung_up(error: std::io::Error) -> LinkError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(tls) = tls {
        return match tls {
            rustls::Error::InvalidCertificate(_) => LinkError::OtherKey,
            other => LinkError::Handshake(other.to_string()),
        };
    }
    match LinkError::from(error) {
        LinkError::Cut => LinkError::Refused,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A connection to somebody who says this and hangs up, or waits if he has nothing to say.
    async fn somebody(says: Option<&'static [u8]>) -> TcpStream {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut other, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut heard = [0; greeting::LEN];
            other.read_exact(&mut heard).await.unwrap();
            match says {
                Some(says) => other.write_all(says).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        stream.unwrap()
    }

    #[tokio::test]
    async fn what_the_one_who_dials_learns() {
        let identity = Arc::new(Identity::generate().unwrap());
        let trust = Trust {
            identity: identity.clone(),
            peer: Identity::generate().unwrap().public(),
            secret: Secret::generate().unwrap(),
        };
        let token = Token {
            secret: trust.secret.clone(),
            creator: trust.peer,
        };
        let cases: [(&'static [u8], &str); 3] = [
            (b"", "the other node hung up without a word"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no TLS session: "),
            (b"\x16\x03\x03\0\x05hello", "no TLS session: "),
        ];
        for (says, expected) in cases {
            let error = connect(somebody(Some(says)).await, &trust).await;
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{says:?}: {error}");
            let error = join(somebody(Some(says)).await, &identity, &token).await;
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{says:?}: {error}");
        }
        let stream = somebody(None).await;
        let greeted = greet(stream, &identity, &trust.secret, Kind::Peer, trust.peer);
        let late = within(Duration::from_millis(200), greeted).await;
        assert!(matches!(late, Err(LinkError::Late(0))), "{late:?}");
    }
}
