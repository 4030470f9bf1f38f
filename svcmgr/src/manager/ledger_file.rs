//! Keeps the counters over restarts of the manager: a file that is replaced now and then, and at the end. It is no part of
//! the configuration: what a crash loses of it is at most the time since it was written last, and only if the fast path
//! has begun anew meanwhile; otherwise that knows it all still.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::statistics::Ledger;

/// Time between two writes.
const INTERVAL: Duration = Duration::from_secs(60);
/// Asking and writing may take at most one part in so many of the time: of large configurations that is much.
const SHARE: u32 = 100;

/// See the module.
#[derive(Debug)]
pub struct LedgerFile {
    path: Arc<Path>,
    next: Instant,
    writing: Option<JoinHandle<()>>,
}

impl LedgerFile {
    /// For the file at `path`, which need not exist, with what it holds. A damaged one is said and begun anew.
    pub fn open(path: &Path) -> (LedgerFile, Ledger) {
        let ledger = match load(path) {
            Ok(Some(ledger)) => ledger,
            Ok(None) => Ledger::default(),
            Err(error) => {
                tracing::warn!("{}: {error}; counters begin at zero", path.display());
                Ledger::default()
            }
        };
        let file = LedgerFile {
            path: path.into(),
            next: Instant::now() + INTERVAL,
            writing: None,
        };
        (file, ledger)
    }

    /// When it should be written next.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// Writes it in the background, if that is not going on already. `took` is how long it has taken to ask.
    pub fn write(&mut self, ledger: &Ledger, took: Duration) {
        self.next = Instant::now() + INTERVAL.max(took * SHARE);
        if self
            .writing
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let (path, ledger) = (Arc::clone(&self.path), ledger.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || save(&path, &ledger)));
    }

    /// Writes it for the last time.
    pub async fn finish(mut self, ledger: &Ledger) {
        // A panic of the writer has been reported, and costs nothing but counters.
        if let Some(task) = self.writing.take() {
            let _ = task.await;
        }
        let (path, ledger) = (Arc::clone(&self.path), ledger.clone());
        let _ = tokio::task::spawn_blocking(move || save(&path, &ledger)).await;
    }
}

fn load(path: &Path) -> io::Result<Option<Ledger>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

fn save(path: &Path, ledger: &Ledger) {
    let mut new: PathBuf = path.into();
    new.as_mut_os_string().push(".new");
    let written = serde_json::to_vec(ledger)
        .map_err(io::Error::from)
        .and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        tracing::warn!("the counters are not kept: {}: {error}", path.display());
    }
}

/// Seconds of the Unix clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::TestFolder;

    #[tokio::test]
    async fn what_was_kept_is_there_again_and_damage_is_no_reason_to_stop() {
        let folder = TestFolder::new("ledger");
        let path = folder.path().join("statistics.json");
        let (file, mut ledger) = LedgerFile::open(&path);
        assert_eq!(ledger, Ledger::default());
        ledger.created = 5;
        file.finish(&ledger).await;
        let (mut file, kept) = LedgerFile::open(&path);
        assert_eq!(kept, ledger);
        ledger.created = 6;
        file.write(&ledger, Duration::ZERO);
        file.finish(&ledger).await;
        assert_eq!(LedgerFile::open(&path).1, ledger);
        fs::write(&path, "{\"created\": 5, \"now\": 7").unwrap();
        assert_eq!(LedgerFile::open(&path).1, Ledger::default());
    }
}
