//! Servers that groups find by themselves: a name whose addresses change, with a real name server that also dies, and a subnet
//! that is searched. Real nginx servers, real traffic, both families.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ilb_tests::held::Held;
use ilb_tests::lab::process::Daemon;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::{Family, shell};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "app.lab.example";
const RESOLVER: &str = "127.0.0.1:5353";

/// A name server in the balancer's namespace that knows one name.
struct Dns {
    hosts: PathBuf,
    log: PathBuf,
    daemon: Option<Daemon>,
}

impl Dns {
    fn start(lab: &Lab, servers: &[u8]) -> Dns {
        let mut dns = Dns {
            hosts: lab.directory().join("hosts"),
            log: lab.directory().join("dnsmasq.log"),
            daemon: None,
        };
        dns.write(lab, servers, "");
        dns.revive(lab);
        dns
    }

    fn write(&self, lab: &Lab, servers: &[u8], more: &str) {
        let mut text = String::new();
        for n in servers {
            for family in Family::BOTH {
                text.push_str(&format!("{} {NAME}\n", lab.server(family, *n)));
            }
        }
        text.push_str(more);
        std::fs::write(&self.hosts, text).expect("cannot write the hosts of dnsmasq");
    }

    fn revive(&mut self, lab: &Lab) {
        let mut command = lab.at("lb").command("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            .args([
                "--user=root",
                "--log-facility=-",
                "--no-resolv",
                "--no-hosts",
            ])
            .args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--port=5353",
            ])
            .args(["--local=/example/", "--local-ttl=1"])
            .arg(format!("--addn-hosts={}", self.hosts.display()));
        self.daemon = Some(Daemon::spawn("dnsmasq", command, &self.log));
    }

    /// Other answers from now on.
    fn say(&self, lab: &Lab, servers: &[u8], more: &str) {
        self.write(lab, servers, more);
        let pid = self.daemon.as_ref().expect("dnsmasq runs").pid();
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
        kill(pid, Signal::SIGHUP).expect("dnsmasq takes signals");
    }

    fn kill(&mut self) {
        self.daemon.take().expect("dnsmasq runs").kill();
    }
}

/// The group of a family, and where clients connect to.
fn group(kind: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{kind}4"),
        Family::V6 => format!("{kind}6"),
    }
}

fn target(lab: &Lab, family: Family, n: u8) -> SocketAddr {
    SocketAddr::new(lab.vip(family, n), 80)
}

/// The servers of a group, as `lbadm` shows them.
fn servers(lab: &Lab, group: &str) -> BTreeSet<IpAddr> {
    let text = lab
        .node
        .lbadm(&format!("show-servergroup -p -o ip_address {group}"));
    let address = |line: &str| line.replace('\\', "").parse().ok();
    text.lines().filter_map(address).collect()
}

fn addresses(lab: &Lab, family: Family, servers: &[u8]) -> BTreeSet<IpAddr> {
    servers.iter().map(|n| lab.server(family, *n)).collect()
}

/// Waits until the groups of both families have these servers.
#[track_caller]
fn wait_for_servers(lab: &Lab, kind: &str, expected: &[u8], given: &str) {
    for family in Family::BOTH {
        let name = group(kind, family);
        let expected = addresses(lab, family, expected);
        let mut last = BTreeSet::new();
        let found = shell::wait_for(PATIENCE, || {
            last = servers(lab, &name);
            (last == expected).then_some(())
        });
        assert!(
            found.is_some(),
            "given {given}, {name} has {expected:?}, not {last:?}\n{}",
            lab.node.lbadm(&format!("show-servergroup {name}"))
        );
    }
}

/// Waits until `show-servergroup` says something of the groups of both families.
#[track_caller]
fn wait_for_words(lab: &Lab, kind: &str, words: &str, given: &str) {
    for family in Family::BOTH {
        let mut last = String::new();
        let found = shell::wait_for(PATIENCE, || {
            last = lab
                .node
                .lbadm(&format!("show-servergroup {}", group(kind, family)));
            last.contains(words).then_some(())
        });
        assert!(
            found.is_some(),
            "given {given}, it says '{words}', not:\n{last}"
        );
    }
}

/// Who answers, asked often enough that everybody has to.
fn answering(lab: &Lab, target: SocketAddr) -> BTreeSet<String> {
    let all = lab.at("c1").enter(|| {
        (0..9)
            .map(|_| Held::open(target).server)
            .collect::<Vec<_>>()
    });
    all.into_iter().collect()
}

#[track_caller]
fn traffic_goes_to(lab: &Lab, vip: u8, expected: &[&str], given: &str) {
    for family in Family::BOTH {
        let found = answering(lab, target(lab, family, vip));
        let expected: BTreeSet<String> = expected.iter().map(|s| (*s).to_string()).collect();
        assert_eq!(found, expected, "given {given}, {family}");
    }
}

/// Connections to a server of both families.
fn hold(lab: &Lab, vip: u8, server: &str) -> Vec<Held> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let target = target(lab, family, vip);
        let found = lab.at("c1").enter(|| {
            let mut some = (0..9).map(|_| Held::open(target));
            some.find(|held| held.server == server)
        });
        all.push(found.expect("round robin goes to everybody"));
    }
    all
}

