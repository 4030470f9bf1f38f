//! What becomes of the manager's part in sources of server groups: what is to be asked follows the configuration, and what is
//! heard becomes an ordinary change of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ilb_node::journal::events::{CANDIDATE_FOUND, SERVERS_FOLLOWED, SOURCE_ANSWERS, SOURCE_FAILED};
use libilb::ModelError;
use libilb::model::{Configuration, Followed, ServerGroup, key};
use libilb::source::{Found, Source};

use super::change::Change;
use super::error::ManagerError;
use super::steps::Cause;
use super::{Manager, ManagerHandle};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::sources::follow::Follower;
use crate::sources::{Families, News, Order, Question, Sources, suits};

/// How soon a source is asked anew after its group was changed by somebody.
const SOON: Duration = Duration::from_millis(200);

/// Sources that are followed.
#[derive(Debug)]
pub(super) struct Followers {
    /// Who asks.
    pub asking: Sources,
    /// By keys of groups: what is known, and the number of the last order.
    pub all: libilb::map::Map<String, Arc<Follower>>,
    orders: BTreeMap<String, u64>,
    next: u64,
}

impl Followers {
    pub(super) fn new(asking: Sources) -> Followers {
        Followers {
            asking,
            all: libilb::map::Map::default(),
            orders: BTreeMap::new(),
            next: 0,
        }
    }

    /// Has something asked for a group, instead of what was to be asked.
    fn ask(&mut self, group: &str, question: Question, after: Duration) {
        self.next += 1;
        self.orders.insert(group.to_owned(), self.next);
        self.asking.order(Order::Ask {
            group: group.to_owned(),
            serial: self.next,
            question: Box::new(question),
            after,
        });
    }

    fn forget(&mut self, group: &str) {
        if self.orders.remove(group).is_some() {
            self.asking.order(Order::Forget(group.to_owned()));
        }
        self.all.remove(&group.to_owned());
    }
}

impl ManagerHandle {
    /// Takes candidates into a group, all if none is named, and returns the ids that they get.
    ///
    /// # Errors
    /// [`ManagerError::Model`] for a group or a candidate that does not exist.
    pub async fn approve(
        &self,
        author: Author,
        group: &str,
        which: &[String],
    ) -> Result<Vec<String>, ManagerError> {
        let view = self.view();
        let configuration = &view.state.configuration;
        let known = configuration.expect_group(group)?;
        let follower = view.followers.get(&key(group));
        let waiting: Vec<&Found> = follower
            .iter()
            .flat_map(|follower| follower.candidates())
            .map(|candidate| &candidate.found)
            .collect();
        let mut chosen: Vec<Found> = Vec::new();
        for text in which {
            // By its address, or by address and port.
            let bare = text.trim_matches(['[', ']']);
            let address: Option<IpAddr> = bare.parse().ok();
            let mut meant = waiting.iter().filter(|found| {
                found.to_string().eq_ignore_ascii_case(text) || Some(found.address) == address
            });
            let Some(first) = meant.next() else {
                let all: Vec<String> = waiting.iter().map(ToString::to_string).collect();
                let allowed = match all.is_empty() {
                    true => "nobody is: 'lbadm show-candidate' lists who waits".to_owned(),
                    false => format!("use {}", libilb::words::one_of(&all)),
                };
                let problem = format!("is not a candidate of server group '{}'", known.name);
                return Err(ModelError::invalid("server", text, problem, allowed).into());
            };
            let found = std::iter::once(first).chain(meant);
            chosen.extend(found.map(|found| (*found).clone()));
        }
        if which.is_empty() {
            chosen.extend(waiting.into_iter().cloned());
        }
        chosen.sort();
        chosen.dedup();
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let servers = chosen.iter().map(|found| found.spec().to_string());
        let change = Change::AddServers {
            group: known.name.clone(),
            servers: servers.collect(),
        };
        self.change(author, change).await
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Has asked what follows from a configuration that was `before` another one.
    pub(super) fn follow_sources(&mut self, before: &Configuration) {
        let after = self.state.configuration.clone();
        let mut groups: BTreeSet<String> = BTreeSet::new();
        for group in after.groups.since(&before.groups) {
            groups.insert(group.key.clone());
        }
        for rule in after.rules.since(&before.rules) {
            // A rule says which family its servers have, and how they are tested.
            let rules = [rule.before, rule.after].into_iter().flatten();
            groups.extend(rules.map(|rule| key(&rule.servergroup)));
        }
        groups
            .retain(|name| source_of(before, name).is_some() || source_of(&after, name).is_some());
        for name in groups {
            let group = after.group(&name).cloned();
            let Some((group, source)) = group.and_then(|g| Some((g.clone(), g.source.clone()?)))
            else {
                self.followers.forget(&name);
                continue;
            };
            let old = source_of(before, &name);
            let mut follower = match old {
                // Another name, another story.
                Some(old) if old.origin != source.origin => Follower::default(),
                _ => self.follower(&name),
            };
            follower.settle(&group);
            self.followers.all.insert(name.clone(), Arc::new(follower));
            let new = question(&after, &group, &source);
            let old = before
                .group(&name)
                .and_then(|group| Some(question(before, group, old?)));
            // What somebody adds or takes away by hand is looked at with the next answer.
            if old.as_ref() != Some(&new) || !self.followers.orders.contains_key(&name) {
                self.followers.ask(&name, new, SOON);
            }
        }
    }

    /// Begins with the sources of an earlier run.
    pub(super) fn begin_sources(&mut self) {
        self.follow_sources(&Configuration::default());
    }

    /// Does what follows from what was heard of a source.
    pub(super) async fn hear(&mut self, news: News) {
        if self.followers.orders.get(&news.group) != Some(&news.serial) {
            return;
        }
        let configuration = self.state.configuration.clone();
        let Some((group, source)) = configuration
            .group(&news.group)
            .and_then(|group| Some((group.clone(), group.source.clone()?)))
        else {
            return;
        };
        let family = match source.family {
            Some(_) => None,
            None => configuration.family_of(&group.name),
        };
        let mut follower = self.follower(&news.group);
        let problem = follower.problem().to_owned();
        let now = now_millis();
        let step = follower.hear(&source, &group, family, news.heard, now);
        for found in &step.candidates {
            tracing::info!(
                message_id = CANDIDATE_FOUND.id,
                ilb_group = group.name,
                ilb_server = %found,
                "server {found} of {source} waits to be approved for server group {}",
                group.name
            );
        }
        // In a pair one node follows sources, and the other one follows it.
        if self.leads() && (!step.add.is_empty() || !step.remove.is_empty()) {
            let done = self.follow(&group, &source, &step.add, &step.remove).await;
            match done {
                Ok(followed) => {
                    for refused in followed.refused {
                        follower.refuse(refused.address, refused.why.clone());
                        let (address, why) = (refused.address, refused.why);
                        follower.prevented(format!("{address} {why}"));
                    }
                }
                Err(error) => follower.prevented(format!("what was found is not taken: {error}")),
            }
        }
        if follower.problem() != problem {
            say(&group, &source, follower.problem());
        }
        if let Some(after) = step.again
            && let Some(group) = self.state.configuration.group(&news.group)
        {
            let question = question(&self.state.configuration, group, &source);
            self.followers.ask(&news.group, question, after);
        }
        self.followers.all.insert(news.group, Arc::new(follower));
    }

    /// The change itself. If the other node of a pair was first, the next answer is as good.
    async fn follow(
        &mut self,
        group: &Arc<ServerGroup>,
        source: &Source,
        add: &[Found],
        remove: &[u32],
    ) -> Result<Followed, ManagerError> {
        self.need_store().await?;
        let mut next = self.editable();
        let followed = next.follow(&group.name, add, remove)?;
        let words = words(source, &followed);
        if words.is_empty() {
            return Ok(followed);
        }
        let cause = Cause {
            author: Author::Discovery(group.name.clone()),
            words: words.clone(),
        };
        self.configure(next, cause).await?;
        tracing::info!(
            message_id = SERVERS_FOLLOWED.id,
            ilb_group = group.name,
            ilb_added = followed.added.join(" "),
            ilb_removed = followed.removed.join(" "),
            "server group {}: {words}",
            group.name
        );
        Ok(followed)
    }

    fn follower(&self, group: &str) -> Follower {
        let known = self.followers.all.get(&group.to_owned());
        known
            .map(|follower| (**follower).clone())
            .unwrap_or_default()
    }
}

fn source_of<'a>(configuration: &'a Configuration, group: &str) -> Option<&'a Source> {
    configuration.group(group)?.source.as_deref()
}

