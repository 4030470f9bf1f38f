//! Strangers and peers at a real port of the loopback.

use std::sync::atomic::AtomicU32;

use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::dial::{connect, join};

/// As long as a loaded machine may need.
const LONG: Duration = Duration::from_secs(60);

/// What came of each visitor.
type Outcome = Result<Link, Refusal>;

/// Two nodes that know each other, and the door of one of them, which waits for a fraction of what it does otherwise.
struct Scene {
    ours: Arc<Identity>,
    theirs: Arc<Identity>,
    secret: Secret,
    door: Arc<Door>,
    /// What the clock of the door says.
    minute: Arc<AtomicU32>,
}

/// Enough for a peer on a loaded machine to say who he is.
const STRANGER: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(4));

impl Scene {
    /// At whose door strangers wait for longer than any test.
    fn new() -> Scene {
        Scene::with((10 * LONG, 10 * LONG), LONG)
    }

    fn hanging_up() -> Scene {
        Scene::with(STRANGER, LONG)
    }

    fn with(stranger: (Duration, Duration), handshake: Duration) -> Scene {
        let patience = Patience {
            stranger,
            handshake,
        };
        let minute = Arc::new(AtomicU32::new(this_minute()));
        let clock = minute.clone();
        let clock = Box::new(move || clock.load(Ordering::SeqCst));
        Scene {
            ours: Arc::new(Identity::generate().unwrap()),
            theirs: Arc::new(Identity::generate().unwrap()),
            secret: Secret::generate().unwrap(),
            door: Arc::new(Door::with(clock, patience)),
            minute,
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

    async fn reason(outcome: JoinHandle<Outcome>) -> Reason {
        let outcome = timeout(LONG, outcome).await.unwrap();
        outcome.unwrap().unwrap_err().reason
    }

    async fn peer_gets_in(&self) -> (Link, Link) {
        let (stream, outcome) = self.dial().await;
        let there = connect(stream, &self.there()).await.unwrap();
        (outcome.await.unwrap().unwrap(), there)
    }

    fn greeting(&self, minute: u32) -> [u8; greeting::LEN] {
        let nonce = secret::random().unwrap();
        greeting::make(Kind::Peer, &self.secret, &self.theirs, minute, &nonce)
    }

    fn now(&self) -> u32 {
        self.minute.load(Ordering::SeqCst)
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

/// What a stranger does, and what he is counted as.
struct Stranger {
    what: &'static str,
    says: Vec<u8>,
    /// Whether he ends his half of the connection then.
    ends: bool,
    reason: Reason,
}

impl Stranger {
    fn new(what: &'static str, says: impl Into<Vec<u8>>, reason: Reason) -> Stranger {
        Stranger {
            what,
            says: says.into(),
            ends: false,
            reason,
        }
    }

    fn ending(what: &'static str, says: impl Into<Vec<u8>>, reason: Reason) -> Stranger {
        Stranger {
            ends: true,
            ..Stranger::new(what, says, reason)
        }
    }
}

/// What somebody says who begins with TLS, as a scanner does.
fn client_hello(identity: &Identity, creator: PublicKey) -> Vec<u8> {
    let config = tls::client(identity, Expected::Key(creator)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn strangers(scene: &Scene) -> Vec<Stranger> {
    let now = scene.now();
    let right = scene.greeting(now);
    let with = |at: usize, octet: u8| {
        let mut changed = scene.greeting(now);
        changed[at] = octet;
        changed
    };
    let thief = Identity::generate().unwrap();
    let made = |kind, secret: &Secret, identity: &Identity| {
        let nonce = secret::random().unwrap();
        greeting::make(kind, secret, identity, now, &nonce)
    };
    let hello = client_hello(&thief, scene.ours.public());
    let key = made(Kind::Peer, &scene.secret, &thief);
    let noise: [u8; 2048] = secret::random().unwrap();
    let noise = [b"\xff", noise.as_slice()].concat();
    let other = Secret::generate().unwrap();
    vec![
        Stranger::new("silence", "", Reason::Silent),
        Stranger::ending("a look whether the port is open", "", Reason::Silent),
        Stranger::new("noise", noise.clone(), Reason::Foreign),
        Stranger::ending("noise, and the end", noise, Reason::Foreign),
        Stranger::new("one octet", "x", Reason::Foreign),
        Stranger::new("a flood", vec![b'i'; 3 << 20], Reason::Foreign),
        Stranger::new("TLS without a greeting", hello.clone(), Reason::Foreign),
        Stranger::new("HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::Foreign),
        Stranger::ending("SSH", "SSH-2.0-OpenSSH_9.2\r\n", Reason::Foreign),
        Stranger::new("one octet of a greeting", "i", Reason::Incomplete),
        Stranger::new("half a greeting", &right[..60], Reason::Incomplete),
        Stranger::ending("all but one octet", &right[..123], Reason::Incomplete),
        Stranger::new("another version", with(4, 2), Reason::Version),
        Stranger::new(
            "no secret at all",
            with(123, right[123] ^ 1),
            Reason::Forged,
        ),
        Stranger::new("another nonce", with(20, right[20] ^ 1), Reason::Forged),
        Stranger::new(
            "another secret",
            made(Kind::Peer, &other, &scene.theirs),
            Reason::Forged,
        ),
        Stranger::new(
            "a joiner",
            made(Kind::Join, &scene.secret, &scene.theirs),
            Reason::Purpose,
        ),
        Stranger::new("another key", key, Reason::Key),
        Stranger::new(
            "another key, and TLS",
            [made(Kind::Peer, &scene.secret, &thief).as_slice(), &hello].concat(),
            Reason::Key,
        ),
        Stranger::new("too old", scene.greeting(now - 61), Reason::Clock),
        Stranger::new("too old by far", scene.greeting(0), Reason::Clock),
        Stranger::new("from the future", scene.greeting(now + 61), Reason::Clock),
        Stranger::new("the end of time", scene.greeting(u32::MAX), Reason::Clock),
    ]
}

/// All that the door says to somebody until it hangs up.
async fn heard(mut stream: TcpStream, stranger: &Stranger) -> Vec<u8> {
    // The door may have hung up on who says too much.
    let _ = stream.write_all(&stranger.says).await;
    if stranger.ends {
        let _ = stream.shutdown().await;
    }
    let mut heard = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut heard)).await.unwrap();
    heard
}

#[tokio::test]
async fn a_stranger_hears_nothing_and_is_counted_while_the_peer_gets_in() {
    let scene = Scene::hanging_up();
    let mut expected = [0; Reason::ALL.len()];
    let mut visits = Vec::new();
    for stranger in strangers(&scene) {
        let (stream, outcome) = scene.dial().await;
        expected[stranger.reason.index()] += 1;
        visits.push(tokio::spawn(async move {
            let heard = heard(stream, &stranger).await;
            assert_eq!(heard, b"", "{}", stranger.what);
            let reason = Scene::reason(outcome).await;
            assert_eq!(reason, stranger.reason, "{}", stranger.what);
        }));
    }
    for _ in 0..3 {
        scene.peer_gets_in().await;
    }
    for visit in visits {
        visit.await.unwrap();
    }
    let counters = scene.door.counters();
    assert_eq!(counters.admitted, 3);
    assert_eq!(counters.refused.map(|(_, count)| count), expected);
}

/// Neither what a stranger says nor how much is to be read from the moment at which the door hangs up.
#[tokio::test]
async fn a_stranger_is_not_hung_up_on_because_of_what_he_says() {
    let scene = Scene::new();
    let mut waiting = Vec::new();
    let known_at_once = |stranger: &Stranger| {
        let waits = matches!(stranger.reason, Reason::Silent | Reason::Incomplete);
        !stranger.ends && !waits && stranger.says.len() < 10_000
    };
    for stranger in strangers(&scene).into_iter().filter(known_at_once) {
        let before = scene.door.counters().refused_for(stranger.reason);
        let (mut stream, outcome) = scene.dial().await;
        stream.write_all(&stranger.says).await.unwrap();
        while scene.door.counters().refused_for(stranger.reason) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // More of it changes nothing.
        stream.write_all(&stranger.says).await.unwrap();
        waiting.push((stranger.what, stream, outcome));
    }
    assert!(waiting.len() > 10);
    scene.peer_gets_in().await;
    for (what, stream, outcome) in &waiting {
        let error = stream.try_read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{what}");
        assert!(!outcome.is_finished(), "{what}");
    }
}

#[tokio::test]
async fn a_greeting_opens_once() {
    let scene = Scene::new();
    let greeting = scene.greeting(scene.now());
    let hello = client_hello(&scene.theirs, scene.ours.public());
    let said = [greeting.as_slice(), &hello].concat();
    // Given one that was right, and was overheard.
    let (mut stream, first) = scene.dial().await;
    stream.write_all(&said).await.unwrap();
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await.unwrap();
    drop(stream);
    assert_eq!(Scene::reason(first).await, Reason::Handshake);
    // When it comes again, alone or with what followed it, soon or as late as it could.
    for minutes in [0, 30, 60] {
        scene.minute.fetch_add(minutes, Ordering::SeqCst);
        for says in [greeting.as_slice(), &said] {
            let reason = match scene.now() - this_minute() <= 60 {
                true => Reason::Repeated,
                false => Reason::Clock,
            };
            let stranger = Stranger::ending("repeated", says, reason);
            let (stream, outcome) = scene.dial().await;
            assert_eq!(heard(stream, &stranger).await, b"", "+{minutes}");
            assert_eq!(Scene::reason(outcome).await, reason, "+{minutes}");
        }
    }
    // Two at the same moment: one of them is the first.
    scene.minute.store(this_minute(), Ordering::SeqCst);
    let greeting = scene.greeting(scene.now());
    let said = [greeting.as_slice(), &hello].concat();
    let mut reasons = Vec::new();
    let (mut one, at_one) = scene.dial().await;
    let (mut two, at_two) = scene.dial().await;
    one.write_all(&said).await.unwrap();
    two.write_all(&said).await.unwrap();
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
    for outcome in [at_one, at_two] {
        reasons.push(Scene::reason(outcome).await.label());
    }
    reasons.sort_unstable();
    assert_eq!(reasons, ["handshake", "repeated"]);
}

#[tokio::test]
async fn when_too_many_wait_the_oldest_has_to_go_and_the_peer_gets_in() {
    let scene = Scene::new();
    let mut waiting = VecDeque::new();
    for _ in 0..PLACES {
        waiting.push_back(scene.dial().await);
    }
    let places = || lock(&scene.door.places).taken.len();
    while places() < PLACES {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for round in 1..=10 {
        scene.peer_gets_in().await;
        let crowded = scene.door.counters().refused_for(Reason::Crowded);
        assert_eq!(crowded, round, "one has to go for each who comes");
        waiting.push_back(scene.dial().await);
        while places() < PLACES {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let mut gone = 0;
    for (mut stream, outcome) in waiting {
        if outcome.is_finished() {
            assert_eq!(Scene::reason(outcome).await, Reason::Crowded);
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            gone += 1;
        }
    }
    assert_eq!(gone, 10);
}

/// Whoever stands between takes the greeting of the joiner and goes on with a key of his own.
#[tokio::test]
async fn a_greeting_on_its_way_is_of_no_use_to_who_takes_it() {
    let scene = Scene::new();
    let thief = Identity::generate().unwrap();
    let nonce = secret::random().unwrap();
    let minute = scene.now();
    let joining = greeting::make(Kind::Join, &scene.secret, &scene.theirs, minute, &nonce);
    let (mut stream, outcome) = scene.dial_with_token().await;
    stream.write_all(&joining).await.unwrap();
    let config = tls::client(&thief, Expected::Key(scene.ours.public())).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    // From his side TLS may look well until the creator has seen his key.
    let read = match connector.connect(name, stream).await {
        Ok(mut stream) => stream.read_u8().await,
        Err(error) => Err(error),
    };
    assert!(read.is_err(), "no welcome");
    let refusal = outcome.await.unwrap().unwrap_err();
    assert_eq!(refusal.reason, Reason::Handshake);
    assert_eq!(scene.door.counters().admitted, 0);
    // The joiner himself is let in with another greeting.
    let (stream, outcome) = scene.dial_with_token().await;
    join(stream, &scene.theirs, &scene.token()).await.unwrap();
    assert_eq!(
        outcome.await.unwrap().unwrap().peer(),
        scene.theirs.public()
    );
}

#[tokio::test]
async fn who_is_refused_where_a_token_is_open() {
    let scene = Scene::hanging_up();
    let other = Token {
        secret: Secret::generate().unwrap(),
        ..scene.token()
    };
    let (stream, without_it) = scene.dial_with_token().await;
    let (peers, of_old) = scene.dial_with_token().await;
    let trust = scene.there();
    let (joined, connected) =
        tokio::join!(join(stream, &scene.theirs, &other), connect(peers, &trust));
    assert!(matches!(joined, Err(LinkError::Refused)), "{joined:?}");
    assert!(
        matches!(connected, Err(LinkError::Refused)),
        "{connected:?}"
    );
    assert_eq!(Scene::reason(without_it).await, Reason::Forged);
    assert_eq!(Scene::reason(of_old).await, Reason::Purpose);
}

#[tokio::test]
async fn whoever_is_not_the_node_that_was_meant_is_known_by_its_key() {
    // Given somebody who has the token, or the secret of the pair, and answers in the place of the creator.
    let scene = Scene::new();
    let meant = Identity::generate().unwrap().public();
    let token = Token {
        creator: meant,
        ..scene.token()
    };
    let (stream, outcome) = scene.dial_with_token().await;
    let error = join(stream, &scene.theirs, &token).await.unwrap_err();
    assert!(matches!(error, LinkError::OtherKey), "{error}");
    assert_eq!(Scene::reason(outcome).await, Reason::Handshake);
    let trust = Trust {
        peer: meant,
        ..scene.there()
    };
    let (stream, outcome) = scene.dial().await;
    let error = connect(stream, &trust).await.unwrap_err();
    assert!(matches!(error, LinkError::OtherKey), "{error}");
    assert_eq!(Scene::reason(outcome).await, Reason::Handshake);
}

#[tokio::test]
async fn who_greets_rightly_and_says_no_more_is_not_waited_for() {
    let scene = Scene::with(STRANGER, Duration::from_secs(1));
    let (mut stream, outcome) = scene.dial().await;
    let greeting = scene.greeting(scene.now());
    stream.write_all(&greeting).await.unwrap();
    let refusal = timeout(LONG, outcome).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refusal.reason, Reason::Handshake);
    assert_eq!(refusal.detail, "none within 1 seconds");
    assert_eq!(refusal.from, Some(stream.local_addr().unwrap()));
}

/// TLS 1.3 with a fresh exchange each time: keys of a session are gone with it, whatever is stolen later.
#[tokio::test]
async fn no_session_has_anything_of_another_one() {
    let scene = Scene::new();
    let mut exports = Vec::new();
    for _ in 0..3 {
        let (here, there) = scene.peer_gets_in().await;
        for link in [&here, &there] {
            let (version, group, kind) = link.session();
            assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
            assert_eq!(group, Some(rustls::NamedGroup::X25519));
            assert_eq!(kind, Some(rustls::HandshakeKind::Full));
        }
        assert_eq!(here.export("a").unwrap(), there.export("a").unwrap());
        exports.push(here.export("a").unwrap());
    }
    exports.dedup();
    assert_eq!(exports.len(), 3);
}
