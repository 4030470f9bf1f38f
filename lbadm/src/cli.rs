//! The command line: every command, option and help text. What they mean is in the file of each object.

mod help;

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
pub use help::OVERVIEW;
use help::{
    ADD_SERVER_HELP, AFTER_HELP, CONNECTIONS_HELP, CREATE_RULE_HELP, EXPLAIN_HELP,
    MODIFY_RULE_HELP, SERVER_SPEC_HELP, STATISTICS_HELP,
};

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
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Every command, under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a rule: which traffic goes where, and how
    #[command(alias = "create-rl", override_usage = "\
lbadm create-rule [-e] [-p] -i vip=,port=[,protocol=][,client=]...
       -m lbalg=,type=[,proxy-src=][,pmask=]... [-t conn-drain=,nat-timeout=]...
       -o servergroup= NAME", after_help = CREATE_RULE_HELP)]
    CreateRule(CreateRule),
    /// Change a rule while its connections go on
    #[command(alias = "modify-rl", override_usage = "\
lbadm modify-rule [-p] [-i client=] [-m lbalg=,pmask=,orphans=,...]
       [-t conn-drain=,nat-timeout=,...] NAME", after_help = MODIFY_RULE_HELP)]
    ModifyRule(ModifyRule),
    /// Delete rules
    #[command(
        alias = "delete-rl",
        override_usage = "lbadm delete-rule -a | RULE...",
        after_help = "\
The connections of a deleted rule live on until they end, or for its
conn-drain seconds.

Examples:
  lbadm delete-rule www
  lbadm delete-rule -a"
    )]
    DeleteRule(DeleteRule),
    /// Let rules take new connections
    #[command(
        alias = "enable-rl",
        after_help = "\
Examples:
  lbadm enable-rule www
  lbadm enable-rule"
    )]
    EnableRule(RuleNames),
    /// Stop rules from taking new connections
    #[command(
        alias = "disable-rl",
        after_help = "\
The connections that a disabled rule has live on until they end, or for its
conn-drain seconds.

Examples:
  lbadm disable-rule www
  lbadm disable-rule"
    )]
    DisableRule(RuleNames),
    /// Show rules
    #[command(
        alias = "show-rl",
        override_usage = "\
lbadm show-rule [-e|-d] [-f | [-p] -o FIELD,...] [--deleted] [RULE]...",
        after_help = "\
Fields: rulename status lbalg type protocol vip port, and servergroup servers
proxy-src conn-drain nat-timeout manage-addresses connections problems clients
flags tunnel pmask persist-timeout one-packet orphans slow-start max-new-flows
timeouts.

Examples:
  lbadm show-rule
  lbadm show-rule -f www
  lbadm show-rule -e -p -o rulename,vip,port"
    )]
    ShowRule(ShowRule),
    /// Create a server group
    #[command(alias = "create-sg", override_usage = "lbadm create-servergroup [-s server=SPEC,...] NAME", after_help = SERVER_SPEC_HELP)]
    CreateServergroup(CreateServergroup),
    /// Delete server groups that no rule uses
    #[command(
        alias = "delete-sg",
        after_help = "\
Examples:
  lbadm delete-servergroup web"
    )]
    DeleteServergroup(GroupNames),
    /// Show server groups with their servers
    #[command(
        alias = "show-sg",
        override_usage = "lbadm show-servergroup [[-p] -o FIELD,...] [--removed] [GROUP]...",
        after_help = "\
Fields: sgname serverid minport maxport ip_address, and host weight status
connections max-conn min-conn.

Examples:
  lbadm show-servergroup
  lbadm show-servergroup -p -o serverid,ip_address web"
    )]
    ShowServergroup(ShowServergroup),
    /// Add servers to a server group
    #[command(alias = "add-srv", override_usage = "lbadm add-server -s server=SPEC,... GROUP", after_help = ADD_SERVER_HELP)]
    AddServer(ChangeServers),
    /// Remove servers from a server group
    #[command(
        alias = "remove-srv",
        override_usage = "lbadm remove-server -s server=SPEC|ID,... GROUP",
        after_help = "\
A server is named by its id or as it was added. An address without port means
every server there.

