//! Connections as they are listed: filters, pages, and what each one says.

mod common;

use std::collections::HashSet;

use common::*;
use ilb_forwarder::listing::{End, Filter, Page, Query, QueryError, SLICE, page};
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;

/// NAT over TCP as rule 1, DSR over UDP as rule 2, in both families as rules 3 and 4; three clients each.
fn world() -> World {
    let mut rules = vec![];
    for (n, family) in FAMILIES.into_iter().enumerate() {
        let mut nat = rule(family, Topology::Nat, Algorithm::RoundRobin, 2);
        nat.id = 1 + 2 * n as u32;
        let mut dsr = rule(family, Topology::Dsr, Algorithm::RoundRobin, 2);
        dsr.id = 2 + 2 * n as u32;
        dsr.vips[0].protocol = Protocol::Udp;
        rules.extend([nat, dsr]);
    }
    let mut world = World::new(rules);
    for family in FAMILIES {
        for n in 1..=3 {
            world.pass(&syn((family.client(n), 4000), (family.vip(), 80)), BACK);
            world.pass(
                &datagram((family.client(n), 4000), (family.vip(), 80)).frame(),
                BACK,
            );
        }
        world.pass(&ack((family.client(1), 4000), (family.vip(), 80)), BACK);
    }
    world.now += 7;
    world
}

fn all(world: &World, filter: Filter) -> Page {
    let query = Query {
        filter,
        ..Query::default()
    };
    page(&world.view, &world.table, &query, world.now).unwrap()
}

fn count(world: &World, filter: Filter) -> usize {
    all(world, filter).entries.len()
}

#[test]
fn each_filter_keeps_what_it_says() {
    let world = world();
    let any = Filter::default;
    let prefix = |text, len| {
        Some(Prefix {
            address: ip(text),
            len,
        })
    };
    let cases = [
        ("all", any(), 12),
        (
            "rule",
            Filter {
                rule: Some(1),
                ..any()
            },
            3,
        ),
        (
            "no such rule",
            Filter {
                rule: Some(9),
                ..any()
            },
            0,
        ),
        (
            "server",
            Filter {
                server: Some(1),
                ..any()
            },
            8,
        ),
        (
            "both",
            Filter {
                rule: Some(2),
                server: Some(2),
                ..any()
            },
            1,
        ),
        (
            "network",
            Filter {
                client: prefix("10.1.0.2", 31),
                ..any()
            },
            4,
        ),
        (
            "one client",
            Filter {
                client: prefix("fd01::3", 128),
                ..any()
            },
            2,
        ),
        (
            "all IPv4",
            Filter {
                client: prefix("0.0.0.0", 0),
                ..any()
            },
            6,
        ),
        (
            "all IPv6",
            Filter {
                client: prefix("::", 0),
                ..any()
            },
            6,
        ),
        (
            "VIP",
            Filter {
                vip: Some(V6.vip()),
                ..any()
            },
            6,
        ),
        (
            "state",
            Filter {
                state: Some("established".into()),
                ..any()
            },
            2,
        ),
        (
            "protocol",
            Filter {
                protocol: Some(17),
                ..any()
            },
            6,
        ),
        (
            "persistence",
            Filter {
                persistence: true,
                ..any()
            },
            0,
        ),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(count(&world, filter), expected, "{name}");
    }
}

#[test]
fn an_entry_says_everything_about_its_connection() {
    let mut world = world();
    let filter = |rule| Filter {
        rule: Some(rule),
        client: Some(Prefix {
            address: V4.client(1),
            len: 32,
        }),
        ..Filter::default()
    };
    let nat = all(&world, filter(1)).entries.remove(0);
    assert_eq!(
        nat.client,
        End {
            address: V4.client(1),
            port: 4000
        }
    );
    assert_eq!(
        nat.vip,
        Some(End {
            address: V4.vip(),
            port: 80
        })
    );
    assert_eq!(
        nat.address,
        Some(End {
            address: V4.server(1),
            port: 80
        })
    );
    assert_eq!(
        (nat.state.as_str(), nat.idle, nat.remaining),
        ("established", 7, Some(893))
    );
    assert_eq!(
        nat.pool_version,
        world.view.snapshot.rules()[0].pool.current()
    );
    // What the server sees is what is listed.
    let frame = segment((V4.client(1), 4000), (V4.vip(), 80), tcp::ACK).frame();
    let (source, _) = ends(&world.pass(&frame, BACK));
    let listed = nat.source.unwrap();
    assert_eq!((listed.address, listed.port), source);

    let dsr = all(&world, filter(2)).entries.remove(0);
    assert_eq!(
        (dsr.source, dsr.state.as_str(), dsr.remaining),
        (None, "fresh", Some(23))
    );

    // A connection whose rule is gone is still there until the census ends it.
    world.configure(vec![]);
    let orphan = all(&world, filter(1)).entries.remove(0);
    assert_eq!((orphan.rule, orphan.address, orphan.vip), (1, None, None));
    let json = serde_json::to_string(&nat).unwrap();
    assert_eq!(
        serde_json::from_str::<ilb_forwarder::listing::Entry>(&json).unwrap(),
        nat
    );
}

#[test]
fn pages_give_each_connection_once_and_come_to_an_end() {
    let capacity = SLICE + SLICE / 2;
    let mut world = World::with_table(
        vec![rule(V4, Topology::Dsr, Algorithm::RoundRobin, 1)],
        capacity,
    );
    let clients = 40_000u32;
    for n in 0..clients {
        let client = (V4.client((n % 200) as u8 + 1), 2000 + (n / 200) as u16);
        world.send(&syn(client, (V4.vip(), 80)));
    }
    for limit in [1_000, 9_999, u32::MAX] {
        let mut query = Query {
            limit,
            ..Query::default()
        };
        let mut seen = HashSet::new();
        loop {
            let page = page(&world.view, &world.table, &query, world.now).unwrap();
            assert!(page.entries.len() <= limit.min(10_000) as usize);
            for entry in &page.entries {
                assert!(seen.insert((entry.client.address, entry.client.port)));
            }
            match page.next {
                Some(next) => {
                    assert!(next > query.cursor);
                    query.cursor = next;
                }
                None => break,
            }
        }
        assert_eq!(seen.len(), clients as usize);
    }
    // A cursor from elsewhere ends the listing.
    let beyond = Query {
        cursor: u32::MAX,
        ..Query::default()
    };
    let last = page(&world.view, &world.table, &beyond, world.now).unwrap();
    assert_eq!(last, Page::default());
}

#[test]
fn what_cannot_be_asked_is_answered_in_words() {
    let world = world();
    let ask = |filter| {
        let query = Query {
            filter,
            ..Query::default()
        };
        page(&world.view, &world.table, &query, world.now).unwrap_err()
    };
    let state = Filter {
        state: Some("open".into()),
        ..Filter::default()
    };
    assert!(
        ask(state)
            .to_string()
            .starts_with("there is no state 'open'; there are syn-received, established")
    );
    let client = Some(Prefix {
        address: ip("10.0.0.0"),
        len: 33,
    });
    let prefix = Filter {
        client,
        ..Filter::default()
    };
    assert!(matches!(ask(prefix), QueryError::Prefix { len: 33, .. }));
}
