//! The command line: every command, option and help text. What they mean is in the file of each object.

#![allow(
    clippy::enum_variant_names,
    reason = "variants are named as their commands"
)]

mod candidate;
mod config;
mod connections;
mod document;
mod explain;
mod healthcheck;
mod help;
mod history;
mod monitor;
mod node;
mod pair;
mod rule;
mod server;
mod servergroup;
mod statistics;
mod top;
mod vrrp;

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use candidate::*;
pub use config::*;
pub use connections::*;
pub use document::*;
pub use explain::*;
pub use healthcheck::*;
use help::AFTER_HELP;
pub use help::OVERVIEW;
pub use history::*;
pub use monitor::*;
pub use node::*;
pub use pair::*;
pub use rule::*;
pub use server::*;
pub use servergroup::*;
pub use statistics::*;
pub use top::*;
pub use vrrp::*;

/// Administers the ilb load balancer.
#[derive(Debug, Parser)]
#[command(
    name = "lbadm",
    version,
    disable_help_flag = true,
    infer_subcommands = false,
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// Write JSON
    #[arg(short, long, global = true)]
    pub json: bool,
    /// Do not ask for a password, even if polkit wants one
    #[arg(long, global = true)]
    pub no_ask_password: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Every command; what each object has is in its file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Rules.
    #[command(flatten)]
    Rule(RuleCommand),
    /// Server groups.
    #[command(flatten)]
    Servergroup(ServergroupCommand),
    /// Servers.
    #[command(flatten)]
    Server(ServerCommand),
    /// Servers that were found.
    #[command(flatten)]
    Candidate(CandidateCommand),
    /// Health checks.
    #[command(flatten)]
    Healthcheck(HealthcheckCommand),
    /// VRRP instances.
    #[command(flatten)]
    Vrrp(VrrpCommand),
    /// The pair.
    #[command(flatten)]
    Pair(PairCommand),
    /// The configuration as a whole.
    #[command(flatten)]
    Config(ConfigCommand),
    /// What was changed, and the way back.
    #[command(flatten)]
    History(HistoryCommand),
    /// The configuration as a file.
    #[command(flatten)]
    Document(DocumentCommand),
    /// Counters.
    #[command(flatten)]
    Statistics(StatisticsCommand),
    /// The connection table.
    #[command(flatten)]
    Connections(ConnectionsCommand),
    /// What becomes of packets.
    #[command(flatten)]
    Explain(ExplainCommand),
    /// What passes.
    #[command(flatten)]
    Top(TopCommand),
    /// What happens.
    #[command(flatten)]
    Monitor(MonitorCommand),
    /// The node.
    #[command(flatten)]
    Node(NodeCommand),
}

/// How a table is written.
#[derive(Debug, Default, Args)]
pub struct Format {
    /// For scripts: values separated by ':', no heading; needs -o
    #[arg(short)]
    pub parsable: bool,
    /// Fields to show, separated by commas, or 'all'
    #[arg(short, value_name = "FIELD,...")]
    pub output: Option<String>,
}

/// A command of a later version. It takes anything.
#[derive(Debug, Args)]
pub struct Later {
    /// Its arguments.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

/// The whole command line. `-h` is help wherever it is not the option for health checks.
pub fn command() -> clap::Command {
    let help = || {
        Arg::new("help")
            .long("help")
            .short_alias('?')
            .action(ArgAction::Help)
            .help("Show help")
    };
    let command = Cli::command().arg(help().short('h')).max_term_width(100);
    command.mut_subcommands(|sub| {
        let taken = sub.get_arguments().any(|arg| arg.get_short() == Some('h'));
        let later = sub.get_arguments().any(|arg| arg.get_id() == "rest");
        let sub = sub.disable_help_flag(true);
        match (later, taken) {
            (true, _) | (_, true) => sub.arg(help()),
            _ => sub.arg(help().short('h')),
        }
    })
}

/// Reads a command line, program name first.
///
/// # Errors
/// What clap has to say, be it an error, help or version.
pub fn parse(args: Vec<std::ffi::OsString>) -> Result<Cli, clap::Error> {
    CommandLines::new().parse(args)
}

/// Reads many command lines. The commands are made once, which costs more than to read a line.
#[derive(Debug)]
pub struct CommandLines(clap::Command);

impl CommandLines {
    /// For command lines of [`command`].
    pub fn new() -> CommandLines {
        CommandLines(command())
    }

    /// Reads one, program name first.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn parse(&mut self, args: Vec<std::ffi::OsString>) -> Result<Cli, clap::Error> {
        let matches = self.0.try_get_matches_from_mut(lower_command(args))?;
        Cli::from_arg_matches(&matches)
    }
}

/// Commands are the same in any case.
fn lower_command(mut args: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let word = args
        .iter_mut()
        .skip(1)
        .find(|arg| !arg.to_string_lossy().starts_with('-'));
    if let Some(word) = word {
        word.make_ascii_lowercase();
    }
    args
}
