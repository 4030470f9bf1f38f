//! A thousand damaged databases: whatever happened to the files, the manager has the last configuration, or an earlier one
//! and says so, or none and says so. It never panics, never hangs, and never takes a wrong configuration for the right one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use libilb::model::Configuration;

use super::open::{OpenError, Opened, Place, copy_folder};
use super::snapshots::Snapshots;
use crate::author::Author;
use crate::history::Entry;
use crate::state::State;
use crate::store::codec;
use crate::store::codec::tests::full_state;
use crate::test_folder::TestFolder;

const IMAGES: u64 = 1000;
const THREADS: usize = 4;
/// Opening one database takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A state folder as it might be, and every configuration that it ever had.
struct Original {
    folder: PathBuf,
    last: State,
    known: Vec<Configuration>,
}

/// Sixty changes; a snapshot of every fifth, as when they come faster than the disk.
fn original(folder: &Path) -> Original {
    let place = place(folder);
    let opened = place.open().unwrap();
    let store = opened.store.unwrap();
    let snapshots = Snapshots::new(&folder.join("snapshots"));
    let mut state = opened.state;
    let mut known = vec![state.configuration.clone()];
    for step in 0..60_u64 {
        let mut next = match step {
            0 => full_state(),
            _ => state.clone(),
        };
        let configuration = &mut next.configuration;
        match step % 4 {
            0 => drop(
                configuration
                    .create_group(&format!("g{step}"), &["10.0.0.1-10.0.0.40"])
                    .unwrap(),
            ),
            1 => drop(
                configuration
                    .add_servers("web", &[format!("10.1.0.{step}")])
                    .unwrap(),
            ),
            2 => drop(
                configuration
                    .enable_rules(&["shop"], step % 8 == 2)
                    .unwrap(),
            ),
            _ => drop(
                configuration
                    .delete_groups(&[format!("g{}", step - 3)])
                    .unwrap(),
            ),
        }
        next.generation = state.generation.max(42) + 1;
        let entry = Entry {
            time: 1_700_000_000 + step,
            author: Author::of_number(1000),
            words: format!("step {step}"),
            before: state.generation,
            undo: Some(std::sync::Arc::new(codec::history::undo(
                &state.configuration,
                &next.configuration,
            ))),
        };
        next.history.push(next.generation, entry);
        store.replace(&state, &next).unwrap();
        state = next;
        known.push(state.configuration.clone());
        if step % 5 == 4 {
            snapshots.write(&state).unwrap();
        }
    }
    Original {
        folder: folder.to_owned(),
        last: state,
        known,
    }
}

fn place(folder: &Path) -> Place {
    Place::new(
        &folder.join("db"),
        &folder.join("snapshots"),
        &folder.join("run"),
    )
}

/// The database's files, the largest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

/// Does something bad to one file, and says what.
fn damage(database: &Path, random: &mut Random) -> String {
    let files = files(database);
    // The log mostly.
    let file = match random.below(4) {
        0 => &files[random.below(files.len())],
        _ => &files[0],
    };
    let mut bytes = fs::read(file).unwrap();
    // What is behind the end of the log does not matter, so it is met rarely.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |at| at + 1);
    let end = match random.below(8) {
        0 => bytes.len(),
        _ => used,
    };
    let at = random.below(end);
    let most = [1, 16, 512, 65_536][random.below(4)];
    let length = 1 + random.below(most);
    let range = at..(at + length).min(bytes.len());
    let what = match random.below(7) {
        0 => {
            bytes.truncate(at);
            "truncated"
        }
        1 => {
            bytes[range].fill(0);
            "zeroed"
        }
        2 => {
            bytes[at] ^= 1 << random.below(8);
            "one bit flipped in"
        }
        3 => {
            for _ in 0..1 + random.below(64) {
                let at = random.below(end);
                bytes[at] ^= 1 << random.below(8);
            }
            "many bits flipped in"
        }
        4 => {
            bytes[range].fill_with(|| random.next() as u8);
            "noise in"
        }
        5 => {
            // A block that was written to another place, or an old one that was not written over.
            let from = random.below(end);
            let length = range.len().min(bytes.len() - from);
            let to = at.min(bytes.len() - length);
            bytes.copy_within(from..from + length, to);
            "a block astray in"
        }
        _ => {
            fs::remove_file(file).unwrap();
            return format!("{} deleted", file.display());
        }
    };
    fs::write(file, &bytes).unwrap();
    format!("{what} {} at {at}, length {length}", file.display())
}

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Right,
    Rebuilt,
    Nothing,
}

