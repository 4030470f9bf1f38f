use super::*;
use crate::store::codec::tests::full_state;
use crate::test_folder::TestFolder;

impl Opened {
    fn replace(&self, after: &State) {
        let store = self.store.as_ref().expect("it can be written");
        store.replace(&self.state, after).unwrap();
    }
}

struct Room {
    folder: TestFolder,
}

impl Room {
    fn new(name: &str) -> Room {
        Room {
            folder: TestFolder::new(name),
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("state/db")
    }

    fn place(&self) -> Place {
        let scratch = self.folder.path().join("run");
        Place::new(&self.database(), &self.snapshots(), &scratch)
    }

    /// Opens it and gives it free at once.
    fn read(&self) -> Opened {
        self.place().open().unwrap()
    }

    fn snapshots(&self) -> PathBuf {
        self.folder.path().join("state/snapshots")
    }

    /// A database with `state`, closed, and a snapshot of it.
    fn filled(name: &str, state: &State) -> Room {
        let room = Room::new(name);
        let opened = room.read();
        assert_eq!(opened.state, State::default());
        opened.replace(state);
        Snapshots::new(&room.snapshots()).write(state).unwrap();
        room
    }

    fn damaged_ones(&self) -> usize {
        let entries = fs::read_dir(self.database().parent().unwrap()).unwrap();
        entries
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_str().unwrap().contains(".damaged-")
            })
            .count()
    }
}

#[test]
fn what_was_written_is_there_again() {
    let state = full_state();
    let room = Room::filled("reopen", &state);
    let opened = room.read();
    assert_eq!(opened.state, state);
    assert_eq!(opened.notice, "");
    let mut less = state.clone();
    less.configuration.delete_rules(&["six"]).unwrap();
    less.generation += 1;
    opened.replace(&less);
    drop(opened);
    assert_eq!(room.read().state, less);
}

#[test]
fn a_second_instance_is_told_who_has_it() {
    let room = Room::new("second");
    let first = room.place();
    first.open().unwrap();
    let Err(error) = room.place().open() else {
        panic!("a second instance was let in");
    };
    let text = error.to_string();
    let holder = format!(
        "in use by another ilb-svcmgr (process {})",
        std::process::id()
    );
    assert!(text.contains(&holder), "{text}");
    drop(first);
    room.place().open().unwrap();
}

