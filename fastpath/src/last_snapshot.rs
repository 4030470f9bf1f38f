//! The configuration in force in two files of the runtime directory, so that a fast path that is started anew forwards at
//! once, whether the manager is there or not: the last one that was written as a whole, and all changes since, a line
//! each. So a change costs what it changes, whatever the size of the whole.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use ilb_forwarder::spec::{RuleId, RuleSpec, SnapshotSpec, SpecChange};

/// The whole.
const NAME: &str = "snapshot.json";
/// The changes since, of which some may be older than the whole.
const CHANGES: &str = "snapshot.changes";

/// The changes may have one part in so many of the size of the whole,
const SHARE: u64 = 4;
/// and this many bytes in any case, before the whole is written anew.
const LITTLE: u64 = 256 << 10;

/// Reads the files; None if there is none.
///
/// # Errors
/// When they cannot be read or the whole is damaged. Changes behind a damaged one do not count.
pub fn load(runtime_dir: &Path) -> io::Result<Option<SnapshotSpec>> {
    // A node that was never given a whole has begun with nothing, and its changes say the rest.
    let mut spec = match std::fs::read(runtime_dir.join(NAME)) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => SnapshotSpec::default(),
        Err(error) => return Err(error),
    };
    let configured = |spec: SnapshotSpec| (spec.generation > 0).then_some(spec);
    let changes = match File::open(runtime_dir.join(CHANGES)) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(configured(spec)),
        Err(error) => return Err(error),
    };
    let rules = std::mem::take(&mut spec.rules).into_iter();
    let mut rules: BTreeMap<RuleId, RuleSpec> = rules.map(|rule| (rule.id, rule)).collect();
    for line in changes.lines() {
        let Ok(change) = serde_json::from_str::<SpecChange>(&line?) else {
            break;
        };
        if change.base != spec.generation {
            continue;
        }
        (spec.generation, spec.limits) = (change.generation, change.limits);
        change.removed.iter().for_each(|id| drop(rules.remove(id)));
        rules.extend(change.rules.into_iter().map(|rule| (rule.id, rule)));
    }
    spec.rules = rules.into_values().collect();
    Ok(configured(spec))
}

enum Message {
    Whole(SnapshotSpec),
    Change(SpecChange),
}