/// Opens an image and says what became of it, or what is wrong with that.
fn judge(original: &Original, image: &Path, snapshots: bool) -> Result<Outcome, String> {
    let place = place(image);
    let (state, notice) = match place.open() {
        Ok(Opened { state, notice, .. }) => (state, notice),
        Err(OpenError::Hopeless { .. }) if !snapshots => return Ok(Outcome::Nothing),
        Err(other) => return Err(other.to_string()),
    };
    if notice.is_empty() {
        return match state == original.last {
            true => Ok(Outcome::Right),
            false => Err("wrong, and silent about it".to_owned()),
        };
    }
    if !original.known.contains(&state.configuration) {
        return Err(format!("a configuration that there never was: {notice}"));
    }
    if state.generation <= original.last.generation {
        return Err(format!("generation {} was there before", state.generation));
    }
    drop(place);
    match self::place(image).open() {
        Ok(again) if again.notice.is_empty() && again.state == state => Ok(Outcome::Rebuilt),
        Ok(again) => Err(format!("rebuilt, but not for long: {}", again.notice)),
        Err(error) => Err(format!("rebuilt, but not for long: {error}")),
    }
}

#[test]
fn a_thousand_damaged_databases_are_right_or_rebuilt_or_refused() {
    let folder = TestFolder::new("images");
    let original = original(&folder.path().join("original"));
    // Whole, it is right.
    let copy = folder.path().join("whole");
    copy_folder(&original.folder, &copy).unwrap();
    assert_eq!(judge(&original, &copy, true), Ok(Outcome::Right));

    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let (alive, watched) = mpsc::channel::<String>();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (alive, next, outcomes) = (alive.clone(), &next, &outcomes);
            let (original, folder) = (&original, folder.path());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if seed >= IMAGES {
                        return;
                    }
                    let image = folder.join(format!("{seed}"));
                    copy_folder(&original.folder, &image).unwrap();
                    let mut random = Random(seed);
                    let snapshots = !seed.is_multiple_of(5);
                    if !snapshots {
                        fs::remove_dir_all(image.join("snapshots")).unwrap();
                    }
                    let what = format!("seed {seed}: {}", damage(&image.join("db"), &mut random));
                    alive.send(what.clone()).unwrap();
                    let outcome = judge(original, &image, snapshots);
                    outcomes.lock().unwrap().push((what, outcome));
                    fs::remove_dir_all(&image).unwrap();
                }
            });
        }
        drop(alive);
        let mut last = String::new();
        loop {
            match watched.recv_timeout(PATIENCE) {
                Ok(what) => last = what,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    eprintln!("nothing moves, lately: {last}");
                    std::process::abort();
                }
            }
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_err())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let of = |which| {
        outcomes
            .iter()
            .filter(move |(_, outcome)| *outcome == Ok(which))
    };
    let count = |which| of(which).count();
    let [right, rebuilt, nothing] = [Outcome::Right, Outcome::Rebuilt, Outcome::Nothing].map(count);
    println!("{right} right, {rebuilt} rebuilt, {nothing} refused");
    assert_eq!(outcomes.len(), IMAGES as usize);
    assert!(rebuilt > 300 && nothing > 50, "the damage was real");
}
