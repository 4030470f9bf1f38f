//! What the manager has to do with VRRP: it says which instances there are and whether the fast path forwards, and shows where
//! they stand. Everything else is ilb-vrrp's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ilb_vrrp::{Driver, Order, Report};
use libilb::map::Map;
use libilb::model::{Configuration, Rule, key};
use libilb::vrrp::{OWNER, Probe, VrrpInstance, VrrpState, VrrpStatus};
use tokio::time::Instant;

use super::handover::Others;
use crate::standing;
use crate::tiers::Tier;
use crate::vigour::Vigours;

/// How all instances of this node take part, whatever each is told by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stance {
    /// As they are configured.
    #[default]
    Usual,
    /// They do not take addresses from another node that has them.
    Yielding,
    /// Not at all, with the reason.
    Out(&'static str),
}

impl Stance {
    /// An instance as it takes part then.
    fn of(self, instance: &Arc<VrrpInstance>) -> Arc<VrrpInstance> {
        match self {
            Stance::Usual => instance.clone(),
            Stance::Yielding => Arc::new(VrrpInstance {
                preempt: false,
                // An owner of addresses does not ask.
                priority: instance.priority.min(OWNER - 1),
                ..instance.as_ref().clone()
            }),
            Stance::Out(_) => Arc::new(VrrpInstance {
                enabled: false,
                ..instance.as_ref().clone()
            }),
        }
    }
}

/// See the module.
pub struct Failover {
    driver: Driver,
    stance: Stance,
    /// What the driver was told last; at first nothing.
    instances: Option<Map<String, Arc<VrrpInstance>>>,
    forwards: Option<bool>,
    /// The rules that are tracked, by key of their names: why one has not the servers that it needs.
    rules: BTreeMap<String, Option<String>>,
    /// The instances that clients ask, by key of their names.
    outer: BTreeSet<String>,
    others: Others,
    standing: Map<String, VrrpStatus>,
}

impl Failover {
    /// With somebody who speaks VRRP.
    pub fn new(driver: Driver) -> Failover {
        Failover {
            driver,
            stance: Stance::Usual,
            instances: None,
            forwards: None,
            rules: BTreeMap::new(),
            outer: BTreeSet::new(),
            others: Others::default(),
            standing: Map::default(),
        }
    }

    /// Says what has changed.
    pub fn drive(
        &mut self,
        configuration: &Configuration,
        vigours: &Vigours,
        forwards: bool,
        stance: Stance,
    ) {
        let instances = &configuration.vrrp;
        if self.forwards != Some(forwards) {
            self.forwards = Some(forwards);
            self.driver.order(Order::Fastpath(forwards));
        }
        let rules = self.tracked(configuration, vigours);
        if self.rules != rules {
            self.rules.clone_from(&rules);
            self.driver.order(Order::Rules(rules));
        }
        let outer = outer(configuration);
        if self.outer != outer {
            self.outer.clone_from(&outer);
            self.driver.order(Order::Outer(outer));
        }
        let told = self.instances.as_ref();
        // Most often they are the very same; comparing is only for what was made anew.
        let same = told.is_some_and(|told| told.is_copy_of(instances) || told == instances);
        if same && self.stance == stance {
            return;
        }
        self.stance = stance;
        let all = instances.values().map(|it| stance.of(it)).collect();
        self.driver.order(Order::Configure(all));
        let gone: Vec<String> = self
            .standing
            .keys()
            .filter(|name| !instances.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.standing.remove(&name);
        }
        self.instances = Some(instances.clone());
    }

    fn tracked(
        &self,
        configuration: &Configuration,
        vigours: &Vigours,
    ) -> BTreeMap<String, Option<String>> {
        let tracks = configuration.vrrp.values().flat_map(|it| &it.track);
        let mut found = BTreeMap::new();
        for track in tracks {
            let Probe::Rule(name) = &track.probe else {
                continue;
            };
            let key = key(name);
            if let Some(rule) = configuration.rule(name) {
                let was_well = self.rules.get(&key).is_none_or(Option::is_none);
                let why = need(configuration, rule, vigours, was_well);
                found.insert(key, why);
            }
        }
        found
    }

