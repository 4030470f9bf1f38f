//! `status`, `generate-man`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Show whether manager and fast path are well
    #[command(after_help = "\
Says what is wrong and what to do. The exit code is 5 when something is: the
manager cannot store changes, the fast path is not there or behind, or a rule
cannot do its work; 3 when the manager is not running.

Examples:
  lbadm status
  lbadm status --json")]
    Status,
    /// Write the man pages
    #[command(hide = true)]
    GenerateMan(GenerateMan),
}

/// `generate-man`.
#[derive(Debug, Args)]
pub struct GenerateMan {
    /// Directory to write them to
    pub directory: PathBuf,
}