Examples:
  lbadm remove-server -s server=_web.2 web
  lbadm remove-server -s server=192.0.2.13:8080,server=192.0.2.14 web"
    )]
    RemoveServer(ChangeServers),
    /// Let servers take new connections
    #[command(
        alias = "enable-srv",
        after_help = "\
Examples:
  lbadm enable-server _web.0 _web.1"
    )]
    EnableServer(ServerIds),
    /// Stop servers from taking new connections
    #[command(
        alias = "disable-srv",
        after_help = "\
The connections that a disabled server has live on until they end, or for the
conn-drain seconds of their rule. 'lbadm show-servergroup' lists the ids.

Examples:
  lbadm disable-server _web.0"
    )]
    DisableServer(ServerIds),
    /// Change weights and limits of servers
    #[command(
        alias = "modify-srv",
        override_usage = "lbadm modify-server -s weight=[,max-conn=][,min-conn=] SERVER_ID...",
        after_help = "\
Connections stay where they are. Weight 0 takes no new ones. A server that has
max-conn connections takes new ones again below min-conn (not given: three
quarters of max-conn); 0 is no limit.

Examples:
  lbadm modify-server -s weight=0 _web.0
  lbadm modify-server -s weight=3,max-conn=1000 _web.0 _web.1"
    )]
    ModifyServer(ModifyServer),
    /// Show the servers of rules
    #[command(
        alias = "show-srv",
        override_usage = "lbadm show-server [[-p] -o FIELD,...] [--removed] [RULE]...",
        after_help = "\
Fields: serverid address port rulename status servergroup, and host weight
connections (over all rules) max-conn min-conn.

Examples:
  lbadm show-server
  lbadm show-server www
  lbadm show-server -p -o serverid,status www"
    )]
    ShowServer(ShowServer),
    /// Show traffic and drops
    #[command(alias = "show-stats", override_usage = "\
lbadm show-statistics [-tv] [-A|-d] [-i] [-r RULE] [-s SERVER_ID]
       [[-p] -o FIELD,...] [INTERVAL [COUNT]]
       lbadm show-statistics --drops [-v]", after_help = STATISTICS_HELP)]
    ShowStatistics(ShowStatistics),
    /// Show connections
    #[command(aliases = ["list-connections", "show-conn"], override_usage = "\
lbadm show-connections [-r RULE] [-s SERVER_ID] [--client NETWORK]
       [--vip ADDRESS] [--protocol PROTOCOL] [--state STATE] [--persistence]
       [--limit N] [[-p] -o FIELD,...]", after_help = CONNECTIONS_HELP)]
    ShowConnections(ShowConnections),
    /// Show connections, as show-connections does
    #[command(after_help = "\
Examples:
  lbadm show-nat
  lbadm show-nat 20")]
    ShowNat(Count),
    /// Show which client is kept on which server
    #[command(
        alias = "show-pt",
        after_help = "\
The client is a network where pmask of the rule says so. What is offered makes
way under pressure: none of the client's connections has got past its first
packets. IDLE is seconds since a connection renewed it.

Examples:
  lbadm show-persist
  lbadm show-persist 20"
    )]
    ShowPersist(Count),
    /// Explain what becomes of a packet, and why
    #[command(override_usage = "\
lbadm explain [--flags FLAG,...] [--message TYPE] [--length N] [--ttl N]
       [--interface NAME] PROTOCOL SOURCE DESTINATION", after_help = EXPLAIN_HELP)]
    Explain(Explain),
    /// Show whether manager and fast path are well
    #[command(after_help = "\
The exit code is 5 when the manager cannot store changes, 3 when it is not
running.

