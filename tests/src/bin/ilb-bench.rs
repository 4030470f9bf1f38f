//! `make bench`: measures, prints, and writes `target/bench.json`.

use std::path::Path;

use ilb_tests::bench::{Report, logic, rings};
use ilb_tests::lab::leftovers;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (with_logic, with_rings) = match words[..] {
        ["count-me", batches] => {
            return logic::count_me(batches.parse().expect("a number of batches"));
        }
        [] => (true, true),
        ["logic"] => (true, false),
        ["rings"] => (false, true),
        _ => {
            eprintln!("usage: ilb-bench [logic | rings]");
            std::process::exit(2);
        }
    };
    let mut report = Report::default();
    println!("{}\n", rings::machine());
    if with_logic {
        logic::run(&mut report);
    }
    if with_rings {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rings::run(&mut report);
        }));
        leftovers::remove_mine();
        if outcome.is_err() {
            std::process::exit(1);
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let path = target.join(if with_logic && with_rings {
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
