//! Mail, file and name servers that fall sick: killed, frozen, firewalled, and saying something else than they should. Each time
//! the reason is found in words, clients get the others, and the server comes back when it is well.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ilb_tests::lab::process::Daemon;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::{Family, load, shell};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Long enough for whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the checks ask: quickly, and sure of what they say.
const TIMING: &str = "hc-timeout=1,hc-count=3,hc-interval=0.25,hc-ping=no";
/// The one that falls sick.
const SICK: u8 = 2;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Mail,
    Files,
    Names,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Mail, Kind::Files, Kind::Names];

    fn name(self) -> &'static str {
        match self {
            Kind::Mail => "mail",
            Kind::Files => "files",
            Kind::Names => "names",
        }
    }

    fn port(self) -> u16 {
        match self {
            Kind::Mail => 25,
            Kind::Files => 21,
            Kind::Names => 53,
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Kind::Names => "udp",
            Kind::Mail | Kind::Files => "tcp",
        }
    }

    fn check(self) -> &'static str {
        match self {
            Kind::Mail => "hc-test=smtp,hc-helo=lb.lab.example",
            Kind::Files => "hc-test=tcp",
            Kind::Names => "hc-test=dns,hc-query=health.lab.example,hc-type=A,hc-answer=192.0.2.1",
        }
    }

    /// A rule and its group of a family.
    fn rule(self, family: Family) -> String {
        match family {
            Family::V4 => format!("{}4", self.name()),
            Family::V6 => format!("{}6", self.name()),
        }
    }

    /// The number of its VIP.
    fn vip(self) -> u8 {
        match self {
            Kind::Mail => 0,
            Kind::Files => 1,
            Kind::Names => 2,
        }
    }
}

/// A mail server (Python's aiosmtpd) that says who it is, and what it answers to HELO.
const MAIL: &str = "\
import asyncio, sys
from aiosmtpd.smtp import SMTP
who, helo, *addresses = sys.argv[1:]
class Handler:
    async def handle_HELO(self, server, session, envelope, hostname):
        session.host_name = hostname
        return helo
async def main():
    loop = asyncio.get_running_loop()
    make = lambda: SMTP(Handler(), hostname=who, ident='at your service')
    for address in addresses:
        await loop.create_server(make, address, 25)
    await asyncio.Event().wait()
asyncio.run(main())
";

/// Starts a server; `wrong` is one that is there and says the wrong thing.
fn start(lab: &Lab, kind: Kind, n: u8, wrong: bool) -> Daemon {
    let role = format!("s{n}");
    let addresses = Family::BOTH.map(|family| lab.server(family, n).to_string());
    let mut command = match kind {
        Kind::Mail => {
            let mut command = lab.at(&role).command("/usr/bin/python3");
            let helo = match wrong {
                true => "421 closed for today",
                false => "250 welcome",
            };
            command.args(["-c", MAIL, &role, helo]).args(&addresses);
            command
        }
        Kind::Files => {
            let own = lab.directory().join(&role);
            let configuration = own.join("vsftpd.conf");
            let text = format!(
                "listen=NO\nlisten_ipv6=YES\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nanon_root={own}\n\
                 secure_chroot_dir={own}\nseccomp_sandbox=NO\nisolate_network=NO\nxferlog_enable=NO\nftpd_banner={role} has files\n",
                own = own.display()
            );
            std::fs::write(&configuration, text).expect("the lab's directory can be written");
            let mut command = lab.at(&role).command("vsftpd");
            command.arg(&configuration);
            command
        }
        Kind::Names => {
            let health = if wrong { "192.0.2.99" } else { "192.0.2.1" };
            let mut command = lab.at(&role).command("dnsmasq");
            command
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--pid-file=",
                ])
                .args([
                    "--user=root",
                    "--no-resolv",
                    "--no-hosts",
                    "--bind-interfaces",
                ])
                .args(addresses.map(|address| format!("--listen-address={address}")))
                .arg(format!("--host-record=health.lab.example,{health}"))
                .arg(format!("--host-record=who.lab.example,192.0.2.{n}"));
            command
        }
    };
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let log = lab.directory().join(format!("{}-{role}.log", kind.name()));
    Daemon::spawn(&format!("{} {role}", kind.name()), command, &log)
}

