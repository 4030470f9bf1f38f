//! Every kind of test against peers that behave, and against peers that do not. On loopback, without privileges.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{answering, ask, nobody, request, serve, words};
use ilb_checks::Verdict;

/// Without the ping before it, and with a time that a loaded machine does not use up.
fn with(text: &str) -> String {
    format!("{text},hc-ping=no,hc-timeout=20")
}

/// For peers that never answer.
fn hasty(text: &str) -> String {
    format!("{text},hc-ping=no,hc-timeout=300ms")
}

#[test]
fn tcp_connects_or_says_why_not() {
    for address in ["127.0.0.1", "::1"] {
        let place = serve(address, |_| {});
        let outcome = ask(&with("hc-test=tcp"), place);
        assert_eq!(words(&outcome), "good L4/ok");
        assert!(outcome.rtt.is_some());
        let outcome = ask(&with(&format!("hc-test=tcp,hc-source={address}")), place);
        assert_eq!(words(&outcome), "good L4/ok");
        let outcome = ask(&with("hc-test=tcp"), nobody(address));
        assert_eq!(words(&outcome), "dead L4/refused: connection refused");
        assert_eq!(outcome.rtt, None);
    }
    let place: SocketAddr = "127.0.0.1:9".parse().unwrap();
    // An address that is not ours: nothing is said about the server.
    let outcome = ask(&with("hc-test=tcp,hc-source=192.0.2.77"), place);
    assert_eq!(
        words(&outcome),
        "unknown local/not-asked: cannot assign requested address"
    );
}

#[test]
fn tcp_that_is_not_accepted_in_time_is_a_timeout() {
    // Nobody accepts, and the queue is full.
    let socket = socket2_listener();
    let place = socket.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        let address = place;
        held.push(std::thread::spawn(move || {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500))
        }));
    }
    let held: Vec<_> = held
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(held.iter().any(Result::is_err), "the queue is not full");
    let outcome = ask(&hasty("hc-test=tcp"), place);
    assert_eq!(words(&outcome), "dead L4/timeout: no answer in time");
}

/// A listener with room for one.
fn socket2_listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    listener
}

#[test]
fn udp_is_dead_by_icmp_and_by_what_comes_back() {
    for address in ["127.0.0.1", "::1"] {
        let closed = UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap();
        let outcome = ask(&with("hc-test=udp"), closed);
        assert_eq!(words(&outcome), "dead L4/refused: connection refused");

        let silent = UdpSocket::bind((address, 0)).unwrap();
        let place = silent.local_addr().unwrap();
        let outcome = ask(&hasty("hc-test=udp"), place);
        assert_eq!(words(&outcome), "good L4/ok: no ICMP error came back");
        assert_eq!(outcome.rtt, None);
        let outcome = ask(&hasty("hc-test=udp,hc-payload=PING,hc-reply=any"), place);
        assert_eq!(words(&outcome), "dead L7/timeout: no answer in time");

        let echo = UdpSocket::bind((address, 0)).unwrap();
        let place = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                let _ = echo.send_to(&buffer[..length], from);
            }
        });
        for (settings, expected) in [
            ("hc-payload=PING", "good L4/ok"),
            ("hc-payload=PING,hc-reply=any", "good L7/ok"),
            ("hc-payload=PING,hc-reply=PIN", "good L7/ok"),
            ("hc-payload=0x12ff,hc-reply=0x1?", "good L7/ok"),
            (
                "hc-payload=PING,hc-reply=PONG",
                "dead L7/answer: 4 octets came back: 50 49 4e 47",
            ),
            ("hc-reply=any", "good L7/ok"),
        ] {
            let outcome = ask(&with(&format!("hc-test=udp,{settings}")), place);
            assert_eq!(words(&outcome), expected, "{settings}");
        }
    }
}

