//! `check`, `diff`, `apply`, `confirm`, `revert`.

use clap::{Args, Subcommand};

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum DocumentCommand {
    /// Say everything that is wrong with a file that describes a configuration
    #[command(override_usage = "lbadm check [--merge] FILE", after_help = CHECK_HELP)]
    Check(Check),
    /// Say what would be different if a file were applied
    #[command(override_usage = "lbadm diff [--merge] FILE", after_help = DIFF_HELP)]
    Diff(Diff),
    /// Make a file the configuration, in one change
    #[command(override_usage = "lbadm apply [--merge] [--dry-run | --confirm TIME] FILE", after_help = APPLY_HELP)]
    Apply(Apply),
    /// Keep the change that waits for a confirmation
    #[command(after_help = "\
Examples:
  lbadm apply --confirm 60s web.toml
  lbadm confirm")]
    Confirm,
    /// Take back the change that waits for a confirmation
    #[command(after_help = "\
All is as before: rules and servers with their numbers, ids and connections.

Examples:
  lbadm revert")]
    Revert,
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// It is not the whole configuration: what it does not say may be missing
    #[arg(long)]
    pub merge: bool,
    /// The file, TOML or JSON; - for standard input
    pub file: String,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// What the file does not name stays as it is
    #[arg(long)]
    pub merge: bool,
    /// The file, TOML or JSON; - for standard input
    pub file: String,
}

/// `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// What the file does not name stays as it is
    #[arg(long)]
    pub merge: bool,
    /// Only say what would be different
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,
    /// Take it back after this time unless 'lbadm confirm' comes: 60, 60s, 5m
    #[arg(long, value_name = "TIME")]
    pub confirm: Option<String>,
    /// The file, TOML or JSON; - for standard input
    pub file: String,
}

const CHECK_HELP: &str = "\
No manager is needed. Every mistake is told at once, with its line. The exit
code is 0 if there is none.

Examples:
  lbadm check web.toml
  lbadm check --merge addition.toml";

const DIFF_HELP: &str = "\
+ is created, - is removed, ~ is changed, old -> new. The exit code is 0 if
nothing would be different, 1 if something would.

Examples:
  lbadm diff web.toml
  lbadm diff --merge addition.toml";

const APPLY_HELP: &str = "\
The file is the whole: what it does not name is removed, unless --merge is
given. It is one change: all of it is done, or nothing. What stays the same
keeps its ids and its connections. With --confirm all is as before when the
time is over and nobody has confirmed, also when the manager was stopped
meanwhile; until then nothing else can be changed.

  [group.web]
  servers = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3 }]

  [rule.www]
  vip = \"192.0.2.10\"
  port = 80
  algorithm = \"wlc\"
  topology = \"HALF-NAT\"
  group = \"web\"

Examples:
  lbadm apply web.toml
  lbadm apply --confirm 60s web.toml
  echo 'rule.www.enabled = false' | lbadm apply --merge -";
