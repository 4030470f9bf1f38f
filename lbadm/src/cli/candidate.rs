//! `show-candidate`, `approve-server`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum CandidateCommand {
    /// Show servers that were found and wait to be approved
    #[command(
        alias = "show-cand",
        override_usage = "lbadm show-candidate [[-p] -o FIELD,...] [GROUP]...",
        after_help = "\
Groups with approve=ask ('lbadm help create-servergroup') do not take servers in
that they find; those wait here until 'lbadm approve-server' takes them in, or
until they are not found any more. except= leaves addresses out for good.

Fields: sgname address port since source, and host.

Examples:
  lbadm show-candidate
  lbadm show-candidate -p -o address,port web"
    )]
    ShowCandidate(ShowCandidate),
    /// Take servers into a group that were found and wait for it
    #[command(
        alias = "approve-srv",
        override_usage = "lbadm approve-server {-a | -s server=ADDRESS,...} GROUP",
        after_help = "\
A server that goes, and comes back after the group's hold time, waits again.

Examples:
  lbadm approve-server -s server=192.0.2.13 web
  lbadm approve-server -a web"
    )]
    ApproveServer(ApproveServer),
}

/// `show-candidate`.
#[derive(Debug, Args)]
pub struct ShowCandidate {
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of groups; all if none is given
    #[arg(value_name = "GROUP")]
    pub names: Vec<String>,
}

/// `approve-server`.
#[derive(Debug, Args)]
pub struct ApproveServer {
    /// All that wait
    #[arg(short, conflicts_with = "servers")]
    pub all: bool,
    /// Servers: server=ADDRESS[:PORT],...
    #[arg(
        short,
        value_name = "server=ADDRESS,...",
        required_unless_present = "all"
    )]
    pub servers: Vec<String>,
    /// Name of the group
    #[arg(value_name = "GROUP")]
    pub group: String,
}
