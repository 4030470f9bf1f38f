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
    /// Look at everything that the node's work depends on, and say what to do
    #[command(after_help = "\
Kernel, interfaces with driver and zero copy or why not, memory, tunnels and
MTU, ways to the servers, settings that hurt, programs in the way, clock, disk,
versions. Each is ok, warn, bad, or ? where nobody can say; with what was found
and what to do. It works without the manager as far as it can, and knows more as
root. The exit code is 5 if something is bad, 1 if something is to be warned of.

Examples:
  lbadm doctor
  lbadm doctor --json")]
    Doctor(Doctor),
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

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Settings of the node
    #[arg(long, value_name = "FILE", default_value = ilb_node::settings::DEFAULT_PATH)]
    pub config: PathBuf,
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
