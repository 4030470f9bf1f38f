//! `create-rule`, `modify-rule`, `delete-rule`, `enable-rule`, `disable-rule`, `show-rule`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Create a rule: which traffic goes where, and how
    #[command(alias = "create-rl", override_usage = "\
lbadm create-rule [-e] [-p] -i vip=,port=[,protocol=][,client=]...
       -m lbalg=,type=[,proxy-src=][,pmask=]... [-h hc-name=[,hc-port=]]
       [-t conn-drain=,nat-timeout=]... [-n EVENT=COMMAND]...
       -o servergroup= NAME", after_help = CREATE_RULE_HELP)]
    CreateRule(CreateRule),
    /// Change a rule while its connections go on
    #[command(alias = "modify-rl", override_usage = "\
lbadm modify-rule [-p] [-i client=] [-m lbalg=,pmask=,orphans=,...]
       [-h hc-name=[,hc-port=] | -h none] [-t conn-drain=,nat-timeout=,...]
       [-n EVENT=COMMAND | -n EVENT=none]... NAME", after_help = MODIFY_RULE_HELP)]
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
flags tunnel pmask persist-timeout one-packet orphans sync slow-start
max-new-flows quorum hysteresis panic-mode panic-threshold has-quorum served-by
panic notify timeouts hc-name hc-port.

Examples:
  lbadm show-rule
  lbadm show-rule -f www
  lbadm show-rule -e -p -o rulename,vip,port"
    )]
    ShowRule(ShowRule),
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
    /// How servers are checked: hc-name=[,hc-port=]
    #[arg(short = 'h', value_name = "KEY=VALUE,...")]
    pub health: Vec<String>,
    /// Times: [conn-drain=][,nat-timeout=][,persist-timeout=]...
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub timers: Vec<String>,
    /// Commands: up=, down=, quorum-up=, quorum-down=
    #[arg(short, value_name = "EVENT=COMMAND")]
    pub notify: Vec<String>,
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
    /// How it is balanced: lbalg=, flags=, pmask=, orphans=, sync=, quorum=...
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub method: Vec<String>,
    /// How servers are checked: hc-name=, hc-port=, or none
    #[arg(short = 'h', value_name = "KEY=VALUE,...")]
    pub health: Vec<String>,
    /// Times: conn-drain=, nat-timeout=, persist-timeout=, slow-start=, STATE=
    #[arg(short, value_name = "KEY=VALUE,...")]
    pub timers: Vec<String>,
    /// Commands: up=, down=, quorum-up=, quorum-down=; none takes one away
    #[arg(short, value_name = "EVENT=COMMAND")]
    pub notify: Vec<String>,
    /// Name of the rule
    #[arg(value_name = "RULE")]
    pub name: String,
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

