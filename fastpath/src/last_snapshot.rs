//! The last applied snapshot in a file of the runtime directory, so that a fast path that is started anew forwards at
//! once, whether the manager is there or not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use ilb_forwarder::spec::SnapshotSpec;

/// The file's name in the runtime directory.
const NAME: &str = "snapshot.json";

/// Reads the file; None if there is none.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn load(runtime_dir: &Path) -> io::Result<Option<SnapshotSpec>> {
    let text = match std::fs::read(runtime_dir.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

fn store(path: &Path, spec: &SnapshotSpec) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    std::fs::write(&temporary, serde_json::to_vec(spec)?)?;
    // No fsync: the runtime directory does not survive what an fsync protects from.
    std::fs::rename(&temporary, path)
}

/// Writes snapshots in a thread of its own, so that a large one holds nobody up. Of several that come fast, only the
/// newest is written.
pub struct Writer {
    queue: Option<mpsc::Sender<Arc<SnapshotSpec>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(runtime_dir: &Path) -> io::Result<Writer> {
        let path: PathBuf = runtime_dir.join(NAME);
        let (queue, snapshots) = mpsc::channel::<Arc<SnapshotSpec>>();
        let thread = std::thread::Builder::new()
            .name("ilb-snapshot".into())
            .spawn(move || {
                while let Ok(spec) = snapshots.recv() {
                    let newest = snapshots.try_iter().last().unwrap_or(spec);
                    if let Err(error) = store(&path, &newest) {
                        tracing::error!(
                            "{}: {error}; a restarted fast path will wait for ilb-svcmgr before it forwards by \
                             generation {}",
                            path.display(),
                            newest.generation
                        );
                    }
                }
            })?;
        Ok(Writer {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Has a snapshot written soon.
    pub fn write(&self, spec: Arc<SnapshotSpec>) {
        // The thread ends only after the queue.
        if let Some(queue) = &self.queue {
            let _ = queue.send(spec);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshot_is_read_back() {
        let dir = std::env::temp_dir().join(format!("ilb-snapshot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(load(&dir).unwrap().is_none());
        let writer = Writer::start(&dir).unwrap();
        for generation in 1..=50 {
            writer.write(Arc::new(SnapshotSpec {
                generation,
                rules: vec![],
                ..SnapshotSpec::default()
            }));
        }
        drop(writer);
        assert_eq!(load(&dir).unwrap().unwrap().generation, 50);
        std::fs::write(dir.join(NAME), b"{ damaged").unwrap();
        assert!(load(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
