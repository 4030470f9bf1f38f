//! Tests of real servers: nginx, dnsmasq, the kernel's own ping, and a firewall between. Each test is in a network namespace
//! of its own, which goes with its threads. Needs root.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{ask, target, until, words};
use ilb_checks::probe::{Pinger, Tools};
use ilb_checks::{Engine, Options};
use libilb::health::{Code, HealthState, ServerHealth};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs a test in a new network namespace, with loopback up. Threads and processes that it starts are there, too.
fn apart(name: &str, test: impl FnOnce(&Folder) + Send + 'static) {
    let folder = Folder::new(name);
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        run("ip link set lo up");
        test(&folder);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command that has to succeed.
fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}");
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ilb-servers-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Server {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Server(child.unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx in one process, with these servers.
fn nginx(folder: &Folder, servers: &str) -> Server {
    let root = folder.0.display();
    let configuration = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root};\n\
         fastcgi_temp_path {root}; uwsgi_temp_path {root}; scgi_temp_path {root};\n{servers}\n}}\n"
    );
    let path = folder.write("nginx.conf", &configuration);
    Server::start("nginx", &["-c", &path, "-p", &root.to_string()])
}

fn listening(port: u16) {
    until("the server listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

fn place(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const HTTP: &str = "hc-test=http,hc-ping=no,hc-timeout=20";
/// For what never answers.
const HASTY: &str = "hc-test=http,hc-ping=no,hc-timeout=1";

#[test]
fn nginx_is_well_frozen_shut_off_and_killed() {
    apart("nginx", |folder| {
        let page = folder.write("index.html", "all is well\n");
        let root = folder.0.display();
        let servers = format!(
            "server {{ listen 127.0.0.1:80; listen [::1]:80; root {root};\n\
             location /broken {{ return 503; }} location /moved {{ return 301 /; }}\n\
             location /gone {{ return 444; }} }}\n\
             server {{ listen 127.0.0.1:80; server_name other.example; return 404; }}"
        );
        let server = nginx(folder, &servers);
        listening(80);
        let at = place("127.0.0.1:80");
        // md5sum and sha256sum of "all is well\n".
        let digest = |program: &str| {
            let output = Command::new(program).arg(&page).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace().next().unwrap().to_string()
        };
        let (md5, sha256) = (digest("md5sum"), digest("sha256sum"));
        for (settings, expected) in [
            ("", "good L7/ok 200"),
            (&*format!(",hc-digest={md5}"), "good L7/ok 200"),
            (
                &*format!(",hc-digest={sha256},hc-regex=is well$"),
                "good L7/ok 200",
            ),
            (
                ",hc-url=/broken",
                "dead L7/status 503: Service Temporarily Unavailable",
            ),
            (
                ",hc-url=/moved",
                "dead L7/status 301: Moved Permanently to http://127.0.0.1/",
            ),
            (",hc-url=/missing", "dead L7/status 404: Not Found"),
            (",hc-host=other.example", "dead L7/status 404: Not Found"),
            (
                ",hc-url=/gone",
                "dead L7/closed: the connection was closed without an answer",
            ),
        ] {
            assert_eq!(
                words(&ask(&format!("{HTTP}{settings}"), at)),
                expected,
                "{settings}"
            );
        }
        assert_eq!(words(&ask(HTTP, place("[::1]:80"))), "good L7/ok 200");
        // The body changes.
        fs::write(&page, "on fire\n").unwrap();
        let outcome = ask(&format!("{HTTP},hc-digest={md5}"), at);
        assert_eq!(outcome.finding.code, Code::Digest);
        let outcome = ask(&format!("{HTTP},hc-regex=well"), at);
        let expected =
            "dead L7/regex 200: the pattern does not occur in the body, which begins: on fire";
        assert_eq!(words(&outcome), expected);

        // Frozen: the kernel still takes connections, but nobody answers.
        server.signal(Signal::SIGSTOP);
        assert_eq!(words(&ask(HASTY, at)), "dead L7/timeout: no answer in time");
        assert_eq!(
            words(&ask("hc-test=tcp,hc-ping=no,hc-timeout=20", at)),
            "good L4/ok"
        );
        server.signal(Signal::SIGCONT);
        assert_eq!(words(&ask(HTTP, at)), "good L7/ok 200");

        // Firewalled.
        run("nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }'");
        for (verdict, expected) in [
            ("drop", "dead L7/timeout: no answer in time"),
            (
                "reject with tcp reset",
                "dead L4/refused: connection refused",
            ),
            (
                "reject with icmp type port-unreachable",
                "dead L4/refused: connection refused",
            ),
            (
                "reject with icmp type host-unreachable",
                "dead L3/unreachable: no route to host",
            ),
            (
                "reject with icmp type admin-prohibited",
                "dead L3/unreachable: no route to host",
            ),
        ] {
            run(&format!("nft 'add rule inet t i tcp dport 80 {verdict}'"));
            let test = if verdict == "drop" { HASTY } else { HTTP };
            assert_eq!(words(&ask(test, at)), expected, "{verdict}");
            run("nft flush chain inet t i");
        }
        assert_eq!(words(&ask(HTTP, at)), "good L7/ok 200");
        drop(server);
        assert_eq!(words(&ask(HTTP, at)), "dead L4/refused: connection refused");
    });
}

/// Makes a key and a certificate that a test authority has signed.
fn certificate(folder: &Folder, name: &str, first: &str, last: &str) {
    let root = folder.0.display();
    run(&format!(
        "cd {root} && [ -e ca.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
         -subj /CN=test-authority -keyout ca.key -out ca.pem 2>&1"
    ));
    run(&format!(
        "cd {root} && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key \
         -out {name}.csr 2>&1"
    ));
    // `openssl x509` of Debian bookworm knows no dates, `openssl ca` does.
    folder.write(
        "ca.cnf",
        &format!(
            "[ca]\ndefault_ca=c\n[c]\ndatabase={root}/index.txt\nnew_certs_dir={root}\nrand_serial=yes\n\
             default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=DNS:{name}\n"
        ),
    );
    folder.write("index.txt", "");
    run(&format!(
        "cd {root} && openssl ca -batch -config ca.cnf -extensions x -cert ca.pem -keyfile ca.key -startdate {first} \
         -enddate {last} -in {name}.csr -out {name}.pem 2>&1"
    ));
}

#[test]
fn certificates_are_judged_where_they_count() {
    apart("tls", |folder| {
        certificate(folder, "good.example", "20200101000000Z", "20990101000000Z");
        certificate(folder, "old.example", "20200101000000Z", "20210203000000Z");
        certificate(folder, "new.example", "20980101000000Z", "20990101000000Z");
        let root = folder.0.display();
        let server = |name: &str, port: u16| {
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; ssl_certificate {root}/{name}.pem;\n\
                 ssl_certificate_key {root}/{name}.key; return 200 hello; }}"
            )
        };
        // All three by SNI on one port; the first is for those who ask for another name.
        let servers = ["good.example", "old.example", "new.example"]
            .map(|n| server(n, 443))
            .join("\n");
        let plain = "server { listen 127.0.0.1:80; return 200 plain; }";
        let _server = nginx(folder, &format!("{servers}\n{plain}"));
        listening(443);
        let at = place("127.0.0.1:443");
        let ca = folder.path("ca.pem");
        let any = "hc-test=https,hc-ping=no,hc-timeout=20";
        let verify = &format!("{any},hc-verify=yes,hc-ca-file={ca}");
        let strangers = &format!("{any},hc-verify=yes");
        let unknown = "dead L6/certificate: the certificate's issuer is not trusted (ca-file names those who are)";
        for (test, settings, expected) in [
            (any, "", "good L7/ok 200"),
            (any, ",hc-sni=old.example", "good L7/ok 200"),
            (verify, ",hc-sni=good.example", "good L7/ok 200"),
            (
                verify,
                ",hc-host=good.example:443,hc-regex=hello",
                "good L7/ok 200",
            ),
            (
                verify,
                ",hc-sni=old.example",
                "dead L6/certificate: the certificate expired on 2021-02-03",
            ),
            (
                verify,
                ",hc-sni=new.example",
                "dead L6/certificate: the certificate is not valid before 2098-01-01",
            ),
            (
                verify,
                ",hc-sni=bad.example",
                "dead L6/certificate: the certificate is for good.example, not for bad.example",
            ),
            (
                verify,
                "",
                "dead L6/certificate: the certificate is for good.example, not for 127.0.0.1",
            ),
        ] {
            let outcome = ask(&format!("{test}{settings}"), at);
            assert_eq!(
                words(&outcome).replace("DnsName(\"good.example\")", "good.example"),
                expected,
                "{settings}"
            );
        }
        if fs::exists(libilb::healthcheck::CA_FILE).unwrap() {
            assert_eq!(
                words(&ask(&format!("{strangers},hc-sni=good.example"), at)),
                unknown
            );
        }
        // No TLS where it is expected.
        let outcome = ask(any, place("127.0.0.1:80"));
        assert_eq!(
            words(&outcome),
            "dead L6/handshake: the server does not speak TLS"
        );
    });
}

