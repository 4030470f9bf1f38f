//! How long nobody answers when the active node of a pair is killed, with everything on it, fifty times each with advertisements
//! every second, every tenth and every hundredth of a second; and how much a planned change costs. What was measured is
//! the table in docs/pair.md, which `ILB_WRITE=1` writes anew.
//!
//! Priorities are equal and nobody preempts: the killed node comes back as backup, and is the next to take over.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{Report, median};
use crate::Topology;
use crate::pair::{Pair, Sharing};
use crate::shell;

/// How many times each node is killed, and how many times one gives up.
const ROUNDS: [(&str, usize, bool); 2] = [
    ("everything is killed", 50, false),
    ("`disable-vrrp`", 20, true),
];
const INTERVALS: [&str; 3] = ["1", "0.1", "0.01"];
const BEGIN: &str = "<!-- begin failover -->\n";
const END: &str = "<!-- end failover -->";

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!("\nA pair of which the active node is killed, or gives up:");
    let mut table =
        "| interval | what happens | times | median | longest | not answered, median | most |\n\
                     |---|---|---|---|---|---|---|\n"
            .to_owned();
    for interval in INTERVALS {
        let pair = Pair::new(&Sharing {
            topology: Topology::Nat,
            interval,
            priorities: [100, 100],
            more: ",preempt=no",
        });
        for (what, rounds, planned) in ROUNDS {
            let mut gaps = Vec::new();
            let mut lost = Vec::new();
            for _ in 0..rounds {
                let [from, to] = roles(&pair);
                let event = || match planned {
                    true => drop(pair.node(from).lbadm("disable-vrrp")),
                    false => {
                        pair.node(from).kill_manager();
                        pair.node(from).kill_fastpath();
                    }
                };
                let settled = || {
                    pair.has_all(what, to, if planned { from } else { "" });
                    pair.answers(what);
                };
                for seen in pair.watched(event, settled) {
                    gaps.push(seen.gap.as_secs_f64() * 1000.0);
                    lost.push(seen.lost as f64);
                }
                match planned {
                    true => drop(pair.node(from).lbadm("enable-vrrp")),
                    false => pair.node(from).start(),
                }
            }
            let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
            let name = format!(
                "failover_{}_{interval}",
                if planned { "planned" } else { "killed" }
            );
            let (middle, longest) = (median(gaps.clone()), most(&gaps));
            report.add(
                &name,
                middle,
                "ms",
                &format!("{what}, advertisements every {interval} s"),
            );
            report.add(
                &format!("{name}_most"),
                longest,
                "ms",
                "the longest of them",
            );
            writeln!(
                table,
                "| {interval} s | {what} | {} | {middle:.0} ms | {longest:.0} ms | {:.0} | {:.0} |",
                gaps.len(),
                median(lost.clone()),
                most(&lost)
            )
            .expect("a text can be written to");
        }
    }
    println!("\n{table}");
    if std::env::var_os("ILB_WRITE").is_some_and(|value| value == "1") {
        write(&table);
    }
}

/// Waits until one node is active and the other one backup, and says which is which. Where advertisements follow each other
/// closely, they may change by themselves when one does not run for a while.
fn roles(pair: &Pair) -> [&'static str; 2] {
    let found = shell::wait_for(Duration::from_secs(60), || {
        let [a, b] = ["lb", "lb2"].map(|role| pair.states(role));
        let all = |states: &[String], word: &str| states.iter().all(|state| state == word);
        match () {
            () if all(&a, "active") && all(&b, "backup") => Some(["lb", "lb2"]),
            () if all(&b, "active") && all(&a, "backup") => Some(["lb2", "lb"]),
            () => None,
        }
    });
    found.expect("one node is active and the other one backup")
}

fn write(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pair.md");
    let text = std::fs::read_to_string(&path).expect("docs/pair.md is there");
    let (head, rest) = text.split_once(BEGIN).expect("docs/pair.md has the mark");
    let (_, tail) = rest
        .split_once(END)
        .expect("docs/pair.md has the end's mark");
    std::fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}"))
        .expect("docs/pair.md can be written");
}
