//! `make bench`: measures, prints, and writes `target/bench.json`.

use std::path::Path;

use ilb_tests::bench::{
    Report, failover, follow, follow_rings, health, logic, manager, rings, scale,
};
use ilb_tests::lab::leftovers;

/// A part of the measurements.
type Part = fn(&mut Report);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // In this order: the logic first, while nothing else has been going on.
    let all: [(&str, Part); 5] = [
        ("logic", logic::run),
        ("manager", manager::run),
        ("health", health::run),
        ("rings", rings::run),
        ("scale", scale::run),
    ];
    let wanted: Vec<(&str, Part)> = match words[..] {
        ["count-me", batches] => {
            return logic::count_me(batches.parse().expect("a number of batches"));
        }
        // They take their time: only who asks for them gets them.
        ["follow"] => vec![("follow", follow::run)],
        ["follow-rings"] => vec![("follow-rings", follow_rings::run)],
        ["failover"] => vec![("failover", failover::run)],
        [] => all.into(),
        [only] if all.iter().any(|(name, _)| *name == only) => {
            all.into_iter().filter(|(name, _)| *name == only).collect()
        }
        _ => {
            eprintln!(
                "usage: ilb-bench [{} | follow | follow-rings | failover]",
                all.map(|(name, _)| name).join(" | ")
            );
            std::process::exit(2);
        }
    };
    let mut report = Report::default();
    println!("{}\n", rings::machine());
    for (_, run) in &wanted {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut report)));
        leftovers::remove_mine();
        if outcome.is_err() {
            std::process::exit(1);
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let path = target.join(if wanted.len() == all.len() {
        "bench.json"
    } else {
        "bench-part.json"
    });
    report.write(&path).expect("target/ can be written to");
    println!(
        "\nwritten to target/{}",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
}
