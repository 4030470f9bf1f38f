//! Commands that are run when servers and quorums come and go. Those of one object, a server of a rule or a rule, are run one
//! after the other in the order of what happened; of different ones a few at a time. The manager does not wait for any.
//!
//! ```text
//!            Notice (mpsc)                          ilb_programs
//!  manager ──────────────▶ thread of its own, Queue ───────────────────▶ processes without capabilities
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use ilb_node::journal::events::{NOTIFY_FAILED, NOTIFY_RAN};
use ilb_programs::Ended;
use libilb::health::printable;
use libilb::rule::{NotifyCommand, NotifyEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Commands that run at the same time.
const AT_ONCE: usize = 8;
/// Commands of one object that wait; the oldest makes way, so that the last one tells how things are.
const MOST_WAITING: usize = 16;
/// How long a command may run. Then it is killed with all its children.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What a command is about: a rule, or a server in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Object {
    /// Of the rule.
    pub rule: String,
    /// Of the server; empty for the rule itself.
    pub server: String,
}

/// Something happened that a command is to be run for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// To whom.
    pub object: Object,
    /// What.
    pub event: NotifyEvent,
    /// What is to be run.
    pub command: NotifyCommand,
    /// Variables that tell the command more.
    pub environment: Vec<(&'static str, String)>,
}

/// Where notices go.
pub type Notifier = mpsc::UnboundedSender<Notice>;

/// Starts the thread that runs commands. It ends when nobody can tell it anything any more.
///
/// # Errors
/// Those of the system.
pub fn start() -> io::Result<Notifier> {
    let (notifier, notices) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("ilb-notify".to_owned())
        .spawn(move || runtime.block_on(work(notices)))?;
    Ok(notifier)
}

async fn work(mut notices: mpsc::UnboundedReceiver<Notice>) {
    let mut queue = Queue::default();
    let mut running = JoinSet::new();
    let mut open = true;
    while open || !running.is_empty() {
        while running.len() < AT_ONCE
            && let Some(notice) = queue.next()
        {
            running.spawn(async move {
                carry_out(&notice).await;
                notice.object
            });
        }
        tokio::select! {
            notice = notices.recv(), if open => match notice {
                Some(notice) => {
                    if let Some(lost) = queue.push(notice) {
                        tracing::warn!(
                            "{} is not run: more than {MOST_WAITING} commands wait", words(&lost)
                        );
                    }
                }
                None => open = false,
            },
            Some(done) = running.join_next() => {
                if let Ok(object) = done {
                    queue.done(&object);
                }
            }
        }
    }
}

/// Notices that wait.
#[derive(Debug, Default)]
struct Queue {
    /// By object, none of them empty.
    waiting: HashMap<Object, VecDeque<Notice>>,
    /// Objects with a notice that may be next, in the order in which they came to be so.
    ready: VecDeque<Object>,
    busy: HashSet<Object>,
}

impl Queue {
    /// Takes a notice up, and gives the one that has to make way.
    fn push(&mut self, notice: Notice) -> Option<Notice> {
        let object = notice.object.clone();
        let waiting = self.waiting.entry(object.clone()).or_default();
        if waiting.is_empty() && !self.busy.contains(&object) {
            self.ready.push_back(object);
        }
        waiting.push_back(notice);
        match waiting.len() > MOST_WAITING {
            true => waiting.pop_front(),
            false => None,
        }
    }

    /// The next one, of an object of which none is carried out.
    fn next(&mut self) -> Option<Notice> {
        let object = self.ready.pop_front()?;
        let waiting = self.waiting.get_mut(&object)?;
        let notice = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&object);
        }
        self.busy.insert(object);
        notice
    }

    /// One was carried out.
    fn done(&mut self, object: &Object) {
        self.busy.remove(object);
        if self.waiting.contains_key(object) {
            self.ready.push_back(object.clone());
        }
    }
}

async fn carry_out(notice: &Notice) {
    let began = Instant::now();
    let command = &notice.command;
    let run = ilb_programs::run(&command.path, &command.arguments, &notice.environment);
    let ended = tokio::time::timeout(TIME_LIMIT, run).await;
    let (well, said) = match ended {
        Ok(Ok(ended)) => judge(&ended),
        Ok(Err(error)) => (false, format!("cannot be run: {error}")),
        Err(_) => (
            false,
            format!("killed after {} s, with its children", TIME_LIMIT.as_secs()),
        ),
    };
    let (rule, server) = (&*notice.object.rule, &*notice.object.server);
    let (event, words) = (notice.event.name(), words(notice));
    let millis = began.elapsed().as_millis();
    match well {
        true => tracing::info!(
            message_id = NOTIFY_RAN.id,
            ilb_rule = rule,
            ilb_server = server,
            ilb_event = event,
            "{words}: {said} after {millis} ms"
        ),
        false => tracing::warn!(
            message_id = NOTIFY_FAILED.id,
            ilb_rule = rule,
            ilb_server = server,
            ilb_event = event,
            "{words}: {said} after {millis} ms"
        ),
    }
}

