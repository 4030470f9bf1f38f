//! How long nobody answers when the active node of a pair is killed, with everything on it, and how many questions find no
//! answer when it gives its addresses to the other one by `lbadm failover`, back and forth: with advertisements every second,
//! every tenth and every hundredth of a second. What was measured is the table in docs/pair.md, which `ILB_WRITE=1` writes anew.
//!
//! Priorities are equal and nobody preempts: the killed node comes back as backup, and is the next to take over.

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{Report, median};
use crate::Topology;
use crate::pair::{Pair, Sharing};
use crate::shell;

/// What happens to the active node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Killed,
    Planned,
}

/// What happens how many times. Each time counts twice, because two clients ask, one in each family.
const ROUNDS: [(What, usize); 2] = [(What::Killed, 25), (What::Planned, 25)];
const INTERVALS: [&str; 3] = ["1", "0.1", "0.01"];
const BEGIN: &str = "<!-- begin failover -->\n";
const END: &str = "<!-- end failover -->";
/// What stands before the table, and is true when it was written.
const HOW: &str = "\
Made by `ilb-bench failover` in the lab: a pair, NAT, a client in IPv4 and one in IPv6, of which each sends a question every 2 ms and
counts what is not answered. What is killed is killed with -9, manager and fast path; `lbadm failover` gives the addresses back and forth.
Each time counts twice, once for each family.

";

impl What {
    const fn words(self) -> &'static str {
        match self {
            What::Killed => "everything is killed",
            What::Planned => "`lbadm failover`",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            What::Killed => "killed",
            What::Planned => "planned",
        }
    }
}

/// What both clients have seen in all rounds.
#[derive(Default)]
struct Seen {
    gaps: Vec<f64>,
    lost: Vec<f64>,
}

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!("\nA pair of which the active node is killed, or gives up:");
    let mut table =
        "| interval | what happens | times | median | longest | not answered, median | most |\n\
                     |---|---|---|---|---|---|---|\n"
            .to_owned();
    for interval in INTERVALS {
        let pair = Pair::joined(&Sharing {
            topology: Topology::Nat,
            interval,
            priorities: [100, 100],
            more: ",preempt=no",
        });
        for (what, rounds) in ROUNDS {
            let Seen { gaps, lost } = measure(&pair, what, rounds);
            let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
            let name = format!("failover_{}_{interval}", what.name());
            let (middle, longest) = (median(gaps.clone()), most(&gaps));
            let words = what.words();
            let meaning = format!("{words}, advertisements every {interval} s");
            report.add(&name, middle, "ms", &meaning);
            let (name_most, name_lost) = (format!("{name}_most"), format!("{name}_lost"));
            report.add(&name_most, longest, "ms", "the longest of them");
            report.add(&name_lost, most(&lost), "", "most that was not answered");
            writeln!(
                table,
                "| {interval} s | {words} | {} | {middle:.0} ms | {longest:.0} ms | {:.0} | {:.0} |",
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

fn measure(pair: &Pair, what: What, rounds: usize) -> Seen {
    let words = what.words();
    let mut seen = Seen::default();
    let enough = rounds * pair.targets.len();
    for attempt in 0.. {
        if seen.gaps.len() >= enough {
            break;
        }
        assert!(attempt < 4 * rounds, "{words}: it is refused all the time");
        // Also that everything may be given away.
        pair.both().settled(words);
        let [from, to] = roles(pair);
        let done = Cell::new(true);
        let event = || match what {
            // Where advertisements follow each other closely, it may not be active any more.
            What::Planned => done.set(pair.node(from).try_lbadm(&["failover"]).code == 0),
            What::Killed => {
                pair.node(from).kill_manager();
                pair.node(from).kill_fastpath();
            }
        };
        let settled = || match (what, done.get()) {
            (What::Planned, true) => pair.has_all(words, to, from),
            (What::Killed, true) => pair.has_all(words, to, ""),
            (_, false) => {}
        };
        let all = pair.watched(event, || {
            settled();
            pair.answers(words);
        });
        if done.get() {
            seen.gaps
                .extend(all.iter().map(|it| it.gap.as_secs_f64() * 1000.0));
            seen.lost.extend(all.iter().map(|it| it.lost as f64));
        }
        if what == What::Killed {
            pair.node(from).start();
        }
    }
    seen
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
    std::fs::write(&path, format!("{head}{BEGIN}{HOW}{table}{END}{tail}"))
        .expect("docs/pair.md can be written");
}
