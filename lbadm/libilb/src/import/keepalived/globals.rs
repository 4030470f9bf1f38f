//! `global_defs` and directives outside of blocks.

use super::super::report::Kind;
use super::tree::Statement;
use super::{Reader, failover};

/// Directives outside of blocks with what they mean here.
const DIRECTIVES: [(&str, Option<&str>); 9] = [
    ("net_namespace", None),
    ("net_namespace_ipvs", None),
    ("namespace_with_ipsets", Some("ilb uses no ipsets")),
    ("instance", Some("ilb runs once on a host")),
    ("use_pid_dir", Some("ilb needs no pid files")),
    (
        "linkbeat_use_polling",
        Some("the kernel says when a link changes"),
    ),
    ("child_wait_time", Some("ilb has no such processes")),
    (
        "interface_up_down_delays",
        Some("links are followed by the kernel's word"),
    ),
    (
        "linkbeat_interfaces",
        Some("the kernel says when a link changes"),
    ),
];

/// Whether it stands outside of blocks.
pub(super) fn is_directive(word: &str) -> bool {
    DIRECTIVES.iter().any(|(known, _)| *known == word)
}

/// Directives of `global_defs` that nothing here depends on, with what to know.
const UNNEEDED: &[(&str, &str)] = &[
    ("router_id", "it names the machine in mail"),
    ("notification_email", MAIL),
    ("notification_email_from", MAIL),
    ("smtp_server", MAIL),
    ("smtp_helo_name", MAIL),
    ("smtp_connect_timeout", MAIL),
    ("smtp_alert", MAIL),
    ("smtp_alert_checker", MAIL),
    ("smtp_alert_vrrp", MAIL),
    ("no_checker_emails", MAIL),
    ("no_email_faults", MAIL),
    ("checker_log_all_failures", LOG),
    ("log_unknown_vrids", LOG),
    ("process_names", PROCESS),
    ("process_name", PROCESS),
    ("checker_process_name", PROCESS),
    ("bfd_process_name", PROCESS),
    ("checker_priority", PROCESS),
    ("checker_no_swap", PROCESS),
    ("checker_rt_priority", PROCESS),
    ("checker_rlimit_rttime", PROCESS),
    ("checker_rlimit_rtime", PROCESS),
    ("checker_cpu_affinity", PROCESS),
    ("bfd_priority", PROCESS),
    ("bfd_no_swap", PROCESS),
    ("bfd_rt_priority", PROCESS),
    ("bfd_rlimit_rttime", PROCESS),
    ("bfd_cpu_affinity", PROCESS),
    ("process_monitor_rcv_bufs", PROCESS),
    ("process_monitor_rcv_bufs_force", PROCESS),
    ("lvs_netlink_cmd_rcv_bufs", PROCESS),
    ("lvs_netlink_cmd_rcv_bufs_force", PROCESS),
    ("lvs_netlink_monitor_rcv_bufs", PROCESS),
    ("lvs_netlink_monitor_rcv_bufs_force", PROCESS),
    ("max_auto_priority", PROCESS),
    ("min_auto_priority_delay", PROCESS),
    ("umask", PROCESS),
    ("random_seed", PROCESS),
    ("tmp_config_directory", PROCESS),
    ("config_save_dir", PROCESS),
    ("data_use_instance", PROCESS),
    (
        "reload_check_config",
        "every change is checked as a whole before it is made",
    ),
    (
        "reload_time_file",
        "ilb is told of changes, it does not look for files",
    ),
    (
        "reload_repeat",
        "ilb is told of changes, it does not look for files",
    ),
    (
        "reload_file",
        "ilb is told of changes, it does not look for files",
    ),
    ("lvs_flush", "ilb does not touch IPVS"),
    ("lvs_flush_on_stop", "ilb does not touch IPVS"),
    ("nftables", "ilb needs no firewall rules"),
    ("nftables_priority", "ilb needs no firewall rules"),
    ("nftables_counters", "ilb needs no firewall rules"),
    ("nftables_ifindex", "ilb needs no firewall rules"),
    (
        "nftables_ipvs",
        "a rule has several addresses and ports here",
    ),
    (
        "nftables_ipvs_priority",
        "a rule has several addresses and ports here",
    ),
    (
        "nftables_ipvs_start_fwmark",
        "a rule has several addresses and ports here",
    ),
    ("snmp_socket", SNMP),
    ("enable_traps", SNMP),
    ("enable_snmp_checker", SNMP),
    ("enable_snmp_keepalived", SNMP),
    ("enable_snmp_rfc", SNMP),
    ("enable_snmp_rfcv2", SNMP),
    ("enable_snmp_rfcv3", SNMP),
    ("enable_snmp_vrrp", SNMP),
    ("enable_dbus", "ilb is always on D-Bus"),
    ("dbus_service_name", "ilb's name on D-Bus is org.ilb.Ilb1"),
    (
        "dbus_no_interface_name",
        "ilb's name on D-Bus is org.ilb.Ilb1",
    ),
    ("script_user", "scripts run as the manager does"),
    ("enable_script_security", "scripts run as the manager does"),
    ("rs_init_notifies", "there are no notify scripts"),
    (
        "default_interface",
        "addresses are put where their network is",
    ),
    ("plugin_dir", PROCESS),
    ("disable_local_igmp", LOG),
];
const MAIL: &str = "ilb sends no mail; 'lbadm monitor' and the journal say what happens";
const LOG: &str = "the journal has what ilb says";
const PROCESS: &str = "it is about keepalived's own processes";
const SNMP: &str = "statistics come over D-Bus and OpenMetrics";

