//! Names as a real name server resolves them, and name servers that mean harm. No privileges are needed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ilb_checks::dns::resolver::{addresses, services};
use libilb::healthcheck::RecordType::{A, Aaaa};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A dnsmasq that ends with the test.
struct Dnsmasq {
    child: Child,
    at: SocketAddr,
}

impl Dnsmasq {
    fn start(arguments: &[&str]) -> Dnsmasq {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            // A port that is free now may be another test's a moment later: then it ends, and another one is tried.
            let free = UdpSocket::bind((LOOPBACK, 0)).unwrap();
            let at = free.local_addr().unwrap();
            drop(free);
            let child = Command::new("dnsmasq")
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--pid-file=",
                ])
                .args(["--no-resolv", "--no-hosts", "--listen-address=127.0.0.1"])
                .args([
                    "--bind-interfaces",
                    "--local=/example/",
                    "--user=",
                    "--group=",
                ])
                .arg(format!("--port={}", at.port()))
                .args(arguments)
                .stderr(Stdio::null())
                .spawn()
                .expect("dnsmasq (Debian package dnsmasq-base)");
            let mut dnsmasq = Dnsmasq { child, at };
            while dnsmasq.child.try_wait().unwrap().is_none() {
                if answers(at) {
                    return dnsmasq;
                }
                assert!(Instant::now() < until, "dnsmasq answers");
            }
            assert!(Instant::now() < until, "dnsmasq starts");
        }
    }
}

/// Whether somebody answers a question (for the servers of the root, RFC 1035 section 4.1) at once.
fn answers(at: SocketAddr) -> bool {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket.connect(at).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let question = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    // Refused as long as nobody is there.
    if socket.send(&question).is_err() {
        return false;
    }
    let mut answer = [0; 512];
    match socket.recv(&mut answer) {
        Ok(length) => length >= 12 && answer[..2] == question[..2],
        Err(_) => {
            thread::sleep(Duration::from_millis(20));
            false
        }
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has seen.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_real_name_server_is_understood() {
    // Far more than fits into a datagram.
    let many: Vec<String> = (1..=200u8)
        .map(|n| format!("--host-record=many.example,10.0.0.{n}"))
        .collect();
    let mut arguments = vec![
        "--local-ttl=77",
        "--host-record=app.example,192.0.2.1,2001:db8::1",
        "--host-record=app.example,192.0.2.2",
        "--host-record=b.example,192.0.2.9",
        "--cname=www.example,web.example,app.example",
        "--srv-host=_http._tcp.example,app.example,8080,1,5",
        "--srv-host=_http._tcp.example,b.example,8081,1,0",
        "--srv-host=_http._tcp.example,b.example,9999,2,1",
        "--srv-host=_lost._tcp.example,nobody.example,80,1,1",
        "--srv-host=_none._tcp.example",
    ];
    arguments.extend(many.iter().map(String::as_str));
    let dnsmasq = Dnsmasq::start(&arguments);
    let servers = [dnsmasq.at];

    let found = addresses(&servers, "app.example", &[A]).await.unwrap();
    assert_eq!(
        Vec::from_iter(found.addresses),
        [ip("192.0.2.1"), ip("192.0.2.2")]
    );
    assert_eq!(found.ttl, 77);
    let found = addresses(&servers, "App.Example.", &[A, Aaaa])
        .await
        .unwrap();
    assert_eq!(found.addresses.len(), 3);
    let found = addresses(&servers, "www.example", &[Aaaa]).await.unwrap();
    assert_eq!(Vec::from_iter(found.addresses), [ip("2001:db8::1")]);
    let found = addresses(&servers, "many.example", &[A]).await.unwrap();
    assert_eq!(found.addresses.len(), 200);
    for (name, kind, expected) in [
        ("b.example", Aaaa, "b.example has no addresses"),
        (
            "no.example",
            A,
            "no.example: NXDOMAIN: there is no such name (127.0.0.1)",
        ),
    ] {
        let error = addresses(&servers, name, &[kind]).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    let (hosts, ttl) = services(&servers, "_http._tcp.example", &[A])
        .await
        .unwrap();
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| {
            let service = &host.service;
            (
                service.target.as_str(),
                service.port,
                service.weight,
                host.addresses.len(),
            )
        })
        .collect();
    assert_eq!(
        hosts,
        [("b.example.", 8081, 0, 1), ("app.example.", 8080, 5, 2)]
    );
    assert_eq!(ttl, 77);
    for (name, expected) in [
        ("_lost._tcp.example", "nobody.example.: NXDOMAIN: "),
        (
            "_none._tcp.example",
            "_none._tcp.example has no SRV records",
        ),
        ("_no._tcp.example", "_no._tcp.example: NXDOMAIN: "),
    ] {
        let error = services(&servers, name, &[A]).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    // The next one is asked where one is dead.
    let dead = UdpSocket::bind((LOOPBACK, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let found = addresses(&[dead, dnsmasq.at], "b.example", &[A])
        .await
        .unwrap();
    assert_eq!(Vec::from_iter(found.addresses), [ip("192.0.2.9")]);
}

/// A name server that answers each question with what `answer` makes of it, over UDP; over TCP it says `stream` and closes.
fn hostile(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static, stream: Vec<u8>) -> SocketAddr {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for packet in answer(&buffer[..length]) {
                // Who asked may have heard enough.
                let _ = socket.send_to(&packet, from);
            }
        }
    });
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut question = [0; 512];
            let _ = connection.read(&mut question);
            let _ = connection.write_all(&stream);
        }
    });
    at
}

