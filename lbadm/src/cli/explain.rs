//! `explain`.

use clap::{Args, Subcommand};

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ExplainCommand {
    /// Explain what becomes of a packet, and why; what a rule or server gets; who has addresses
    #[command(override_usage = "\
lbadm explain [--flags FLAG,...] [--message TYPE] [--length N] [--ttl N]
       [--interface NAME] PROTOCOL SOURCE DESTINATION
       lbadm explain rule RULE
       lbadm explain server SERVER_ID
       lbadm explain vrrp NAME", after_help = EXPLAIN_HELP)]
    Explain(Explain),
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
    /// tcp, udp, sctp, icmp or a protocol number; or 'rule', 'server' or 'vrrp'
    pub protocol: String,
    /// Where it comes from: address:port; or the name of the rule or VRRP instance, the id of the server
    pub source: String,
    /// Where it goes: address:port
    pub destination: Option<String>,
}

const EXPLAIN_HELP: &str = "\
The fast path answers by the code that forwards, and nothing changes: which
connection or rule the packet is for, or which come near; which server the
client is kept on, which could take it and which one would; how it would leave,
or why it is dropped.

PROTOCOL is tcp, udp, sctp, icmp or a number. SOURCE and DESTINATION are
address:port, an IPv6 address in brackets. Packets of icmp have an identifier
in place of a port: queries at the source, replies at the destination.
A tcp packet is a syn, one of sctp begins an association, one of icmp is an
echo request, unless said otherwise.

For a rule or a server it says why new connections come or do not: state and
health, weights and limits, the share that each server should get and the one
that it got, drops, and what is wrong. For a VRRP instance it says who has its
addresses, why, and when this node takes or gives them.

Examples:
  lbadm explain tcp 203.0.113.9:40000 192.0.2.80:80
  lbadm explain --flags ack tcp 203.0.113.9:40000 192.0.2.80:80
  lbadm explain udp [2001:db8::9]:5353 [2001:db8::53]:53
  lbadm explain icmp 203.0.113.9:77 192.0.2.80
  lbadm explain rule www
  lbadm explain server _web.0
  lbadm explain vrrp outer";
