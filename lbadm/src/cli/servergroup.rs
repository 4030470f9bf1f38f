//! `create-servergroup`, `delete-servergroup`, `show-servergroup`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ServergroupCommand {
    /// Create a server group
    #[command(alias = "create-sg", override_usage = "lbadm create-servergroup [-s server=SPEC,...] [-d KEY=VALUE,...] NAME", after_help = SERVER_SPEC_HELP)]
    CreateServergroup(CreateServergroup),
    /// Change where the servers of a group are found
    #[command(
        alias = "modify-sg",
        override_usage = "lbadm modify-servergroup -d KEY=VALUE,... NAME",
        after_help = "\
'lbadm help create-servergroup' explains the keys. What is not given stays.
Servers that are there stay, too, until they are not found any more. With
dns=none or subnet=none nothing is followed any more, and they stay for good.

Examples:
  lbadm modify-servergroup -d approve=ask,except=192.0.2.1 web
  lbadm modify-servergroup -d dns=app2.example.com web
  lbadm modify-servergroup -d dns=none web"
    )]
    ModifyServergroup(ModifyServergroup),
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
connections max-conn min-conn tier found (whether the group has found it). Below
it says how it stands with groups that find their servers.

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
    /// Where servers are found: dns=NAME or subnet=PREFIX, and how
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub discover: Vec<String>,
    /// Name of the group
    pub name: String,
}

/// `modify-servergroup`.
#[derive(Debug, Args)]
pub struct ModifyServergroup {
    /// What shall be different: KEY=VALUE,...
    #[arg(short, value_name = "KEY=VALUE,...", required = true)]
    pub discover: Vec<String>,
    /// Name of the group
    #[arg(value_name = "GROUP")]
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
        -s server=192.0.2.99,tier=sorry spare

With -d the group finds servers by itself (docs/pools.md):
dns=NAME        every address of the name is a server; it is asked for again
                when its TTL is over. _http._tcp.NAME asks for SRV records.
subnet=PREFIX   every address that answers is a server: it is tested as a rule's
                health check says, else by a connection to port, else a ping
port=           port or range of the servers; without it the rule's
approve=        auto takes servers in, ask has 'lbadm approve-server' do it
limit=          most servers that are taken in (64; at most 1024)
interval=, max-interval=
                times between questions at least and at most (5s, 300s); of a
                subnet: pause between searches (60s)
hold=           time that a server stays which is not found any more (30s; of a
                subnet 1h); then it drains
family=         ipv4, ipv6 or auto: that of the rules
resolver=       name servers instead of those of /etc/resolv.conf
rate=           addresses of a subnet that are tested a second (4)
except=         addresses and networks that are never taken
A name that does not resolve, or a subnet in which nobody answers, changes
nothing.

Examples:
  lbadm create-servergroup -d dns=app.example.com,port=8080 app
  lbadm create-servergroup -d subnet=192.0.2.16/28,port=80,approve=ask farm";