/// `hello` in both.
const MD5: &str = "5d41402abc4b2a76b9719d911017c592";
const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn http_compares_status_digest_and_pattern() {
    let hello = answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let chunks = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    );
    let moved = answering("HTTP/1.1 301 Moved\r\nLocation: https://a.example/\r\n\r\n");
    let broken = answering("HTTP/1.1 503 Out of order\r\n\r\n");
    let digest = format!("hc-digest={MD5}");
    let both = format!("hc-digest={SHA256},hc-regex=^hel+o$");
    for (place, settings, expected) in [
        (hello, "hc-url=/", "good L7/ok 200"),
        (hello, &digest, "good L7/ok 200"),
        (chunks, &digest, "good L7/ok 200"),
        (chunks, &both, "good L7/ok 200"),
        (hello, "hc-regex=ell", "good L7/ok 200"),
        (
            hello,
            "hc-regex=bye,hc-regex-no-match=yes",
            "good L7/ok 200",
        ),
        (hello, "hc-status=404", "dead L7/status 200: OK"),
        (
            hello,
            "hc-digest=00000000000000000000000000000000",
            "dead L7/digest 200: the body of 5 octets has the digest 5d41402abc4b2a76b9719d911017c592",
        ),
        (
            hello,
            "hc-regex=bye",
            "dead L7/regex 200: the pattern does not occur in the body, which begins: hello",
        ),
        (
            hello,
            "hc-regex=h,hc-regex-no-match=yes",
            "dead L7/regex 200: the body has what it must not have",
        ),
        (
            moved,
            "hc-url=/",
            "dead L7/status 301: Moved to https://a.example/",
        ),
        (moved, "hc-status=200-299,301", "good L7/ok 301"),
        (broken, "hc-url=/", "dead L7/status 503: Out of order"),
        (
            broken,
            "hc-url=/a,hc-status=503,hc-url=/b",
            "dead L7/status 503: /b: Out of order",
        ),
    ] {
        let outcome = ask(&with(&format!("hc-test=http,{settings}")), place);
        assert_eq!(words(&outcome), expected, "{settings}");
    }
    let outcome = ask(&with("hc-test=http"), nobody("127.0.0.1"));
    assert_eq!(words(&outcome), "dead L4/refused: connection refused");
}

#[test]
fn http_asks_for_the_virtual_host() {
    let place = serve("127.0.0.1", |mut stream| {
        let text = request(&mut stream);
        let line = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("")
                .to_string()
        };
        let body = format!("{}|{}", line("GET"), line("Host"));
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    });
    let port = place.port();
    for (settings, expected) in [
        (
            "hc-url=/a?b=c".to_string(),
            format!("GET /a\\?b=c HTTP/1.1\\|Host: 127.0.0.1:{port}"),
        ),
        (
            "hc-host=a.example,hc-url=/".to_string(),
            "GET / HTTP/1.1\\|Host: a.example".to_string(),
        ),
        (
            "hc-host=a.example,hc-url=/,hc-host=b.example:81".to_string(),
            "Host: b.example:81".to_string(),
        ),
    ] {
        let outcome = ask(
            &with(&format!("hc-test=http,{settings},hc-regex=^.*{expected}$")),
            place,
        );
        assert_eq!(words(&outcome), "good L7/ok 200", "{settings}");
    }
}