/// Asks a service who it is.
fn who(kind: Kind, target: SocketAddr) -> Option<String> {
    match kind {
        Kind::Mail | Kind::Files => {
            let stream: TcpStream = load::connect(target, None).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            // "220 s1 at your service"
            line.split_whitespace().nth(1).map(str::to_owned)
        }
        Kind::Names => {
            let any = match target.ip() {
                IpAddr::V4(_) => "0.0.0.0:0",
                IpAddr::V6(_) => "[::]:0",
            };
            let socket = UdpSocket::bind(any).ok()?;
            socket.set_read_timeout(Some(load::PATIENCE)).ok()?;
            socket.connect(target).ok()?;
            let mut question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
            question.extend(b"\x03who\x03lab\x07example\x00\x00\x01\x00\x01");
            socket.send(&question).ok()?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).ok()?;
            // One record, and at its end the address.
            Some(format!("s{}", answer.get(..length)?.last()?))
        }
    }
}

fn target(lab: &Lab, kind: Kind, family: Family) -> SocketAddr {
    SocketAddr::new(lab.vip(family, kind.vip()), kind.port())
}

/// Who serves a rule, asked often enough that everybody has to; `nobody` is among them if a question was not answered.
fn serving(lab: &Lab, kind: Kind, family: Family) -> BTreeSet<String> {
    let target = target(lab, kind, family);
    let all = lab
        .at("c1")
        .enter(|| (0..9).map(|_| who(kind, target)).collect::<Vec<_>>());
    let named = all.into_iter();
    named
        .map(|name| name.unwrap_or_else(|| "nobody".to_owned()))
        .collect()
}

/// Waits until the rules of a kind say this of the sick server, and checks who serves then.
#[track_caller]
fn wait_for(lab: &Lab, kind: Kind, given: &str, expected: &str, servers: &[&str]) {
    for family in Family::BOTH {
        let rule = kind.rule(family);
        let mut last = String::new();
        let found = shell::wait_for(PATIENCE, || {
            let line = format!("show-hc-result -p -o serverid,status,reason {rule}");
            let text = lab.node.lbadm(&line).replace("\\:", ":");
            let own = format!("_{rule}.{}:", SICK - 1);
            last = text
                .lines()
                .find_map(|line| line.strip_prefix(&own))?
                .to_owned();
            last.starts_with(expected).then_some(())
        });
        assert!(
            found.is_some(),
            "given {given}, {rule}: it is found that '{expected}', not '{last}'"
        );
        // A moment later the fast path knows it, too: from then on every question is answered, by these.
        let expected: BTreeSet<String> = servers.iter().map(|s| (*s).to_string()).collect();
        let mut last = BTreeSet::new();
        let found = shell::wait_for(PATIENCE, || {
            last = serving(lab, kind, family);
            (last == expected).then_some(())
        });
        assert!(
            found.is_some(),
            "given {given}, {rule} is served by {last:?}"
        );
    }
}

const ALL: &[&str] = &["s1", "s2", "s3"];
const OTHERS: &[&str] = &["s1", "s3"];

