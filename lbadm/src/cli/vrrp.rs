//! `create-vrrp`, `modify-vrrp`, `enable-vrrp`, `disable-vrrp`, `delete-vrrp`, `show-vrrp`.

use clap::{Args, Subcommand};

use super::Format;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum VrrpCommand {
    /// Create a VRRP instance: addresses that this node shares with others
    #[command(
        override_usage = "\
lbadm create-vrrp -i interface=,vrid=,addresses=[,priority=][,interval=]... NAME",
        after_help = CREATE_VRRP_HELP
    )]
    CreateVrrp(CreateVrrp),
    /// Change a VRRP instance
    #[command(
        override_usage = "lbadm modify-vrrp -i KEY=VALUE,... NAME",
        after_help = "\
'lbadm help create-vrrp' explains the keys; what is not given stays, and a key
without value has its default again. With another priority, preempt,
preempt-delay, accept, track, sync-group, notify, announcements or announce-*
the instance stays where it is; anything else gives the addresses up and begins
anew.

Examples:
  lbadm modify-vrrp -i priority=50 outer
  lbadm modify-vrrp -i preempt=no outer
  lbadm modify-vrrp -i accept=no outer
  lbadm modify-vrrp -i track=fastpath,interface:eth1:-60 outer"
    )]
    ModifyVrrp(CreateVrrp),
    /// Let VRRP instances take part
    #[command(after_help = "\
Examples:
  lbadm enable-vrrp outer
  lbadm enable-vrrp")]
    EnableVrrp(SomeInstances),
    /// Hand the addresses of VRRP instances over to another node
    #[command(after_help = "\
Without a name all instances of this node, as for maintenance. Another node is
told and takes over; the addresses stay here until it has, so that no packet
finds nobody. If there is no other node, they go after one interval, or two
seconds at most. It stays so over restarts, until enable-vrrp.

Examples:
  lbadm disable-vrrp
  lbadm disable-vrrp outer")]
    DisableVrrp(SomeInstances),
    /// Delete VRRP instances; their addresses are given up
    #[command(after_help = "\
Rules that have one of the addresses put it up by themselves again.

Examples:
  lbadm delete-vrrp outer")]
    DeleteVrrp(InstanceNames),
    /// Show VRRP instances, and where they stand
    #[command(
        override_usage = "lbadm show-vrrp [[-p] -o FIELD,...] [INSTANCE]...",
        after_help = "\
Fields: name state interface vrid priority addresses since, and effective (the
priority with the weights of what is tracked) active (the node that is, if it is
another one) reason version interval peers source track sync-group settings (all
that is not default, as create-vrrp takes it) sent received refused transitions
rules. STATE is active, backup, fault or disabled. -j has all counters.

Examples:
  lbadm show-vrrp
  lbadm show-vrrp -p -o state outer"
    )]
    ShowVrrp(ShowVrrp),
}

/// `create-vrrp`, `modify-vrrp`.
#[derive(Debug, Args)]
pub struct CreateVrrp {
    /// What it is: interface=, vrid=, addresses=, priority=, ...
    #[arg(short = 'i', value_name = "KEY=VALUE,...")]
    pub settings: Vec<String>,
    /// Name of the VRRP instance
    #[arg(value_name = "INSTANCE")]
    pub name: String,
}

/// `delete-vrrp`.
#[derive(Debug, Args)]
pub struct InstanceNames {
    /// Names of VRRP instances
    #[arg(value_name = "INSTANCE", required = true)]
    pub names: Vec<String>,
}

/// `enable-vrrp`, `disable-vrrp`.
#[derive(Debug, Args)]
pub struct SomeInstances {
    /// Names of VRRP instances; all if none is given
    #[arg(value_name = "INSTANCE")]
    pub names: Vec<String>,
}

/// `show-vrrp`.
#[derive(Debug, Args)]
pub struct ShowVrrp {
    /// Table.
    #[command(flatten)]
    pub format: Format,
    /// Names of VRRP instances; all if none is given
    #[arg(value_name = "INSTANCE")]
    pub names: Vec<String>,
}

const CREATE_VRRP_HELP: &str = "\
Keys; lists are separated by commas:
  -i interface=NAME           that it speaks on and that gets the addresses
     vrid=N                   number of the virtual router, 1 to 255
     addresses=ADDRESS,...    that the active node has, of one family
     version=3|2              of the protocol; 3
     priority=N               the highest takes the addresses; 1 to 254, or 255
                              for the owner of the addresses; 100
     interval=SECONDS         between advertisements, 0.01 to 40.95; 1
                              (version 2: whole seconds)
     preempt=yes|no           take over from a lower priority; yes
     preempt-delay=SECONDS    wait before that; 0
     peers=ADDRESS,...        advertise to these nodes and not to the group
     source=ADDRESS           advertise from it; the interface's first address,
                              of IPv6 its link-local one
     checksum=pseudo-header|message
                              of version 3 over IPv4: as keepalived sends it by
                              default, or as RFC 9568 has it; ilb takes both
     mac=interface|virtual    that the addresses have: the interface's, or one
                              that the active node has, whichever that is
     accept=yes|no            whether the active node takes packets for itself
                              at the addresses, beside those of rules, such as
                              pings; an owner always does; yes
     track=WHAT[:WEIGHT],...  fastpath, rule:NAME (has its quorum of servers),
                              interface:NAME, script:/PATH (run each second),
                              file:/PATH (holds a number), or none; fastpath
     sync-group=NAME          instances of one group are active together
     notify=/PATH             program that is told of changes; it gets INSTANCE,
                              the name, MASTER, BACKUP, FAULT or STOP, and the
                              priority
     announcements=N          after a takeover, the first three within 0.1 s; 5
     announce-delay=SECONDS   between the later ones; 1
     announce-interval=SECONDS
                              and again and again; 0 is never
     enabled=yes|no           take part; yes

Without a weight the instance gives up while what it tracks fails. With a
positive one its priority is so much higher while all is well, with a negative
one so much lower while it fails. An address that an instance has is put up by
it alone: a rule with this vip or proxy-src needs nothing else, and answers on
the active node.

Examples:
  lbadm create-vrrp -i interface=eth0,vrid=51,addresses=192.0.2.80 outer
  lbadm create-vrrp -i interface=eth0,vrid=51,addresses=fe80::80 six
  lbadm create-vrrp -i interface=eth1,vrid=52,addresses=10.0.0.80 \\
        -i priority=150,interval=0.1,peers=10.0.0.2 inner";