#[test]
fn dnsmasq_answers_and_its_answers_change() {
    apart("dns", |folder| {
        let hosts = folder.write(
            "hosts",
            "192.0.2.7 www.example.com\n2001:db8::7 www.example.com\n",
        );
        let arguments = |hosts: &str| {
            [
                "--keep-in-foreground".to_string(),
                "--conf-file=/dev/null".to_string(),
                "--no-resolv".to_string(),
                "--no-hosts".to_string(),
                "--user=root".to_string(),
                "--group=root".to_string(),
                "--pid-file=".to_string(),
                "--listen-address=127.0.0.1".to_string(),
                "--bind-interfaces".to_string(),
                "--cname=alias.example.com,www.example.com".to_string(),
                "--local=/example.com/".to_string(),
                format!("--addn-hosts={hosts}"),
            ]
        };
        let arguments = arguments(&hosts);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = Server::start("dnsmasq", &arguments);
        listening(53);
        let at = place("127.0.0.1:53");
        let test = "hc-test=dns,hc-ping=no,hc-timeout=20,hc-query=www.example.com";
        for (settings, expected) in [
            (",hc-type=A", "good L7/ok: 192.0.2.7"),
            (
                ",hc-type=AAAA,hc-answer=2001:DB8:0::7",
                "good L7/ok: 2001:db8::7",
            ),
            (
                ",hc-type=A,hc-answer=192.0.2.8",
                "dead L7/answer: the answer is 192.0.2.7",
            ),
            (
                ",hc-type=MX,hc-answer=mail.example.com",
                "dead L7/answer: the answer is empty",
            ),
        ] {
            assert_eq!(
                words(&ask(&format!("{test}{settings}"), at)),
                expected,
                "{settings}"
            );
        }
        let missing = "hc-test=dns,hc-ping=no,hc-timeout=20,hc-query=no.example.com,hc-type=A";
        let expected = "dead L7/status 3: NXDOMAIN: there is no such name";
        assert_eq!(words(&ask(missing, at)), expected);
        let alias = "hc-test=dns,hc-ping=no,hc-timeout=20,hc-query=alias.example.com,hc-type=A";
        let expected = "good L7/ok: www.example.com., 192.0.2.7";
        assert_eq!(
            words(&ask(&format!("{alias},hc-answer=www.example.com"), at)),
            expected
        );

        fs::write(&hosts, "192.0.2.8 www.example.com\n").unwrap();
        server.signal(Signal::SIGHUP);
        until("the answer has changed", || {
            words(&ask(&format!("{test},hc-type=A,hc-answer=192.0.2.8"), at))
                == "good L7/ok: 192.0.2.8"
        });
    });
}

