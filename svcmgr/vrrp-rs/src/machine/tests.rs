//! Every transition: given a state, when something happens, then these actions, this state, this deadline.

use super::*;

const T0: Duration = Duration::from_secs(1000);
const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 20));
const LOW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
const HIGH: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 30));
const SECOND: Duration = Duration::from_secs(1);

fn config(version: Version) -> Config {
    Config::new(version, 7, OURS, vec!["192.0.2.80".parse().unwrap()])
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Backup of version 3 since [`T0`].
fn backup(change: impl FnOnce(&mut Config)) -> Machine {
    let mut config = config(Version::V3);
    change(&mut config);
    let mut machine = Machine::new(config).unwrap();
    let actions = machine.handle(T0, Event::Startup);
    assert_eq!(
        actions,
        [changed(State::Initialize, State::Backup, Why::Started)]
    );
    machine
}

/// Active since [`T0`].
fn active(change: impl FnOnce(&mut Config)) -> Machine {
    let mut machine = backup(change);
    let down = machine.down_interval();
    let actions = machine.handle(T0 + down, Event::Timer);
    assert_eq!(actions[1], Action::Take);
    machine.deadline = Some(T0 + machine.config.interval.duration());
    machine
}

fn changed(from: State, to: State, why: Why) -> Action {
    Action::Changed { from, to, why }
}

fn send(priority: u8) -> Action {
    Action::Send { priority }
}

fn heard(machine: &Machine, priority: u8) -> Advertisement {
    machine.advertisement(priority)
}

fn receive(machine: &mut Machine, now: Duration, from: IpAddr, priority: u8) -> Vec<Action> {
    let advertisement = heard(machine, priority);
    let event = Event::Received {
        from,
        advertisement: &advertisement,
    };
    machine.handle(now, event)
}

#[test]
fn times_are_those_of_the_standards() {
    // RFC 9568 section 6.1: skew = (256 - priority) * interval / 256, down = 3 * interval + skew.
    for (version, priority, centiseconds, skew, down) in [
        (Version::V3, 100, 100, 609_375, 3_609_375),
        (Version::V3, 254, 1, 78, 30_078),
        (Version::V3, 1, 4095, 40_790_039, 163_640_039),
        // RFC 3768 section 6.1: skew = (256 - priority) / 256 seconds.
        (Version::V2, 100, 100, 609_375, 3_609_375),
        (Version::V2, 100, 300, 609_375, 9_609_375),
    ] {
        let machine = backup(|config| {
            config.version = version;
            config.priority = priority;
            config.interval = Interval::centiseconds(centiseconds).unwrap();
        });
        let micros = |time: Duration| time.as_nanos() / 1000;
        assert_eq!(micros(machine.skew_time()), skew, "{version} {priority}");
        assert_eq!(
            micros(machine.down_interval()),
            down,
            "{version} {priority}"
        );
        assert_eq!(machine.deadline(), Some(T0 + machine.down_interval()));
    }
}

#[test]
fn an_owner_is_active_at_once() {
    let mut config = config(Version::V3);
    config.priority = OWNER;
    let mut machine = Machine::new(config).unwrap();
    assert_eq!(
        machine.handle(T0, Event::Startup),
        [
            send(255),
            Action::Take,
            changed(State::Initialize, State::Active, Why::Owner)
        ]
    );
    assert_eq!(machine.deadline(), Some(T0 + SECOND));
}

#[test]
fn initialize_takes_no_part() {
    let mut machine = Machine::new(config(Version::V3)).unwrap();
    assert_eq!(receive(&mut machine, T0, HIGH, 200), []);
    for event in [
        Event::Timer,
        Event::Shutdown,
        Event::Resign,
        Event::Takeover,
    ] {
        assert_eq!(machine.handle(T0, event), []);
    }
    assert_eq!(
        (machine.state(), machine.deadline()),
        (State::Initialize, None)
    );
}

#[test]
fn silence_makes_a_backup_active() {
    let mut machine = backup(|_| {});
    let down = machine.deadline().unwrap();
    assert_eq!(machine.handle(down - ms(1), Event::Timer), [], "too early");
    assert_eq!(
        machine.handle(down, Event::Timer),
        [
            send(100),
            Action::Take,
            changed(State::Backup, State::Active, Why::Silence)
        ]
    );
    assert_eq!(machine.deadline(), Some(down + SECOND));
}

#[test]
fn what_a_backup_hears() {
    /// Whether it goes on waiting for silence as from now.
    #[derive(Debug, PartialEq)]
    enum Then {
        Follows,
        Ignores,
        TakesOverAfterSkew,
    }
    use Then::*;
    for (what, preempt, priority, then) in [
        ("a higher one", true, 200, Follows),
        ("an equal one", true, 100, Follows),
        ("a lower one that is to be preempted", true, 99, Ignores),
        ("a lower one that is not", false, 99, Follows),
        ("one that gives up", true, 0, TakesOverAfterSkew),
        (
            "one that gives up, without preemption",
            false,
            0,
            TakesOverAfterSkew,
        ),
    ] {
        for from in [LOW, HIGH] {
            let mut machine = backup(|config| config.preempt = preempt);
            let before = machine.deadline();
            let now = T0 + ms(500);
            assert_eq!(receive(&mut machine, now, from, priority), [], "{what}");
            assert_eq!(machine.state(), State::Backup);
            let after = match then {
                Follows => Some(now + machine.down_interval()),
                Ignores => before,
                TakesOverAfterSkew => Some(now + machine.skew_time()),
            };
            assert_eq!(machine.deadline(), after, "{what}");
            let why = match then {
                Follows => Why::Silence,
                Ignores => Why::Preempts,
                TakesOverAfterSkew => Why::GivenUp,
            };
            let actions = machine.handle(after.unwrap(), Event::Timer);
            assert_eq!(
                actions.last(),
                Some(&changed(State::Backup, State::Active, why)),
                "{what}"
            );
        }
    }
}

#[test]
fn a_backup_adopts_the_interval_of_the_active_one() {
    let mut machine = backup(|_| {});
    let mut advertisement = heard(&machine, 200);
    advertisement.interval = Interval::centiseconds(10).unwrap();
    machine.handle(
        T0,
        Event::Received {
            from: HIGH,
            advertisement: &advertisement,
        },
    );
    let down = ms(300) + ms(100) * 156 / 256;
    assert_eq!(machine.deadline(), Some(T0 + down));
    // But sends by its own when it is active.
    machine.handle(T0 + down, Event::Timer);
    assert_eq!(machine.deadline(), Some(T0 + down + SECOND));
    assert_eq!(machine.advertisement(100).interval, Interval::SECOND);
}

#[test]
fn preemption_may_wait() {
    let mut machine = backup(|config| config.preempt_delay = ms(2500));
    let mut now = T0;
    for _ in 0..3 {
        now += SECOND;
        assert_eq!(receive(&mut machine, now, LOW, 50), []);
        assert_eq!(machine.deadline(), Some(now + machine.down_interval()));
    }
    // Three seconds after it was first heard, it is no longer listened to.
    let last = machine.deadline();
    now += SECOND;
    receive(&mut machine, now, LOW, 50);
    assert_eq!(machine.deadline(), last);
    // A higher one in between begins the time anew.
    receive(&mut machine, now, HIGH, 200);
    now += SECOND;
    receive(&mut machine, now, LOW, 50);
    assert_eq!(machine.deadline(), Some(now + machine.down_interval()));
}

#[test]
fn an_active_one_advertises() {
    let mut machine = active(|_| {});
    assert_eq!(machine.handle(T0 + SECOND, Event::Timer), [send(100)]);
    assert_eq!(machine.deadline(), Some(T0 + SECOND * 2));
    machine.set_priority(90).unwrap();
    assert_eq!(machine.handle(T0 + SECOND * 2, Event::Timer), [send(90)]);
    assert_eq!(machine.set_priority(0), Err(ConfigError::Priority));
}

#[test]
fn what_an_active_one_hears() {
    for (what, from, priority, yields) in [
        ("a higher one", LOW, 101, true),
        ("a lower one", HIGH, 99, false),
        ("an equal one with a higher address", HIGH, 100, true),
        ("an equal one with a lower address", LOW, 100, false),
        ("one that gives up", HIGH, 0, false),
    ] {
        // Preemption is the Backup's matter.
        for preempt in [true, false] {
            let mut machine = active(|config| config.preempt = preempt);
            let now = T0 + ms(300);
            let actions = receive(&mut machine, now, from, priority);
            if yields {
                let why = Why::Higher { from, priority };
                let left = changed(State::Active, State::Backup, why);
                assert_eq!(actions, [send(100), Action::Release, left], "{what}");
                assert_eq!(machine.deadline(), Some(now + machine.down_interval()));
            } else {
                let expected = [send(100), Action::Announce];
                assert_eq!(actions, expected, "{what}: answered at once");
                assert_eq!(machine.deadline(), Some(now + SECOND), "{what}");
                assert_eq!(machine.state(), State::Active);
            }
        }
    }
}

#[test]
fn a_takeover_is_at_once_whoever_is_active() {
    let mut machine = backup(|config| config.preempt = false);
    receive(&mut machine, T0, HIGH, 200);
    assert_eq!(
        machine.handle(T0, Event::Takeover),
        [
            send(100),
            Action::Take,
            changed(State::Backup, State::Active, Why::Group)
        ]
    );
    assert_eq!(machine.deadline(), Some(T0 + SECOND));
    assert_eq!(machine.handle(T0, Event::Takeover), []);
}

#[test]
fn who_stops_or_resigns_says_so() {
    let mut machine = active(|_| {});
    assert_eq!(
        machine.handle(T0, Event::Shutdown),
        [
            Action::Release,
            send(0),
            changed(State::Active, State::Initialize, Why::Stopped)
        ]
    );
    assert_eq!(machine.deadline(), None);
    let mut machine = active(|_| {});
    assert_eq!(
        machine.handle(T0, Event::Resign),
        [
            Action::Release,
            send(0),
            changed(State::Active, State::Backup, Why::Resigned)
        ]
    );
    assert_eq!(machine.deadline(), Some(T0 + machine.down_interval()));
    // A Backup has nothing to say.
    let mut machine = backup(|_| {});
    assert_eq!(machine.handle(T0, Event::Resign), []);
    assert_eq!(
        machine.handle(T0, Event::Shutdown),
        [changed(State::Backup, State::Initialize, Why::Stopped)]
    );
    assert_eq!(machine.handle(T0, Event::Shutdown), []);
}

#[test]
fn an_active_one_that_slept_too_long_listens_first() {
    for (late, sleeps) in [(ms(0), false), (SECOND * 3, false), (ms(3001), true)] {
        let mut machine = active(|_| {});
        let now = machine.deadline().unwrap() + late;
        let actions = machine.handle(now, Event::Timer);
        if sleeps {
            let why = Why::Slept(late);
            let left = changed(State::Active, State::Backup, why);
            assert_eq!(actions, [Action::Release, left]);
            assert_eq!(machine.deadline(), Some(now + machine.down_interval()));
        } else {
            assert_eq!(actions, [send(100)]);
        }
    }
    // Nobody stands in for an owner by right.
    let mut config = config(Version::V3);
    config.priority = OWNER;
    let mut machine = Machine::new(config).unwrap();
    machine.handle(T0, Event::Startup);
    assert_eq!(machine.handle(T0 + SECOND * 60, Event::Timer), [send(255)]);
}

#[test]
fn what_is_not_believed_changes_nothing() {
    type Change = fn(&mut Advertisement);
    let cases: [(Refusal, Version, IpAddr, u8, Change); 8] = [
        (Refusal::Version, Version::V3, HIGH, 100, |it| {
            it.version = Version::V2
        }),
        (Refusal::Version, Version::V2, HIGH, 100, |it| {
            it.version = Version::V3
        }),
        (Refusal::Vrid, Version::V3, HIGH, 100, |it| it.vrid = 8),
        (Refusal::Own, Version::V3, OURS, 100, |_| {}),
        (Refusal::Owner, Version::V3, HIGH, 255, |_| {}),
        (Refusal::Authentication, Version::V2, HIGH, 100, |it| {
            it.authentication = Authentication::password("guess")
        }),
        (Refusal::Interval, Version::V2, HIGH, 100, |it| {
            it.interval = Interval::seconds(2).unwrap()
        }),
        (Refusal::Addresses, Version::V2, HIGH, 100, |it| {
            it.addresses = vec!["192.0.2.81".parse().unwrap()]
        }),
    ];
    for (refusal, version, from, priority, change) in cases {
        let mut config = config(version);
        config.priority = priority;
        let mut machine = Machine::new(config).unwrap();
        machine.handle(T0, Event::Startup);
        let before = (machine.state(), machine.deadline());
        let mut advertisement = heard(&machine, 200);
        change(&mut advertisement);
        let event = Event::Received {
            from,
            advertisement: &advertisement,
        };
        assert_eq!(machine.handle(T0, event), [Action::Refused(refusal)]);
        assert_eq!((machine.state(), machine.deadline()), before, "{refusal}");
    }
}

#[test]
fn other_addresses_are_told_but_believed_by_version_3_and_from_owners() {
    for (version, priority) in [(Version::V3, 200), (Version::V2, 255)] {
        let mut machine = backup(|config| config.version = version);
        let mut advertisement = heard(&machine, priority);
        advertisement.addresses = vec!["192.0.2.81".parse().unwrap()];
        let event = Event::Received {
            from: HIGH,
            advertisement: &advertisement,
        };
        let now = T0 + ms(700);
        assert_eq!(machine.handle(now, event), [Action::OtherAddresses]);
        assert_eq!(machine.deadline(), Some(now + machine.down_interval()));
    }
    // The order does not matter.
    let two = ["192.0.2.80", "192.0.2.81"].map(|a| a.parse().unwrap());
    let mut machine = backup(|config| config.addresses = two.to_vec());
    let mut advertisement = heard(&machine, 200);
    advertisement.addresses.reverse();
    let event = Event::Received {
        from: HIGH,
        advertisement: &advertisement,
    };
    assert_eq!(machine.handle(T0, event), []);
}

#[test]
fn mistakes_are_told_before_anything_is_sent() {
    let wrong = |change: &dyn Fn(&mut Config)| {
        let mut config = config(Version::V3);
        change(&mut config);
        Machine::new(config).unwrap_err().to_string()
    };
    assert_eq!(
        wrong(&|c| c.priority = 0),
        "priority 0 is not allowed: 1 to 254 are, and 255 for the owner of the addresses"
    );
    assert_eq!(
        wrong(&|c| c.vrid = 0),
        "VRID 0 is not allowed: 1 to 255 are"
    );
    assert_eq!(
        wrong(&|c| c.addresses.push("2001:db8::1".parse().unwrap())),
        "address 2001:db8::1 cannot be advertised from 192.0.2.20: it is of the other family"
    );
}
