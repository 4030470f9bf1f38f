//! From two fresh machines to a tested pair, by the commands of docs/pair.md: what is made on one node is on the other,
//! addresses and connections move when a node dies, and back, and nobody has set up anything but that.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ilb_tests::held::Held;
use ilb_tests::lab::node::Node;
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::shell;
use ilb_tests::transfer::{Downloads, sha256_of};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where clients ask: the VIP of the documentation.
const VIP: &str = "10.1.0.100";
/// Downloads, and open connections.
const EACH: usize = 6;

struct Pair {
    lab: Lab,
    documentation: String,
}

impl Pair {
    fn node(&self, role: &str) -> &Node {
        match role {
            "lb" => &self.lab.node,
            _ => self.lab.second(),
        }
    }

    /// Types a command that is in the documentation, on a node.
    #[track_caller]
    fn types(&self, role: &str, line: &str) -> String {
        assert!(
            self.documentation.contains(&format!("lbadm {line}\n")),
            "docs/pair.md does not have 'lbadm {line}'"
        );
        self.node(role).lbadm(line)
    }

    #[track_caller]
    fn shown(&self, role: &str) -> Value {
        let json = self.node(role).lbadm("-j show-pair");
        serde_json::from_str(&json).expect("show-pair writes JSON")
    }

    /// Waits until something holds of what a node says of the pair.
    #[track_caller]
    fn until(&self, role: &str, given: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = shell::wait_for(PATIENCE, || Some(self.shown(role)).filter(&is));
        found.unwrap_or_else(|| {
            panic!(
                "{given} within {PATIENCE:?}; {role} says\n{:#}\nand the other one\n{}",
                self.shown(role),
                self.node(if role == "lb" { "lb2" } else { "lb" })
                    .lbadm("show-pair")
            )
        })
    }

    /// Both hear each other, have the same configuration, and know of each other's connections.
    #[track_caller]
    fn settled(&self, given: &str) {
        for role in ["lb", "lb2"] {
            self.until(role, &format!("{given}, then both are in step"), |pair| {
                pair["link"]["up"] == true
                    && pair["configuration"]["step"] == "in-step"
                    && pair["connections"]["up"] == true
                    && pair["connections"]["complete"] == true
                    && pair["connections"]["pending"] == 0
            });
        }
    }

    /// This node is active, and the other one is not; both say so.
    #[track_caller]
    fn active(&self, given: &str, role: &str, other: &str) {
        let given = format!("{given}, then {role} is active");
        self.until(role, &given, |pair| pair["here"]["active"] == true);
        self.until(other, &given, |pair| {
            pair["here"]["active"] == false && pair["there"]["active"] == true
        });
    }

    /// Waits until a node has this many open connections in its table.
    #[track_caller]
    fn knows(&self, role: &str, count: usize) {
        let known = || {
            let listed = self.node(role).lbadm("-j show-connections");
            let listed: Value = serde_json::from_str(&listed).expect("a list");
            let all = listed
                .as_array()
                .or_else(|| listed["connections"].as_array());
            let all = all.map_or(0, Vec::len);
            (all >= count).then_some(())
        };
        let found = shell::wait_for(PATIENCE, known);
        assert!(
            found.is_some(),
            "given {count} connections, then {role} knows of them:\n{}",
            self.node(role).lbadm("show-connections")
        );
    }

    fn kill(&self, role: &str) {
        self.node(role).kill_manager();
        self.node(role).kill_fastpath();
    }
}

fn documentation() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/pair.md");
    std::fs::read_to_string(path).expect("the documentation is there")
}

