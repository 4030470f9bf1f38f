use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::hash::fold;
use crate::spec::Algorithm;

fn candidates(ids: &[ServerId]) -> Candidates {
    Candidates {
        algorithm: Algorithm::RoundRobin,
        servers: ids.iter().map(|&id| (id, 1)).collect(),
        chooser: None,
        remembers: true,
        flows: 1000,
    }
}

fn pool(previous: Option<&Pool>, ids: &[ServerId]) -> Pool {
    Pool::next(previous, candidates(ids))
}

fn request(flow: u32) -> Request {
    Request {
        hash: fold(flow as u64 ^ 0xabcd, 0x9e37_79b9_7f4a_7c15),
        ..Request::new(&crate::packet::Tuple::default(), 0, 10)
    }
}

fn remember(pool: &Pool, flow: u32, server: ServerId) {
    pool.remember(request(flow).hash, pool.current(), server);
}

fn server_of(pool: &Pool, flow: u32) -> Option<ServerId> {
    pool.recover(&request(flow), &Budget::default(), |_| true)
        .map(|recovered| recovered.server)
}

#[test]
fn a_change_of_candidates_makes_a_version_and_their_return_brings_it_back() {
    let first = pool(None, &[1, 2, 3]);
    let number = first.current();
    assert_ne!(number, 0);
    let same = pool(Some(&first), &[3, 1, 2]);
    assert_eq!((same.current(), same.versions().len()), (number, 1));
    let fewer = pool(Some(&same), &[1, 2]);
    assert_ne!(fewer.current(), number);
    let back = pool(Some(&fewer), &[1, 2, 3]);
    assert_eq!((back.current(), back.versions().len()), (number, 2));
    let none = pool(Some(&back), &[]);
    assert_eq!((none.current(), none.versions().len()), (number, 2));
    // After a restart the number is the same, so that entries of before still mean something.
    assert_eq!(pool(None, &[1, 2, 3]).current(), number);
}

#[test]
fn weights_make_versions_only_where_the_choice_is_computed_from_them() {
    let weighted = |computed: bool, weight| {
        let mut some = candidates(&[1, 2]);
        some.servers[0].1 = weight;
        some.chooser = computed.then(|| Chooser {
            selector: crate::select::Workshop::default().selector(
                crate::select::Recipe::plain(Algorithm::HashIp, &some.servers),
                (0..2)
                    .map(|_| Arc::new(crate::counters::Account::new(1)))
                    .collect(),
                &Arc::default(),
                None,
            ),
            order: [1, 2].into(),
        });
        some.digest()
    };
    assert_eq!(weighted(false, 1), weighted(false, 9));
    assert_ne!(weighted(true, 1), weighted(true, 9));
}

#[test]
fn the_oldest_become_one_and_nothing_is_lost() {
    let mut now = pool(None, &[1, 2]);
    remember(&now, 1, 1);
    remember(&now, 2, 2);
    let first = now.current();
    for change in 2..100u32 {
        now = pool(Some(&now), &[change, change + 1]);
        remember(&now, change * 10, change);
        remember(&now, change * 10 + 1, change + 1);
        assert!(now.versions().len() <= SLOTS);
        let numbers: Vec<u16> = now.versions().iter().flat_map(|v| v.numbers()).collect();
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
        assert!(!numbers.contains(&0));
    }
    assert_eq!(now.versions().len(), SLOTS);
    assert_eq!((server_of(&now, 1), server_of(&now, 2)), (Some(1), Some(2)));
    for change in 2..100 {
        assert_eq!(server_of(&now, change * 10), Some(change));
        assert_eq!(server_of(&now, change * 10 + 1), Some(change + 1));
    }
    // Entries with the number of any of them still find it.
    assert_eq!(now.place_of(first), Some(SLOTS - 1));
    assert!(
        (100_000..110_000)
            .filter(|&flow| server_of(&now, flow).is_some())
            .count()
            < 20
    );
}

#[test]
fn a_server_that_cannot_be_used_is_not_given() {
    let now = pool(None, &[1, 2]);
    remember(&now, 7, 1);
    let recover = |usable: fn(u32) -> bool| now.recover(&request(7), &Budget::default(), usable);
    assert!(recover(|_| true).is_some());
    assert!(recover(|server| server != 1).is_none());
}

#[test]
fn a_connection_that_persistence_gave_to_a_former_candidate_is_remembered_there() {
    let before = pool(None, &[1, 2, 3]);
    let now = pool(Some(&before), &[1, 2]);
    remember(&now, 7, 3);
    assert_eq!(
        now.recover(&request(7), &Budget::default(), |_| true),
        Some(Recovered {
            version: before.current(),
            server: 3
        })
    );
}

