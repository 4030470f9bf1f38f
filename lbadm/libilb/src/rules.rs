//! All rules, found by their names, by their numbers, by the server groups that they use and by the VIPs that they have.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::map::Map;
use crate::model::key;
use crate::rule::Rule;

/// See the module. Reading is that of the map by [`key`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Map<String, Arc<Rule>>", into = "Map<String, Arc<Rule>>")]
pub struct Rules {
    by_key: Map<String, Arc<Rule>>,
    /// Key of the rule by its number. While two rules have one number, which is not valid, that of one of them.
    by_number: Map<u32, String>,
    /// Key of the group and key of the rule.
    of_group: Map<(String, String), ()>,
    /// Address of a VIP and key of the rule.
    of_vip: Map<(IpAddr, String), ()>,
}

impl Rules {
    /// Enters a rule and returns the one that was there.
    pub fn insert(&mut self, key: String, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let old = self.remove(&key);
        for place in places(&key, &rule) {
            self.of_vip.insert(place, ());
        }
        self.of_group.insert(group_place(&key, &rule), ());
        self.by_number.insert(rule.number, key.clone());
        self.by_key.insert(key, rule);
        old
    }

    /// Takes a rule out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Rule>> {
        let old = self.by_key.remove(key)?;
        for place in places(key, &old) {
            self.of_vip.remove(&place);
        }
        self.of_group.remove(&group_place(key, &old));
        self.by_number.remove(&old.number);
        Some(old)
    }

    /// Enables or disables a rule and returns it if it was not so before.
    pub fn enable(&mut self, key: &str, enabled: bool) -> Option<Arc<Rule>> {
        if self.by_key.get(key)?.enabled == enabled {
            return None;
        }
        let rule = self.by_key.get_mut(key)?;
        Arc::make_mut(rule).enabled = enabled;
        Some(rule.clone())
    }

    /// The rule with this number.
    pub fn by_number(&self, number: u32) -> Option<&Arc<Rule>> {
        self.by_key.get(self.by_number.get(&number)?)
    }

    /// The rules that use a server group, in the order of their names.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = &Arc<Rule>> {
        let group = key(group);
        let places = self.of_group.from(&(group.clone(), String::new()));
        let places = places.take_while(move |((of, _), ())| *of == group);
        places.filter_map(|((_, rule), ())| self.by_key.get(rule))
    }

    /// The rules that have a VIP with this address, in the order of their names.
    pub fn of_vip(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Rule>> {
        let places = self.of_vip.from(&(address, String::new()));
        let places = places.take_while(move |((of, _), ())| *of == address);
        places.filter_map(|((_, rule), ())| self.by_key.get(rule))
    }
}

fn places(key: &str, rule: &Rule) -> impl Iterator<Item = (IpAddr, String)> {
    rule.vips.iter().map(move |vip| (vip.address, key.into()))
}

fn group_place(rule_key: &str, rule: &Rule) -> (String, String) {
    (key(&rule.servergroup), rule_key.into())
}

impl Deref for Rules {
    type Target = Map<String, Arc<Rule>>;

    fn deref(&self) -> &Map<String, Arc<Rule>> {
        &self.by_key
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Rules) -> bool {
        self.by_key == other.by_key
    }
}

impl Eq for Rules {}

impl<'a> IntoIterator for &'a Rules {
    type Item = (&'a String, &'a Arc<Rule>);
    type IntoIter = crate::map::Iter<'a, String, Arc<Rule>>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_key.iter()
    }
}

impl From<Map<String, Arc<Rule>>> for Rules {
    fn from(by_key: Map<String, Arc<Rule>>) -> Rules {
        let all = || by_key.iter();
        Rules {
            by_number: all()
                .map(|(key, rule)| (rule.number, key.clone()))
                .collect(),
            of_group: all()
                .map(|(key, rule)| (group_place(key, rule), ()))
                .collect(),
            of_vip: all()
                .flat_map(|(key, rule)| places(key, rule))
                .map(|place| (place, ()))
                .collect(),
            by_key,
        }
    }
}

impl From<Rules> for Map<String, Arc<Rule>> {
    fn from(rules: Rules) -> Map<String, Arc<Rule>> {
        rules.by_key
    }
}

impl FromIterator<(String, Arc<Rule>)> for Rules {
    fn from_iter<T: IntoIterator<Item = (String, Arc<Rule>)>>(rules: T) -> Rules {
        rules.into_iter().collect::<Map<_, _>>().into()
    }
}
