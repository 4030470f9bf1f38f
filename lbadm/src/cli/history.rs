//! `history`, `rollback`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Show what was changed, when and by whom
    #[command(
        override_usage = "lbadm history [[-p] -o FIELD,...] [COUNT]",
        after_help = "\
Newest first, times in UTC. ROLLBACK says whether 'lbadm rollback' can go back
to the generation: the last thousand are kept, fewer when changes were large.

Fields: generation time user rollback change, and uid.

Examples:
  lbadm history
  lbadm history 100
  lbadm history -p -o generation,user,change 1"
    )]
    History(History),
    /// Go back to an earlier configuration
    #[command(
        override_usage = "lbadm rollback [--dry-run] [[-p] -o FIELD,...] GENERATION",
        after_help = "\
One change, with a new generation; 'lbadm history' lists the earlier ones. What
was deleted since comes back as it was, with its ids, and servers and rules that
are as they were keep their connections. A rollback can be rolled back.

Fields: change item name field before after.

Examples:
  lbadm rollback --dry-run 41
  lbadm rollback 41"
    )]
    Rollback(Rollback),
}

/// `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// How many; 20 if not given
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

/// `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// The generation to go back to
    pub generation: u64,
}