/// Whether it went well, and what is said of it.
fn judge(ended: &Ended) -> (bool, String) {
    let mut said = match (ended.status.code(), ended.status.signal()) {
        (Some(0), _) => "done".to_owned(),
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    };
    let line = printable(ended.first_line());
    if !line.is_empty() {
        said = format!("{said}, saying '{line}',");
    }
    (ended.status.success(), said)
}

fn words(notice: &Notice) -> String {
    let Object { rule, server } = &notice.object;
    let of = match server.as_str() {
        "" => format!("rule {rule}"),
        server => format!("server {server} of rule {rule}"),
    };
    format!("notify {} of {of}: {}", notice.event, notice.command.path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::test_folder::TestFolder;

    fn notice(server: &str, event: NotifyEvent, command: &str) -> Notice {
        Notice {
            object: Object {
                rule: "www".to_owned(),
                server: server.to_owned(),
            },
            event,
            command: command.parse().unwrap(),
            environment: vec![("ILB_EVENT", event.to_string())],
        }
    }

    #[test]
    fn one_after_the_other_for_each_object() {
        let mut queue = Queue::default();
        let of = |server: &str, n: usize| notice(server, NotifyEvent::Up, &format!("/{n}"));
        for (server, n) in [("a", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5)] {
            assert_eq!(queue.push(of(server, n)), None);
        }
        let mut next = || queue.next().map(|notice| notice.command.path);
        assert_eq!(
            [next(), next(), next(), next()],
            [
                Some("/1".into()),
                Some("/3".into()),
                Some("/4".into()),
                None
            ]
        );
        let object = |server: &str| of(server, 0).object;
        queue.done(&object("b"));
        assert_eq!(queue.next(), None);
        queue.done(&object("a"));
        assert_eq!(queue.next(), Some(of("a", 2)));
        assert_eq!(queue.push(of("b", 6)), None);
        assert_eq!(queue.next(), Some(of("b", 6)));
        assert_eq!(queue.next(), None);
        queue.done(&object("a"));
        assert_eq!(queue.next(), Some(of("a", 5)));
        for server in ["a", "b", "c"] {
            queue.done(&object(server));
        }
        assert_eq!(queue.next(), None);
        assert!(queue.waiting.is_empty() && queue.ready.is_empty() && queue.busy.is_empty());
    }

    #[test]
    fn the_oldest_that_waits_makes_way() {
        let mut queue = Queue::default();
        let of = |n: usize| notice("a", NotifyEvent::Up, &format!("/{n}"));
        queue.push(of(0));
        assert_eq!(queue.next(), Some(of(0)));
        for n in 1..=MOST_WAITING {
            assert_eq!(queue.push(of(n)), None);
        }
        assert_eq!(queue.push(of(99)), Some(of(1)));
        let mut last = None;
        for _ in 0..MOST_WAITING {
            queue.done(&of(0).object);
            last = queue.next();
        }
        assert_eq!(last, Some(of(99)));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn commands_are_run_in_their_order_without_a_shell() {
        let folder = TestFolder::new("notify");
        let file = folder.path().join("told");
        let script = folder.path().join("tell");
        let text = "#!/bin/sh\nsleep 0.0$1\necho \"$ILB_EVENT $# $2\" >>\"$3\"\n";
        fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).unwrap();
        let notifier = start().unwrap();
        // The first takes longest; one cannot be run at all.
        for (event, n) in [
            (NotifyEvent::Down, 9),
            (NotifyEvent::Up, 4),
            (NotifyEvent::Down, 0),
        ] {
            let command = format!("{} {n} '$(id) ;{n}' {}", script.display(), file.display());
            notifier.send(notice("a", event, &command)).unwrap();
            notifier
                .send(notice("a", event, "/nowhere/to/be found"))
                .unwrap();
        }
        let expected = "down 3 $(id) ;9\nup 3 $(id) ;4\ndown 3 $(id) ;0\n";
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs::read_to_string(&file).unwrap_or_default() != expected {
            let told = fs::read_to_string(&file).unwrap_or_default();
            assert!(Instant::now() < deadline, "{told}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn how_it_ended_is_said_in_one_line() {
        for (code, output, errors, expected) in [
            (0, "", "", (true, "done")),
            (0, "told\nthem\n", "x", (true, "done, saying 'told',")),
            (3 << 8, "", "no\tway\n", (false, "exit 3, saying 'no way',")),
            (9, "", "", (false, "killed by signal 9")),
        ] {
            let ended = Ended {
                status: ExitStatusExt::from_raw(code),
                output: output.to_owned(),
                errors: errors.to_owned(),
            };
            let (well, said) = judge(&ended);
            assert_eq!((well, &*said), expected);
        }
    }
}
