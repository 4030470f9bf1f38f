//! Five hundred times kill -9 of the manager at random moments under a stream of changes: nothing that was acknowledged is
//! lost, nothing is ever half there, and nothing else is there.
//!
//! Several managers at a time, each with a bus and a folder of its own. `ILB_KILLS` is the number of kills, `ILB_SEED` the
//! beginning of chance.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::random::Random;
use common::{Bus, Node, Process, answering, rule};
use libilb::client::{Client, ClientError};

const LANES: u64 = 4;
const KILLS: u64 = 500;

/// Numbers of pairs of servers: a pair comes and goes together.
type Pairs = BTreeSet<u64>;

/// Two servers that are always added and removed together.
fn pair(number: u64) -> [String; 2] {
    let [.., a, b, c] = number.to_be_bytes();
    [format!("10.{a}.{b}.{c}"), format!("11.{a}.{b}.{c}")]
}

/// What the manager has to have: what was acknowledged, and perhaps the one change that was under way.
#[derive(Clone, Default)]
struct Ledger {
    /// By generation.
    known: BTreeMap<u64, Pairs>,
    generation: u64,
    underway: Option<Pairs>,
    next: u64,
    changes: u64,
}

impl Ledger {
    fn present(&self) -> Pairs {
        self.known
            .get(&self.generation)
            .cloned()
            .unwrap_or_default()
    }
}

/// Adds, removes and goes back until the manager is gone.
async fn change_until_killed(client: Client, ledger: Arc<Mutex<Ledger>>, mut random: Random) {
    loop {
        let mut wanted = ledger.lock().unwrap().present();
        let present: Vec<u64> = wanted.iter().copied().collect();
        let what = random.below(10);
        let called = match what {
            // A way back is of no use if it leads to what is there.
            0 => {
                let ledger = ledger.clone();
                let (generation, pairs) = {
                    let ledger = ledger.lock().unwrap();
                    let all: Vec<_> = ledger.known.iter().rev().take(50).collect();
                    let (generation, pairs) = all[random.below(all.len())];
                    (*generation, pairs.clone())
                };
                if pairs == wanted {
                    continue;
                }
                wanted = pairs;
                ledger.lock().unwrap().underway = Some(wanted.clone());
                client.rollback(generation).await.map(drop)
            }
            1 | 2 if !present.is_empty() => {
                let number = present[random.below(present.len())];
                wanted.remove(&number);
                ledger.lock().unwrap().underway = Some(wanted.clone());
                let [one, two] = pair(number);
                client.remove_servers("web", &[&one, &two]).await.map(drop)
            }
            _ => {
                let number = {
                    let mut ledger = ledger.lock().unwrap();
                    ledger.next += 1;
                    ledger.next
                };
                wanted.insert(number);
                ledger.lock().unwrap().underway = Some(wanted.clone());
                let [one, two] = pair(number);
                client.add_servers("web", &[&one, &two]).await.map(drop)
            }
        };
        match called {
            Ok(()) => {
                let mut ledger = ledger.lock().unwrap();
                ledger.underway = None;
                ledger.generation += 1;
                ledger.changes += 1;
                let generation = ledger.generation;
                ledger.known.insert(generation, wanted);
            }
            Err(ClientError::NotRunning(_)) => return,
            Err(other) => panic!("an unexpected answer: {other}"),
        }
    }
}

/// Compares what a new manager has with what it has to have.
async fn check(client: &Client, ledger: &mut Ledger, place: &str) {
    let node = client.describe().await.unwrap();
    assert_eq!(node.state_reason, "", "{place}: nothing was rebuilt");
    assert!(node.rule("shop").unwrap().rule.enabled, "{place}");
    let group = node.group("web").expect("the group is there");
    let there: BTreeSet<String> = group
        .servers
        .iter()
        .map(|server| server.server.address.to_string())
        .collect();
    assert_eq!(
        there.len(),
        group.servers.len(),
        "{place}: nothing is there twice"
    );
    let of = |pairs: &Pairs| -> BTreeSet<String> { pairs.iter().copied().flat_map(pair).collect() };
    let underway = ledger.underway.take();
    match underway {
        Some(pairs) if there == of(&pairs) => {
            ledger.generation += 1;
            ledger.known.insert(ledger.generation, pairs);
        }
        _ => assert_eq!(
            there,
            of(&ledger.present()),
            "{place}: what was acknowledged, all of it and nothing else"
        ),
    }
    assert_eq!(node.generation, ledger.generation, "{place}");
}

async fn lane(lane: u64, kills: u64, seed: u64) -> (u64, u64) {
    let (bus, node) = (Bus::start(), Node::new());
    let mut random = Random(seed.wrapping_mul(1000) + lane);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut unborn = 0;
    for round in 0..=kills {
        let place = format!("lane {lane}, round {round}");
        let mut manager = Process::start(node.command(&bus).arg("--sim"));
        if round > 0 && random.below(8) == 0 {
            // While it starts: reading the database writes, too.
            tokio::time::sleep(Duration::from_micros(random.below(40_000) as u64)).await;
            manager.kill();
            unborn += 1;
            manager = Process::start(node.command(&bus).arg("--sim"));
        }
        let client = answering(&bus).await;
        if round == 0 {
            client.create_group("far", &["192.0.2.1"]).await.unwrap();
            let shop = rule("198.51.100.1", "far");
            client.create_rule("shop", &shop).await.unwrap();
            client.create_group("web", &[]).await.unwrap();
            let mut ledger = ledger.lock().unwrap();
            ledger.generation = 3;
            ledger.known.insert(3, Pairs::new());
        } else {
            let mut found = ledger.lock().unwrap().clone();
            check(&client, &mut found, &place).await;
            *ledger.lock().unwrap() = found;
        }
        if round == kills {
            break;
        }
        let stream = change_until_killed(client, ledger.clone(), Random(random.next()));
        let changing = tokio::spawn(stream);
        tokio::time::sleep(Duration::from_micros(random.below(60_000) as u64)).await;
        manager.kill();
        changing.await.unwrap();
    }
    let changes = ledger.lock().unwrap().changes;
    (changes, unborn)
}

fn number(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => usual,
    }
}

#[test]
fn five_hundred_kills_lose_nothing_and_leave_nothing_half_done() {
    let (kills, seed) = (number("ILB_KILLS", KILLS), number("ILB_SEED", 1));
    let lanes: Vec<_> = (0..LANES)
        .map(|number| {
            let share = kills / LANES + u64::from(number < kills % LANES);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(lane(number, share, seed))
            })
        })
        .collect();
    let (mut changes, mut unborn) = (0, 0);
    for lane in lanes {
        let done = lane.join().expect("no lane fails");
        (changes, unborn) = (changes + done.0, unborn + done.1);
    }
    println!("{kills} kills under {changes} changes, and {unborn} while it started");
    assert!(changes >= kills / 5, "only {changes} changes were made");
}