#[test]
fn a_group_follows_its_name_and_finds_servers_in_a_subnet() {
    let lab = Lab::with_ilb(Spec::default());
    let mut dns = Dns::start(&lab, &[1, 2]);
    for family in Family::BOTH {
        let name = group("app", family);
        lab.node.lbadm(&format!(
            "create-servergroup -d dns={NAME},port=80,resolver={RESOLVER},interval=1,max-interval=1,hold=2 {name}"
        ));
        lab.node.lbadm(&format!(
            "create-rule -e -i vip={},port=80 -m lbalg=rr,type=NAT,proxy-src={} -o servergroup={name} {name}",
            lab.vip(family, 0),
            lab.proxy_source(family, 0),
        ));
    }
    wait_for_servers(&lab, "app", &[1, 2], "a name with two addresses");
    traffic_goes_to(&lab, 0, &["s1", "s2"], "a name with two addresses");

    dns.say(&lab, &[1, 2, 3], "");
    wait_for_servers(&lab, "app", &[1, 2, 3], "a third address");
    traffic_goes_to(&lab, 0, &["s1", "s2", "s3"], "a third address");

    let mut held = hold(&lab, 0, "s3");
    dns.say(&lab, &[1, 2], "");
    wait_for_servers(&lab, "app", &[1, 2], "an address that is gone");
    traffic_goes_to(&lab, 0, &["s1", "s2"], "an address that is gone");
    for held in &mut held {
        let answer = held.ask();
        assert_eq!(
            answer.ok().as_deref(),
            Some("s3"),
            "a connection to the server that is gone goes on"
        );
    }
    let history = lab.node.lbadm("history");
    assert!(history.contains("discovery of app4"), "{history}");
    assert!(
        history.contains(&format!("the name {NAME}: removed _app6.2")),
        "{history}"
    );

    // What must not be a server is left out, and said.
    dns.say(
        &lab,
        &[1, 2],
        &format!("127.0.0.9 {NAME}\nff02::9 {NAME}\n"),
    );
    wait_for_words(
        &lab,
        "app",
        "not taken: ",
        "a loopback and a multicast address",
    );
    traffic_goes_to(&lab, 0, &["s1", "s2"], "a loopback and a multicast address");

    // The name is gone, then the name server, and then the manager does not know better either.
    dns.say(&lab, &[], "");
    wait_for_words(
        &lab,
        "app",
        "NXDOMAIN: there is no such name",
        "a name that is gone",
    );
    dns.kill();
    wait_for_words(
        &lab,
        "app",
        "name server 127.0.0.1: ",
        "a name server that is dead",
    );
    let status = lab.node.try_lbadm(&["status"]).stdout;
    assert!(
        status.contains("the name app.lab.example: name server 127.0.0.1: "),
        "{status}"
    );
    lab.node.kill_manager();
    lab.node.start_manager();
    lab.node.wait_ready();
    wait_for_words(&lab, "app", "name server 127.0.0.1: ", "a new manager");
    wait_for_servers(&lab, "app", &[1, 2], "a name server that is dead");
    traffic_goes_to(&lab, 0, &["s1", "s2"], "a name server that is dead");

    // And all is well again.
    dns.write(&lab, &[2, 3], "");
    dns.revive(&lab);
    wait_for_servers(&lab, "app", &[2, 3], "a name server that is back");
    traffic_goes_to(&lab, 0, &["s2", "s3"], "a name server that is back");
    let log = lab.node.manager_log();
    assert!(log.contains("is followed again"), "{log}");

    discover(&lab);
}

/// A subnet with three servers, of which one is excepted at first.
fn discover(lab: &Lab) {
    for family in Family::BOTH {
        let name = group("farm", family);
        let subnet = match family {
            Family::V4 => "10.2.0.0/28",
            Family::V6 => "fd02::10/124",
        };
        lab.node.lbadm(&format!(
            "create-servergroup -d subnet={subnet},port=80,approve=ask,rate=20,interval=1,hold=3600,except={} {name}",
            lab.server(family, 3),
        ));
        lab.node.lbadm(&format!(
            "create-rule -e -i vip={},port=80 -m lbalg=rr,type=NAT,proxy-src={} -o servergroup={name} {name}",
            lab.vip(family, 1),
            lab.proxy_source(family, 0),
        ));
    }
    for family in Family::BOTH {
        let name = group("farm", family);
        let expected = addresses(lab, family, &[1, 2]);
        let mut last = BTreeSet::new();
        let found = shell::wait_for(PATIENCE, || {
            let text = lab
                .node
                .lbadm(&format!("show-candidate -p -o address {name}"));
            let address = |line: &str| line.replace('\\', "").parse().ok();
            last = text.lines().filter_map(address).collect();
            (last == expected).then_some(())
        });
        assert!(
            found.is_some(),
            "{expected:?} wait for {name}, not {last:?}"
        );
        assert_eq!(servers(lab, &name), BTreeSet::new(), "nobody is taken in");
        let refused = lab
            .node
            .try_lbadm(&["approve-server", "-s", "server=10.9.9.9", &name]);
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.stderr.contains("is not a candidate"), "{refused}");
        let server = lab.server(family, 2);
        lab.node.lbadm(&format!(
            "approve-server -s server={} {name}",
            bracketed(server)
        ));
    }
    wait_for_servers(lab, "farm", &[2], "one server that was approved");
    traffic_goes_to(lab, 1, &["s2"], "one server that was approved");
    for family in Family::BOTH {
        lab.node
            .lbadm(&format!("approve-server -a {}", group("farm", family)));
    }
    wait_for_servers(lab, "farm", &[1, 2], "two servers that were approved");
    for family in Family::BOTH {
        let name = group("farm", family);
        lab.node.lbadm(&format!(
            "modify-servergroup -d approve=auto,except=none {name}"
        ));
    }
    wait_for_servers(lab, "farm", &[1, 2, 3], "a policy that takes everybody in");
    traffic_goes_to(
        lab,
        1,
        &["s1", "s2", "s3"],
        "a policy that takes everybody in",
    );
}

fn bracketed(address: IpAddr) -> String {
    ilb_tests::lab::plan::bracketed(address)
}
