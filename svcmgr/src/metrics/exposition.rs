//! The text of the metrics, in the format of Prometheus and in OpenMetrics 1.0. Names and labels follow node_exporter's IPVS
//! collector where it has the thing: `ilb_backend_…` with `local_address`, `local_port`, `remote_address`, `remote_port` and
//! `proto`. Made piece by piece, so that 100,000 servers need no more memory than a few.

mod exchange;
mod pair;
mod sources;
mod vrrp;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ilb_node::control::{Counters, Status};
use libilb::describe;
use libilb::health::{HealthState, STATES, ServerHealth};
use libilb::model::{Rule, Server};

use crate::manager::Numbers;
use crate::manager::view::View;

/// Bytes after which a piece goes out.
const PIECE: usize = 64 << 10;

/// What is told.
pub struct Scrape {
    /// Configuration and state.
    pub view: Arc<View>,
    /// Counters.
    pub numbers: Numbers,
    /// How the fast path is; None while it is away.
    pub status: Option<Status>,
    /// What health checks say of servers, if those have lines of their own.
    pub health: Vec<ServerHealth>,
    /// Whether every server of every rule has lines of its own.
    pub per_server: bool,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0: counters are named without `_total` in their description, say since when they count, and there
    /// is an end.
    OpenMetrics,
}

impl Format {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Info,
}

/// Writes everything, until `out` says that nobody listens any more.
pub fn write(scrape: &Scrape, format: Format, out: impl FnMut(Vec<u8>) -> bool) {
    let mut writer = Writer {
        format,
        created: scrape.numbers.created,
        text: String::with_capacity(PIECE + 4096),
        out,
        listening: true,
    };
    writer.node(scrape);
    writer.fastpath(scrape);
    writer.vrrp(scrape);
    writer.pair(scrape);
    let status = scrape.status.as_ref();
    writer.exchange(status.and_then(|status| status.peer.as_ref()));
    writer.rules(scrape);
    writer.backends_of_rules(scrape);
    writer.sources(scrape);
    if scrape.per_server {
        writer.servers(scrape);
        writer.health(scrape);
    }
    if format == Format::OpenMetrics {
        writer.text.push_str("# EOF\n");
    }
    writer.flush();
}

struct Writer<F> {
    format: Format,
    /// Unix time in seconds since when counters count.
    created: u64,
    text: String,
    out: F,
    listening: bool,
}

/// The labels of a line.
type Labels<'a> = &'a [(&'static str, Cow<'a, str>)];

/// A counter of rules and servers: its name without prefix and `_total`, its words, and where it is.
type Column = (&'static str, &'static str, fn(&Counters) -> u64);

