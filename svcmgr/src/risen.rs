//! Servers that came up while the manager runs, and when: the fast path raises their share slowly where a rule says so.
//! Not durable: after a restart of the manager every server has its whole share. Pure: time comes in.

use std::collections::HashSet;

use ilb_forwarder::spec::ServerId;
use libilb::map::Map;
use libilb::model::{Configuration, ServerGroup};

/// See the module. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Risen(Map<ServerId, u32>);

impl Risen {
    /// When a server came up, in seconds since boot; 0 for long ago.
    pub fn since(&self, server: ServerId) -> u32 {
        self.0.get(&server).copied().unwrap_or(0)
    }

    /// The servers that came up at another time than they did according to `before`.
    pub fn different<'a>(&'a self, before: &'a Risen) -> impl Iterator<Item = ServerId> {
        self.0.since(&before.0).map(|server| *server.key)
    }

    /// Follows a change of the configuration at `now`, in seconds since boot. The servers of a new group have nobody whose
    /// share they could grow into.
    pub fn follow(&mut self, before: &Configuration, after: &Configuration, now: u32) {
        for group in after.groups.since(&before.groups) {
            let Some(old) = group.before else {
                continue;
            };
            let was = enabled(old);
            let is = group.after.map(|group| enabled(group)).unwrap_or_default();
            for server in was.difference(&is) {
                self.0.remove(server);
            }
            for server in is.difference(&was) {
                self.0.insert(*server, now.max(1));
            }
        }
    }
}

fn enabled(group: &ServerGroup) -> HashSet<ServerId> {
    let servers = group.servers.iter().filter(|server| server.enabled);
    servers.map(|server| server.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_a_group_has_risen_and_who_leaves_it_is_forgotten() {
        let mut risen = Risen::default();
        let mut configuration = Configuration::default();
        let mut now = 100;
        let mut step = |change: &dyn Fn(&mut Configuration)| {
            let before = configuration.clone();
            change(&mut configuration);
            now += 1;
            risen.follow(&before, &configuration, now);
            [1, 2].map(|server| risen.since(server))
        };
        let created = step(&|c| drop(c.create_group("web", &["192.0.2.1"]).unwrap()));
        assert_eq!(created, [0, 0]);
        let added = step(&|c| drop(c.add_servers("web", &["192.0.2.2"]).unwrap()));
        assert_eq!(added, [0, 102]);
        let off = step(&|c| drop(c.enable_servers(&["_web.0", "_web.1"], false).unwrap()));
        assert_eq!(off, [0, 0]);
        let on = step(&|c| drop(c.enable_servers(&["_web.0"], true).unwrap()));
        assert_eq!(on, [104, 0]);
        let gone = step(&|c| drop(c.delete_groups(&["web"]).unwrap()));
        assert_eq!(gone, [0, 0]);
    }
}
