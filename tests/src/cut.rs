//! Wires of a lab that are cut, at the switch, until the value is dropped: nothing gets from some roles to others.

use std::sync::Arc;

use crate::lab::Lab;
use crate::lab::namespace::Namespace;
use crate::shell;

/// A cut.
#[derive(Debug)]
pub struct Cut(Arc<Namespace>);

impl Cut {
    /// Nothing gets from one of `left` to one of `right`, or back.
    #[track_caller]
    pub fn between(lab: &Lab, left: &[&str], right: &[&str]) -> Cut {
        let cut = Cut::one_way(lab, left, right);
        cut.drop_from_to(right, left);
        cut
    }

    /// Nothing gets from one of `from` to one of `to`, on either network.
    #[track_caller]
    pub fn one_way(lab: &Lab, from: &[&str], to: &[&str]) -> Cut {
        let cut = Cut(Arc::clone(lab.at("sw")));
        cut.nft("add table bridge cut");
        cut.nft("add chain bridge cut forward { type filter hook forward priority 0; }");
        cut.drop_from_to(from, to);
        cut
    }

    #[track_caller]
    fn drop_from_to(&self, from: &[&str], to: &[&str]) {
        let ports = |roles: &[&str]| {
            let ports = roles
                .iter()
                .flat_map(|role| ["front", "back"].map(|bridge| format!("\"{role}-{bridge}\"")));
            ports.collect::<Vec<_>>().join(", ")
        };
        self.nft(&format!(
            "add rule bridge cut forward iifname {{ {} }} oifname {{ {} }} drop",
            ports(from),
            ports(to)
        ));
    }

    #[track_caller]
    fn nft(&self, line: &str) {
        let mut command = self.0.command("nft");
        command.arg(line);
        shell::run(command).ok();
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let mut command = self.0.command("nft");
        command.arg("delete table bridge cut");
        // It goes with its namespace at the latest.
        drop(shell::run(command));
    }
}