#[test]
fn two_fresh_machines_become_a_pair_that_fails_over() {
    let pair = Pair {
        lab: Lab::new(Spec {
            servers: 2,
            pair: true,
            ..Spec::default()
        }),
        documentation: documentation(),
    };
    let lab = &pair.lab;
    lab.node.start();
    lab.second().start();
    let target: SocketAddr = SocketAddr::new(VIP.parse().expect("an address"), 80);

    // The first node, as ever.
    pair.types("lb", "create-servergroup -s server=10.2.0.11,10.2.0.12 web");
    pair.types("lb", "create-vrrp -i interface=eth0,vrid=51,addresses=10.1.0.100,priority=150,interval=0.1,sync-group=pair front");
    pair.types("lb", "create-vrrp -i interface=eth1,vrid=51,addresses=10.2.0.200,priority=150,interval=0.1,sync-group=pair back");
    pair.types("lb", "create-rule -e -i vip=10.1.0.100,port=80 -m lbalg=rr,type=NAT,proxy-src=10.2.0.200 -o servergroup=web www");

    // Both commands.
    let invited = pair.types("lb", "pair create --address 10.2.0.1");
    let line = invited
        .lines()
        .find_map(|line| line.trim().strip_prefix("lbadm "))
        .expect("pair create says what to type on the other node");
    assert!(line.starts_with("pair join 10.2.0.1 ilb1"), "{invited}");
    assert!(pair.documentation.contains("lbadm pair join 10.2.0.1 ilb1"));
    lab.second().lbadm(line);
    let given = "given a fresh node, when it has joined";
    for role in ["lb", "lb2"] {
        let shown = pair.shown(role);
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
    pair.settled(given);
    pair.active(given, "lb", "lb2");
    let configuration = |role: &str| {
        let node = pair.node(role);
        [
            "show-rule -p -o rulename,vip,port,status",
            "show-server -p -o serverid,address,weight",
        ]
        .map(|line| node.lbadm(line))
    };
    assert_eq!(configuration("lb"), configuration("lb2"), "{given}");
    for (role, line, said) in [
        (
            "lb",
            "explain tcp 10.1.0.10:4000 10.1.0.100:80",
            "10.1.0.100 is with this node: instance front is active",
        ),
        (
            "lb2",
            "explain tcp 10.1.0.10:4000 10.1.0.100:80",
            "10.1.0.100 is with 10.1.0.1, ",
        ),
        ("lb", "explain vrrp front", "this node has the addresses"),
        (
            "lb2",
            "explain vrrp front",
            "10.1.0.1 was active, when it was heard last",
        ),
    ] {
        let explained = pair.node(role).lbadm(line);
        assert!(
            explained.contains(said),
            "{given}, then {role} says {said:?}: {explained}"
        );
    }
    let priorities = |role: &str| {
        pair.node(role)
            .lbadm("show-vrrp -p -o name,interface,priority")
    };
    assert_eq!(priorities("lb"), "back:eth1:150\nfront:eth0:150\n");
    assert_eq!(
        priorities("lb2"),
        "back:eth1:100\nfront:eth0:100\n",
        "{given}"
    );
    let token = line.rsplit(' ').next().expect("a token");
    for role in ["lb", "lb2"] {
        let node = pair.node(role);
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
    pair.types("lb2", "add-server -s server=10.2.0.77,weight=0 web");
    assert_eq!(
        configuration("lb"),
        configuration("lb2"),
        "given a change on the second node"
    );
    pair.types("lb", "remove-server -s server=_web.2 web");
    pair.settled("given a change on the first node");
    assert_eq!(
        configuration("lb"),
        configuration("lb2"),
        "given a change on the first node"
    );

    // The active node dies, and comes back.
    let mut held: Vec<Held> = lab
        .at("c1")
        .enter(|| (0..EACH).map(|_| Held::open(target)).collect());
    let downloads = Downloads::start(lab.at("c1"), target, "/paced/big?rate=700000", EACH);
    pair.knows("lb2", 2 * EACH);
    pair.settled("given open connections");
    assert_eq!(downloads.under_way(), EACH);
    let expected = sha256_of(&big_file(lab.directory()));
    pair.kill("lb");
    let given = "given an active node, when everything on it is killed";
    pair.until("lb2", given, |pair| {
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
    pair.types("lb2", "disable-server _web.1");
    lab.node.start();
    let given = "given a node that was dead, when it comes back";
    pair.settled(given);
    pair.active(given, "lb", "lb2");
    assert_eq!(configuration("lb"), configuration("lb2"), "{given}");
    same(given);
    pair.types("lb", "enable-server _web.1");

    // A planned change, and back.
    pair.settled(given);
    pair.types("lb", "failover");
    let given = "given a pair, when the active node gives its addresses away";
    pair.active(given, "lb2", "lb");
    same(given);
    let refused = lab.node.try_lbadm(&["failover"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("has no addresses by VRRP"),
        "{given}: {refused}"
    );
    pair.settled(given);
    pair.types("lb2", "failover");
    let given = "given a pair, when the addresses are given back";
    pair.active(given, "lb", "lb2");
    same(given);

    // Out of service.
    pair.types("lb", "maintenance on");
    let given = "given a pair, when the active node is in maintenance";
    pair.active(given, "lb2", "lb");
    same(given);
    let refused = lab.second().try_lbadm(&["failover"]);
    assert!(
        refused.stderr.contains("it is in maintenance"),
        "{given}: {refused}"
    );
    pair.types("lb", "maintenance off");
    pair.active("given a node whose maintenance is over", "lb", "lb2");

    // Apart again: each goes on with what it has.
    pair.types("lb2", "pair leave");
    pair.types("lb", "pair leave");
    for role in ["lb", "lb2"] {
        let shown = pair.shown(role);
        assert_eq!(shown["paired"], false, "{shown:#}");
        assert_eq!(shown["connections"], Value::Null, "{shown:#}");
    }
    same("given a pair, when it has ended");
    lab.node.assert_alive();
    lab.second().assert_alive();
}
