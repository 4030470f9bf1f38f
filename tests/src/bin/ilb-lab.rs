//! Housekeeping for the lab: `ilb-lab up` builds one with an empty configuration that stays up, to follow docs/tutorial.md in,
//! `ilb-lab up pair` one with two balancers, for docs/pair.md;
//! `ilb-lab clean` removes that and what dead runs and `make demo KEEP=1` left behind; `ilb-lab break <panic|kill>` builds
//! a lab and fails in it, for the test that looks at what remains.

use std::process::ExitCode;

use ilb_tests::lab::{Lab, Spec, leftovers, play};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["up"] => up(false),
        ["up", "pair"] => up(true),
        ["clean"] => clean(),
        ["break", how] => fail_in_a_lab(how),
        _ => {
            eprintln!("usage: ilb-lab up [pair] | ilb-lab clean | ilb-lab break <panic|kill>");
            ExitCode::from(2)
        }
    }
}

fn up(pair: bool) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("a lab has network namespaces and an XDP program: run `sudo make lab`");
        return ExitCode::FAILURE;
    }
    let lab = Lab::with_ilb(Spec {
        pair,
        ..Spec::default()
    });
    if pair {
        lab.second().start();
    }
    let enter = play::scripts(&lab);
    let enter = enter.display();
    if pair {
        println!(
            "Two balancers without configuration, three web servers and a client are up. As root:"
        );
        println!();
        println!("  {enter} lb     a shell on the first balancer, 10.1.0.1 and 10.2.0.1");
        println!("  {enter} lb2    a shell on the second one, 10.1.0.2 and 10.2.0.2");
        println!(
            "                 lbadm works on both; `ilb kill` ends both programs there at once, `ilb start` starts them"
        );
    } else {
        println!(
            "A balancer without configuration, three web servers and a client are up. As root:"
        );
        println!();
        println!("  {enter} lb     a shell on the balancer: lbadm works there");
    }
    println!("  {enter} c1     a shell on the client, 10.1.0.10: try curl");
    println!(
        "  {enter} s1     a shell on a server, 10.2.0.11 (s2, s3): `web stop` stops its nginx"
    );
    println!();
    let guide = if pair { "pair" } else { "tutorial" };
    println!("docs/{guide}.md goes from here. To end it: sudo make lab-clean");
    lab.keep();
    ExitCode::SUCCESS
}

fn clean() -> ExitCode {
    let removed = leftovers::sweep(true);
    for identity in &removed {
        println!("removed lab {identity}");
    }
    if removed.is_empty() {
        println!("no lab to remove");
    }
    let left = leftovers::anything();
    if left.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("could not remove:\n{}", left.join("\n"));
    ExitCode::FAILURE
}

fn fail_in_a_lab(how: &str) -> ExitCode {
    let lab = if std::env::var_os("ILB_LAB_WITHOUT_ILB").is_some() {
        Lab::new(Spec::default())
    } else {
        Lab::with_ilb(Spec::default())
    };
    println!("{}", lab.identity());
    match how {
        "panic" => panic!("this panic is wanted: a failing test"),
        "kill" => {
            // The worst end of a runner: nothing of ours runs after this.
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)
                .expect("cannot kill ourselves");
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("ilb-lab break: `{how}` is neither panic nor kill");
            ExitCode::from(2)
        }
    }
}
