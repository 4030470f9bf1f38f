//! `create-servergroup`, `delete-servergroup`, `show-servergroup`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ServergroupCommand {
    /// Create a server group
    #[command(alias = "create-sg", override_usage = "lbadm create-servergroup [-s server=SPEC,...] NAME", after_help = SERVER_SPEC_HELP)]
    CreateServergroup(CreateServergroup),
    /// Delete server groups that no rule uses
    #[command(
        alias = "delete-sg",
        after_help = "\
Examples:
  lbadm delete-servergroup web"
    )]
    DeleteServergroup(GroupNames),
    /// Show server groups with their servers
    #[command(
        alias = "show-sg",
        override_usage = "lbadm show-servergroup [[-p] -o FIELD,...] [--removed] [GROUP]...",
        after_help = "\
Fields: sgname serverid minport maxport ip_address, and host weight status
connections max-conn min-conn tier.

Examples:
  lbadm show-servergroup
  lbadm show-servergroup -p -o serverid,ip_address web"
    )]
    ShowServergroup(ShowServergroup),
}

/// `create-servergroup`.
#[derive(Debug, Args)]
pub struct CreateServergroup {
    /// Servers: server=SPEC,...
    #[arg(short, value_name = "server=SPEC,...")]
    pub servers: Vec<String>,
    /// Name of the group
    pub name: String,
}

/// `delete-servergroup`.
#[derive(Debug, Args)]
pub struct GroupNames {
    /// Names of groups
    #[arg(value_name = "GROUP", required = true)]
    pub names: Vec<String>,
}

/// `show-servergroup`.
#[derive(Debug, Args)]
pub struct ShowServergroup {
    /// Also removed servers that still have connections
    #[arg(long)]
    pub removed: bool,
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of groups; all if none is given
    #[arg(value_name = "GROUP")]
    pub names: Vec<String>,
}

const SERVER_SPEC_HELP: &str = "\
A server is written host[:port], address[:port] or first-last[:port], an IPv6
address in brackets; the port may be a range. A range of addresses spans at
most 256. name=address keeps a name without looking it up.

Without port a server has the ports of the rule. One port takes all ports of
the rule; a range as large as the rule's shifts them.

Keys behind servers are for those before them: weight (0 to 65535, 1 if not
given; 0 takes no new connections), max-conn (connections at which it takes no
more) and min-conn (below which it does again). tier (0 if not given) says for
whom it stands in: servers of tier 1 take new connections, too, while fewer of
tier 0 are able to than the rule's quorum, and so on; those of tier=sorry take
all of them when all others are too few. id and place (3/10 for place 3 of ten,
see docs/algorithms.md) are for the one server before them, such as one that
was exported.

Examples:
  lbadm create-servergroup -s server=192.0.2.11:80,server=192.0.2.12:80 web
  lbadm create-servergroup -s server=192.0.2.11,weight=3,server=192.0.2.12 two
  lbadm create-servergroup -s server=192.0.2.11-192.0.2.20 farm
  lbadm create-servergroup -s server=[2001:db8::11]:8080-8089 web6
  lbadm create-servergroup -s server=192.0.2.11 -s server=192.0.2.12,tier=1 \\
        -s server=192.0.2.99,tier=sorry spare";