/// Says that a source has failed, or no longer.
fn say(group: &ServerGroup, source: &Source, problem: &str) {
    let name = &*group.name;
    match problem.is_empty() {
        true => tracing::info!(
            message_id = SOURCE_ANSWERS.id,
            ilb_group = name,
            "server group {name}: {source} is followed again"
        ),
        false => tracing::warn!(
            message_id = SOURCE_FAILED.id,
            ilb_group = name,
            ilb_reason = problem,
            "server group {name}: {source}: {problem}; the servers that it has stay"
        ),
    }
}

/// What was done, for the history.
fn words(source: &Source, followed: &Followed) -> String {
    let mut parts = Vec::new();
    for (what, ids) in [("added", &followed.added), ("removed", &followed.removed)] {
        if !ids.is_empty() {
            parts.push(super::steps::cause_words(what, ids));
        }
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!("{source}: {}", parts.join("; ")),
    }
}

/// What is asked for a group.
fn question(configuration: &Configuration, group: &ServerGroup, source: &Source) -> Question {
    let rules = || configuration.rules_of(&group.name);
    let families = match configuration.family_of(&group.name) {
        Some(family) => Families::One(family),
        None if rules().next().is_some() => Families::Both,
        None => Families::Either,
    };
    if source.is_dns() {
        return Question {
            source: source.clone(),
            families,
            check: None,
            port: None,
            ours: Vec::new(),
        };
    }
    let check = rules().find_map(|rule| configuration.check_of(rule));
    let port = rules().find_map(|rule| {
        let mut vips = rule.vips.iter();
        let vip = vips.find(|vip| vip.protocol.has_ports() && vip.ports.first > 0)?;
        Some(vip.ports.first)
    });
    let ours = configuration.rules.values().flat_map(|rule| {
        let vips = rule.vips.iter().map(|vip| vip.address);
        vips.chain(rule.proxy_src.iter().copied())
    });
    let subnet = |address: &IpAddr| match &source.origin {
        libilb::source::Origin::Subnet(prefix) => prefix.holds(*address),
        libilb::source::Origin::Dns(_) => false,
    };
    let mut ours: Vec<IpAddr> = ours.filter(subnet).collect();
    ours.sort_unstable();
    ours.dedup();
    Question {
        source: source.clone(),
        // Its prefix says it.
        families: Families::Either,
        check: check.filter(|check| suits(check)).cloned(),
        port,
        ours,
    }
}

fn now_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
