//! What hash tables are shared out among: see [`RuleSpec::places`].

use std::collections::HashSet;

use super::CompileError;
use crate::hash::FoldBuild;
use crate::select::candidates::Terms;
use crate::select::maglev::Racer;
use crate::spec::{RuleSpec, ServerSpec};

/// Most places of a group.
const MOST: u32 = 65_536;

/// Checks that those who accept have places of their own.
pub(super) fn check(rule: &RuleSpec) -> Result<(), CompileError> {
    if rule.places > MOST {
        return Err(CompileError::Count {
            rule: rule.name.clone(),
            what: "places",
            count: rule.places as usize,
            allowed: "0 to 65536",
        });
    }
    let mut taken: HashSet<u32, FoldBuild> = HashSet::default();
    let placed = rule.servers.iter().filter(|server| server.accepting);
    for server in placed.filter(|_| rule.places > 0) {
        if server.place >= rule.places || !taken.insert(server.place) {
            return Err(CompileError::Place {
                rule: rule.name.clone(),
                server: server.name.clone(),
                place: server.place,
                places: rule.places,
            });
        }
    }
    Ok(())
}

/// What a server is known by.
pub(super) fn of(rule: &RuleSpec, server: &ServerSpec) -> u32 {
    match rule.places {
        0 => server.id,
        _ => server.place,
    }
}

