//! What follows from what is heard: as tables, and as laws that hold for whatever comes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use libilb::address::Family;
use libilb::model::Configuration;
use libilb::source::{Found, Source, SourceSettings};
use proptest::prelude::*;

use super::follow::{Follower, Heard, Step};

const SECOND: u64 = 1000;

fn source(text: &str) -> Source {
    let mut settings = SourceSettings::default();
    settings.parse(text).unwrap();
    settings.apply(None).unwrap().unwrap()
}

fn found(n: u8) -> Found {
    Found {
        address: [192, 0, 2, n].into(),
        ports: None,
        weight: None,
        host_name: None,
    }
}

/// A group with its follower, at some time.
struct World {
    configuration: Configuration,
    source: Source,
    follower: Follower,
    now: u64,
}

impl World {
    fn new(words: &str) -> World {
        let mut settings = SourceSettings::default();
        settings.parse(words).unwrap();
        let mut configuration = Configuration::default();
        configuration
            .create_group_from::<&str>("web", &[], &settings)
            .unwrap();
        World {
            configuration,
            source: source(words),
            follower: Follower::default(),
            now: 1_000_000,
        }
    }

    fn hear(&mut self, heard: Heard) -> Step {
        let group = self.configuration.group("web").unwrap().clone();
        let family = Some(Family::Ipv4);
        let step = self
            .follower
            .hear(&self.source, &group, family, heard, self.now);
        let done = self
            .configuration
            .follow("web", &step.add, &step.remove)
            .unwrap();
        assert_eq!(done.refused, []);
        step
    }

    fn all(&mut self, octets: &[u8]) -> Step {
        self.hear(Heard::All(
            octets.iter().copied().map(found).collect(),
            None,
        ))
    }

    fn servers(&self) -> Vec<u8> {
        let servers = &self.configuration.group("web").unwrap().servers;
        servers.iter().map(|server| last(server.address)).collect()
    }

    fn candidates(&self) -> Vec<u8> {
        let all = self.follower.candidates();
        all.map(|candidate| last(candidate.found.address)).collect()
    }
}

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

#[test]
fn servers_come_at_once_and_go_after_the_hold_time() {
    let mut world = World::new("dns=a.example.com,hold=30");
    world.all(&[1, 2]);
    assert_eq!(world.servers(), [1, 2]);
    // Missing, but not for long enough, and then back: it is the same server.
    world.now += 10 * SECOND;
    world.all(&[1]);
    world.now += 29 * SECOND;
    world.all(&[1]);
    assert_eq!(world.servers(), [1, 2]);
    world.all(&[1, 2]);
    world.now += 5 * SECOND;
    // Its time begins anew.
    world.all(&[1, 3]);
    world.now += 29 * SECOND;
    world.all(&[1, 3]);
    assert_eq!(world.servers(), [1, 2, 3]);
    world.now += SECOND;
    world.all(&[1, 3]);
    assert_eq!(world.servers(), [1, 3]);
    let ids: Vec<_> = world.configuration.group("web").unwrap().servers.clone();
    let ids: Vec<_> = ids.into_iter().map(|server| server.id).collect();
    assert_eq!(ids, ["_web.0", "_web.2"]);
}

#[test]
fn nothing_changes_while_nothing_is_known() {
    let mut world = World::new("dns=a.example.com,hold=0");
    world.all(&[1, 2]);
    let failed = |why: &str| Heard::Failed(why.into());
    let odd = |address: &str| {
        Heard::All(
            vec![Found {
                address: address.parse().unwrap(),
                ..found(0)
            }],
            None,
        )
    };
    for (heard, problem) in [
        (failed("NXDOMAIN"), "NXDOMAIN"),
        (Heard::All(Vec::new(), None), "nothing was found"),
        (
            odd("127.0.0.1"),
            "none of 1 addresses can be used: 127.0.0.1 is a loopback address",
        ),
        (
            odd("224.0.0.1"),
            "none of 1 addresses can be used: 224.0.0.1 is a multicast address",
        ),
        (
            odd("2001:db8::1"),
            "none of 1 addresses can be used: 2001:db8::1 is not an IPv4 address",
        ),
    ] {
        world.now += 1000 * SECOND;
        let step = world.hear(heard);
        assert_eq!((step.add, step.remove), (Vec::new(), Vec::new()));
        assert_eq!(world.follower.problem(), problem);
        assert_eq!(world.servers(), [1, 2]);
    }
    world.all(&[2]);
    assert_eq!(world.follower.problem(), "");
    assert_eq!(world.servers(), [2]);
}

