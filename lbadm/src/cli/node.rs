//! `status`, `completion`, `generate-man`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    /// Write the script by which a shell completes command lines of lbadm
    #[command(after_help = "\
'make install' and the package put the scripts where the shells look for them.

Examples:
  source <(lbadm completion bash)
  lbadm completion fish >~/.config/fish/completions/lbadm.fish")]
    Completion(Completion),
    /// Say what may come next in a command line
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
    /// Write the man pages
    #[command(hide = true)]
    GenerateMan(GenerateMan),
}

/// `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// Which shell
    #[arg(value_name = "SHELL", ignore_case = true)]
    pub shell: Shell,
}

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash(1).
    Bash,
    /// zsh(1).
    Zsh,
    /// fish(1).
    Fish,
}

/// `__complete`.
#[derive(Debug, Args)]
pub struct Complete {
    /// The line up to the cursor
    #[arg(allow_hyphen_values = true)]
    pub line: String,
}

/// `generate-man`.
#[derive(Debug, Args)]
pub struct GenerateMan {
    /// Directory to write them to
    pub directory: PathBuf,
}