Examples:
  lbadm status
  lbadm status --json")]
    Status,
    /// (not supported yet) Create a health check
    #[command(alias = "create-hc")]
    CreateHealthcheck(Later),
    /// (not supported yet) Delete health checks
    #[command(alias = "delete-hc")]
    DeleteHealthcheck(Later),
    /// (not supported yet) Show health checks
    #[command(alias = "show-hc")]
    ShowHealthcheck(Later),
    /// (not supported yet) Show results of health checks
    #[command(alias = "show-hc-res")]
    ShowHcResult(Later),
    /// (not supported yet) Write the configuration as commands
    #[command(alias = "export-cf")]
    ExportConfig(Later),
    /// (not supported yet) Read a configuration
    #[command(alias = "import-cf")]
    ImportConfig(Later),
    /// Write the man pages
    #[command(hide = true)]
    GenerateMan(GenerateMan),
}

/// `create-rule`.
#[derive(Debug, Args)]
pub struct CreateRule {
    /// Enable it at once
    #[arg(short)]
    pub enable: bool,
    /// Keep clients on their server
    #[arg(short = 'p')]
    pub persistent: bool,
    /// What comes in: vip=,port=[,protocol=][,client=][,manage-addresses=]
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub incoming: Vec<String>,
    /// How it is balanced: lbalg=,type=[,proxy-src=][,pmask=]...
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub method: Vec<String>,
    /// (not supported yet) How servers are checked: hc-name=[,hc-port=]
    #[arg(short = 'h', value_name = "KEY=VALUE,...")]
    pub health: Vec<String>,
    /// Times: [conn-drain=][,nat-timeout=][,persist-timeout=]...
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub timers: Vec<String>,
    /// Where it goes: servergroup=
    #[arg(short, value_name = "KEY=VALUE")]
    pub outgoing: Vec<String>,
    /// Name of the rule
    pub name: String,
}

/// `modify-rule`.
#[derive(Debug, Args)]
pub struct ModifyRule {
    /// Keep clients on their server
    #[arg(short = 'p')]
    pub persistent: bool,
    /// Which clients: client=[,manage-addresses=]
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub incoming: Vec<String>,
    /// How it is balanced: lbalg=, flags=, pmask=, orphans=, max-new-flows=
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub method: Vec<String>,
    /// Times: conn-drain=, nat-timeout=, persist-timeout=, slow-start=, STATE=
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub timers: Vec<String>,
    /// Name of the rule
    pub name: String,
}

/// `modify-server`.
#[derive(Debug, Args)]
pub struct ModifyServer {
    /// What shall be different: weight=, max-conn=, min-conn=
    #[arg(short = 's', value_name = "KEY=VALUE,...", required = true)]
    pub settings: Vec<String>,
    /// Ids of servers, such as _web.0
    #[arg(value_name = "SERVER_ID", required = true)]
    pub ids: Vec<String>,
}

/// `delete-rule`.
#[derive(Debug, Args)]
pub struct DeleteRule {
    /// All rules
    #[arg(short)]
    pub all: bool,
    /// Names of rules
    #[arg(value_name = "RULE")]
    pub names: Vec<String>,
}