#[test]
fn addresses_that_may_not_be_servers_are_left_out_and_said() {
    let mut world = World::new("dns=a.example.com,except=192.0.2.4/31");
    let loopback = Found {
        address: "127.0.0.1".parse().unwrap(),
        ..found(0)
    };
    world.hear(Heard::All(
        vec![found(3), found(4), loopback, found(3), found(6)],
        None,
    ));
    assert_eq!(world.servers(), [3, 6]);
    let said = world.follower.describe(&world.source);
    let said: Vec<String> = said
        .refused
        .iter()
        .map(|refused| format!("{} {}", refused.address, refused.why))
        .collect();
    assert_eq!(
        said,
        [
            "192.0.2.4 is in 192.0.2.4/31, which is excepted",
            "127.0.0.1 is a loopback address"
        ]
    );
    assert_eq!(world.follower.problem(), "");
}

#[test]
fn an_answer_with_ten_thousand_addresses_is_cut_and_said() {
    let mut world = World::new("dns=a.example.com,limit=3,hold=30");
    let many = (0..10_000u16).map(|n| Found {
        address: [10, 0, (n >> 8) as u8, n as u8].into(),
        ..found(0)
    });
    let step = world.hear(Heard::All(many.collect(), None));
    assert_eq!(step.add.len(), 3);
    assert_eq!(
        world.follower.problem(),
        "9997 more servers were found than limit=3 lets in"
    );
    // Those that are gone make room for those that are there, the longest gone first.
    let mut world = World::new("dns=a.example.com,limit=3,hold=30");
    world.all(&[1, 2, 3]);
    world.now += SECOND;
    world.all(&[1, 2]);
    world.now += SECOND;
    world.all(&[1]);
    assert_eq!(world.servers(), [1, 2, 3]);
    world.all(&[1, 4]);
    assert_eq!(world.servers(), [1, 2, 4]);
    world.all(&[1, 4, 5]);
    assert_eq!(world.servers(), [1, 4, 5]);
}

#[test]
fn candidates_wait_until_they_are_approved_or_gone() {
    let mut world = World::new("dns=a.example.com,approve=ask,limit=3");
    let step = world.all(&[1, 2]);
    assert_eq!(step.candidates, [found(1), found(2)]);
    assert_eq!((world.servers(), world.candidates()), (vec![], vec![1, 2]));
    // Said once.
    assert_eq!(world.all(&[1, 2]).candidates, []);
    world.all(&[2, 3, 4, 5]);
    assert_eq!(world.candidates(), [2, 3, 4]);
    assert!(world.follower.problem().contains("1 more servers"));
    // One is approved.
    let spec = found(2).spec().to_string();
    world.configuration.add_servers("web", &[spec]).unwrap();
    let group = world.configuration.group("web").unwrap().clone();
    world.follower.settle(&group);
    assert_eq!(world.candidates(), [3, 4]);
    world.all(&[2, 3]);
    assert_eq!((world.servers(), world.candidates()), (vec![2], vec![3]));
    // What goes has to be approved again.
    world.all(&[3]);
    world.now += 60 * SECOND;
    world.all(&[3]);
    world.all(&[2, 3]);
    assert_eq!((world.servers(), world.candidates()), (vec![], vec![2, 3]));
}

#[test]
fn parts_of_an_answer_bring_servers_and_take_none() {
    let mut world = World::new("subnet=192.0.2.0/28,hold=0");
    world.all(&[1, 2]);
    let step = world.hear(Heard::Some(vec![found(3)]));
    assert_eq!(step.again, None);
    assert_eq!(world.servers(), [1, 2, 3]);
    world.all(&[2, 3]);
    assert_eq!(world.servers(), [2, 3]);
}

