//! `show-statistics`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum StatisticsCommand {
    /// Show traffic and drops
    #[command(alias = "show-stats", override_usage = "\
lbadm show-statistics [-tv] [-A|-d] [-i] [-r RULE] [-s SERVER_ID]
       [[-p] -o FIELD,...] [INTERVAL [COUNT]]
       lbadm show-statistics --drops [-v] [[-p] -o FIELD,...]", after_help = STATISTICS_HELP)]
    ShowStatistics(ShowStatistics),
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
    #[arg(long, conflicts_with_all = ["time", "absolute", "delta", "itemize", "rule", "server",
        "interval"])]
    pub drops: bool,
    /// Seconds between lines
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub interval: Option<u32>,
    /// How many lines; without end if not given
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

const STATISTICS_HELP: &str = "\
Columns: PKT_P BYTES_P forwarded, PKT_U BYTES_U left to the kernel, PKT_D
BYTES_D dropped. -v adds ICMP_P ICMP_D (ICMP errors), ICMP2BIG_P ICMP2BIG_D
(too-big ones), NOMEMP_D NOPORTP_D (drops because there was no room in the
connection table, no NAT port), ADMISSION_D (drops of new flows over a limit),
REPLACED (half-open connections that made way for others), NEWCONN (connections
begun) and CONNECTIONS (living now). --drops has every reason for drops.

With an interval the first line counts from the start of the fast path, the
others are per second; -d shows what was added in the interval instead, -A
what there is in all.

Examples:
  lbadm show-statistics
  lbadm show-statistics 1
  lbadm show-statistics -t -r www 5 12
  lbadm show-statistics -i -r www
  lbadm show-statistics -p -o pkt_p,bytes_p -r www
  lbadm show-statistics --drops";