/// Places that nobody takes connections for, with their weights: for each that is empty or whose server is disabled or of
/// weight 0, the median of all others, which is the right one where all are equal; and apart from them the servers that
/// are dead, with their own.
pub(super) fn away(rule: &RuleSpec, present: &[Terms]) -> [Box<[Racer]>; 2] {
    let of = |server| of(rule, server);
    let weighs = |server: &&ServerSpec| server.accepting && server.weight > 0;
    let servers = || rule.servers.iter().filter(weighs);
    let mut weights: Vec<u16> = servers().map(|server| server.weight).collect();
    let middle = weights.len() / 2;
    let median = match weights.is_empty() {
        true => 1,
        false => *weights.select_nth_unstable(middle).1,
    };
    let present = present.iter().map(|terms| terms.place);
    let mut known: HashSet<u32, FoldBuild> = present.collect();
    let mut dead: Vec<Racer> = servers().map(|s| (of(s), s.weight)).collect();
    dead.retain(|&(place, _)| known.insert(place));
    let all: Vec<u32> = match rule.places {
        0 => rule.servers.iter().map(of).collect(),
        places => (0..places).collect(),
    };
    let mut away: Vec<Racer> = all.into_iter().map(|place| (place, median)).collect();
    away.retain(|&(place, _)| known.insert(place));
    // The same ones are the same recipe, however the servers are sorted.
    [away, dead].map(|mut list| {
        list.sort_unstable();
        list.into()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::select::{Mode, Request};
    use crate::snapshot::Snapshot;
    use crate::spec::{Algorithm, PortRange, Protocol, SnapshotSpec, VipSpec};

    fn server(place: u32, id: u32) -> ServerSpec {
        ServerSpec {
            id,
            name: format!("_web.{id}"),
            address: Ipv4Addr::from_bits(0x0a00_0000 + id).into(),
            place,
            ..ServerSpec::default()
        }
    }

    fn rule(places: u32, servers: Vec<ServerSpec>) -> RuleSpec {
        RuleSpec {
            id: 1,
            name: "www".into(),
            vips: vec![VipSpec {
                address: Ipv4Addr::new(192, 0, 2, 80).into(),
                protocol: Protocol::Tcp,
                ports: PortRange::single(80),
            }],
            algorithm: Algorithm::Maglev,
            servers,
            places,
            ..RuleSpec::default()
        }
    }

    fn full(places: u32) -> RuleSpec {
        rule(
            places,
            (0..places)
                .map(|place| server(place, 100 + place))
                .collect(),
        )
    }

    fn compile(rule: RuleSpec) -> Result<Snapshot, CompileError> {
        let spec = SnapshotSpec {
            generation: 1,
            rules: vec![rule],
            ..SnapshotSpec::default()
        };
        Snapshot::compile(&spec, None, 1)
    }

    /// The servers of 20,000 clients.
    fn choices(rule: &RuleSpec) -> Vec<u32> {
        let snapshot = compile(rule.clone()).unwrap();
        let choice = |client: u32| {
            let request = Request {
                client: IpAddr::V4(Ipv4Addr::from_bits(0xc633_0000 + client)).into(),
                client_port: 1024,
                vip: IpAddr::from([192, 0, 2, 80]).into(),
                vip_port: 80,
                vip_index: 0,
                protocol: 6,
                hash: 0,
                now: 0,
            };
            let target = snapshot.select(&snapshot.rules()[0], &request, Mode::Preview);
            snapshot.targets()[target.unwrap() as usize].server
        };
        (0..20_000).map(choice).collect()
    }

    /// Clients that have another server although theirs is still there.
    fn moved(before: &[u32], after: &[u32], gone: u32) -> usize {
        let pairs = before.iter().zip(after);
        pairs
            .filter(|&(old, new)| *old != gone && old != new)
            .count()
    }

    #[test]
    fn only_the_clients_of_a_server_move_that_goes_however_it_goes() {
        for (n, gone) in [(10, 3), (10, 9), (200, 77), (200, 199)] {
            let whole = full(n);
            let before = choices(&whole);
            let at = gone as usize;
            type Way = fn(&mut RuleSpec, usize);
            let ways: [(&str, Way); 5] = [
                ("removed", |rule, at| drop(rule.servers.remove(at))),
                ("disabled", |rule, at| rule.servers[at].accepting = false),
                ("dead", |rule, at| rule.servers[at].dead = true),
                ("weight 0", |rule, at| rule.servers[at].weight = 0),
                ("removed, its place taken by another", |rule, at| {
                    let place = rule.servers[at].place;
                    rule.servers[at] = server(place, 999);
                }),
            ];
            for (way, go) in ways {
                let mut rule = whole.clone();
                go(&mut rule, at);
                let after = choices(&rule);
                assert!(!after.contains(&(100 + gone)), "{way}");
                assert_eq!(
                    moved(&before, &after, 100 + gone),
                    0,
                    "{way}, {gone} of {n}"
                );
            }
        }
    }

    #[test]
    fn a_new_server_gets_what_its_predecessor_had() {
        let mut rule = full(10);
        let before = choices(&rule);
        rule.servers[4] = server(4, 999);
        let after = choices(&rule);
        assert!(
            before
                .iter()
                .zip(&after)
                .all(|(old, new)| (*old == 104) == (*new == 999))
        );
    }

    #[test]
    fn with_other_places_vacant_a_death_still_moves_nothing_else() {
        let mut rule = full(50);
        rule.servers.retain(|server| server.place % 7 != 0);
        let before = choices(&rule);
        rule.servers[20].dead = true;
        let gone = rule.servers[20].id;
        assert_eq!(moved(&before, &choices(&rule), gone), 0);
        assert!(before.contains(&gone));
    }

    #[test]
    fn without_places_ids_do() {
        let rule = rule(0, (0..20).map(|n| server(0, 5 + 3 * n)).collect());
        let before = choices(&rule);
        let mut dead = rule.clone();
        dead.servers[7].dead = true;
        assert_eq!(moved(&before, &choices(&dead), dead.servers[7].id), 0);
    }

    #[test]
    fn places_have_to_be_there_and_free() {
        let refused = |rule| compile(rule).unwrap_err().to_string();
        let mut rule = full(3);
        rule.servers[1].place = 3;
        assert_eq!(
            refused(rule),
            "rule 'www': server '_web.101' cannot have place 3: allowed are those below 3, one for each server"
        );
        let mut rule = full(3);
        rule.servers[2].place = 0;
        assert!(matches!(
            compile(rule.clone()),
            Err(CompileError::Place {
                place: 0,
                places: 3,
                ..
            })
        ));
        // One that is leaving has no place any more.
        rule.servers[2].accepting = false;
        assert!(compile(rule).is_ok());
        let mut rule = full(3);
        rule.places = 65_537;
        assert_eq!(
            refused(rule),
            "rule 'www': 65537 places are not allowed; 0 to 65536 are"
        );
    }
}