/// What rules and servers have in common.
const BOTH: &[Column] = &[
    ("connections", "Connections begun.", |c| c.new_connections),
    ("packets", "Packets forwarded, both directions.", |c| {
        c.packets
    }),
    (
        "bytes",
        "Bytes forwarded, from the IP header on, both directions.",
        |c| c.bytes,
    ),
    ("dropped_packets", "Packets dropped.", |c| c.dropped_packets),
];

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    fn flush(&mut self) {
        if self.listening && !self.text.is_empty() {
            let piece = std::mem::take(&mut self.text).into_bytes();
            self.text.reserve(PIECE + 4096);
            self.listening = (self.out)(piece);
        }
        self.text.clear();
    }

    /// Begins a family of lines; `name` has neither `_total` nor `_info`.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let (suffix, word) = match (self.format, kind) {
            (Format::Prometheus, Kind::Counter) => ("_total", "counter"),
            (Format::Prometheus, Kind::Info) => ("_info", "gauge"),
            (Format::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Format::OpenMetrics, Kind::Info) => ("", "info"),
            (_, Kind::Gauge) => ("", "gauge"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {word}"
        );
    }

    fn line(&mut self, name: &str, kind: Kind, labels: Labels<'_>, value: u64) {
        let suffix = match kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge => "",
        };
        self.sample(name, suffix, labels, value);
        if kind == Kind::Counter && self.format == Format::OpenMetrics {
            self.sample(name, "_created", labels, self.created);
        }
        if self.text.len() >= PIECE {
            self.flush();
        }
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: Labels<'_>,
        value: impl std::fmt::Display,
    ) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        for (at, (key, value)) in labels.iter().enumerate() {
            self.text.push_str(if at == 0 { "{" } else { "," });
            self.text.push_str(key);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.family(name, kind, help);
        self.line(name, kind, &[], value);
    }

    fn node(&mut self, scrape: &Scrape) {
        let (view, totals) = (&scrape.view, &scrape.numbers.totals);
        let version = [("version", Cow::from(env!("CARGO_PKG_VERSION")))];
        self.family("ilb_build", Kind::Info, "Version of the service manager.");
        self.line("ilb_build", Kind::Info, &version, 1);
        for (name, help, value) in [
            (
                "ilb_degraded",
                "1 while nothing can be changed, because nothing can be stored.",
                u64::from(view.health == describe::State::Degraded),
            ),
            (
                "ilb_configuration_generation",
                "Generation of the configuration; grows with every change.",
                view.state.generation,
            ),
            (
                "ilb_drift",
                "Things that were found other than they should be, and are not right yet.",
                view.drift
                    .iter()
                    .filter(|drift| drift.repaired == 0)
                    .count() as u64,
            ),
            (
                "ilb_rules",
                "Rules that are configured.",
                view.state.configuration.rules.len() as u64,
            ),
            (
                "ilb_connections_active",
                "Connections that are open.",
                totals.connections_open,
            ),
            (
                "ilb_connections_inactive",
                "Entries of the connection table that begin or end.",
                totals
                    .connections_total
                    .saturating_sub(totals.connections_open),
            ),
        ] {
            self.one(name, Kind::Gauge, help, value);
        }
        let more: &[Column] = &[
            (
                "unprocessed_packets",
                "Packets handed to the kernel unchanged.",
                |c| c.unprocessed_packets,
            ),
            (
                "unprocessed_bytes",
                "Bytes handed to the kernel unchanged.",
                |c| c.unprocessed_bytes,
            ),
            ("dropped_bytes", "Bytes dropped.", |c| c.dropped_bytes),
            (
                "connections_replaced",
                "Half-open connections that made way for others.",
                |c| c.replaced_connections,
            ),
        ];
        for (name, help, value) in BOTH
            .iter()
            .filter(|(name, ..)| *name != "dropped_packets")
            .chain(more)
        {
            self.one(&format!("ilb_{name}"), Kind::Counter, help, value(totals));
        }
        let name = "ilb_dropped_packets";
        self.family(name, Kind::Counter, "Packets dropped, by reason.");
        for (reason, count) in &scrape.numbers.drops {
            self.line(
                name,
                Kind::Counter,
                &[("reason", Cow::from(reason))],
                *count,
            );
        }
    }

    fn fastpath(&mut self, scrape: &Scrape) {
        let view = &scrape.view;
        let up = view.fastpath != describe::Fastpath::Absent;
        let in_step = view.fastpath == describe::Fastpath::Connected;
        let gauge = Kind::Gauge;
        self.one(
            "ilb_fastpath_up",
            gauge,
            "1 while the fast path answers.",
            up.into(),
        );
        self.one(
            "ilb_fastpath_in_step",
            gauge,
            "1 while the fast path forwards by the present configuration.",
            in_step.into(),
        );
        self.one(
            "ilb_fastpath_generation",
            gauge,
            "Generation of the configuration that the fast path forwards by.",
            view.fastpath_generation,
        );
        let Some(status) = &scrape.status else {
            return;
        };
        for (name, help, value) in [
            (
                "ilb_fastpath_workers",
                "Worker threads.",
                u64::from(status.workers),
            ),
            (
                "ilb_fastpath_uptime_seconds",
                "Seconds since the fast path started.",
                status.uptime_seconds,
            ),
            (
                "ilb_table_capacity",
                "Connections that fit into the table.",
                status.table.capacity,
            ),
            (
                "ilb_table_entries",
                "Entries of the table in use.",
                status.table.used,
            ),
        ] {
            self.one(name, gauge, help, value);
        }
        let name = "ilb_interface";
        self.family(name, Kind::Info, "How an interface is served.");
        for interface in &status.interfaces {
            let labels = [
                ("interface", Cow::from(&interface.name)),
                ("mode", Cow::from(interface.mode.label())),
                (
                    "zero_copy",
                    Cow::from(if interface.zero_copy { "true" } else { "false" }),
                ),
            ];
            self.line(name, Kind::Info, &labels, 1);
        }
        self.family(
            "ilb_interface_queues",
            gauge,
            "Receive queues that have a worker.",
        );
        for interface in &status.interfaces {
            let labels = [("interface", Cow::from(&interface.name))];
            self.line(
                "ilb_interface_queues",
                gauge,
                &labels,
                interface.queues.into(),
            );
        }
    }

    fn rules(&mut self, scrape: &Scrape) {
        let configuration = &scrape.view.state.configuration;
        let of = |rule: &Rule| scrape.numbers.of(rule.number, 0);
        self.family(
            "ilb_rule_enabled",
            Kind::Gauge,
            "1 while the rule takes new connections.",
        );
        for rule in configuration.rules.values() {
            self.line(
                "ilb_rule_enabled",
                Kind::Gauge,
                &rule_labels(rule),
                rule.enabled.into(),
            );
        }
        self.family(
            "ilb_rule_connections_active",
            Kind::Gauge,
            "Connections of the rule that are open.",
        );
        for rule in configuration.rules.values() {
            let open = of(rule).connections_open;
            self.line(
                "ilb_rule_connections_active",
                Kind::Gauge,
                &rule_labels(rule),
                open,
            );
        }
        for (name, help, value) in BOTH {
            let name = format!("ilb_rule_{name}");
            self.family(&name, Kind::Counter, help);
            for rule in configuration.rules.values() {
                self.line(&name, Kind::Counter, &rule_labels(rule), value(&of(rule)));
            }
        }
    }

    /// How many servers of each rule are what.
    fn backends_of_rules(&mut self, scrape: &Scrape) {
        let view = &scrape.view;
        let configuration = &view.state.configuration;
        let servers = |rule: &Rule| {
            let group = configuration.group_of(rule);
            group.map_or(&[][..], |group| &group.servers)
        };
        let name = "ilb_rule_backends_usable";
        let help = "Servers of the rule that new connections can go to: enabled, of a weight, and not down.";
        self.family(name, Kind::Gauge, help);
        for rule in configuration.rules.values() {
            let usable = |server: &&Server| {
                server.enabled && server.weight > 0 && Health::of(view, rule, server).up
            };
            let count = servers(rule).iter().filter(usable).count() as u64;
            self.line(name, Kind::Gauge, &rule_labels(rule), count);
        }
        let standing = |rule: &Rule| view.standings.of(rule.number);
        let name = "ilb_rule_quorum";
        let help =
            "1 while the servers of the rule have its quorum, by what health checks have found.";
        self.family(name, Kind::Gauge, help);
        for rule in configuration.rules.values() {
            let has = standing(rule).is_some_and(|standing| standing.quorum);
            self.line(name, Kind::Gauge, &rule_labels(rule), has.into());
        }
        let name = "ilb_rule_panic";
        let help = "1 while the rule's panic mode holds, because most of its servers look dead.";
        self.family(name, Kind::Gauge, help);
        for rule in configuration.rules.values() {
            let holds = standing(rule).is_some_and(|standing| standing.panic.is_some());
            self.line(name, Kind::Gauge, &rule_labels(rule), holds.into());
        }
        let name = "ilb_rule_backends";
        let help =
            "Servers of the rule by what its health check says of them; none of them without one.";
        self.family(name, Kind::Gauge, help);
        for rule in configuration.rules.values() {
            if rule.health_check.is_none() {
                continue;
            }
            for (state, word, _) in STATES {
                let is = |server: &&Server| Health::of(view, rule, server).state == *state;
                let count = servers(rule).iter().filter(is).count() as u64;
                let labels = [("rule", Cow::from(&rule.name)), ("state", Cow::from(*word))];
                self.line(name, Kind::Gauge, &labels, count);
            }
        }
    }

    /// What health checks say of servers, those of them that are tested.
    fn health(&mut self, scrape: &Scrape) {
        let known: HashMap<(&str, &str), &ServerHealth> = scrape
            .health
            .iter()
            .map(|health| ((health.rule.as_str(), health.server.as_str()), health))
            .collect();
        let result = |rule: &Rule, server: &Server| {
            let health = known.get(&(rule.name.as_str(), server.id.as_str()))?;
            health.result.as_ref()
        };
        let view = &scrape.view;
        let (up, health) = ("ilb_backend_up", "ilb_backend_health");
        let (changes, took) = (
            "ilb_backend_health_changes",
            "ilb_backend_check_duration_seconds",
        );
        let help = "1 while the health check lets the server take new connections.";
        self.family(up, Kind::Gauge, help);
        self.checked(scrape, |writer, rule, server| {
            let value = Health::of(view, rule, server).up.into();
            writer.line(up, Kind::Gauge, &server_labels(rule, server), value);
        });
        let help = "State of the server, and layer and code of its last test.";
        self.family(health, Kind::Info, help);
        self.checked(scrape, |writer, rule, server| {
            let code = result(rule, server);
            let code = code.map_or_else(String::new, |r| format!("{}/{}", r.layer, r.code));
            let state = Health::of(view, rule, server).state.name();
            let mut labels = server_labels(rule, server).to_vec();
            labels.extend([("state", Cow::from(state)), ("code", Cow::from(code))]);
            writer.line(health, Kind::Info, &labels, 1);
        });
        let help = "Changes of the server's state.";
        self.family(changes, Kind::Counter, help);
        self.checked(scrape, |writer, rule, server| {
            let value = Health::of(view, rule, server).changes;
            writer.line(changes, Kind::Counter, &server_labels(rule, server), value);
        });
        self.family(took, Kind::Gauge, "How long the server's last test took.");
        self.checked(scrape, |writer, rule, server| {
            if let Some(result) = result(rule, server) {
                let (seconds, micros) = (result.duration / 1_000_000, result.duration % 1_000_000);
                let value = format_args!("{seconds}.{micros:06}").to_string();
                writer.sample(took, "", &server_labels(rule, server), value);
            }
        });
    }

    /// Does something for every server of every rule that has a health check.
    fn checked(&mut self, scrape: &Scrape, mut each: impl FnMut(&mut Self, &Rule, &Server)) {
        let configuration = &scrape.view.state.configuration;
        let rules = configuration.rules.values();
        for rule in rules.filter(|rule| rule.health_check.is_some()) {
            let group = configuration.group_of(rule);
            for server in group.into_iter().flat_map(|group| &group.servers) {
                if !self.listening {
                    return;
                }
                each(self, rule, server);
                if self.text.len() >= PIECE {
                    self.flush();
                }
            }
        }
    }

    fn servers(&mut self, scrape: &Scrape) {
        type Gauge = (&'static str, &'static str, fn(&Server, &Counters) -> u64);
        let gauges: &[Gauge] = &[
            (
                "connections_active",
                "Connections that are open.",
                |_, c| c.connections_open,
            ),
            (
                "connections_inactive",
                "Entries of the connection table that begin or end.",
                |_, c| c.connections_total.saturating_sub(c.connections_open),
            ),
            ("weight", "Share of new connections.", |server, _| {
                server.weight.into()
            }),
            (
                "enabled",
                "1 while the server takes new connections.",
                |server, _| server.enabled.into(),
            ),
        ];
        for (name, help, value) in gauges {
            let name = format!("ilb_backend_{name}");
            self.family(&name, Kind::Gauge, help);
            self.backends(scrape, &name, Kind::Gauge, value);
        }
        for (name, help, value) in BOTH {
            let name = format!("ilb_backend_{name}");
            self.family(&name, Kind::Counter, help);
            self.backends(scrape, &name, Kind::Counter, |_, counters| value(counters));
        }
    }

    fn backends(
        &mut self,
        scrape: &Scrape,
        name: &str,
        kind: Kind,
        value: impl Fn(&Server, &Counters) -> u64,
    ) {
        let configuration = &scrape.view.state.configuration;
        for rule in configuration.rules.values() {
            let group = configuration.group_of(rule);
            for server in group.into_iter().flat_map(|group| &group.servers) {
                if !self.listening {
                    return;
                }
                let counters = scrape.numbers.of(rule.number, server.number);
                let labels = server_labels(rule, server);
                self.line(name, kind, &labels, value(server, &counters));
            }
        }
    }
}

