//! Strangers and peers at a real port of the loopback.

use std::sync::atomic::AtomicU32;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::dial::{connect, join};

/// What came of each visitor.
type Outcome = Result<Link, Refusal>;

/// Two nodes that know each other, and the door of one of them, which waits for a fraction of what it does otherwise.
struct Scene {
    ours: Arc<Identity>,
    theirs: Arc<Identity>,
    secret: Secret,
    door: Arc<Door>,
}

const PATIENCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(600));

impl Scene {
    fn new() -> Scene {
        Scene::with(PATIENCE)
    }

    fn with(patience: (Duration, Duration)) -> Scene {
        let minute = Arc::new(AtomicU32::new(this_minute()));
        let clock = minute.clone();
        let clock = Box::new(move || clock.load(Ordering::SeqCst));
        Scene {
            ours: Arc::new(Identity::generate().unwrap()),
            theirs: Arc::new(Identity::generate().unwrap()),
            secret: Secret::generate().unwrap(),
            door: Arc::new(Door::with(clock, patience)),
        }
    }

    /// What the one with the door knows.
    fn here(&self) -> Trust {
        Trust {
            identity: self.ours.clone(),
            peer: self.theirs.public(),
            secret: self.secret.clone(),
        }
    }

    /// What the one who dials knows.
    fn there(&self) -> Trust {
        Trust {
            identity: self.theirs.clone(),
            peer: self.ours.public(),
            secret: self.secret.clone(),
        }
    }

    fn token(&self) -> Token {
        Token {
            secret: self.secret.clone(),
            creator: self.ours.public(),
        }
    }

    /// A connection, and what becomes of it at the door.
    async fn dial(&self) -> (TcpStream, JoinHandle<Outcome>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (visitor, _) = listener.accept().await.unwrap();
        let (door, trust) = (self.door.clone(), self.here());
        let outcome = tokio::spawn(async move { door.accept(visitor, &trust).await });
        (stream.unwrap(), outcome)
    }

    /// The same where a token is open.
    async fn dial_with_token(&self) -> (TcpStream, JoinHandle<Outcome>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (visitor, _) = listener.accept().await.unwrap();
        let (door, identity, token) = (self.door.clone(), self.ours.clone(), self.token());
        let outcome = tokio::spawn(async move {
            let (joiner, link) = door.admit(visitor, &identity, &token).await?;
            assert_eq!(joiner, link.peer());
            Ok(link)
        });
        (stream.unwrap(), outcome)
    }

    async fn peer_gets_in(&self) -> (Link, Link) {
        let (stream, outcome) = self.dial().await;
        let there = connect(stream, &self.there()).await.unwrap();
        (outcome.await.unwrap().unwrap(), there)
    }
}

#[tokio::test]
async fn a_peer_is_let_in_and_both_ends_know_whom_they_speak_with() {
    let scene = Scene::new();
    let (here, there) = scene.peer_gets_in().await;
    assert_eq!(here.peer(), scene.theirs.public());
    assert_eq!(there.peer(), scene.ours.public());
    assert_eq!(here.local_address(), there.peer_address());
    assert_eq!(here.peer_address(), there.local_address());
    let counters = scene.door.counters();
    assert_eq!(counters.admitted, 1);
    assert!(counters.refused.iter().all(|(_, count)| *count == 0));
}

#[tokio::test]
async fn who_has_the_token_joins_and_both_ends_have_the_same_lasting_secret() {
    let scene = Scene::new();
    let (stream, outcome) = scene.dial_with_token().await;
    let joined = join(stream, &scene.theirs, &scene.token()).await.unwrap();
    let link = outcome.await.unwrap().unwrap();
    assert_eq!(link.peer(), scene.theirs.public());
    let lasting = Secret::new(link.export("lasting").unwrap());
    assert_eq!(joined.export("lasting").unwrap(), *lasting.octets());
    assert_ne!(joined.export("other").unwrap(), *lasting.octets());
    assert_ne!(lasting, scene.secret);
}