#[test]
fn questions_are_limited_by_the_second() {
    let ids: Vec<u32> = (1..=1000).collect();
    let now = pool(None, &ids);
    // Enough flows that most blocks are worth a look at every server.
    (0..1500).for_each(|flow| remember(&now, flow, flow % 1000 + 1));
    let budget = Budget::default();
    let ask = |second| {
        (0..100_000u32).find(|n| {
            let mut request = request(n % 1500);
            request.now = second;
            now.recover(&request, &budget, |_| true).is_none()
        })
    };
    let most = QUESTIONS_A_SECOND / 1016;
    let reached = ask(5).unwrap();
    assert!((most - 1..=most * 2).contains(&reached), "{reached}");
    assert_eq!(ask(5), Some(0));
    assert!(ask(6).unwrap() >= most - 1);
}

#[test]
fn versions_with_too_many_servers_are_not_asked() {
    let ids: Vec<u32> = (1..=MOST_SERVERS as u32 + 1).collect();
    let now = pool(None, &ids);
    remember(&now, 7, 3);
    assert_eq!(server_of(&now, 7), None);
}

#[test]
fn a_peer_finds_what_was_exported() {
    let (here, there) = (pool(None, &[1, 2, 3]), pool(None, &[3, 2, 1]));
    (0..1000).for_each(|flow| remember(&here, flow, flow % 3 + 1));
    remember(&there, 5000, 2);
    let bytes = here.versions()[0].export(9).unwrap();
    let merged = there.merge(9, &bytes).unwrap();
    assert_eq!(merged.version, there.current());
    assert!((0..1000).all(|flow| server_of(&there, flow).is_some()));
    let wrong = (0..1000)
        .filter(|&flow| server_of(&there, flow) != Some(flow % 3 + 1))
        .count();
    assert!(wrong <= 10, "{wrong}");
    assert_eq!(server_of(&there, 5000), Some(2));
    // Merging twice changes nothing.
    let before = there.versions()[0].export(9);
    there.merge(9, &bytes).unwrap();
    assert_eq!(there.versions()[0].export(9), before);
}

#[test]
fn what_does_not_belong_here_is_refused() {
    let here = pool(None, &[1, 2, 3]);
    remember(&here, 1, 1);
    let bytes = here.versions()[0].export(9).unwrap();
    let error = |pool: &Pool, rule, bytes: &[u8]| pool.merge(rule, bytes).unwrap_err();
    assert_eq!(
        error(&here, 8, &bytes),
        MergeError::OtherRule {
            found: 9,
            wanted: 8
        }
    );
    assert_eq!(
        error(&pool(None, &[1, 2]), 9, &bytes),
        MergeError::UnknownPool
    );
    // More candidates than the peer's are fine: a flow is known together with its server.
    assert!(pool(None, &[1, 2, 3, 4]).merge(9, &bytes).is_ok());
    let mut other = bytes.clone();
    other[5] = 8;
    assert!(matches!(
        error(&here, 9, &other),
        MergeError::Geometry { bits: 8, .. }
    ));
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(error(&here, 9, &damaged), MergeError::Damaged);
    assert_eq!(
        error(&here, 9, b"GET / HTTP/1.0\r\n\r\n"),
        MergeError::NotAPool
    );
    for end in 0..bytes.len().min(200) {
        assert!(here.merge(9, &bytes[..end]).is_err());
    }
    let full = pool(None, &[1, 2, 3]);
    (0..100_000).for_each(|flow| remember(&full, flow, flow % 3 + 1));
    let full = full.versions()[0].export(9).unwrap();
    assert_eq!(error(&here, 9, &full), MergeError::TooFull);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        at in 0usize..100,
        with_sum in any::<bool>(),
    ) {
        let here = pool(None, &[1, 2, 3]);
        prop_assert!(here.merge(9, &noise).is_err());
        // Fields that are wrong under a sum that is right.
        let mut bytes = here.versions()[0].export(9).unwrap();
        let end = bytes.len() - 8;
        bytes.truncate(end);
        let at = at.min(end);
        for (to, from) in bytes[at..].iter_mut().zip(&noise) {
            *to = *from;
        }
        bytes.extend(&noise);
        if with_sum {
            let sum = export::sum(&bytes);
            bytes.extend(sum.to_le_bytes());
        }
        let _ = here.merge(9, &bytes);
    }

    #[test]
    fn merging_is_the_union(
        a in proptest::collection::hash_map(any::<u32>(), 1u32..4, 0..200),
        b in proptest::collection::hash_map(any::<u32>(), 1u32..4, 0..200),
    ) {
        let (left, right) = (pool(None, &[1, 2, 3]), pool(None, &[1, 2, 3]));
        a.iter().for_each(|(&flow, &server)| remember(&left, flow, server));
        b.iter().for_each(|(&flow, &server)| remember(&right, flow, server));
        left.merge(1, &right.versions()[0].export(1).unwrap()).unwrap();
        let filter = left.versions()[0].filter().unwrap();
        for (&flow, &server) in a.iter().chain(&b) {
            prop_assert!(filter.contains(Key::of(request(flow).hash), server));
        }
        // The other way round gives the same bytes.
        right.merge(1, &left.versions()[0].export(1).unwrap()).unwrap();
        prop_assert_eq!(left.versions()[0].export(1), right.versions()[0].export(1));
    }
}