/// Overwrites parts of the database's main file.
fn damage(database: &Path, step: usize) {
    let file = database.join("db");
    let mut bytes = fs::read(&file).unwrap();
    for byte in bytes.iter_mut().step_by(step) {
        *byte = !*byte;
    }
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_damaged_database_is_rebuilt_from_the_newest_snapshot() {
    let state = full_state();
    for step in [1, 7, 64, 997] {
        let room = Room::filled(&format!("damaged-{step}"), &state);
        damage(&room.database(), step);
        let opened = room.read();
        let file = "rebuilt from ";
        let notice = &opened.notice;
        assert!(
            notice.contains(file) && notice.contains("configuration-00000000000000000042.toml"),
            "{notice}"
        );
        assert_eq!(opened.state.generation, state.generation + 1);
        assert_eq!(opened.state.configuration, state.configuration);
        assert_eq!(opened.state.retired, state.retired);
        assert_eq!(room.damaged_ones(), 1);
        let newest = &opened.state.history.entries[&(state.generation + 1)];
        assert_eq!(newest.words, "rebuilt from generation 42 of the snapshot");
        drop(opened.store);
        let again = room.read();
        assert_eq!((again.notice.as_str(), &again.state), ("", &opened.state));
    }
}

#[test]
fn a_database_that_lost_its_end_is_noticed() {
    let state = full_state();
    let room = Room::filled("cut", &state);
    let main = room.database().join("db");
    fs::remove_file(&main).unwrap();
    let opened = room.read();
    assert!(opened.notice.contains("rebuilt"), "{}", opened.notice);
    assert_eq!(opened.state.configuration, state.configuration);
}

#[test]
fn without_snapshot_the_database_stays_where_it_is() {
    let room = Room::filled("hopeless", &full_state());
    fs::remove_dir_all(room.snapshots()).unwrap();
    damage(&room.database(), 1);
    let Err(error) = room.place().open() else {
        panic!("a damaged database was accepted");
    };
    assert!(matches!(error, OpenError::Hopeless { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("begin with an empty configuration"),
        "{error}"
    );
    assert!(room.database().exists());
    assert_eq!(room.damaged_ones(), 0);
}

#[test]
fn a_lost_database_comes_back_from_its_snapshot() {
    let state = full_state();
    let room = Room::filled("lost", &state);
    fs::remove_dir_all(room.database()).unwrap();
    assert_eq!(room.read().state.configuration, state.configuration);
}

#[test]
fn bad_snapshots_do_not_keep_from_beginning_anew() {
    let room = Room::filled("anew", &full_state());
    fs::remove_dir_all(room.database()).unwrap();
    fs::write(
        room.snapshots()
            .join("configuration-00000000000000000042.toml"),
        "no",
    )
    .unwrap();
    for _ in 0..2 {
        let opened = room.read();
        assert_eq!((opened.state.generation, opened.notice.as_str()), (43, ""));
        assert!(opened.state.configuration.rules.is_empty());
    }
}

#[test]
fn a_database_as_it_was_some_time_ago_is_not_taken_for_the_last_one() {
    let state = full_state();
    let room = Room::filled("old", &state);
    let copy = room.folder.path().join("copy");
    copy_folder(&room.database(), &copy).unwrap();
    let mut later = state.clone();
    later.configuration.delete_rules(&["six"]).unwrap();
    later.generation = 43;
    let opened = room.read();
    opened.replace(&later);
    drop(opened);
    // No snapshot was written of the last change, only the watermark knows of it.
    copy_folder(&copy, &room.database()).unwrap();
    let opened = room.read();
    let reason = "it has generation 42, but generation 43 was written after it";
    assert!(opened.notice.contains(reason), "{}", opened.notice);
    assert_eq!(opened.state.configuration, state.configuration);
    assert_eq!(opened.state.generation, 44);
}

#[test]
fn of_a_readable_database_and_a_snapshot_the_newer_one_counts() {
    let state = full_state();
    let room = Room::filled("readable", &state);
    watermark::write(&room.database(), 50);
    let old = room
        .snapshots()
        .join("configuration-00000000000000000042.toml");
    fs::write(&old, "no").unwrap();
    let opened = room.read();
    assert!(
        opened
            .notice
            .contains("rebuilt from what could be read of it")
    );
    assert_eq!(opened.state.configuration, state.configuration);
    assert_eq!(opened.state.generation, 51);
}

#[test]
fn a_store_is_renewed_with_what_it_last_held() {
    let state = full_state();
    let room = Room::filled("renewed", &state);
    let place = room.place();
    let opened = place.open().unwrap();
    // The broken one is never touched again, not even closed.
    std::mem::forget(opened.store);
    for damaged in [false, true] {
        let store = place.renew(&state, damaged).unwrap();
        let mut less = state.clone();
        less.configuration.delete_rules(&["six"]).unwrap();
        less.generation += 1;
        store.replace(&state, &less).unwrap();
        drop(store);
        assert_eq!(room.damaged_ones(), usize::from(damaged));
    }
    drop(place);
    let opened = room.read();
    assert_eq!((opened.state.generation, opened.notice.as_str()), (43, ""));
    assert!(opened.state.configuration.rule("six").is_none());
}

#[test]
fn a_renewal_that_was_cut_short_goes_on_with_the_old_one() {
    let state = full_state();
    let room = Room::filled("short", &state);
    fs::rename(room.database(), beside(&room.database(), ".old")).unwrap();
    fs::create_dir(beside(&room.database(), ".new")).unwrap();
    let opened = room.read();
    assert_eq!((opened.notice.as_str(), &opened.state), ("", &state));
    assert!(!beside(&room.database(), ".old").exists());
}