#[test]
fn pings_are_answered_dropped_or_undeliverable() {
    apart("ping", |_| {
        let ping = "hc-test=ping,hc-timeout=20";
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let outcome = ask(ping, place(address));
            assert_eq!(words(&outcome), "good L3/ok", "{address}");
            assert!(outcome.rtt.is_some());
        }
        // Nowhere to go, and a link where nobody answers for the address.
        let outcome = ask(ping, place("198.51.100.1:0"));
        assert_eq!(
            words(&outcome),
            "dead L3/unreachable: network is unreachable"
        );
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 up; ip link set v1 up");
        run("ip address add 192.0.2.1/24 dev v0; ip address add 2001:db8::1/64 dev v0 nodad");
        for (address, expected) in [
            ("192.0.2.9:0", "dead L3/unreachable 1: host unreachable"),
            (
                "[2001:db8::9]:0",
                "dead L3/unreachable 3: address unreachable",
            ),
        ] {
            assert_eq!(words(&ask(ping, place(address))), expected, "{address}");
        }
        let outcome = ask(&format!("{ping},hc-source=192.0.2.1"), place("192.0.2.1:0"));
        assert_eq!(words(&outcome), "good L3/ok");
        run(
            "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; icmp type echo-request drop; }'",
        );
        let outcome = ask("hc-test=ping,hc-timeout=500ms", place("127.0.0.1:0"));
        assert_eq!(words(&outcome), "dead L3/timeout: no answer in time");
        // With a ping first, its failure is told from that of the test.
        let outcome = ask("hc-test=tcp,hc-timeout=500ms", place("127.0.0.1:80"));
        assert_eq!(words(&outcome), "unreachable L3/timeout: no answer in time");
        run("nft flush ruleset");
        let outcome = ask("hc-test=tcp,hc-timeout=20", place("127.0.0.1:80"));
        assert_eq!(words(&outcome), "dead L4/refused: connection refused");
    });
}

