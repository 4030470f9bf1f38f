//! What was found out about servers, kept in the runtime folder: a manager that is restarted does not take a dead server for
//! alive until its first test says so. It is lost when the machine is started anew, as it should be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ilb_checks::Id;
use libilb::health::{HealthState, Weight};
use serde::{Deserialize, Serialize};

use super::News;
use super::book::Book;

/// One server of a rule that is not simply alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Record {
    rule: u32,
    server: u32,
    state: HealthState,
    up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<Weight>,
    #[serde(default)]
    why: String,
    #[serde(default)]
    since: u64,
}

/// The file.
#[derive(Debug, Clone)]
pub struct Memory {
    path: PathBuf,
}

impl Memory {
    /// Uses this file.
    pub fn new(path: &Path) -> Memory {
        Memory {
            path: path.to_owned(),
        }
    }

    /// What an earlier run has left. A file that makes no sense is as good as none.
    pub fn load(&self) -> Book {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Book::default(),
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", self.path.display());
                return Book::default();
            }
        };
        let records: Vec<Record> = serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!(
                "{} is not what it should be ({error}): no server is remembered as dead",
                self.path.display()
            );
            Vec::new()
        });
        let mut book = Book::default();
        for record in records {
            book.enter(News {
                id: Id {
                    rule: record.rule,
                    server: record.server,
                },
                state: record.state,
                up: record.up,
                weight: record.weight,
                why: record.why,
                since: record.since,
                changes: 0,
            });
        }
        book
    }

    /// Keeps what matters of a book: who is not simply alive. The file is there as a whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, book: &Book) -> io::Result<()> {
        let matters = |news: &&News| news.state.is_down() || !news.up || news.weight.is_some();
        let records: Vec<Record> = book
            .iter()
            .filter(matters)
            .map(|news| Record {
                rule: news.id.rule,
                server: news.id.server,
                state: news.state,
                up: news.up,
                weight: news.weight,
                why: news.why.clone(),
                since: news.since,
            })
            .collect();
        let text = serde_json::to_string(&records)?;
        let temporary = self.path.with_extension("new");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::TestFolder;

    fn news(server: u32, state: HealthState, weight: Option<Weight>) -> News {
        News {
            id: Id { rule: 1, server },
            state,
            up: !state.is_down(),
            weight,
            why: "L4/refused after 0.1 ms".into(),
            since: 5,
            changes: 0,
        }
    }

    #[test]
    fn who_is_dead_or_weighs_otherwise_is_remembered() {
        let folder = TestFolder::new("health-memory");
        let memory = Memory::new(&folder.path().join("health.json"));
        assert_eq!(memory.load(), Book::default());
        let all = [
            news(1, HealthState::Alive, None),
            news(2, HealthState::Dead, None),
            news(3, HealthState::Alive, Some(Weight::Set(3))),
            news(4, HealthState::Unreach, Some(Weight::Add(-1))),
        ];
        let mut book = Book::default();
        all.iter().cloned().for_each(|news| book.enter(news));
        memory.write(&book).unwrap();
        let mut expected = Book::default();
        all[1..]
            .iter()
            .cloned()
            .for_each(|news| expected.enter(news));
        assert_eq!(memory.load(), expected);
        fs::write(folder.path().join("health.json"), "[{").unwrap();
        assert_eq!(memory.load(), Book::default());
    }
}
