//! The real engine, driven by a task that speaks with the manager.

use std::io;

use ilb_checks::{Changed, Engine, Options};

use super::{Checker, Checks, News, Order};

/// The manager's end. Needs a running tokio runtime.
///
/// # Errors
/// If the system gives no thread.
pub fn start() -> io::Result<Checks> {
    let engine = Engine::start(Options::for_this_process())?;
    let (checks, checker) = Checks::pair();
    tokio::spawn(serve(engine, checker));
    Ok(checks)
}

/// Ends when the manager does.
async fn serve(engine: Engine, mut checker: Checker) {
    loop {
        tokio::select! {
            order = checker.orders.recv() => match order {
                None => return,
                Some(Order::Test { changed, gone }) => engine.update(changed, gone),
                // Who asked may have gone away.
                Some(Order::Report(reply)) => drop(reply.send(engine.report().await.servers)),
            },
            changed = engine.changes() => {
                let news = changed.into_iter().map(news).collect();
                if checker.news.send(news).is_err() {
                    return;
                }
            }
        }
    }
}

fn news(changed: Changed) -> News {
    let last = changed.transitions.last();
    News {
        id: changed.id,
        state: changed.state,
        up: changed.up,
        weight: changed.weight,
        why: last
            .map(|last| last.finding.to_string())
            .unwrap_or_default(),
        since: last.map_or(0, |last| last.time),
        changes: changed.transitions.len() as u64,
    }
}