/// Writes the files in a thread of its own, so that it holds nobody up. Of several wholes that come fast, only the newest
/// is written.
pub struct Writer {
    queue: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. What the files have stays there and is changed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(runtime_dir: &Path) -> io::Result<Writer> {
        let mut files = Files::new(runtime_dir);
        let (queue, messages) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("ilb-snapshot".into())
            .spawn(move || {
                while let Ok(message) = messages.recv() {
                    let mut next = vec![message];
                    next.extend(messages.try_iter());
                    // What a later whole replaces need not be written.
                    let whole = next.iter().rposition(|m| matches!(m, Message::Whole(_)));
                    for message in next.drain(whole.unwrap_or(0)..) {
                        if let Err(error) = files.write(message) {
                            tracing::error!(
                                "{}: {error}; a restarted fast path will wait for ilb-svcmgr before it forwards by the \
                                 newest configuration",
                                files.folder.display()
                            );
                        }
                    }
                }
            })?;
        Ok(Writer {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Has a whole configuration written soon.
    pub fn write(&self, spec: SnapshotSpec) {
        self.send(Message::Whole(spec));
    }

    /// Has a change of what was written last written soon.
    pub fn change(&self, change: SpecChange) {
        self.send(Message::Change(change));
    }

    fn send(&self, message: Message) {
        // The thread ends only after the queue.
        if let Some(queue) = &self.queue {
            let _ = queue.send(message);
        }
    }
}

impl Drop for Writer {
    /// Waits until all is written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Files {
    folder: PathBuf,
    /// Sizes in bytes.
    whole: u64,
    changes: u64,
}

impl Files {
    fn new(folder: &Path) -> Files {
        let size = |name| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
        Files {
            folder: folder.into(),
            whole: size(NAME),
            changes: size(CHANGES),
        }
    }

    fn write(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Whole(spec) => self.write_whole(&spec),
            Message::Change(change) => {
                self.append(&change)?;
                if self.changes > LITTLE.max(self.whole / SHARE)
                    && let Some(spec) = load(&self.folder)?
                {
                    self.write_whole(&spec)?;
                }
                Ok(())
            }
        }
    }

    fn append(&mut self, change: &SpecChange) -> io::Result<()> {
        let mut line = serde_json::to_vec(change)?;
        line.push(b'\n');
        let path = self.folder.join(CHANGES);
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(&line)?;
        self.changes += line.len() as u64;
        Ok(())
    }

    /// Killed between the two steps it leaves changes that are older than the whole, which do not count.
    fn write_whole(&mut self, spec: &SnapshotSpec) -> io::Result<()> {
        let path = self.folder.join(NAME);
        let temporary = path.with_extension("json.new");
        let text = serde_json::to_vec(spec)?;
        std::fs::write(&temporary, &text)?;
        // No fsync: the runtime directory does not survive what an fsync protects from.
        std::fs::rename(&temporary, &path)?;
        self.whole = text.len() as u64;
        File::create(self.folder.join(CHANGES))?;
        self.changes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ilb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn rule(id: RuleId, name: &str) -> RuleSpec {
        RuleSpec {
            id,
            name: name.into(),
            ..RuleSpec::default()
        }
    }

    #[test]
    fn the_newest_snapshot_is_read_back() {
        let dir = folder("snapshot");
        assert!(load(&dir).unwrap().is_none());
        let writer = Writer::start(&dir).unwrap();
        for generation in 1..=50 {
            writer.write(SnapshotSpec {
                generation,
                ..SnapshotSpec::default()
            });
        }
        drop(writer);
        assert_eq!(load(&dir).unwrap().unwrap().generation, 50);
        std::fs::write(dir.join(NAME), b"{ damaged").unwrap();
        assert!(load(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_node_that_began_with_nothing_has_only_changes() {
        let dir = folder("snapshot-of-changes");
        let writer = Writer::start(&dir).unwrap();
        let mut expected = SnapshotSpec::default();
        for n in 0..3 {
            let change = SpecChange {
                base: n,
                generation: n + 1,
                rules: vec![rule(1 + n as RuleId, "new")],
                ..SpecChange::default()
            };
            expected.change(change.clone());
            writer.change(change);
        }
        drop(writer);
        assert!(!dir.join(NAME).exists());
        assert_eq!(load(&dir).unwrap(), Some(expected));
        // Of changes of something else nothing can be made.
        let line = serde_json::to_vec(&SpecChange {
            base: 8,
            generation: 9,
            ..SpecChange::default()
        });
        std::fs::write(dir.join(CHANGES), line.unwrap()).unwrap();
        assert_eq!(load(&dir).unwrap(), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn changes_are_read_back_on_top_of_the_whole_that_they_change() {
        let dir = folder("snapshot-changes");
        let mut expected = SnapshotSpec {
            generation: 1,
            ..SnapshotSpec::default()
        };
        let writer = Writer::start(&dir).unwrap();
        writer.write(expected.clone());
        // Enough of them that the whole is written anew in between.
        for n in 0..4000_u32 {
            let change = SpecChange {
                base: expected.generation,
                generation: expected.generation + 1 + u64::from(n % 2),
                rules: vec![rule(1 + n % 7, &format!("changed {n} times"))],
                removed: (n % 3 == 0)
                    .then_some(1 + (n + 3) % 7)
                    .into_iter()
                    .collect(),
                ..SpecChange::default()
            };
            expected.change(change.clone());
            writer.change(change);
        }
        drop(writer);
        assert_eq!(load(&dir).unwrap().unwrap(), expected);
        let size = |name| std::fs::metadata(dir.join(name)).unwrap().len();
        assert!(size(CHANGES) <= LITTLE && size(NAME) > 100);

        // Killed before the old changes were taken away, and in the middle of a line.
        let line = |base, generation, name| {
            let change = SpecChange {
                base,
                generation,
                rules: vec![rule(9, name)],
                ..SpecChange::default()
            };
            serde_json::to_string(&change).unwrap()
        };
        let whole = serde_json::to_vec(&expected).unwrap();
        std::fs::write(dir.join(NAME), whole).unwrap();
        let now = expected.generation;
        let lines = [
            line(now - 1, now, "old"),
            line(now, now + 1, "new"),
            line(now + 1, now + 2, "cut")[..40].to_string(),
        ];
        std::fs::write(dir.join(CHANGES), lines.join("\n")).unwrap();
        let loaded = load(&dir).unwrap().unwrap();
        assert_eq!(loaded.generation, now + 1);
        assert_eq!(loaded.rules.last(), Some(&rule(9, "new")));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
