//! When most servers of a rule look dead at once it is often the one who tests them that is cut off: what holds then is the
//! rule's panic mode. Pure: times come in as seconds since boot.

use libilb::rule::PanicMode;

/// What a rule says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// What is done.
    pub mode: PanicMode,
    /// Percentage of living servers below which it holds, 1 to 100.
    pub threshold: u8,
    /// Seconds within which the health check finds out about all servers: who was found dead that long before the panic
    /// began lived until then, for all that anybody knows.
    pub window: u32,
}

/// A panic mode that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panic {
    /// Which one.
    pub mode: PanicMode,
    /// Servers that were found dead from this second on lived until it began.
    pub since: u32,
}

impl Panic {
    /// Whether a server that was found dead in this second is used all the same; 0 for one that never lived.
    pub fn uses(self, down_since: u32) -> bool {
        match self.mode {
            PanicMode::KeepLast => down_since >= self.since,
            PanicMode::FailOpen => down_since > 0,
            PanicMode::Sorry | PanicMode::None => false,
        }
    }
}

/// Whether so few servers live that a panic mode holds.
pub fn holds(threshold: u8, alive: usize, servers: usize) -> bool {
    alive * 100 < usize::from(threshold) * servers
}

/// What holds now. Of each server that ever lived `servers` says when it was found dead, or `None` while it lives.
pub fn panic(demands: Demands, servers: &[Option<u32>], before: Option<Panic>) -> Option<Panic> {
    let mut deaths: Vec<u32> = servers.iter().flatten().copied().collect();
    let all = servers.len();
    let alive = all - deaths.len();
    if demands.mode == PanicMode::None || !holds(demands.threshold, alive, all) {
        return None;
    }
    if let Some(before) = before.filter(|before| before.mode == demands.mode) {
        // It goes on, by what was known when it began.
        return Some(before);
    }
    deaths.sort_unstable();
    let began = (1..=deaths.len()).find(|dead| holds(demands.threshold, all - dead, all));
    let began = began.and_then(|dead| deaths.get(dead - 1)).copied();
    Some(Panic {
        mode: demands.mode,
        // Who never lived has 0.
        since: began.unwrap_or(0).saturating_sub(demands.window).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [PanicMode; 4] = [
        PanicMode::None,
        PanicMode::KeepLast,
        PanicMode::FailOpen,
        PanicMode::Sorry,
    ];

    /// Every group of up to four servers that live, or were found dead at one of these times.
    fn groups() -> Vec<Vec<Option<u32>>> {
        let kinds = [None, Some(100), Some(108), Some(115)];
        let mut groups: Vec<Vec<Option<u32>>> = vec![vec![]];
        for size in 0..4 {
            let longer: Vec<_> = groups
                .iter()
                .filter(|group| group.len() == size)
                .flat_map(|group| kinds.map(|kind| [&group[..], &[kind]].concat()))
                .collect();
            groups.extend(longer);
        }
        groups
    }

    #[test]
    fn it_holds_while_fewer_live_than_the_threshold_says() {
        for group in groups() {
            let alive = group.iter().filter(|dead| dead.is_none()).count();
            for mode in MODES {
                for threshold in [1, 25, 34, 50, 51, 75, 100] {
                    let demands = Demands {
                        mode,
                        threshold,
                        window: 10,
                    };
                    let begun = Panic { mode, since: 7 };
                    let case = format!("{group:?} {demands:?}");
                    let few = !group.is_empty()
                        && (alive as f64) < f64::from(threshold) / 100.0 * group.len() as f64;
                    let expected = few && mode != PanicMode::None;
                    let found = panic(demands, &group, None);
                    assert_eq!(found.is_some(), expected, "{case}");
                    // Then it stays as it is, and it ends whatever was before.
                    assert_eq!(panic(demands, &group, found), found, "{case}");
                    let after = panic(demands, &group, Some(begun));
                    assert_eq!(after, expected.then_some(begun), "{case}");
                    // One dead server of all is never below 1 %, unless it is all there is.
                    if threshold == 1 {
                        assert_eq!(few, alive == 0 && !group.is_empty(), "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn those_that_lived_until_it_began_are_kept() {
        let keep = |window| Demands {
            mode: PanicMode::KeepLast,
            threshold: 50,
            window,
        };
        // When servers were found dead, how long finding out takes; who of them is used.
        type Case<'a> = (&'a [Option<u32>], u32, &'a [bool]);
        let cases: [Case<'_>; 6] = [
            // All at once.
            (&[Some(100), Some(101), Some(101)], 10, &[true; 3]),
            // One was dead long before; the second one that dies brings it about.
            (
                &[Some(50), Some(100), Some(104), Some(105)],
                10,
                &[false, true, true, true],
            ),
            (&[Some(50), Some(100), None], 10, &[false, true]),
            // The first of them died within the time that finding out takes.
            (&[Some(91), Some(101), None], 10, &[true, true]),
            (&[Some(90), Some(101), None], 10, &[false, true]),
            // Time does not go below its beginning.
            (&[Some(1), Some(2)], 10, &[true, true]),
        ];
        for (servers, window, expected) in cases {
            let panic = panic(keep(window), servers, None).unwrap();
            let used: Vec<bool> = servers.iter().flatten().map(|at| panic.uses(*at)).collect();
            assert_eq!(used, expected, "{servers:?} {window}");
            // Who dies later lived when it began; who never lived is not used.
            assert!(panic.uses(1000) && !panic.uses(0));
        }
    }

    #[test]
    fn each_mode_uses_whom_it_says() {
        for (mode, expected) in [
            (PanicMode::None, [false, false, false]),
            (PanicMode::KeepLast, [false, false, true]),
            (PanicMode::FailOpen, [false, true, true]),
            (PanicMode::Sorry, [false, false, false]),
        ] {
            let panic = Panic { mode, since: 100 };
            // Never lived, died before, died since.
            assert_eq!([0, 99, 100].map(|at| panic.uses(at)), expected, "{mode}");
        }
    }

    #[test]
    fn who_flaps_meanwhile_does_not_change_who_is_kept() {
        let demands = Demands {
            mode: PanicMode::KeepLast,
            threshold: 60,
            window: 5,
        };
        let mut held = panic(demands, &[Some(100), Some(101), Some(102)], None);
        let since = held.unwrap().since;
        for servers in [
            [Some(100), None, Some(102)],
            [Some(100), Some(160), Some(102)],
            [Some(300), Some(160), None],
        ] {
            held = panic(demands, &servers, held);
            assert_eq!(held.unwrap().since, since, "{servers:?}");
        }
        assert_eq!(panic(demands, &[None, None, Some(300)], held), None);
    }
}