#[test]
fn hostile_http_servers_cost_bounded_time_and_memory() {
    // Each counts what it could send before the connection was closed.
    let sent = Arc::new(AtomicU64::new(0));
    let endless = |head: &'static str, line: &'static str| {
        let sent = sent.clone();
        serve("127.0.0.1", move |mut stream| {
            request(&mut stream);
            let _ = stream.write_all(head.as_bytes());
            let block = line.repeat(1 + 8192 / line.len());
            while stream.write_all(block.as_bytes()).is_ok() {
                sent.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
        })
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    for (place, settings, expected) in [
        (
            endless(ok, "X: y\r\n"),
            "hc-url=/",
            "dead L7/too-large: the head has more than 100 lines",
        ),
        (
            endless(ok, "xxxxxxxx"),
            "hc-url=/",
            "dead L7/too-large: the head is larger than 16 KiB",
        ),
        (
            endless("", "xxxxxxxx"),
            "hc-url=/",
            "dead L7/too-large: the head is larger than 16 KiB",
        ),
        (
            endless("HTTP/1.1 200 OK\r\n\r\n", "xxxxxxxx"),
            "hc-url=/",
            "good L7/ok 200",
        ),
        (
            endless("HTTP/1.1 200 OK\r\n\r\n", "xxxxxxxx"),
            "hc-regex=y,hc-regex-no-match=yes",
            "dead L7/too-large 200: the body has more than 262144 octets",
        ),
        (
            endless("HTTP/1.1 200 OK\r\n\r\n", "xxxxxxxx"),
            "hc-digest=00000000000000000000000000000000",
            "dead L7/too-large 200: the body has more than 16777216 octets",
        ),
        (
            endless(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "1;xxxxxx\r\nx\r\n",
            ),
            "hc-regex=xy",
            "dead L7/regex 200: the pattern does not occur in the body, which begins: ",
        ),
    ] {
        sent.store(0, Ordering::Relaxed);
        let outcome = ask(&with(&format!("hc-test=http,{settings}")), place);
        assert!(words(&outcome).starts_with(expected), "{}", words(&outcome));
        let most = if settings.contains("digest") {
            64 << 20
        } else {
            24 << 20
        };
        assert!(sent.load(Ordering::Relaxed) < most, "{expected}");
    }
}

#[test]
fn slow_and_silent_servers_cost_the_timeout() {
    let drip = serve("127.0.0.1", |mut stream| {
        request(&mut stream);
        while stream.write_all(b"H").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let silent = serve("127.0.0.1", |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for (text, place) in [
        ("hc-test=http", drip),
        ("hc-test=http", silent),
        ("hc-test=https", silent),
        ("hc-test=smtp", silent),
    ] {
        let outcome = ask(&hasty(text), place);
        assert_eq!(
            words(&outcome),
            "dead L7/timeout: no answer in time",
            "{text}"
        );
        assert!(outcome.finding.duration >= 300_000);
    }
}

#[test]
fn connections_that_break_say_how() {
    let closing = serve("127.0.0.1", |mut stream| {
        request(&mut stream);
    });
    let resetting = serve("127.0.0.1", |mut stream| {
        request(&mut stream);
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    });
    let garbage = serve("127.0.0.1", |mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        let _ = stream.read(&mut [0; 64]);
        std::thread::sleep(Duration::from_millis(200));
    });
    for (text, place, expected) in [
        (
            "hc-test=http",
            closing,
            "dead L7/closed: the connection was closed without an answer",
        ),
        (
            "hc-test=http",
            resetting,
            "dead L7/reset: connection reset by peer",
        ),
        (
            "hc-test=http",
            garbage,
            "dead L7/protocol: no HTTP, but: SSH-2.0-OpenSSH_9.2",
        ),
        (
            "hc-test=smtp",
            garbage,
            "dead L7/protocol: no SMTP, but: SSH-2.0-OpenSSH_9.2",
        ),
        (
            "hc-test=https",
            garbage,
            "dead L6/handshake: the server does not speak TLS",
        ),
    ] {
        let outcome = ask(&with(text), place);
        assert_eq!(words(&outcome), expected, "{text}");
    }
}

/// A mail server that says this, line by line: what stands before each is what it waits for.
fn mail(lines: &'static [(&'static str, &'static str)]) -> SocketAddr {
    serve("127.0.0.1", move |mut stream| {
        for (wait, say) in lines {
            let mut text = Vec::new();
            let mut octet = [0];
            while !wait.is_empty() && !text.ends_with(b"\n") {
                if stream.read(&mut octet).unwrap_or(0) == 0 {
                    return;
                }
                text.push(octet[0]);
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.starts_with(wait), "{text} is not {wait}");
            let _ = stream.write_all(say.as_bytes());
        }
    })
}

#[test]
fn smtp_greets_and_leaves() {
    let endless: &'static str = Box::leak("220-x\r\n".repeat(5000).into_boxed_str());
    let endless = Box::leak(Box::new([("", endless)]));
    for (place, expected) in [
        (
            mail(&[
                ("", "220-mail.example\r\n220 ready\r\n"),
                ("HELO probe.example\r\n", "250 hello\r\n"),
                ("QUIT", "221 bye\r\n"),
            ]),
            "good L7/ok 220: mail.example",
        ),
        (
            mail(&[
                ("", "220 x\r\n"),
                ("HELO", "250-a\r\n250 b\r\n"),
                ("QUIT", ""),
            ]),
            "good L7/ok 220: x",
        ),
        (
            mail(&[("", "554 no service\r\n")]),
            "dead L7/status 554: no service",
        ),
        (
            mail(&[("", "220 x\r\n"), ("HELO", "421 too busy\r\n")]),
            "dead L7/status 421: too busy",
        ),
        (
            mail(&[("", "220-x\r\n250 y\r\n")]),
            "dead L7/protocol: no SMTP, but: 250 y",
        ),
        (
            mail(&[("", "")]),
            "dead L7/closed: the connection was closed before the reply",
        ),
        (
            mail(endless),
            "dead L7/too-large: the reply is larger than 8 KiB",
        ),
    ] {
        let outcome = ask(&with("hc-test=smtp,hc-helo=probe.example"), place);
        assert_eq!(words(&outcome), expected);
    }
}

/// A name server: turns a question into what it answers.
fn name_server(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for packet in answer(&buffer[..length]) {
                let _ = socket.send_to(&packet, from);
            }
        }
    });
    place
}

/// The answer to a question: flags, and one address.
fn answer_with(question: &[u8], flags: [u8; 2], address: [u8; 4]) -> Vec<u8> {
    let mut packet = question.to_vec();
    packet[2..4].copy_from_slice(&flags);
    packet[7] = 1;
    packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    packet.extend(address);
    packet
}

#[test]
fn dns_asks_and_compares() {
    let good = name_server(|q| vec![answer_with(q, [0x81, 0x80], [192, 0, 2, 7])]);
    let refusing = name_server(|q| vec![answer_with(q, [0x81, 0x85], [0; 4])]);
    let garbage = name_server(|q| {
        vec![b"?".to_vec(), q.to_vec(), {
            let mut packet = answer_with(q, [0x81, 0x80], [1; 4]);
            packet.truncate(q.len() + 5);
            packet
        }]
    });
    // Answers to other questions come first.
    let noisy = name_server(|q| {
        let mut other = answer_with(q, [0x81, 0x80], [1; 4]);
        other[0] ^= 1;
        vec![
            other,
            vec![0; 700],
            answer_with(q, [0x81, 0x80], [192, 0, 2, 7]),
        ]
    });
    let name = "hc-test=dns,hc-query=www.example.com,hc-type=A";
    for (place, settings, expected) in [
        (good, "", "good L7/ok: 192.0.2.7"),
        (good, ",hc-answer=192.0.2.7", "good L7/ok: 192.0.2.7"),
        (
            good,
            ",hc-answer=192.0.2.8",
            "dead L7/answer: the answer is 192.0.2.7",
        ),
        (noisy, ",hc-answer=192.0.2.7", "good L7/ok: 192.0.2.7"),
        (
            refusing,
            "",
            "dead L7/status 5: REFUSED: the server refuses to answer",
        ),
        (garbage, "", "dead L7/protocol: the answer is malformed"),
    ] {
        let outcome = ask(&with(&format!("{name}{settings}")), place);
        assert_eq!(words(&outcome), expected, "{settings}");
    }
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        words(&ask(&with(name), closed)),
        "dead L4/refused: connection refused"
    );
}

#[test]
fn a_test_that_has_no_way_says_nothing_about_the_server() {
    let outcome = ask(
        &with("hc-test=https,hc-verify=yes,hc-ca-file=/nowhere.pem"),
        nobody("127.0.0.1"),
    );
    assert_eq!(outcome.verdict, Verdict::Unknown);
    assert!(
        outcome
            .finding
            .words
            .contains("cannot read certificates from /nowhere.pem")
    );
}