/// The answer to a question with these flags and records behind it.
fn packet(question: &[u8], flags: [u8; 2], count: u16, records: &[u8]) -> Vec<u8> {
    let mut packet = question.to_vec();
    packet[2..4].copy_from_slice(&flags);
    packet[6..8].copy_from_slice(&count.to_be_bytes());
    packet.extend(records);
    packet
}

/// An A record of the name that was asked for.
const RECORD: &[u8] = &[
    0xc0, 12, 0, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 4, 192, 0, 2, 1,
];
const ANSWER: [u8; 2] = [0x81, 0x80];
const CUT: [u8; 2] = [0x83, 0x80];

#[tokio::test]
async fn hostile_name_servers_cost_little_and_are_not_believed() {
    type Answer = Box<dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send>;
    let cases: Vec<(&str, Answer, Vec<u8>, &str)> = vec![
        (
            "guesses of ids",
            Box::new(|question| {
                let guess = |n: u8| {
                    let mut packet = packet(question, ANSWER, 1, RECORD);
                    packet[0] ^= n + 1;
                    packet
                };
                (0..100).map(guess).collect()
            }),
            vec![],
            "it answers what was not asked",
        ),
        (
            "answers to other questions",
            Box::new(|question| {
                let mut packet = packet(question, ANSWER, 1, RECORD);
                packet[13] ^= 1;
                vec![packet; 100]
            }),
            vec![],
            "it answers what was not asked",
        ),
        (
            "records that run out",
            Box::new(|question| vec![packet(question, ANSWER, 0xffff, RECORD)]),
            vec![],
            "the answer is malformed",
        ),
        (
            "a name that points to itself",
            Box::new(|question| {
                let at = u8::try_from(question.len()).unwrap();
                vec![packet(question, ANSWER, 1, &[0xc0, at])]
            }),
            vec![],
            "the answer is malformed",
        ),
        (
            "a stream that is shorter than it says",
            Box::new(|question| vec![packet(question, CUT, 0, &[])]),
            [&[0xff, 0xff][..], &[0; 1000]].concat(),
            "",
        ),
        (
            "a stream of nothing",
            Box::new(|question| vec![packet(question, CUT, 0, &[])]),
            vec![],
            "",
        ),
        (
            "another's addresses",
            Box::new(|question| {
                let mut record = b"\x04evil\x00".to_vec();
                record.extend(&RECORD[2..]);
                vec![packet(question, ANSWER, 1, &record)]
            }),
            vec![],
            "app.example has no addresses",
        ),
    ];
    for (given, answer, stream, expected) in cases {
        let at = hostile(answer, stream);
        let error = addresses(&[at], "app.example", &[A]).await.unwrap_err();
        assert!(
            error.to_string().ends_with(expected),
            "given {given}: {error}"
        );
    }
    // The right answer counts among wrong ones, and a time to live that is none is none.
    let at = hostile(
        |question| {
            let right = packet(question, ANSWER, 1, RECORD);
            let mut wrong = right.clone();
            wrong[1] ^= 1;
            vec![wrong.clone(), vec![0; 3], wrong, right]
        },
        vec![],
    );
    let found = addresses(&[at], "app.example", &[A]).await.unwrap();
    assert_eq!(Vec::from_iter(found.addresses), [ip("192.0.2.1")]);
    assert_eq!(found.ttl, 0);
}