    /// Takes note of the next change. May be dropped and called again.
    pub async fn hear(&mut self) {
        let news = self.driver.news().await;
        self.others.hear(&news, Instant::now());
        let name = key(&news.name);
        // One that was deleted meanwhile is not talked of.
        let instances = self.instances.as_ref();
        if instances.is_some_and(|instances| instances.contains_key(&name)) {
            let mut status = news.status;
            if let (Stance::Out(why), VrrpState::Disabled) = (self.stance, status.state) {
                why.clone_into(&mut status.why);
            }
            self.standing.insert(name, status);
        }
    }

    /// Where all instances stand, by the keys of their names. A clone is cheap.
    pub fn standing(&self) -> Map<String, VrrpStatus> {
        self.standing.clone()
    }

    /// Other nodes that instances have found.
    pub fn others(&self) -> &Others {
        &self.others
    }

    /// Everything about all instances.
    pub async fn report(&self) -> Vec<Report> {
        match self.instances.as_ref().is_none_or(Map::is_empty) {
            true => Vec::new(),
            false => self.driver.report().await,
        }
    }

    /// Gives up everything, and returns when the network knows.
    pub async fn stop(&self) {
        self.driver.stop().await;
    }
}

/// The instances with a VIP of a rule among their addresses, by key of their names.
fn outer(configuration: &Configuration) -> BTreeSet<String> {
    let rules = &configuration.rules;
    let is_vip = |address: &IpAddr| rules.of_vip(*address).next().is_some();
    let instances = configuration.vrrp.iter();
    let outer = instances.filter(|(_, it)| it.addresses.iter().any(is_vip));
    outer.map(|(name, _)| name.clone()).collect()
}

/// Why a rule has not the servers that it needs, if it has not: its quorum, of those that are no sorry servers. As with tiers
/// it is lost later and found again later by the hysteresis.
fn need(
    configuration: &Configuration,
    rule: &Rule,
    vigours: &Vigours,
    was_well: bool,
) -> Option<String> {
    if !rule.enabled {
        return Some(format!("rule {} is disabled", rule.name));
    }
    let members = standing::members(configuration, rule, vigours);
    let regular = members.iter().filter(|it| it.tier != Tier::Sorry);
    let (all, able) = regular.fold((0, 0), |(all, able), member| {
        let weight = u64::from(member.weight);
        (all + weight, able + weight * u64::from(member.able))
    });
    let demands = standing::demands(rule);
    let met = demands.met(able, all, Some(was_well));
    (!met).then(|| {
        let quorum = demands.quorum;
        format!(
            "rule {} has a weight of {able} of {all}, and its quorum is {quorum}",
            rule.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_servers_or_disabled_is_not_well() {
        let mut configuration = Configuration::default();
        configuration
            .create_group("web", &["192.0.2.1", "192.0.2.2,tier=sorry"])
            .unwrap();
        let settings = libilb::model::RuleSettings {
            vip: "198.51.100.1".into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "n".into(),
            proxy_src: vec!["198.51.100.2".into()],
            servergroup: "web".into(),
            enabled: true,
            ..libilb::model::RuleSettings::default()
        };
        configuration.create_rule("www", &settings).unwrap();
        let vigours = Vigours::default();
        let mut why = |change: &dyn Fn(&mut Configuration)| {
            change(&mut configuration);
            let rule = configuration.rule("www").unwrap().clone();
            need(&configuration, &rule, &vigours, true)
        };
        assert_eq!(why(&|_| ()), None);
        let disabled = why(&|it| drop(it.enable_servers(&["_web.0"], false).unwrap()));
        let expected = "rule www has a weight of 0 of 0, and its quorum is 1";
        assert_eq!(
            disabled.as_deref(),
            Some(expected),
            "a sorry server is none"
        );
        let off = why(&|it| drop(it.enable_rules(&["www"], false).unwrap()));
        assert_eq!(off.as_deref(), Some("rule www is disabled"));
    }
}
