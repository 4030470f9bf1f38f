//! `make bench`: measures, prints, and writes `target/bench.json`.

use std::path::Path;

use ilb_tests::bench::{Report, follow, logic, manager, rings, scale};
use ilb_tests::lab::leftovers;

/// A part of the measurements.
type Part = fn(&mut Report);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [with_logic, with_rings, with_scale, with_manager] = match words[..] {
        ["count-me", batches] => {
            return logic::count_me(batches.parse().expect("a number of batches"));
        }
        ["follow"] => {
            println!("{}\n", rings::machine());
            return follow::run(&mut Report::default());
        }
        [] => [true; 4],
        ["logic"] => [true, false, false, false],
        ["rings"] => [false, true, false, false],
        ["scale"] => [false, false, true, false],
        ["manager"] => [false, false, false, true],
        _ => {
            eprintln!("usage: ilb-bench [logic | rings | scale | manager | follow]");
            std::process::exit(2);
        }
    };
    let mut report = Report::default();
    println!("{}\n", rings::machine());
    if with_logic {
        logic::run(&mut report);
    }
    let in_the_lab: [(bool, Part); 3] = [
        (with_manager, manager::run),
        (with_rings, rings::run),
        (with_scale, scale::run),
    ];
    for (_, run) in in_the_lab.iter().filter(|(wanted, _)| *wanted) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut report)));
        leftovers::remove_mine();
        if outcome.is_err() {
            std::process::exit(1);
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let path = target.join(if with_logic && with_rings && with_scale && with_manager {
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
