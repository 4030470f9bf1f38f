//! `monitor`.

use clap::{Args, Subcommand};

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum MonitorCommand {
    /// Say what happens, as it happens
    #[command(override_usage = "lbadm monitor [-v] [--only KIND,...] [NAME]...", after_help = MONITOR_HELP)]
    Monitor(Monitor),
}

/// `monitor`.
#[derive(Debug, Args)]
pub struct Monitor {
    /// Say also which generation is in force
    #[arg(short)]
    pub verbose: bool,
    /// Only what happens to these kinds of objects: rule, servergroup, server, healthcheck, manager
    #[arg(long, value_name = "KIND,...")]
    pub only: Option<String>,
    /// Only what happens to these: names of rules, groups and checks, ids of servers
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

const MONITOR_HELP: &str = "\
A line for each event: rules, server groups, servers and health checks that are
created, changed (old -> new) and removed, health, the fast path that comes and
goes. It goes on while the manager is restarted, and says afterwards what has
changed meanwhile. With --json each line is an object; Ctrl-C ends it.

Examples:
  lbadm monitor
  lbadm monitor --only server _web.0 _web.1
  lbadm monitor --json | jq -c 'select(.object == \"server\")'";
