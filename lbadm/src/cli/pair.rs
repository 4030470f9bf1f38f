//! `pair`, `show-pair`, `failover`, `maintenance`.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum PairCommand {
    /// Two nodes that stand in for each other: create, join, leave, acknowledge
    #[command(
        override_usage = "\
lbadm pair create [--address ADDRESS] [--port PORT]
       lbadm pair join [--port PORT] [--replace] HOST TOKEN
       lbadm pair leave
       lbadm pair acknowledge",
        after_help = PAIR_HELP
    )]
    Pair(Pair),
    /// Show both nodes of the pair, and how they stand to each other
    #[command(
        override_usage = "lbadm show-pair [[-p] -o FIELD,...]",
        after_help = "\
A line for each node, and below it the link between both managers, whether the
configurations are the same, whether connections follow, and what happened that
you should know.

Fields: node (0 created the pair) name software role (active, standby or
maintenance) fastpath generation, and this (yes or no). What the other node
does is unknown while it is not heard. -j has everything, and what it said last.

Examples:
  lbadm show-pair
  lbadm show-pair -p -o node,role"
    )]
    ShowPair(ShowPair),
    /// Give this node's addresses to the other node of the pair
    #[command(after_help = "\
For the node that is active. The other one takes the addresses, and keeps them
until 'lbadm failover' there, or until it fails: until then this node, whatever
its priority, does not take them back. Returns when the other one has them.

It is refused, with the reason, if the other node is not there, has not the same
configuration, is in maintenance, has no fast path, or has not been told of all
connections. --force does it all the same.

Examples:
  lbadm failover
  lbadm failover --force")]
    Failover(Failover),
    /// Take this node out of service, or in again
    #[command(after_help = "\
With 'on' the node gives up its addresses, as with disable-vrrp for all
instances, and takes none until 'off', also after a restart. Which instances are
enabled does not change by it. Configuration and connections keep following.

Examples:
  lbadm maintenance on
  lbadm maintenance off")]
    Maintenance(Maintenance),
}

const PAIR_HELP: &str = "\
create       make this node the first of a pair and write a token. It is good
             for an hour and for one node; 'create' again makes another one.
  --address  listen on this address of the node; if not given, on what the
             settings say (section [pair]), which is all
  --port     TCP port; if not given, what the settings say, which is 49281
join         join the pair of the node HOST. The token '-' is read from standard
             input. What is configured here gives way to what the other node
             has: if that is anything, --replace says that it may go.
             Returns when it has come, after ten seconds at most.
  --replace  the configuration of this node may go
  --port     TCP port; 49281
leave        end the pair; each node keeps its configuration, and the other
             one is told, so that it knows that it stands alone
acknowledge  take note of what show-pair says has happened

Both managers speak by TLS 1.3, each with a key that the other one has learned
when it joined; whoever has none gets no answer. What is changed on one node is
changed on the other: rules, server groups with their servers and numbers,
health checks, VRRP instances (but for priority, interface, source, peers and
enabled). Connections follow between the fast paths, by UDP port 49280.

Examples:
  lbadm pair create
  lbadm pair join lb1.example.com ilb1...
  lbadm pair join --replace 192.0.2.1 - <token
  lbadm pair leave";

/// `pair`.
#[derive(Debug, Args)]
pub struct Pair {
    /// What to do.
    #[command(subcommand)]
    pub verb: PairVerb,
}

/// What can be done about a pair.
#[derive(Debug, Subcommand)]
pub enum PairVerb {
    /// Make this node the first of a pair, and write the token for the other one
    Create(CreatePair),
    /// Join the pair of another node
    Join(JoinPair),
    /// End the pair for this node
    Leave,
    /// Take note of what happened to the pair
    #[command(alias = "ack")]
    Acknowledge,
}

/// `pair create`.
#[derive(Debug, Args)]
pub struct CreatePair {
    /// Address of this node to listen on; what the settings say if not given
    #[arg(long, value_name = "ADDRESS", value_parser = own_address)]
    pub address: Option<IpAddr>,
    /// TCP port; what the settings say if not given
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

fn own_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse();
    address.map_err(|_| "use an address of this node, such as 192.0.2.1".to_owned())
}

/// `pair join`.
#[derive(Debug, Args)]
pub struct JoinPair {
    /// TCP port of the other node
    #[arg(long, value_name = "PORT", default_value_t = libilb::pair::PAIR_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// What is configured on this node may go
    #[arg(long)]
    pub replace: bool,
    /// Name or address of the other node
    #[arg(value_name = "HOST")]
    pub host: String,
    /// What 'pair create' wrote there; '-' reads it from standard input
    #[arg(value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: String,
}

/// `show-pair`.
#[derive(Debug, Args)]
pub struct ShowPair {
    /// Table.
    #[command(flatten)]
    pub format: Format,
}

/// `failover`.
#[derive(Debug, Args)]
pub struct Failover {
    /// Also if the other node is not ready for it
    #[arg(long)]
    pub force: bool,
}

/// `maintenance`.
#[derive(Debug, Args)]
pub struct Maintenance {
    /// Which
    #[arg(value_name = "WHICH", ignore_case = true)]
    pub which: OnOff,
}

/// `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Out of service.
    On,
    /// In service.
    Off,
}
