//! `make demo`: three real nginx servers behind a balancer, in a network that vanishes afterwards. Shows what is typed,
//! who answers, what the statistics say, and that connections survive the death of both daemons. With `KEEP=1` in the
//! environment everything stays up to play with.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ilb_tests::lab::web::{BIG_FILE_BYTES, big_file};
use ilb_tests::lab::{Lab, Spec, leftovers, play};
use ilb_tests::load::Load;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::{Family, Topology};
use nix::sys::signal::{SigSet, Signal};

/// Requests sent to each rule.
const REQUESTS: usize = 300;

/// A rule of the demonstration.
struct Rule {
    name: String,
    topology: Topology,
    family: Family,
    vip: IpAddr,
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "the demo makes network namespaces and loads an XDP program: run `sudo make demo`"
        );
        std::process::exit(1);
    }
    clean_up_when_interrupted();
    let keep = std::env::var("KEEP").is_ok_and(|value| !value.is_empty() && value != "0");
    let begun = Instant::now();

    println!("{}", PICTURE.trim_start_matches('\n'));
    step("Building the network, starting nginx three times, and ilb");
    let lab = Lab::with_ilb(Spec::default());
    println!(
        "  done in {:.1} s; the namespaces are called {}-*",
        begun.elapsed().as_secs_f64(),
        lab.identity()
    );
    for line in lab
        .node
        .fastpath_log()
        .lines()
        .filter(|line| line.contains("eth") && line.contains("mode"))
    {
        println!("  {}", line.trim());
    }

    step("Configuring: what an administrator types");
    let rules = configure(&lab);
    println!();
    show(&lab, "show-rule");
    show(&lab, "show-server");

    step(&format!(
        "Asking: {REQUESTS} HTTP requests to each VIP, each on a connection of its own"
    ));
    ask(&lab, &rules);

    step("Taking s2 out of service, and back");
    take_out(&lab, &rules);

    step("Killing both daemons with -9 while the client downloads");
    kill_all(&lab, &rules);

    step("Statistics");
    show(&lab, "show-statistics");
    show(&lab, "show-statistics -i");
    show(&lab, "show-statistics --drops");
    show(&lab, "status");

    step(
        "Where things live (on a real node: /etc/ilb/ilb.toml, /var/lib/ilb, /run/ilb, /sys/fs/bpf/ilb)",
    );
    println!(
        "  settings of the node      {}",
        lab.node.settings().display()
    );
    println!(
        "  configuration (database)  {}",
        lab.directory().join("state").display()
    );
    println!(
        "  connection table, socket  {}",
        lab.directory().join("run").display()
    );
    println!(
        "  pins of the XDP program   {}",
        lab.directory().join("bpf/ilb").display()
    );

    if keep {
        let enter = play::scripts(&lab).display().to_string();
        step("It stays up: play with it (as root)");
        println!(
            "  {enter} lb     a shell on the balancer; lbadm works there: try `lbadm show-rule -f`"
        );
        println!(
            "  {enter} c1     a shell on the client: try `curl http://{}/`",
            rules[0].vip
        );
        println!("  {enter} s1     a shell on a server (s2, s3; the router is rt): try `web stop`");
        println!();
        println!("  To end it:  sudo make lab-clean");
        lab.keep();
    } else {
        let identity = lab.identity().to_owned();
        drop(lab);
        step("What to do next");
        println!("  sudo make demo KEEP=1   the same, but it stays up for you to play with");
        println!("  sudo make test          everything that ilb promises, tried");
        println!("  less README.md          how to install and configure it");
        println!();
        println!("  {identity} is gone: no namespace, process, pin or file is left.");
    }
    println!("\nAll of this took {:.0} s.", begun.elapsed().as_secs_f64());
}

const PICTURE: &str = r"
ilb: a layer-4 load balancer for Linux. This is it, with three real web servers:

      client            front network                     back network
   c1 10.1.0.10  -----------+-------[ lb: ilb ]----------------+------  s1 10.2.0.11  nginx
      fd01::10              |    eth0         eth1             +------  s2 10.2.0.12  nginx
                            |  10.1.0.1     10.2.0.1           +------  s3 10.2.0.13  nginx
                            |                                  |
                            +-------[ rt: a plain router ]-----+        (and fd02::11 … ::13)
                                  the way home under DSR
";

fn step(title: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m== {title}\x1b[0m");
    } else {
        println!("\n== {title}");
    }
}

/// Runs `lbadm` as an administrator would, and shows it.
fn typed(lab: &Lab, line: &str) {
    println!("  lb# lbadm {line}");
    for line in lab.node.lbadm(line).lines() {
        println!("  {line}");
    }
}

fn show(lab: &Lab, line: &str) {
    typed(lab, line);
    println!();
}

