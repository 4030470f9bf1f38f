//! Two nodes of a lab that are one pair, as `lbadm pair create` and `lbadm pair join` make it, and what each says of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::lab::Lab;
use crate::lab::namespace::Namespace;
use crate::lab::node::Node;
use crate::shell;

/// How long a loaded machine may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Roles of both nodes, by number.
pub const ROLES: [&str; 2] = ["lb", "lb2"];

/// Both nodes of a lab, by number.
#[derive(Debug, Clone, Copy)]
pub struct Joined<'a> {
    /// The lab, which has a second node.
    pub lab: &'a Lab,
}

impl Joined<'_> {
    /// Starts both nodes; they are no pair yet.
    #[track_caller]
    pub fn start(lab: &Lab) -> Joined<'_> {
        lab.node.start();
        lab.second().start();
        Joined { lab }
    }

    /// Types both commands. Returns what was typed on the second node.
    #[track_caller]
    pub fn join(&self) -> String {
        let invited = self.node(0).lbadm("pair create --address 10.2.0.1");
        let line = invited
            .lines()
            .find_map(|line| line.trim().strip_prefix("lbadm "));
        let line = line.expect("pair create says what to type on the other node");
        self.node(1).lbadm(line);
        line.to_owned()
    }

    /// The programs of a node.
    pub fn node(&self, at: usize) -> &Node {
        [&self.lab.node, self.lab.second()][at]
    }

    /// Where they run.
    pub fn namespace(&self, at: usize) -> &Arc<Namespace> {
        self.lab.at(ROLES[at])
    }

    /// What a node says of the pair.
    #[track_caller]
    pub fn shown(&self, at: usize) -> Value {
        let json = self.node(at).lbadm("-j show-pair");
        serde_json::from_str(&json).expect("show-pair writes JSON")
    }

    /// Waits until something holds of what a node says of the pair.
    #[track_caller]
    pub fn until(&self, at: usize, given: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = shell::wait_for(PATIENCE, || Some(self.shown(at)).filter(&is));
        found.unwrap_or_else(|| {
            let other = self.node(1 - at).try_lbadm(&["show-pair"]);
            panic!(
                "{given} within {PATIENCE:?}; {} says\n{:#}\nand the other one\n{other}",
                ROLES[at],
                self.shown(at),
            )
        })
    }

    /// Both hear each other, have the same configuration, and know of each other's connections.
    #[track_caller]
    pub fn settled(&self, given: &str) {
        for at in 0..2 {
            self.until(at, &format!("{given}, then both are in step"), |pair| {
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
    pub fn active(&self, given: &str, at: usize) {
        let given = format!("{given}, then {} is active", ROLES[at]);
        self.until(at, &given, |pair| pair["here"]["active"] == true);
        self.until(1 - at, &given, |pair| {
            pair["here"]["active"] == false && pair["there"]["active"] == true
        });
    }

    /// What the fast path of a node has counted of the exchange.
    #[track_caller]
    pub fn counted(&self, at: usize, what: &str) -> u64 {
        let count = &self.shown(at)["connections"]["counters"][what];
        count.as_u64().unwrap_or_else(|| panic!("no {what}"))
    }

    /// How many connections a node has in its table.
    #[track_caller]
    pub fn connections(&self, at: usize) -> usize {
        let lines = self
            .node(at)
            .lbadm("show-connections -p -o client --limit 5000");
        lines.lines().count()
    }

    /// Waits until a node has so many connections in its table at least.
    #[track_caller]
    pub fn knows(&self, at: usize, count: usize) {
        let known = || (self.connections(at) >= count).then_some(());
        let found = shell::wait_for(PATIENCE, known);
        assert!(
            found.is_some(),
            "given {count} connections, then {} knows of them, and not of {}:\n{:#}",
            ROLES[at],
            self.connections(at),
            self.shown(at)
        );
    }

    /// kill -9 of everything on a node.
    #[track_caller]
    pub fn kill(&self, at: usize) {
        self.node(at).kill_manager();
        self.node(at).kill_fastpath();
    }

    /// Whether a node has all of these addresses on its interfaces.
    #[track_caller]
    pub fn has(&self, at: usize, addresses: &[IpAddr]) -> bool {
        let all = self.namespace(at).run("ip -o addr show");
        addresses.iter().all(|it| all.contains(&format!(" {it}/")))
    }

    /// How often the VRRP instances of a node have changed their state, all together.
    #[track_caller]
    pub fn transitions(&self, at: usize) -> u64 {
        let lines = self.node(at).lbadm("show-vrrp -p -o transitions");
        let numbers = lines.lines().map(|it| it.parse::<u64>());
        numbers.map(|it| it.expect("a number")).sum()
    }
}