const CREATE_RULE_HELP: &str = "\
Keys:
  -i vip=ADDRESS              address that clients connect to; the manager puts
                              it on an interface; -i may be repeated for
                              further vips
     port=PORT                a number, a range a-b, a service name, or any
     protocol=PROTOCOL        tcp if not given, udp, sctp, icmp or any (alias
                              prot); icmp and any have no port
     client=NETWORK,...       only these clients (alias src)
     manage-addresses=yes|no  no: you put the addresses on an interface
  -m lbalg=ALGORITHM          how a server is chosen (alias algo), see below
     flags=FLAG,...           sh-fallback sh-port mh-fallback mh-port
     type=TOPOLOGY            DSR (d), NAT (n), HALF-NAT (h) or TUN (t)
                              (alias topo)
     proxy-src=ADDRESS,...    NAT, TUN: 1 to 10 source addresses towards the
                              servers, or ranges a-b (alias nat-src)
     tunnel=ipip|gre|gue      TUN: how packets are wrapped; ipip if not given
     gue-port=PORT            UDP port of gue; 6080 if not given
     tunnel-checksum=KIND     none, full, or with gue remote
     pmask=/N                 persistence: clients whose first N bits are the
                              same come back to their server; -p is all bits
                              (alias persist)
     one-packet=yes           udp under DSR or TUN: choose for each packet
                              (alias ops)
     orphans=WHAT             connections whose server is dead or gone:
                              reschedule (default), reset, drop or keep
     sync=full|light|off      what the other node of a pair is told, so that
                              connections go on there: full (default), each of
                              them; light, a few octets for one of tcp or sctp,
                              by which it finds its server again (not with NAT);
                              off, nothing
     max-new-flows=N          new flows a second
     quorum=N                 weight of servers that is enough; with less, those
                              of the next tier serve, too; 1
     hysteresis=N             weight above quorum that it takes to go back, and
                              below it to go on; 0
     panic-mode=WHAT          when most servers look dead at once: none
                              (default), keep-last uses those that lived before,
                              fail-open all, sorry the sorry servers
     panic-threshold=PERCENT  living servers below which that is so; 50
  -t conn-drain=SECONDS       how long connections may live on after disabling
                              or removal; not given: until they end
     nat-timeout=SECONDS      idle time after which a connection is forgotten;
                              0 or not given: 120 (tcp), 60 (udp);
                              under DSR and TUN 900 and 300
     persist-timeout=SECONDS  persistence after the last connection; 60
     slow-start=SECONDS       in which a new server comes up to its share
     STATE=SECONDS            idle time of one state: tcp-established
                              syn-received fin-wait time-wait close close-wait
                              last-ack udp sctp icmp other
  -h hc-name=NAME             health check that servers have to pass (alias hcn)
     hc-port=PORT|ANY         port of the server to probe; as the check says, or
                              ANY of the server's, if not given (alias hcp)
  -n EVENT=COMMAND            what is run when a server of the rule is found
                              alive (up) or dead (down), or the rule gets or
                              loses its quorum (quorum-up, quorum-down): an
                              absolute path and arguments, without a shell; one
                              with blanks in quotes; -n is given for each
  -o servergroup=NAME         where it goes (alias sg)

Algorithms: roundrobin (rr), hash-ip (hip), hash-ip-port (hipp), hash-ip-vip
(hipv); and those of LVS: wrr weighted round robin, lc and wlc (weighted) least
connections, sed shortest expected delay, nq never queue, lblc and lblcr
locality-based, dh and sh destination and source hash, mh Maglev, fo failover,
ovf overflow, twos the better of two.

Topologies:
  DSR       the servers hold the VIP on lo and answer clients themselves
  HALF-NAT  the servers' route to the clients leads through the balancer
  NAT       the servers see a proxy-src address as client; nothing to set up
  TUN       the servers unwrap packets, hold the VIP, answer themselves

Two rules may claim the same traffic if one is more specific: first the longer
client network counts, then the narrower port range, then the protocol rather
than any. A rule is created disabled unless -e is given.

Examples:
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -m lbalg=rr,type=HALF-NAT \\
        -o servergroup=web www
  lbadm create-rule -e -i vip=192.0.2.80,port=443 \\
        -m lbalg=hash-ip,type=NAT,proxy-src=192.0.2.90-192.0.2.91 \\
        -t conn-drain=60 -o servergroup=web www-tls
  lbadm create-rule -i vip=2001:db8::53,port=domain,prot=udp \\
        -m algo=hipp,topo=d -o sg=dns6 dns
  lbadm create-rule -e -p -i vip=192.0.2.21,port=any -m lbalg=wlc,type=h \\
        -t persist-timeout=300 -o servergroup=ftp ftp
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -i vip=192.0.2.80,port=443 \\
        -m lbalg=mh,flags=mh-port,type=TUN,tunnel=gue,proxy-src=192.0.2.9 \\
        -o servergroup=far far";

const MODIFY_RULE_HELP: &str = "\
'lbadm help create-rule' explains the keys. Algorithm, flags, persistence,
times, limits, health check, commands, orphans, sync and clients can be changed;
vips, type, tunnel, proxy-src and servergroup are what connections depend on and
stay. pmask=none ends persistence, -h none ends checking, client=any opens the
rule for all, a time of 0 is the default.

Examples:
  lbadm modify-rule -m lbalg=wlc www
  lbadm modify-rule -p -t persist-timeout=600 www
  lbadm modify-rule -h hc-name=web,hc-port=8080 www
  lbadm modify-rule -m max-new-flows=1000,orphans=reset -t fin-wait=30 www
  lbadm modify-rule -m sync=light www
  lbadm modify-rule -n 'down=/usr/local/bin/tell admin' -n up=none www";