/// Those that cannot be expressed.
const LEFT_OUT: &[(&str, &str)] = &[
    ("startup_script", SCRIPTS),
    ("startup_script_timeout", SCRIPTS),
    ("shutdown_script", SCRIPTS),
    ("shutdown_script_timeout", SCRIPTS),
    ("notify_fifo", SCRIPTS),
    ("notify_fifo_script", SCRIPTS),
    ("lvs_notify_fifo", SCRIPTS),
    ("lvs_notify_fifo_script", SCRIPTS),
    (
        "lvs_sync_daemon",
        "balancers do not tell each other of their connections yet",
    ),
    (
        "lvs_sync_daemon_interface",
        "balancers do not tell each other of their connections yet",
    ),
];
const SCRIPTS: &str = "ilb runs no scripts at events; D-Bus signals tell of them";

impl Reader<'_> {
    /// A directive outside of blocks.
    pub(super) fn global(&mut self, statement: &Statement) {
        let known = DIRECTIVES.iter().find(|(word, _)| *word == statement.key());
        match known.and_then(|(_, why)| *why) {
            Some(why) => self.say(statement, Kind::Unneeded, why),
            None => self.say(
                statement,
                Kind::LeftOut,
                "run ilb in the network namespace: the unit's NetworkNamespacePath= says which",
            ),
        }
    }

    /// `global_defs`.
    pub(super) fn globals(&mut self, block: &Statement) {
        for statement in block.inner() {
            let key = statement.key();
            let find = |list: &[(&str, &'static str)]| {
                let found = list.iter().find(|(word, _)| *word == key);
                found.map(|&(_, why)| why)
            };
            if key == "lvs_timeouts" {
                // It was read before.
            } else if let Some(why) = find(UNNEEDED) {
                self.say(statement, Kind::Unneeded, why);
            } else if let Some(why) = find(LEFT_OUT) {
                self.say(statement, Kind::LeftOut, why);
            } else if failover::is_global(key) {
                self.keep_global(statement);
            } else {
                let known: Vec<&str> = UNNEEDED
                    .iter()
                    .chain(LEFT_OUT)
                    .map(|(word, _)| *word)
                    .collect();
                self.unknown(statement, &known);
            }
        }
    }

    /// `lvs_timeouts tcp N tcpfin N udp N`.
    pub(super) fn idle_times(&mut self, statement: &Statement) {
        if statement.key() != "lvs_timeouts" {
            return;
        }
        let mut good = true;
        for pair in statement.values().chunks(2) {
            let seconds = pair.get(1).and_then(|text| text.parse::<u32>().ok());
            let seconds = seconds.filter(|&s| s > 0);
            match (pair[0].as_str(), seconds) {
                ("tcp", Some(_)) => self.idle.tcp = seconds,
                ("tcpfin", Some(_)) => self.idle.tcp_fin = seconds,
                ("udp", Some(_)) => self.idle.udp = seconds,
                _ => {
                    good = false;
                    let note = format!(
                        "'{}' is not understood: tcp, tcpfin or udp with seconds",
                        pair.join(" ")
                    );
                    self.say(statement, Kind::Wrong, note);
                }
            }
        }
        if good {
            self.say(statement, Kind::Taken, "idle times of every rule");
        }
    }

    /// `SSL`: what the client of checks shows of itself.
    pub(super) fn ssl(&mut self, block: &Statement) {
        for statement in block.inner() {
            let note = match statement.key() {
                "ca" => "say it at the health checks: hc-verify=yes,hc-ca-file=FILE",
                _ => "health checks show no certificate of their own",
            };
            self.say(statement, Kind::LeftOut, note);
        }
        if block.inner().is_empty() {
            self.say(block, Kind::Unneeded, "it says nothing");
        }
    }
}
