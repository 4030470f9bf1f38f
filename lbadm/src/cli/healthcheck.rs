//! `create-healthcheck`, `modify-healthcheck`, `delete-healthcheck`, `show-healthcheck`, `show-hc-result`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum HealthcheckCommand {
    /// Create a health check: what servers have to pass to get connections
    #[command(alias = "create-hc", override_usage = "\
lbadm create-healthcheck [-n] -h hc-test=[,hc-timeout=][,hc-count=]
       [,hc-interval=]... NAME", after_help = CREATE_CHECK_HELP)]
    CreateHealthcheck(CreateHealthcheck),
    /// Change a health check, also one that rules use
    #[command(
        alias = "modify-hc",
        override_usage = "lbadm modify-healthcheck [-n] -h KEY=VALUE,... NAME",
        after_help = "\
'lbadm help create-healthcheck' explains the keys; what is not given stays, and
a key without value has its default again. With another hc-test, what belongs
to the old one is forgotten. Servers stay as they were found until the changed
check finds otherwise.

Examples:
  lbadm modify-healthcheck -h hc-interval=2,hc-count=2 web
  lbadm modify-healthcheck -n web"
    )]
    ModifyHealthcheck(CreateHealthcheck),
    /// Delete health checks that no rule uses
    #[command(
        alias = "delete-hc",
        after_help = "\
'lbadm modify-rule -h none RULE' takes its health check off a rule.

Examples:
  lbadm delete-healthcheck web"
    )]
    DeleteHealthcheck(CheckNames),
    /// Show health checks
    #[command(
        alias = "show-hc",
        override_usage = "lbadm show-healthcheck [[-p] -o FIELD,...] [CHECK]...",
        after_help = "\
Fields: hcname timeout count interval def_ping test, and rise port alpha
settings (all that is not default, as create-healthcheck takes it) rules. Times
are seconds.

Examples:
  lbadm show-healthcheck
  lbadm show-healthcheck -p -o hcname,settings web"
    )]
    ShowHealthcheck(ShowHealthcheck),
    /// Show what health checks found, and why a server is down
    #[command(
        alias = "show-hc-res",
        override_usage = "lbadm show-hc-result [[-p] -o FIELD,...] [RULE]...",
        after_help = "\
Fields: rulename hcname serverid status fail last next rtt, and address port
usable since reason load share. STATUS is un-init (nothing known yet), alive,
unreach (no answer to the ping before the test), dead or disabled; FAIL counts
failures in a row; LAST and NEXT are times of tests, UTC; RTT is in
microseconds, smoothed. LOAD is what was read of a server whose check looks at
its load, SHARE the part of its weight that this leaves. Below the table stands
why servers are down. -j has the last changes of state.

Examples:
  lbadm show-hc-result
  lbadm show-hc-result www
  lbadm show-hc-result -p -o serverid,status,reason www"
    )]
    ShowHcResult(ShowHcResult),
}

/// `create-healthcheck`, `modify-healthcheck`.
#[derive(Debug, Args)]
pub struct CreateHealthcheck {
    /// No ping before each test
    #[arg(short = 'n')]
    pub no_ping: bool,
    /// What is asked and how often: hc-test=, hc-timeout=, hc-count=, ...
    #[arg(short = 'h', value_name = "KEY=VALUE,...")]
    pub health: Vec<String>,
    /// Name of the health check
    pub name: String,
}

/// `delete-healthcheck`.
#[derive(Debug, Args)]
pub struct CheckNames {
    /// Names of health checks
    #[arg(value_name = "CHECK", required = true)]
    pub names: Vec<String>,
}

/// `show-hc-result`.
#[derive(Debug, Args)]
pub struct ShowHcResult {
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of rules; all if none is given
    #[arg(value_name = "RULE")]
    pub rules: Vec<String>,
}

/// `show-healthcheck`.
#[derive(Debug, Args)]
pub struct ShowHealthcheck {
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of health checks; all if none is given
    #[arg(value_name = "CHECK")]
    pub names: Vec<String>,
}

const CREATE_CHECK_HELP: &str = "\
Keys; each may be written with or without hc-:
  -h hc-test=TEST             ping, tcp, udp, http, https, dns, smtp, file, or
                              the absolute path of a script
     hc-timeout=SECONDS       that a test may take; 5 (alias hc-tout)
     hc-count=N               failures in a row that make a server dead; 3
     hc-interval=SECONDS      between tests, on average; 30 (alias hc-intl)
     hc-rise=N                successes in a row that bring it back; 1
     hc-retries=N             quick repetitions of a failed test; hc-count - 1
     hc-retry-delay=SECONDS   before each of them; 0
     hc-jitter=PERCENT        by which intervals differ by chance; 50
     hc-warm-up=SECONDS       within which the first test comes
     hc-ping=yes|no           ping before each test; yes, -n is no
     hc-alpha=yes|no          down until the first success; no
     hc-port=PORT|ANY         unless the rule says one
     hc-address=ADDRESS       asked instead of the server's own
     hc-source=ADDRESS        asked from
  http, https:
     hc-url=PATH              page; may be repeated, what follows is about it
     hc-status=N,N-N,...      statuses that will do; 200-299
     hc-digest=MD5|SHA256     of the page
     hc-regex=PATTERN         that has to occur; hc-regex-no-match=yes: must not
     hc-host=NAME             virtual host
     hc-sni=NAME              asked for in TLS
     hc-verify=yes|no         whether the certificate counts; no
     hc-ca-file=FILE          certificates that are trusted
  udp:
     hc-payload=DATA          text or 0xHEX; empty if not given
     hc-reply=DATA            that has to come back; ? for any hex digit
  dns:
     hc-query=NAME            asked for; . if not given
     hc-record-type=TYPE      SOA if not given
     hc-answer=VALUE          that has to be among the answers
  smtp:
     hc-helo=NAME             this machine's if not given
  script, file:
     hc-path=PATH             with hc-test=script or file
     hc-argument=TEXT         may be repeated
     hc-contract=KIND         ilbadm (its first line of output decides: -1 dead,
                              0 well, more is a round-trip time in
                              microseconds) or exit-code
     hc-weight=yes|no         whether it gives weights, too
  load: who has more to do than others gets less (weighted algorithms only):
     hc-load=SOURCE           response (how long tests take); cpu, memory,
                              network or OBJECT/FULL (SNMP, version 2c);
                              agent (a line such as 75%, as for HAProxy)
     hc-load-interval=SECONDS between readings; 5
     hc-load-least=PERCENT    that is left of a weight in any case; 10
     hc-load-port=PORT        of the agent; 161 for SNMP
     hc-community=NAME        of the SNMP agent; public

Times may be fractions, or have a unit: 500ms, 2m. A script is given VIP,
server, TCP or UDP, topology, port and timeout. With udp a server is dead if its
port is unreachable, and well if nothing comes back, unless hc-reply is given.

Examples:
  lbadm create-healthcheck -h hc-test=tcp,hc-timeout=2,hc-interval=5 alive
  lbadm create-healthcheck -h hc-test=http,hc-url=/health,hc-status=200 web
  lbadm create-healthcheck -n -h hc-test=/etc/ilb/check-db.sh,hc-count=2 db
  lbadm create-healthcheck -h hc-test=tcp,hc-load=cpu,hc-load-least=25 fair
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -m lbalg=rr,type=h \\
        -h hc-name=web -o servergroup=web www
  lbadm modify-rule -h hc-name=alive,hc-port=8080 www";
