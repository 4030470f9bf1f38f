//! What health checks said last of every server that they test: for people, and to be remembered. A clone shares everything.

use ilb_checks::Id;
use libilb::health::HealthState;
use libilb::map::Map;

use super::News;

/// See the module. Servers of which nothing was said yet are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book(Map<(u32, u32), News>);

impl Book {
    /// Enters what is new.
    pub fn enter(&mut self, news: News) {
        self.0.insert((news.id.rule, news.id.server), news);
    }

    /// What was said of a server of a rule.
    pub fn of(&self, rule: u32, server: u32) -> Option<&News> {
        self.0.get(&(rule, server))
    }

    /// What is believed of a server of a rule that is tested.
    pub fn state(&self, rule: u32, server: u32) -> HealthState {
        self.of(rule, server)
            .map(|news| news.state)
            .unwrap_or_default()
    }

    /// Forgets one.
    pub fn forget(&mut self, id: Id) {
        self.0.remove(&(id.rule, id.server));
    }

    /// Forgets all that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(Id) -> bool) {
        let gone: Vec<Id> = self
            .iter()
            .map(|news| news.id)
            .filter(|id| !keep(*id))
            .collect();
        for id in gone {
            self.forget(id);
        }
    }

    /// The rules and servers of which something else was said `before`.
    pub fn different<'a>(&'a self, before: &'a Book) -> impl Iterator<Item = (u32, u32)> {
        self.0.since(&before.0).map(|news| *news.key)
    }

    /// Everything.
    pub fn iter(&self) -> impl Iterator<Item = &News> {
        self.0.iter().map(|(_, news)| news)
    }
}