/// `enable-rule`, `disable-rule`.
#[derive(Debug, Args)]
pub struct RuleNames {
    /// Names of rules; all if none is given
    #[arg(value_name = "RULE")]
    pub names: Vec<String>,
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

/// `show-rule`.
#[derive(Debug, Args)]
pub struct ShowRule {
    /// Only enabled ones
    #[arg(short, conflicts_with = "disabled")]
    pub enabled: bool,
    /// Only those that are not enabled
    #[arg(short)]
    pub disabled: bool,
    /// Everything about them
    #[arg(short, conflicts_with_all = ["parsable", "output"])]
    pub full: bool,
    /// Also deleted ones that still have connections
    #[arg(long)]
    pub deleted: bool,
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of rules; all if none is given
    #[arg(value_name = "RULE")]
    pub names: Vec<String>,
}

/// `create-servergroup`.
#[derive(Debug, Args)]
pub struct CreateServergroup {
    /// Servers: server=SPEC,...
    #[arg(short, value_name = "server=SPEC,...")]
    pub servers: Vec<String>,
    /// Name of the group
    pub name: String,
}

/// `delete-servergroup`.
#[derive(Debug, Args)]
pub struct GroupNames {
    /// Names of groups
    #[arg(value_name = "GROUP", required = true)]
    pub names: Vec<String>,
}

/// `show-servergroup`.
#[derive(Debug, Args)]
pub struct ShowServergroup {
    /// Also removed servers that still have connections
    #[arg(long)]
    pub removed: bool,
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of groups; all if none is given
    #[arg(value_name = "GROUP")]
    pub names: Vec<String>,
}

/// `add-server`, `remove-server`.
#[derive(Debug, Args)]
pub struct ChangeServers {
    /// Servers: server=SPEC,...
    #[arg(short, value_name = "server=SPEC,...", required = true)]
    pub servers: Vec<String>,
    /// Name of the group
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// `enable-server`, `disable-server`.
#[derive(Debug, Args)]
pub struct ServerIds {
    /// Ids of servers, such as _web.0
    #[arg(value_name = "SERVER_ID", required = true)]
    pub ids: Vec<String>,
}

/// `show-server`.
#[derive(Debug, Args)]
pub struct ShowServer {
    /// Also removed servers that still have connections
    #[arg(long)]
    pub removed: bool,
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of rules; all if none is given
    #[arg(value_name = "RULE")]
    pub rules: Vec<String>,
}

/// `show-statistics`.
#[derive(Debug, Args)]
pub struct ShowStatistics {
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Show the time of each line
    #[arg(short)]
    pub time: bool,
    /// Show more columns
    #[arg(short)]
    pub verbose: bool,
    /// Always show what there is in all
    #[arg(short = 'A', conflicts_with = "delta")]
    pub absolute: bool,
    /// Show what was added in each interval
    #[arg(short)]
    pub delta: bool,
    /// A line for each rule; with -r for each of its servers
    #[arg(short)]
    pub itemize: bool,
    /// Only this rule
    #[arg(short, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only this server
    #[arg(short, value_name = "SERVER_ID")]
    pub server: Option<String>,
    /// Say why packets were dropped; with -v all possible reasons
    #[arg(long, conflicts_with_all = ["output", "parsable", "time", "absolute", "delta", "itemize", "rule", "server",
        "interval"])]
    pub drops: bool,
    /// Seconds between lines
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub interval: Option<u32>,
    /// How many lines; without end if not given
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// `show-connections`.
#[derive(Debug, Args)]
pub struct ShowConnections {
    /// Only of this rule
    #[arg(short, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only to this server
    #[arg(short, value_name = "SERVER_ID")]
    pub server: Option<String>,
    /// Only of clients in this network
    #[arg(long, value_name = "NETWORK")]
    pub client: Option<String>,
    /// Only to this address
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<String>,
    /// Only of this protocol: a word or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Only in this state
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Which clients are kept on which servers, instead of connections
    #[arg(long, conflicts_with = "protocol")]
    pub persistence: bool,
    /// At most so many; 100 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Table.
    #[command(flatten)]
    pub format: Format,
}

/// `show-nat`, `show-persist`.
#[derive(Debug, Args)]
pub struct Count {
    /// At most so many; 100 if not given
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Flags of a tcp packet: syn, ack, fin, rst, psh, urg, or none
    #[arg(long, value_name = "FLAG,...")]
    pub flags: Option<String>,
    /// Type of an icmp message, or of the first chunk of sctp
    #[arg(long, value_name = "TYPE")]
    pub message: Option<u8>,
    /// Length of the IP packet in bytes
    #[arg(long, value_name = "N")]
    pub length: Option<u16>,
    /// TTL or hop limit; 64 if not given
    #[arg(long, value_name = "N")]
    pub ttl: Option<u8>,
    /// Interface that it comes in by; the first one if not given
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// tcp, udp, sctp, icmp or a protocol number
    pub protocol: String,
    /// Where it comes from: address:port
    pub source: String,
    /// Where it goes: address:port
    pub destination: String,
}

/// A command of a later version. It takes anything.
#[derive(Debug, Args)]
pub struct Later {
    /// Its arguments.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

/// `generate-man`.
#[derive(Debug, Args)]
pub struct GenerateMan {
    /// Directory to write them to
    pub directory: PathBuf,
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
    let matches = command().try_get_matches_from(lower_command(args))?;
    Cli::from_arg_matches(&matches)
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