#[test]
fn pings_without_privileges_are_answered_too() {
    apart("dgram", |_| {
        let tools = || Tools {
            pinger: Pinger::unprivileged(),
            ..Tools::default()
        };
        run("echo 1 0 >/proc/sys/net/ipv4/ping_group_range");
        // Where no ping can be sent at all, a ping says nothing, and a test with a ping before it is made all the same.
        let outcome =
            common::ask_with("hc-test=ping,hc-timeout=20", place("127.0.0.1:0"), &tools());
        assert_eq!(
            words(&outcome),
            "unknown local/not-asked: cannot ping: permission denied"
        );
        let outcome =
            common::ask_with("hc-test=tcp,hc-timeout=20", place("127.0.0.1:80"), &tools());
        assert_eq!(words(&outcome), "dead L4/refused: connection refused");
        run("echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range");
        for (address, expected) in [("127.0.0.1:0", "good L3/ok"), ("[::1]:0", "good L3/ok")] {
            let outcome = common::ask_with("hc-test=ping,hc-timeout=20", place(address), &tools());
            assert_eq!(words(&outcome), expected, "{address}");
        }
    });
}

#[test]
fn thousands_of_pings_share_a_socket_and_each_gets_its_own_answer() {
    apart("crowd", |_| {
        // 127.1/16 answers, 127.2/16 does not.
        run(
            "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; \
             ip daddr 127.2.0.0/16 icmp type echo-request drop; }'",
        );
        let engine = Engine::start(Options {
            max_sockets: 8,
            max_scripts: 1,
            seed: 3,
        })
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let check = "hc-test=ping,hc-timeout=3,hc-interval=3,hc-count=2";
        let targets = (0..2000u32).map(|n| {
            let address = format!("127.{}.{}.{}:0", 1 + n % 2, n / 250, 1 + n % 250);
            target(n, check, place(&address))
        });
        engine.set(targets.collect());
        let settled = |server: &ServerHealth| {
            let answers = server.address.to_string().starts_with("127.1.");
            match answers {
                true => server.state == HealthState::Alive,
                false => server.state == HealthState::Dead,
            }
        };
        until("each has its state", || {
            std::thread::sleep(Duration::from_millis(200));
            let report = runtime.block_on(engine.report());
            report.servers.len() == 2000 && report.servers.iter().all(settled)
        });
    });
}
