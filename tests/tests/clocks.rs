//! A pair whose clocks jump: nothing moves, nothing is lost, and nobody is refused who is connected. Only who wants to connect anew
//! has to have nearly the same time.

use ilb_tests::held::Held;
use ilb_tests::joined::Joined;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology};

const HOUR: i64 = 3600;
/// Open connections.
const HELD: usize = 10;

struct Site {
    lab: Lab,
}

impl Site {
    fn pair(&self) -> Joined<'_> {
        Joined { lab: &self.lab }
    }

    /// How often addresses have moved, on both nodes.
    fn moves(&self) -> [u64; 2] {
        [0, 1].map(|at| self.pair().transitions(at))
    }

    /// A change on each node is on both.
    #[track_caller]
    fn follows(&self, given: &str, name: &str) {
        let pair = self.pair();
        for at in 0..2 {
            pair.node(at).lbadm(&format!(
                "create-servergroup -s server=10.2.0.99 {name}{at}"
            ));
            for side in 0..2 {
                let groups = pair.node(side).lbadm("show-servergroup -p -o sgname");
                assert!(
                    groups.lines().any(|it| it == format!("{name}{at}")),
                    "{given}, then what is changed on {at} is on {side}: {groups}"
                );
            }
        }
    }

    #[track_caller]
    fn goes_on(&self, given: &str, held: &mut [Held]) {
        let answers: Vec<_> = self.lab.at("c1").enter(|| {
            let ask = |it: &mut Held| (it.ask().map_err(|e| e.to_string()), it.server.clone());
            held.iter_mut().map(ask).collect()
        });
        for (answer, server) in answers {
            assert_eq!(answer, Ok(server), "{given}, then connections go on");
        }
    }
}

#[test]
fn clocks_that_jump_move_nothing() {
    let lab = Lab::new(Spec {
        servers: 2,
        pair: true,
        ..Spec::default()
    });
    let clocks = [&lab.node, lab.second()].map(|node| node.own_clock().clone());
    let pair = Joined::start(&lab);
    let service = Service::http(0, Topology::Nat, Family::V4);
    let (vip, source) = (lab.vip(Family::V4, 0), lab.proxy_source(Family::V4, 0));
    for (side, address) in [vip, source].into_iter().enumerate() {
        pair.node(0).lbadm(&format!(
            "create-vrrp -i interface=eth{side},vrid=51,addresses={address},priority=150,interval=0.3,sync-group=pair side{side}"
        ));
    }
    pair.node(0).lbadm(&service.group_line(&lab));
    pair.node(0).lbadm(&service.rule_line(&lab));
    pair.join();
    let site = Site { lab };
    let pair = site.pair();
    let given = "given a pair whose clocks are right";
    pair.settled(given);
    pair.active(given, 0);
    let target = (vip, 80).into();
    let open = || (0..HELD).map(|_| Held::open(target)).collect::<Vec<_>>();
    let mut held = site.lab.at("c1").enter(open);
    pair.knows(1, HELD);
    let before = site.moves();
    let since = pair.shown(0)["link"]["since"].clone();

    for (name, at, seconds) in [
        ("ahead", 1, 5 * HOUR),
        ("behind", 0, -30 * HOUR),
        ("back", 0, 0),
        ("far", 0, 400 * 24 * HOUR),
    ] {
        clocks[at].set(seconds);
        let given =
            format!("given a clock of node {at} that jumps {seconds} s from the right time");
        site.follows(&given, name);
        pair.settled(&given);
        site.goes_on(&given, &mut held);
        assert_eq!(site.moves(), before, "{given}, then no address moves");
        assert_eq!(
            pair.shown(0)["link"]["since"],
            since,
            "{given}, then the link stays up"
        );
    }

    // Years apart, one of them starts anew: they share addresses as before, but are strangers to each other.
    pair.node(1).kill_manager();
    pair.node(1).start_manager();
    pair.node(1).wait_ready();
    let given = "given clocks that are far apart, when a manager is started anew";
    pair.until(0, &format!("{given}, then it is refused"), |pair| {
        pair["refused"]["clock"].as_u64() > Some(0) && pair["link"]["up"] == false
    });
    site.goes_on(given, &mut held);
    assert!(
        pair.shown(0)["here"]["active"] == true && pair.shown(1)["here"]["active"] == false,
        "{given}, then addresses are where they were"
    );
    clocks[0].set(0);
    clocks[1].set(0);
    let given = "given clocks that are right again";
    pair.settled(given);
    pair.active(given, 0);
    site.follows(given, "right");
    site.goes_on(given, &mut held);
    pair.node(0).lbadm("failover");
    pair.active("given them, when the addresses are given away", 1);
    site.goes_on(given, &mut held);
}
