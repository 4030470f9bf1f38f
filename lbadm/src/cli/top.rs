//! `top`.

use clap::{Args, Subcommand};

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum TopCommand {
    /// Show what passes, rule by rule and server by server, as it changes
    #[command(after_help = TOP_HELP)]
    Top(Top),
}

/// `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Lines instead of a screen, as where there is no terminal
    #[arg(long)]
    pub plain: bool,
    /// Only rules and servers that have this in their names
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Seconds between two looks; 1 if not given
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub interval: Option<u32>,
    /// How many looks; without end if not given
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

const TOP_HELP: &str = "\
Keys: q quits; s sorts by the next column, r the other way round; / takes a
filter, Esc clears it; space hides and shows servers; arrows and page keys
scroll. The graphs show packets a second, each row by its own largest value.
Where standard output is no terminal, each look is a table (an object in a line
with --json).

Examples:
  lbadm top
  lbadm top --filter web 5
  lbadm top --json 10 6 >rates.json";
