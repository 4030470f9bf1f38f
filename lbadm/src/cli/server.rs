//! `add-server`, `remove-server`, `enable-server`, `disable-server`, `modify-server`, `show-server`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Add servers to a server group
    #[command(alias = "add-srv", override_usage = "lbadm add-server -s server=SPEC,... GROUP", after_help = ADD_SERVER_HELP)]
    AddServer(ChangeServers),
    /// Remove servers from a server group
    #[command(
        alias = "remove-srv",
        override_usage = "lbadm remove-server -s server=SPEC|ID,... GROUP",
        after_help = "\
A server is named by its id or as it was added. An address without port means
every server there.

Examples:
  lbadm remove-server -s server=_web.2 web
  lbadm remove-server -s server=192.0.2.13:8080,server=192.0.2.14 web"
    )]
    RemoveServer(ChangeServers),
    /// Let servers take new connections
    #[command(
        alias = "enable-srv",
        after_help = "\
Examples:
  lbadm enable-server _web.0 _web.1"
    )]
    EnableServer(ServerIds),
    /// Stop servers from taking new connections
    #[command(
        alias = "disable-srv",
        after_help = "\
The connections that a disabled server has live on until they end, or for the
conn-drain seconds of their rule. 'lbadm show-servergroup' lists the ids.

Examples:
  lbadm disable-server _web.0"
    )]
    DisableServer(ServerIds),
    /// Change weights and limits of servers
    #[command(
        alias = "modify-srv",
        override_usage = "lbadm modify-server -s weight=[,max-conn=][,min-conn=][,tier=]\n       SERVER_ID...",
        after_help = "\
Connections stay where they are. Weight 0 takes no new ones. A server that has
max-conn connections takes new ones again below min-conn (not given: three
quarters of max-conn); 0 is no limit. 'lbadm help create-servergroup' explains
tier.

Examples:
  lbadm modify-server -s weight=0 _web.0
  lbadm modify-server -s weight=3,max-conn=1000 _web.0 _web.1"
    )]
    ModifyServer(ModifyServer),
    /// Show the servers of rules
    #[command(
        alias = "show-srv",
        override_usage = "lbadm show-server [[-p] -o FIELD,...] [--removed] [RULE]...",
        after_help = "\
Fields: serverid address port rulename status servergroup, and host weight
connections (over all rules) max-conn min-conn tier health reason. STATUS is
dead or unreach while the rule's health check says so, panic if the rule's
panic-mode uses it all the same, and standby while other tiers serve.

Examples:
  lbadm show-server
  lbadm show-server www
  lbadm show-server -p -o serverid,status www"
    )]
    ShowServer(ShowServer),
}

/// `add-server`, `remove-server`.
#[derive(Debug, Args)]
pub struct ChangeServers {
    /// Servers: server=SPEC,...
    #[arg(short, value_name = "server=SPEC,...", required = true)]
    pub servers: Vec<String>,
    /// Name of the group
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// `enable-server`, `disable-server`.
#[derive(Debug, Args)]
pub struct ServerIds {
    /// Ids of servers, such as _web.0
    #[arg(value_name = "SERVER_ID", required = true)]
    pub ids: Vec<String>,
}

/// `modify-server`.
#[derive(Debug, Args)]
pub struct ModifyServer {
    /// What shall be different: weight=, max-conn=, min-conn=, tier=
    #[arg(short = 's', value_name = "KEY=VALUE,...", required = true)]
    pub settings: Vec<String>,
    /// Ids of servers, such as _web.0
    #[arg(value_name = "SERVER_ID", required = true)]
    pub ids: Vec<String>,
}

/// `show-server`.
#[derive(Debug, Args)]
pub struct ShowServer {
    /// Also removed servers that still have connections
    #[arg(long)]
    pub removed: bool,
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of rules; all if none is given
    #[arg(value_name = "RULE")]
    pub rules: Vec<String>,
}

const ADD_SERVER_HELP: &str = "\
'lbadm help create-servergroup' explains how servers are written.

Examples:
  lbadm add-server -s server=192.0.2.13:80 web
  lbadm add-server -s server=192.0.2.13:80,weight=3,max-conn=1000 web
  lbadm add-server -s server=192.0.2.14-192.0.2.17:80 web
  lbadm add-server -s server=web5=192.0.2.18:80,server=192.0.2.19:80 web
  lbadm add-server -s server=[2001:db8::13] web6";
