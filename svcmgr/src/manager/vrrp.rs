//! What the manager has to do with VRRP: it says which instances there are and whether the fast path forwards, and shows where
//! they stand. Everything else is ilb-vrrp's.

use std::sync::Arc;

use ilb_vrrp::{Driver, Order, Report};
use libilb::map::Map;
use libilb::model::key;
use libilb::vrrp::{VrrpInstance, VrrpStatus};

/// See the module.
pub struct Failover {
    driver: Driver,
    /// What the driver was told last; at first nothing.
    instances: Option<Map<String, Arc<VrrpInstance>>>,
    forwards: Option<bool>,
    standing: Map<String, VrrpStatus>,
}

impl Failover {
    /// With somebody who speaks VRRP.
    pub fn new(driver: Driver) -> Failover {
        Failover {
            driver,
            instances: None,
            forwards: None,
            standing: Map::default(),
        }
    }

    /// Says what has changed.
    pub fn drive(&mut self, instances: &Map<String, Arc<VrrpInstance>>, forwards: bool) {
        if self.forwards != Some(forwards) {
            self.forwards = Some(forwards);
            self.driver.order(Order::Fastpath(forwards));
        }
        let told = self.instances.as_ref();
        // Most often they are the very same; comparing is only for what was made anew.
        if told.is_some_and(|told| told.is_copy_of(instances) || told == instances) {
            return;
        }
        let all = instances.values().cloned().collect();
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

    /// Takes note of the next change. May be dropped and called again.
    pub async fn hear(&mut self) {
        let news = self.driver.news().await;
        let name = key(&news.name);
        // One that was deleted meanwhile is not talked of.
        let instances = self.instances.as_ref();
        if instances.is_some_and(|instances| instances.contains_key(&name)) {
            self.standing.insert(name, news.status);
        }
    }

    /// Where all instances stand, by the keys of their names. A clone is cheap.
    pub fn standing(&self) -> Map<String, VrrpStatus> {
        self.standing.clone()
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
