//! From two fresh machines to a tested pair, by the commands of docs/pair.md: what is made on one node is on the other,
//! addresses and connections move when a node dies, and back, and nobody has set up anything but that.

use std::net::SocketAddr;
use std::path::PathBuf;

use ilb_tests::held::Held;
use ilb_tests::joined::{Joined, ROLES};
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::transfer::{Downloads, sha256_of};
use serde_json::Value;

/// Where clients ask: the VIP of the documentation.
const VIP: &str = "10.1.0.100";
/// Downloads, and open connections.
const EACH: usize = 6;

struct Pair<'a> {
    joined: Joined<'a>,
    documentation: String,
}

impl Pair<'_> {
    /// Types a command that is in the documentation, on a node.
    #[track_caller]
    fn types(&self, at: usize, line: &str) -> String {
        assert!(
            self.documentation.contains(&format!("lbadm {line}\n")),
            "docs/pair.md does not have 'lbadm {line}'"
        );
        self.joined.node(at).lbadm(line)
    }
}

fn documentation() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/pair.md");
    std::fs::read_to_string(path).expect("the documentation is there")
}

#[test]
fn two_fresh_machines_become_a_pair_that_fails_over() {
    let lab = Lab::new(Spec {
        servers: 2,
        pair: true,
        ..Spec::default()
    });
    let pair = Pair {
        joined: Joined::start(&lab),
        documentation: documentation(),
    };
    let joined = pair.joined;
    let target: SocketAddr = SocketAddr::new(VIP.parse().expect("an address"), 80);

    // The first node, as ever.
    pair.types(0, "create-servergroup -s server=10.2.0.11,10.2.0.12 web");
    pair.types(0, "create-vrrp -i interface=eth0,vrid=51,addresses=10.1.0.100,priority=150,interval=0.1,sync-group=pair front");
    pair.types(0, "create-vrrp -i interface=eth1,vrid=51,addresses=10.2.0.200,priority=150,interval=0.1,sync-group=pair back");
    pair.types(0, "create-rule -e -i vip=10.1.0.100,port=80 -m lbalg=rr,type=NAT,proxy-src=10.2.0.200 -o servergroup=web www");

    // Both commands.
    let line = joined.join();
    assert!(line.starts_with("pair join 10.2.0.1 ilb1"), "{line}");
    for line in [
        "pair create --address 10.2.0.1\n",
        "pair join 10.2.0.1 ilb1",
    ] {
        let line = format!("lbadm {line}");
        assert!(pair.documentation.contains(&line), "{line}");
    }
    let given = "given a fresh node, when it has joined";
    for at in 0..2 {
        let shown = joined.shown(at);
        assert!(
            shown["link"]["up"] == true && shown["configuration"]["step"] == "in-step",
            "{given}, then it hears the other one and has its configuration at once: {shown:#}"
        );
        assert_eq!(
            shown["refused"],
            serde_json::json!({}),
            "{given}, then neither has taken the other one for a stranger"
        );
    }
    joined.settled(given);
    joined.active(given, 0);
    let configuration = |at: usize| {
        let node = joined.node(at);
        [
            "show-rule -p -o rulename,vip,port,status",
            "show-server -p -o serverid,address,weight",
        ]
        .map(|line| node.lbadm(line))
    };
    assert_eq!(configuration(0), configuration(1), "{given}");
    for (at, line, said) in [
        (
            0,
            "explain tcp 10.1.0.10:4000 10.1.0.100:80",
            "10.1.0.100 is with this node: instance front is active",
        ),
        (
            1,
            "explain tcp 10.1.0.10:4000 10.1.0.100:80",
            "10.1.0.100 is with 10.1.0.1, ",
        ),
        (0, "explain vrrp front", "this node has the addresses"),
        (
            1,
            "explain vrrp front",
            "10.1.0.1 was active, when it was heard last",
        ),
    ] {
        let explained = joined.node(at).lbadm(line);
        assert!(
            explained.contains(said),
            "{given}, then {} says {said:?}: {explained}",
            ROLES[at]
        );
    }
    let priorities = |at: usize| {
        joined
            .node(at)
            .lbadm("show-vrrp -p -o name,interface,priority")
    };
    assert_eq!(priorities(0), "back:eth1:150\nfront:eth0:150\n");
    assert_eq!(priorities(1), "back:eth1:100\nfront:eth0:100\n", "{given}");
    let token = line.rsplit(' ').next().expect("a token");
    for at in 0..2 {
        let node = joined.node(at);
        for text in [
            node.manager_log(),
            node.fastpath_log(),
            node.lbadm("export-config"),
        ] {
            assert!(
                !text.contains(&token[4..]),
                "given a token, then nobody repeats it"
            );
        }
    }

    // What is changed on either is changed on both.
    pair.types(1, "add-server -s server=10.2.0.77,weight=0 web");
    assert_eq!(
        configuration(0),
        configuration(1),
        "given a change on the second node"
    );
    pair.types(0, "remove-server -s server=_web.2 web");
    joined.settled("given a change on the first node");
    assert_eq!(
        configuration(0),
        configuration(1),
        "given a change on the first node"
    );

    // The active node dies, and comes back.
    let mut held: Vec<Held> = lab
        .at("c1")
        .enter(|| (0..EACH).map(|_| Held::open(target)).collect());
    let downloads = Downloads::start(lab.at("c1"), target, "/paced/big?rate=700000", EACH);
    joined.knows(1, 2 * EACH);
    joined.settled("given open connections");
    assert_eq!(downloads.under_way(), EACH);
    let expected = sha256_of(&big_file(lab.directory()));
    joined.kill(0);
    let given = "given an active node, when everything on it is killed";
    joined.until(1, given, |pair| {
        pair["here"]["active"] == true && pair["link"]["up"] == false
    });
    let mut same = |given: &str| {
        let ask = |it: &mut Held| {
            (
                it.ask().map_err(|error| error.to_string()),
                it.server.clone(),
            )
        };
        let answers: Vec<_> = lab.at("c1").enter(|| held.iter_mut().map(ask).collect());
        for (answer, server) in answers {
            assert_eq!(
                answer,
                Ok(server),
                "{given}, then an open connection goes on"
            );
        }
    };
    same(given);
    downloads.none_broken(&expected, given);
    pair.types(1, "disable-server _web.1");
    lab.node.start();
    let given = "given a node that was dead, when it comes back";
    joined.settled(given);
    joined.active(given, 0);
    assert_eq!(configuration(0), configuration(1), "{given}");
    same(given);
    pair.types(0, "enable-server _web.1");

    // A planned change, and back.
    joined.settled(given);
    pair.types(0, "failover");
    let given = "given a pair, when the active node gives its addresses away";
    joined.active(given, 1);
    same(given);
    let refused = lab.node.try_lbadm(&["failover"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("has no addresses by VRRP"),
        "{given}: {refused}"
    );
    joined.settled(given);
    pair.types(1, "failover");
    let given = "given a pair, when the addresses are given back";
    joined.active(given, 0);
    same(given);

    // Out of service.
    pair.types(0, "maintenance on");
    let given = "given a pair, when the active node is in maintenance";
    joined.active(given, 1);
    same(given);
    let refused = lab.second().try_lbadm(&["failover"]);
    assert!(
        refused.stderr.contains("it is in maintenance"),
        "{given}: {refused}"
    );
    pair.types(0, "maintenance off");
    joined.active("given a node whose maintenance is over", 0);

    // Apart again: each goes on with what it has.
    pair.types(1, "pair leave");
    pair.types(0, "pair leave");
    for at in 0..2 {
        let shown = joined.shown(at);
        assert_eq!(shown["paired"], false, "{shown:#}");
        assert_eq!(shown["connections"], Value::Null, "{shown:#}");
    }
    same("given a pair, when it has ended");
    lab.node.assert_alive();
    lab.second().assert_alive();
}
