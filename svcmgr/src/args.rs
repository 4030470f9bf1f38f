//! The command line.

use std::path::PathBuf;

use clap::Parser;
use ilb_node::settings::DEFAULT_PATH;

/// Service manager of the ilb load balancer. Administer it with lbadm(8).
///
/// When it stops, forwarding goes on: the fast path keeps its configuration, and addresses stay on their interfaces.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// Settings of this node.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Simulate the fast path and the interfaces' addresses: everything else is real and needs no root.
    #[arg(long)]
    pub sim: bool,

    /// Read the settings, say what is wrong with them, and end.
    #[arg(long, conflicts_with = "sim")]
    pub check: bool,

    /// Take all addresses that the manager has put on interfaces off them, and end. For taking ilb out of service.
    #[arg(long, conflicts_with_all = ["sim", "check"])]
    pub detach: bool,
}
