//! For each algorithm what its definition promises, in a world of a few servers whose load the tests set by hand.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::candidates::Terms;
use super::*;
use crate::hash::fold;
use crate::load::{Activity, Thresholds};
use crate::spec::ServerId;

const ALL: [Algorithm; 17] = Algorithm::ALL;

/// Time at which nothing is in slow start.
const NOW: u32 = 100_000;

/// A rule's selector and the accounts of its servers, 1 and up.
struct World {
    recipe: Recipe,
    turns: Arc<Turns>,
    accounts: HashMap<ServerId, Arc<Account>>,
    selector: Arc<Selector>,
}

fn vip(n: u8) -> Addr {
    IpAddr::from([10, 0, 0, n]).into()
}

/// The `n`th of many flows, from clients of their own.
fn flow(n: u32) -> Request {
    let tuple = Tuple {
        src: Addr::v4((0x0a01_0000 + n).to_be_bytes()),
        dst: vip(0),
        sport: (1024 + n % 50_000) as u16,
        dport: 80,
        protocol: 6,
    };
    Request::new(&tuple, 0, NOW)
}

impl World {
    fn new(algorithm: Algorithm, weights: &[u16]) -> World {
        World::with(algorithm, weights, |_| {})
    }

    /// With something else about the recipe.
    fn with(algorithm: Algorithm, weights: &[u16], change: impl FnOnce(&mut Recipe)) -> World {
        let terms = |(id, &weight)| Terms {
            id,
            place: id,
            weight,
            thresholds: Thresholds::default(),
            up_since: 0,
        };
        let mut recipe = Recipe {
            algorithm,
            options: AlgorithmOptions::default(),
            slow_start: 0,
            vips: (0..4).map(vip).collect(),
            large: weights.len() > maglev::FEW,
            servers: (1..).zip(weights).map(terms).collect(),
            away: Box::default(),
            dead: Box::default(),
        };
        change(&mut recipe);
        let turns = Arc::default();
        let accounts: HashMap<_, _> = recipe
            .servers
            .iter()
            .map(|server| (server.id, Arc::new(Account::new(1))))
            .collect();
        let selector = World::make(&recipe, &accounts, &turns, None);
        World {
            recipe,
            turns,
            accounts,
            selector,
        }
    }

    fn make(
        recipe: &Recipe,
        accounts: &HashMap<ServerId, Arc<Account>>,
        turns: &Arc<Turns>,
        old: Option<&Arc<Selector>>,
    ) -> Arc<Selector> {
        let used = recipe.servers.iter().map(|s| accounts[&s.id].clone());
        Workshop::default().selector(recipe.clone(), used.collect(), turns, old)
    }

    /// Compiles again with another recipe.
    fn change(&mut self, change: impl FnOnce(&mut Recipe)) {
        change(&mut self.recipe);
        for server in &self.recipe.servers {
            let new = || Arc::new(Account::new(1));
            self.accounts.entry(server.id).or_insert_with(new);
        }
        let old = Some(&self.selector);
        self.selector = World::make(&self.recipe, &self.accounts, &self.turns, old);
    }

    fn without(&mut self, id: ServerId) {
        self.change(|recipe| {
            let left = recipe.servers.iter().filter(|server| server.id != id);
            recipe.servers = left.copied().collect();
        });
    }

    /// The server that a flow gets, after a preview that must be right.
    fn ask(&self, request: &Request) -> Result<ServerId, NoChoice> {
        let preview = self.selector.select(request, Mode::Preview);
        assert_eq!(preview, self.selector.select(request, Mode::Preview));
        let choice = self.selector.select(request, Mode::Choose);
        assert_eq!(preview, choice, "{:?}", self.recipe.algorithm);
        choice.map(|index| self.recipe.servers[index as usize].id)
    }

    fn choose(&self, n: u32) -> ServerId {
        self.ask(&flow(n)).unwrap()
    }

    /// Sets the connections of a server, by steps of one.
    fn load(&self, id: ServerId, active: u32, inactive: u32) {
        use Activity::{Active, Inactive, None};
        let load = self.accounts[&id].load();
        while load.connections().active < active {
            self.shift(id, None, Active);
        }
        while load.connections().active > active {
            self.shift(id, Active, None);
        }
        while load.connections().inactive < inactive {
            self.shift(id, None, Inactive);
        }
        while load.connections().inactive > inactive {
            self.shift(id, Inactive, None);
        }
    }

    fn shift(&self, id: ServerId, from: Activity, to: Activity) {
        self.accounts[&id].load().shift(from, to);
        if let Some(index) = self.recipe.servers.iter().position(|s| s.id == id) {
            self.selector.load_changed(index as u32);
        }
    }

    /// Chooses for a flow that stays.
    fn begin(&self, n: u32) -> ServerId {
        let id = self.choose(n);
        self.shift(id, Activity::None, Activity::Active);
        id
    }

    /// Choices of each server, in recipe order, over these flows.
    fn shares(&self, flows: std::ops::Range<u32>) -> Vec<u32> {
        let mut shares = HashMap::new();
        for n in flows {
            *shares.entry(self.choose(n)).or_insert(0) += 1;
        }
        let servers = self.recipe.servers.iter();
        servers
            .map(|server| shares.get(&server.id).copied().unwrap_or(0))
            .collect()
    }
}

/// Six standard deviations of a binomial share: one chance in a hundred million.
fn assert_share(got: u32, of: u32, share: f64, what: &str) {
    let (mean, spread) = (
        of as f64 * share,
        (of as f64 * share * (1.0 - share)).sqrt(),
    );
    assert!(
        (got as f64 - mean).abs() <= 6.0 * spread + 1.0,
        "{what}: {got} of {of}, expected {mean:.0} ± {spread:.0}"
    );
}

mod hashes;
mod limits;
mod loads;
mod slow_start;
mod turns;

#[test]
fn one_server_gets_everything_whatever_the_algorithm() {
    for algorithm in ALL {
        let world = World::new(algorithm, &[7]);
        assert_eq!(world.shares(0..50), [50], "{algorithm:?}");
    }
}

#[test]
fn what_does_not_change_is_taken_over() {
    for algorithm in ALL {
        let mut world = World::new(algorithm, &[1, 2, 3]);
        let before = world.selector.clone();
        world.change(|_| {});
        assert!(Arc::ptr_eq(&before, &world.selector), "{algorithm:?}");
        world.change(|recipe| recipe.servers[0].thresholds.max = 5);
        assert!(!Arc::ptr_eq(&before, &world.selector), "{algorithm:?}");
        match (before.table(), world.selector.table()) {
            (Some(old), Some(new)) => assert!(Arc::ptr_eq(old, new), "{algorithm:?}"),
            (old, new) => assert!(old.is_none() && new.is_none(), "{algorithm:?}"),
        }
    }
}

#[test]
fn rules_with_the_same_servers_share_a_table() {
    let (a, b) = (
        World::new(Algorithm::HashIp, &[1, 1]),
        World::new(Algorithm::HashIpPort, &[1, 1]),
    );
    let mut workshop = Workshop::default();
    let mut make = |world: &World| {
        let accounts = world
            .recipe
            .servers
            .iter()
            .map(|s| world.accounts[&s.id].clone());
        workshop.selector(world.recipe.clone(), accounts.collect(), &world.turns, None)
    };
    let (a, b) = (make(&a), make(&b));
    assert!(Arc::ptr_eq(a.table().unwrap(), b.table().unwrap()));
}