#[test]
fn the_next_question_comes_when_the_answer_is_over_within_bounds() {
    let seconds = |step: Step| step.again.unwrap().as_secs();
    let all = |ttl: u64| Heard::All(vec![found(1)], Some(Duration::from_secs(ttl)));
    for (ttl, expected) in [(0, 5), (4, 5), (7, 7), (59, 59), (61, 60), (86400, 60)] {
        let mut world = World::new("dns=a.example.com,interval=5,max-interval=60");
        assert_eq!(seconds(world.hear(all(ttl))), expected, "{ttl}");
    }
    let mut world = World::new("dns=a.example.com,interval=5");
    let failed = || Heard::Failed("x".into());
    let pauses: Vec<u64> = (0..7).map(|_| seconds(world.hear(failed()))).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
    world.hear(all(5));
    assert_eq!(seconds(world.hear(failed())), 5);
    // Who is missing goes on time, whatever the answer says.
    let mut world = World::new("dns=a.example.com,hold=30");
    world.all(&[1, 2]);
    assert_eq!(seconds(world.hear(all(300))), 30);
    world.now += 29_500;
    assert_eq!(seconds(world.hear(all(300))), 1);
    let mut world = World::new("subnet=192.0.2.0/28,interval=90");
    assert_eq!(seconds(world.all(&[1])), 90);
    for _ in 0..100 {
        assert_eq!(seconds(world.hear(failed())), 90);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Heard(Option<Vec<u8>>, u64),
    Part(Vec<u8>),
    ByHand(u8),
    Disable,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Octets above 250 are 127.0.0.n: not allowed.
    let octets = || prop::collection::vec(prop_oneof![1..10u8, 250..255u8], 0..8);
    let event = prop_oneof![
        6 => (prop::option::weighted(0.8, octets()), 0..20u64)
            .prop_map(|(heard, later)| Event::Heard(heard, later)),
        1 => octets().prop_map(Event::Part),
        1 => (1..10u8).prop_map(Event::ByHand),
        1 => Just(Event::Disable),
    ];
    prop::collection::vec(event, 1..40)
}

fn address(octet: u8) -> Found {
    match octet {
        250.. => Found {
            address: [127, 0, 0, octet].into(),
            ..found(0)
        },
        _ => found(octet),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_heard(events in events(), limit in 1..6usize, hold in 0..30u64, ask: bool) {
        let policy = if ask { "ask" } else { "auto" };
        let mut world = World::new(&format!(
            "dns=a.example.com,limit={limit},hold={hold},approve={policy}"
        ));
        // Since when each server is missing from all answers.
        let mut missing: BTreeMap<u8, u64> = BTreeMap::new();
        let mut by_hand: BTreeSet<u8> = BTreeSet::new();
        for event in events {
            let before: BTreeSet<u8> = world.servers().into_iter().collect();
            let mine = |world: &World| {
                let servers = &world.configuration.group("web").unwrap().servers;
                servers.iter().filter(|s| s.found).count()
            };
            let step = match &event {
                Event::ByHand(octet) => {
                    let spec = found(*octet).address.to_string();
                    if world.configuration.add_servers("web", &[spec]).is_ok() {
                        by_hand.insert(*octet);
                    }
                    continue;
                }
                Event::Disable => {
                    let ids: Vec<String> = world.configuration.group("web").unwrap()
                        .servers.iter().take(1).map(|s| s.id.clone()).collect();
                    if !ids.is_empty() {
                        world.configuration.enable_servers(&ids, false).unwrap();
                    }
                    continue;
                }
                Event::Part(octets) => {
                    world.hear(Heard::Some(octets.iter().copied().map(address).collect()))
                }
                Event::Heard(heard, later) => {
                    world.now += later * SECOND;
                    world.hear(match heard {
                        Some(octets) => Heard::All(octets.iter().copied().map(address).collect(), None),
                        None => Heard::Failed("silence".into()),
                    })
                }
            };
            let after: BTreeSet<u8> = world.servers().into_iter().collect();
            let usable = |octets: &[u8]| -> BTreeSet<u8> {
                octets.iter().copied().filter(|octet| *octet < 250).collect()
            };
            let heard = match &event {
                Event::Heard(Some(octets), _) | Event::Part(octets) => usable(octets),
                _ => BTreeSet::new(),
            };
            let whole = matches!(&event, Event::Heard(Some(_), _)) && !heard.is_empty();
            // Who comes was heard of, and is not taken in without approval.
            prop_assert!(after.difference(&before).all(|octet| heard.contains(octet)));
            prop_assert!(!ask || step.add.is_empty());
            // Who was added by hand stays.
            prop_assert!(by_hand.iter().all(|octet| after.contains(octet)));
            // Silence changes nothing.
            prop_assert!(!heard.is_empty() || before == after);
            missing.retain(|octet, _| !heard.contains(octet));
            if whole {
                for octet in before.difference(&heard) {
                    missing.entry(*octet).or_insert(world.now);
                }
            }
            // Who goes was missing long enough, or made room for one who is there.
            for gone in before.difference(&after) {
                prop_assert!(!heard.contains(gone), "{} was there", gone);
                let since = missing.get(gone).copied();
                prop_assert!(since.is_some(), "{} was not missing", gone);
                let long = world.now - since.unwrap_or(0) >= hold * SECOND;
                prop_assert!(long || mine(&world) == limit, "{} went too early", gone);
                missing.remove(gone);
            }
            // And goes in time.
            if whole {
                let mut late = missing.iter().filter(|(octet, since)| {
                    after.contains(octet) && !by_hand.contains(octet)
                        && world.now - **since >= hold * SECOND
                });
                prop_assert!(late.next().is_none());
            }
            prop_assert!(mine(&world) <= limit);
            prop_assert!(world.follower.candidates().count() <= limit);
            prop_assert_eq!(world.configuration.validate(), Ok(()));
            // As much is taken as there is room for.
            if whole && !ask {
                let left: Vec<&u8> = heard.difference(&after).collect();
                prop_assert!(left.is_empty() || mine(&world) == limit, "{:?} were left", left);
            }
        }
    }
}
