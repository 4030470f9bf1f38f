//! `export-config`, `import-config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write the configuration as commands
    #[command(alias = "export-cf", after_help = EXPORT_HELP)]
    ExportConfig(ExportConfig),
    /// Read a configuration of lbadm, ilbadm, ipvsadm or keepalived
    #[command(alias = "import-cf", override_usage = "\
lbadm import-config [-p] [--dry-run] [--partial] [--from FORMAT] [-v]
       [--proxy-src ADDRESS,...] [--fwmark MARK=PROTOCOL:ADDRESS:PORT,...]...
       [--config-id ID] [FILE]", after_help = IMPORT_HELP)]
    ImportConfig(ImportConfig),
}

/// `export-config`.
#[derive(Debug, Args)]
pub struct ExportConfig {
    /// Write a TOML document, as 'lbadm apply' takes it
    #[arg(long)]
    pub toml: bool,
    /// File to write; standard output if not given
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `import-config`.
#[derive(Debug, Clone, Args)]
pub struct ImportConfig {
    /// Keep what is configured and add to it; not given: replace it
    #[arg(short)]
    pub preserve: bool,
    /// Only say what would become of the file
    #[arg(long)]
    pub dry_run: bool,
    /// Apply what can be taken although the rest is left out
    #[arg(long)]
    pub partial: bool,
    /// Format: lbadm, ilbadm, ipvsadm or keepalived; recognised if not given
    #[arg(long, value_name = "FORMAT")]
    pub from: Option<String>,
    /// Report also what is taken as it is
    #[arg(short, long)]
    pub verbose: bool,
    /// Source addresses of tunnels
    #[arg(long, value_name = "ADDRESS,...")]
    pub proxy_src: Vec<String>,
    /// What a firewall mark stands for
    #[arg(long, value_name = "MARK=PROTOCOL:ADDRESS:PORT,...")]
    pub fwmark: Vec<String>,
    /// The node that counts in a keepalived.conf (keepalived -i)
    #[arg(long, value_name = "ID")]
    pub config_id: Option<String>,
    /// File to read; standard input if not given
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

const EXPORT_HELP: &str = "\
Server groups come first, then health checks, then rules. Names, ids of servers
and what is disabled are kept; what has its default is not written. A file is
replaced only when everything has been written.

Examples:
  lbadm export-config
  lbadm export-config /var/backups/ilb.lbadm
  lbadm export-config --toml ilb.toml";

const IMPORT_HELP: &str = "\
The file takes the place of what is configured, as with ilbadm; -p keeps that
and adds to it. It is one change: all of it or nothing. A report says of each
thing with file and line what became of it. What cannot be expressed or is wrong
makes the import fail with everything listed; --partial applies the rest.

Formats: lbadm, what export-config writes and any commands that change something
(# comments, \\ at the end continues, quotes as in a shell); ilbadm, what ilbadm
export-config writes; ipvsadm, what ipvsadm-save -n writes; keepalived,
keepalived.conf with all that it includes. docs/migration.md says of every
directive what it becomes.

Some files leave open what has to be said: tunnels of other balancers take their
source address from the route (--proxy-src), a firewall mark stands for what the
firewall gives it to (--fwmark), a keepalived.conf may be for several nodes
(--config-id).

Examples:
  lbadm import-config /var/backups/ilb.lbadm
  ipvsadm-save -n | lbadm import-config --dry-run
  lbadm import-config --dry-run -v /etc/keepalived/keepalived.conf
  lbadm import-config -p --partial --config-id lb1 keepalived.conf
  lbadm import-config --fwmark 1=tcp:192.0.2.80:80,tcp:192.0.2.80:443 saved";
