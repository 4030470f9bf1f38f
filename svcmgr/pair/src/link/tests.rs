//! Links over the loopback, and over somebody who interferes.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::{Door, Identity, Secret, Trust, connect};

/// As long as a loaded machine may need.
const LONG: Duration = Duration::from_secs(60);

/// Where whoever dials gets to, and where the other end listens: the same, or somebody between them.
async fn links(between: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> (Link, Link) {
    let ours = Arc::new(Identity::generate().unwrap());
    let theirs = Arc::new(Identity::generate().unwrap());
    let secret = Secret::generate().unwrap();
    let here = Trust {
        identity: ours.clone(),
        peer: theirs.public(),
        secret: secret.clone(),
    };
    let there = Trust {
        identity: theirs,
        peer: ours.public(),
        secret,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = between(listener.local_addr().unwrap()).await;
    let door = Door::new();
    let (link, dialled) = tokio::join!(
        async { door.accept(listener.accept().await.unwrap().0, &here).await },
        async { connect(TcpStream::connect(address).await.unwrap(), &there).await },
    );
    (link.unwrap(), dialled.unwrap())
}

async fn direct() -> (Link, Link) {
    links(async |address| address).await
}

async fn next(receiver: &mut LinkReceiver) -> Result<Option<Vec<u8>>, LinkError> {
    timeout(LONG, receiver.receive()).await.unwrap()
}

/// A message that is known by its number.
fn message(number: usize) -> Vec<u8> {
    let octet = |at: usize| (number.wrapping_mul(31) ^ at) as u8;
    (0..number * number % 40_000).map(octet).collect()
}

#[tokio::test]
async fn messages_of_all_sizes_go_both_ways_at_once_and_in_order() {
    let (here, there) = direct().await;
    let mut tasks = Vec::new();
    for (link, count) in [(here, 700), (there, 400)] {
        let (mut sender, mut receiver) = link.split();
        tasks.push(tokio::spawn(async move {
            for number in 0..count {
                sender.send(&message(number)).await.unwrap();
            }
            sender.close().await.unwrap();
        }));
        let theirs = 1_100 - count;
        tasks.push(tokio::spawn(async move {
            for number in 0..theirs {
                let heard = next(&mut receiver).await.unwrap().unwrap();
                assert!(heard == message(number), "{number}");
            }
            assert_eq!(next(&mut receiver).await.unwrap(), None, "a good-bye");
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn many_small_messages() {
    let (here, there) = direct().await;
    let (mut sender, _kept) = here.split();
    let (_kept_too, mut receiver) = there.split();
    let sending = tokio::spawn(async move {
        for number in 0..20_000_u32 {
            let octets = number.to_be_bytes();
            sender.send(&octets[..number as usize % 5]).await.unwrap();
        }
        sender
    });
    for number in 0..20_000_u32 {
        let heard = next(&mut receiver).await.unwrap().unwrap();
        assert_eq!(heard, number.to_be_bytes()[..number as usize % 5]);
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn the_longest_message_and_one_octet_more() {
    let (here, there) = direct().await;
    let (mut sender, _kept) = here.split();
    let (_kept_too, mut receiver) = there.split();
    let longest = vec![0x5a; frame::MAX];
    let error = sender.send(&vec![0; frame::MAX + 1]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a message of 67108865 octets; the longest has 67108864"
    );
    // Nothing of it was sent: the link is as good as before.
    let sending = tokio::spawn(async move {
        sender.send(&longest).await.unwrap();
        sender.send(b"after it").await.unwrap();
        sender
    });
    let heard = next(&mut receiver).await.unwrap().unwrap();
    assert!(heard.len() == frame::MAX && heard.iter().all(|octet| *octet == 0x5a));
    assert_eq!(next(&mut receiver).await.unwrap().unwrap(), b"after it");
    let sender = sending.await.unwrap();
    assert!(
        sender.pending.capacity() <= KEPT,
        "its memory is given back"
    );
}

#[tokio::test]
async fn what_ends_a_link() {
    /// What comes after one good message, and whether a good-bye follows.
    struct Case {
        what: &'static str,
        comes: &'static [u8],
        good_bye: bool,
        expected: &'static str,
    }
    let case = |what, comes, good_bye, expected| Case {
        what,
        comes,
        good_bye,
        expected,
    };
    let cut = "Err(the connection broke off)";
    let cases = [
        case("a good-bye", b"", true, "None"),
        case("no good-bye", b"", false, cut),
        case("half a length", b"\0\0", true, cut),
        case("a length alone", b"\0\0\0\x0a", true, cut),
        case("a part of a message", b"\0\0\0\x0aabc", true, cut),
        case("the same without good-bye", b"\0\0\0\x0aabc", false, cut),
        case("an empty message", b"\0\0\0\0", true, "Some([])"),
        case(
            "a length that is too long by one",
            b"\x04\0\0\x01",
            true,
            "Err(a message of 67108865 octets; the longest has 67108864)",
        ),
        case(
            "the longest length of all",
            b"\xff\xff\xff\xff...",
            false,
            "Err(a message of 4294967295 octets; the longest has 67108864)",
        ),
    ];
    for case in cases {
        let (mut here, there) = direct().await;
        let (_kept, mut receiver) = there.split();
        let stream = here.stream();
        stream.write_all(b"\0\0\0\x02hi").await.unwrap();
        stream.write_all(case.comes).await.unwrap();
        stream.flush().await.unwrap();
        match case.good_bye {
            true => stream.shutdown().await.unwrap(),
            false => drop(here),
        }
        let first = next(&mut receiver).await.unwrap();
        assert_eq!(first.unwrap(), b"hi", "{}", case.what);
        let then = match next(&mut receiver).await {
            Ok(None) => "None".to_string(),
            Ok(Some(message)) => format!("Some({message:?})"),
            Err(error) => format!("Err({error})"),
        };
        assert_eq!(then, case.expected, "{}", case.what);
    }
}

#[tokio::test]
async fn receiving_may_be_given_up_at_any_moment() {
    let (here, there) = direct().await;
    let (mut sender, _kept) = here.split();
    let (_kept_too, mut receiver) = there.split();
    let sending = tokio::spawn(async move {
        for number in 0..300 {
            sender.send(&message(number)).await.unwrap();
        }
        sender
    });
    let mut number = 0;
    while number < 300 {
        // Mostly given up before there is anything.
        let heard = tokio::select! {
            biased;
            heard = receiver.receive() => heard,
            () = tokio::task::yield_now() => continue,
        };
        assert!(heard.unwrap().unwrap() == message(number), "{number}");
        number += 1;
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_message_whose_sending_was_given_up_goes_with_the_next_one() {
    let (here, there) = direct().await;
    let (mut sender, _kept) = here.split();
    let (_kept_too, mut receiver) = there.split();
    // More than what the system takes from us while nobody reads.
    let long = vec![1; 16 << 20];
    let given_up = timeout(Duration::from_millis(100), sender.send(&long)).await;
    assert!(given_up.is_err(), "it cannot have gone");
    let sending = tokio::spawn(async move {
        sender.send(b"next").await.unwrap();
        sender
    });
    assert!(next(&mut receiver).await.unwrap().unwrap() == long);
    assert_eq!(next(&mut receiver).await.unwrap().unwrap(), b"next");
    sending.await.unwrap();
}

/// Somebody between the nodes who changes one bit of what goes to the one who listens, a while after the beginning.
#[tokio::test]
async fn what_was_changed_on_its_way_is_not_believed() {
    const AT: usize = 20_000;
    let (here, there) = links(async |address| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let between = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(address).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let back = tokio::io::copy(&mut from_server, &mut to_client);
            let forth = async move {
                let (mut seen, mut chunk) = (0, [0; 1024]);
                while let Ok(len @ 1..) = from_client.read(&mut chunk).await {
                    if (seen..seen + len).contains(&AT) {
                        chunk[AT - seen] ^= 1;
                    }
                    seen += len;
                    if to_server.write_all(&chunk[..len]).await.is_err() {
                        return;
                    }
                }
            };
            let _ = tokio::join!(back, forth);
        });
        between
    })
    .await;
    let (mut sender, _kept) = there.split();
    let (_kept_too, mut receiver) = here.split();
    let sending = tokio::spawn(async move {
        // The other end hangs up somewhere on the way.
        for number in 0.. {
            if sender.send(&message(number)).await.is_err() {
                return;
            }
        }
    });
    let mut heard = 0;
    let error = loop {
        match next(&mut receiver).await {
            Ok(told) => assert!(told.unwrap() == message(heard), "{heard}"),
            Err(error) => break error,
        }
        heard += 1;
    };
    assert!(heard > 0, "all was well before");
    assert_eq!(
        error.to_string(),
        "connection: cannot decrypt peer's message"
    );
    drop((receiver, _kept_too));
    timeout(LONG, sending).await.unwrap().unwrap();
}