/// What is believed of a server of a rule.
struct Health {
    state: HealthState,
    /// Whether it may take new connections, as far as that is concerned.
    up: bool,
    changes: u64,
}

impl Health {
    fn of(view: &View, rule: &Rule, server: &Server) -> Health {
        let check = view.state.configuration.check_of(rule);
        let known = view.book.of(rule.number, server.number);
        let tested = rule.enabled && server.enabled;
        let changes = known.map_or(0, |news| news.changes);
        match (check, known.filter(|_| tested)) {
            (None, _) => Health {
                state: HealthState::UnInit,
                up: true,
                changes: 0,
            },
            (Some(_), Some(news)) => Health {
                state: news.state,
                up: news.up,
                changes,
            },
            (Some(check), None) => Health {
                state: match tested {
                    true => HealthState::UnInit,
                    false => HealthState::Disabled,
                },
                up: tested && !check.alpha,
                changes,
            },
        }
    }
}

fn rule_labels(rule: &Rule) -> [(&'static str, Cow<'_, str>); 1] {
    [("rule", Cow::from(&rule.name))]
}

/// The names that node_exporter has, of the rule's first VIP, and ours. A server without ports has those of the rule.
fn server_labels<'a>(rule: &'a Rule, server: &'a Server) -> [(&'static str, Cow<'a, str>); 7] {
    let vip = rule.vips.first();
    let local = vip.map_or_else(String::new, |vip| vip.address.to_string());
    let ports = vip.map_or_else(String::new, |vip| vip.ports.to_string());
    let remote = server
        .ports
        .map_or_else(|| ports.clone(), |ports| ports.to_string());
    let protocol = vip.map_or_else(String::new, |vip| vip.protocol.to_string());
    [
        ("rule", Cow::from(&rule.name)),
        ("server", Cow::from(&server.id)),
        ("local_address", Cow::from(local)),
        ("local_port", Cow::from(ports)),
        ("remote_address", Cow::from(server.address.to_string())),
        ("remote_port", Cow::from(remote)),
        ("proto", Cow::from(protocol.to_uppercase())),
    ]
}

/// A label's value, with what both formats want escaped.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}
