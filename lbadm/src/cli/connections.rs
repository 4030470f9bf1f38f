//! `show-connections`, `show-nat`, `show-persist`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// Show connections
    #[command(aliases = ["list-connections", "show-conn"], override_usage = "\
lbadm show-connections [-r RULE] [-s SERVER_ID] [--client NETWORK]
       [--vip ADDRESS] [--protocol PROTOCOL] [--state STATE] [--persistence]
       [--limit N] [[-p] -o FIELD,...]", after_help = CONNECTIONS_HELP)]
    ShowConnections(ShowConnections),
    /// Show connections, as show-connections does
    #[command(after_help = "\
Examples:
  lbadm show-nat
  lbadm show-nat 20")]
    ShowNat(Count),
    /// Show which client is kept on which server
    #[command(
        alias = "show-pt",
        after_help = "\
The client is a network where pmask of the rule says so. What is offered makes
way under pressure: none of the client's connections has got past its first
packets. IDLE is seconds since a connection renewed it.

Examples:
  lbadm show-persist
  lbadm show-persist 20"
    )]
    ShowPersist(Count),
}

/// `show-connections`.
#[derive(Debug, Args)]
pub struct ShowConnections {
    /// Only of this rule
    #[arg(short, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only to this server
    #[arg(short, value_name = "SERVER_ID")]
    pub server: Option<String>,
    /// Only of clients in this network
    #[arg(long, value_name = "NETWORK")]
    pub client: Option<String>,
    /// Only to this address
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<String>,
    /// Only of this protocol: a word or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Only in this state
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Which clients are kept on which servers, instead of connections
    #[arg(long, conflicts_with = "protocol")]
    pub persistence: bool,
    /// At most so many; 100 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Table.
    #[command(flatten)]
    pub format: Format,
}

/// `show-nat`, `show-persist`.
#[derive(Debug, Args)]
pub struct Count {
    /// At most so many; 100 if not given
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Table.
    #[command(flatten)]
    pub format: Format,
}

const CONNECTIONS_HELP: &str = "\
What is given must all hold. Fields: rulename protocol client vip serverid
server state idle expires, and source (what the server sees under NAT). IDLE is
seconds since the last packet; EXPIRES seconds until the connection is forgotten
if no more come. Looking does not disturb forwarding; a connection that begins
or ends meanwhile may be missed.

States: syn-received established fin-wait close-wait last-ack time-wait close
for tcp; fresh (first packets only) and flowing for others. With --persistence
persistence and offered (the client has not shown yet that it is real).

Examples:
  lbadm show-connections
  lbadm show-connections -r www --state established --limit 1000
  lbadm show-connections --client 203.0.113.0/24 --protocol udp
  lbadm show-connections -s _web.0 -p -o client,server
  lbadm show-connections --persistence -r ftp";