fn configure(lab: &Lab) -> Vec<Rule> {
    for (family, group) in [(Family::V4, "web4"), (Family::V6, "web6")] {
        typed(
            lab,
            &format!(
                "create-servergroup -s server={} {group}",
                lab.server_specs(family, "")
            ),
        );
    }
    let mut rules = Vec::new();
    for topology in Topology::ALL {
        for (family, digit) in [(Family::V4, 4), (Family::V6, 6)] {
            let number = rules.len() as u8 / 2;
            let vip = lab.vip(family, number);
            let (word, source) = match topology {
                Topology::Dsr => {
                    // The servers' part of DSR: they hold the VIP, silently.
                    lab.dsr_address(vip);
                    ("dsr", String::new())
                }
                Topology::HalfNat => ("half", String::new()),
                Topology::Nat => ("nat", format!(",proxy-src={}", lab.proxy_source(family, 0))),
            };
            let name = format!("{word}{digit}");
            typed(
                lab,
                &format!(
                    "create-rule -e -i vip={vip},port=80 -m lbalg=rr,type={topology}{source} -o servergroup=web{digit} {name}"
                ),
            );
            rules.push(Rule {
                name,
                topology,
                family,
                vip,
            });
        }
    }
    rules
}

fn ask(lab: &Lab, rules: &[Rule]) {
    println!(
        "  rule     topology   VIP           answered by    s1    s2    s3   failed    slowest"
    );
    for rule in rules {
        let tally = Load::new((rule.vip, 80).into(), REQUESTS).run(lab.at("c1"));
        println!(
            "  {:<8} {:<10} {:<13} {:>17} {:>5} {:>5} {:>8} {:>7.1} ms",
            rule.name,
            rule.topology.to_string(),
            rule.vip.to_string(),
            tally.of("s1"),
            tally.of("s2"),
            tally.of("s3"),
            tally.failures.len(),
            tally.slowest.as_secs_f64() * 1e3
        );
        tally.none_failed(&format!(
            "given rule {}, when {REQUESTS} requests are sent",
            rule.name
        ));
    }
    let url = format!("http://{}/who", rules[0].vip);
    println!("\n  c1# curl {url}");
    print!(
        "  {}",
        lab.at("c1").run(&format!("curl -sS --max-time 5 {url}"))
    );
}

fn take_out(lab: &Lab, rules: &[Rule]) {
    let target: SocketAddr = (rules[0].vip, 80).into();
    typed(lab, "disable-server _web4.1");
    let without = Load::new(target, 100).run(lab.at("c1"));
    println!("  100 requests: {without}");
    typed(lab, "enable-server _web4.1");
    let with = Load::new(target, 99).run(lab.at("c1"));
    println!("   99 requests: {with}");
}

fn kill_all(lab: &Lab, rules: &[Rule]) {
    let expected = sha256_of(&big_file(lab.directory()));
    let downloads: Vec<Downloads> = rules
        .iter()
        .map(|rule| {
            Downloads::start(
                lab.at("c1"),
                (rule.vip, 80).into(),
                "/paced/big?rate=3000000",
                4,
            )
        })
        .collect();
    println!(
        "  {} downloads of {:.1} MiB are under way, four through each rule",
        downloads.len() * 4,
        BIG_FILE_BYTES as f64 / 1048576.0
    );
    lab.node.kill_fastpath();
    println!("  kill -9 ilb-fastpath   (packets for our services are now dropped, never refused)");
    std::thread::sleep(Duration::from_millis(300));
    lab.node.start_fastpath();
    lab.node.kill_manager();
    println!("  kill -9 ilb-svcmgr");
    std::thread::sleep(Duration::from_millis(300));
    lab.node.start_manager();
    let took = lab.node.wait_ready();
    println!(
        "  both started again; ready for commands after {} ms",
        took.as_millis()
    );
    let count = downloads.len() * 4;
    for set in downloads {
        set.none_broken(
            &expected,
            "given downloads under way, when both daemons are killed with -9",
        );
    }
    println!(
        "  all {count} downloads finished, SHA-256 as it should be: {}…",
        &expected[..16]
    );
    let family = rules.iter().find(|rule| rule.family == Family::V6);
    if let Some(rule) = family {
        let tally = Load::new((rule.vip, 80).into(), 9).run(lab.at("c1"));
        println!(
            "  and rule {} still answers without a command: {tally}",
            rule.name
        );
    }
}

/// Ctrl-C takes the lab down before it ends us.
fn clean_up_when_interrupted() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Inherited by all threads that come; programs that we start have theirs cleared by the standard library.
    signals.thread_block().expect("cannot block signals");
    std::thread::spawn(move || {
        let signal = signals.wait().map_or(2, |signal| signal as i32);
        eprintln!("\ninterrupted: taking the lab down");
        leftovers::remove_mine();
        std::process::exit(128 + signal);
    });
}