#[test]
fn mail_file_and_name_servers_are_missed_with_the_reason_and_come_back() {
    let lab = Lab::with_ilb(Spec::default());
    for n in 1..=3 {
        let role = format!("s{n}");
        lab.at(&role)
            .sysctl(&[("ipv4.icmp_ratelimit", "0"), ("ipv6.icmp.ratelimit", "0")]);
    }
    for kind in Kind::ALL {
        for n in [1, 3] {
            lab.adopt(start(&lab, kind, n, false));
        }
    }
    let mut sick = Kind::ALL.map(|kind| start(&lab, kind, SICK, false));
    for kind in Kind::ALL {
        let name = kind.name();
        lab.node.lbadm(&format!(
            "create-healthcheck -h {},{TIMING} {name}",
            kind.check()
        ));
        for family in Family::BOTH {
            let (rule, target) = (kind.rule(family), target(&lab, kind, family));
            lab.node.lbadm(&format!(
                "create-servergroup -s server={} {rule}",
                lab.server_specs(family, "")
            ));
            lab.node.lbadm(&format!(
                "create-rule -e -i vip={},port={},protocol={} -m lbalg=rr,type=NAT,proxy-src={} -h hc-name={name} -o servergroup={rule} {rule}",
                target.ip(),
                target.port(),
                kind.protocol(),
                lab.proxy_source(family, 0),
            ));
        }
    }
    let well = |kind: Kind| match kind {
        Kind::Mail => "alive:L7/ok 220",
        Kind::Files => "alive:L4/ok",
        Kind::Names => "alive:L7/ok",
    };
    for kind in Kind::ALL {
        wait_for(&lab, kind, "servers that are well", well(kind), ALL);
    }

    for daemon in &mut sick {
        daemon.kill();
    }
    for kind in Kind::ALL {
        wait_for(
            &lab,
            kind,
            "a server that is killed",
            "dead:L4/refused",
            OTHERS,
        );
    }
    // One that says something else, where there is something to be said.
    sick = Kind::ALL.map(|kind| start(&lab, kind, SICK, true));
    for (kind, expected, servers) in [
        (Kind::Mail, "dead:L7/status 421", OTHERS),
        (Kind::Files, "alive:L4/ok", ALL),
        (Kind::Names, "dead:L7/answer", OTHERS),
    ] {
        wait_for(
            &lab,
            kind,
            "a server that says the wrong thing",
            expected,
            servers,
        );
    }
    let words = lab.node.lbadm("show-hc-result -p -o reason mail4 names6");
    for expected in ["closed for today", "the answer is 192.0.2.99"] {
        assert!(words.contains(expected), "{expected}:\n{words}");
    }
    for daemon in &mut sick {
        daemon.kill();
    }
    sick = Kind::ALL.map(|kind| start(&lab, kind, SICK, false));
    for kind in Kind::ALL {
        wait_for(&lab, kind, "a server that is well again", well(kind), ALL);
    }

    // A frozen one still has the kernel that takes its connections: who only asks for one misses nothing.
    let signal = |daemon: &Daemon, signal| {
        let group = i32::try_from(daemon.pid()).expect("a process id");
        killpg(Pid::from_raw(group), signal).expect("the server runs");
    };
    sick.iter()
        .for_each(|daemon| signal(daemon, Signal::SIGSTOP));
    for (kind, expected) in [
        (Kind::Mail, "dead:L7/timeout"),
        (Kind::Names, "dead:L7/timeout"),
    ] {
        wait_for(&lab, kind, "a server that is frozen", expected, OTHERS);
    }
    sick.iter()
        .for_each(|daemon| signal(daemon, Signal::SIGCONT));
    for kind in Kind::ALL {
        wait_for(&lab, kind, "a server that is thawed", well(kind), ALL);
    }

    let firewall = |line: &str| lab.at("s2").run(&format!("nft {line}"));
    firewall("add table inet sick");
    firewall("add chain inet sick in { type filter hook input priority 0 ; }");
    firewall("add rule inet sick in tcp dport { 21, 25 } drop");
    firewall("add rule inet sick in udp dport 53 drop");
    for (kind, expected) in [
        (Kind::Mail, "dead:L7/timeout"),
        (Kind::Files, "dead:L4/timeout"),
        (Kind::Names, "dead:L7/timeout"),
    ] {
        wait_for(&lab, kind, "a firewall before the server", expected, OTHERS);
    }
    firewall("delete table inet sick");
    for kind in Kind::ALL {
        wait_for(&lab, kind, "no firewall any more", well(kind), ALL);
    }
    lab.node.assert_alive();
}
