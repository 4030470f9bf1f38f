//! A configuration as commands of lbadm: server groups, then health checks, VRRP instances, rules.
//!
//! `lbadm import-config` reads them, and so does a shell. What is the default is not written. Nor are ids of servers that a
//! new group would give them anyway; others are, so that what refers to them goes on to mean the same. The same goes for the
//! places of servers in their group, so that a node that was restored hashes as the one that was exported.

use std::fmt::Write;

use crate::healthcheck::{HealthCheck, HealthCheckSettings};
use crate::import::lines::quote;
use crate::model::Configuration;
use crate::rule::{Orphans, PANIC_THRESHOLD, Rule, Synchronise};
use crate::server::{GroupPlace, Server, ServerSettings, ServerSpec, Target};
use crate::servergroup::ServerGroup;
use crate::vrrp::{VrrpInstance, VrrpSettings};

/// Most servers of one command.
const SERVERS: usize = 1000;

/// Everything. `version` is named in the first line.
pub fn commands(configuration: &Configuration, version: &str) -> String {
    let mut out = format!("# exported by lbadm {version}; 'lbadm import-config FILE' reads it\n");
    for group in configuration.groups.values() {
        out.push('\n');
        self::group(&mut out, group);
    }
    for check in configuration.checks.values() {
        out.push('\n');
        self::check(&mut out, check);
    }
    for instance in configuration.vrrp.values() {
        out.push('\n');
        self::vrrp(&mut out, instance);
    }
    for rule in configuration.rules.values() {
        out.push('\n');
        self::rule(&mut out, rule);
    }
    out
}

/// A command with its words; long ones go on over several lines.
fn command(out: &mut String, words: &[Vec<String>]) {
    let parts: Vec<String> = words
        .iter()
        .map(|part| {
            let words: Vec<String> = part.iter().map(|word| quote(word)).collect();
            words.join(" ")
        })
        .collect();
    let length: usize = parts.iter().map(|part| part.len() + 1).sum();
    let between = if length > 100 { " \\\n  " } else { " " };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "lbadm {}", parts.join(between));
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_string).into()
}

fn group(out: &mut String, group: &ServerGroup) {
    let mut chunks = group.servers.chunks(SERVERS);
    let mut first = vec![words(["create-servergroup"])];
    let mut next = 0;
    let mut places = group.places_told().into_iter();
    let mut server = |server: &Server| self::server(server, places.next().flatten(), &mut next);
    first.extend(chunks.next().unwrap_or_default().iter().map(&mut server));
    first.extend(group.source.iter().map(|s| words(["-d", &s.words()])));
    first.push(words([&group.name]));
    command(out, &first);
    for more in chunks {
        let mut add = vec![words(["add-server"])];
        add.extend(more.iter().map(&mut server));
        add.push(words([&group.name]));
        command(out, &add);
    }
    let disabled: Vec<&Server> = group.servers.iter().filter(|s| !s.enabled).collect();
    for some in disabled.chunks(SERVERS) {
        let ids = some.iter().map(|s| words([&s.id]));
        let all: Vec<Vec<String>> = std::iter::once(words(["disable-server"]))
            .chain(ids)
            .collect();
        command(out, &all);
    }
}

/// A server. `next` is the `<n>` of the id that it would get by itself.
fn server(server: &Server, place: Option<GroupPlace>, next: &mut u32) -> Vec<String> {
    let index = server
        .id
        .rsplit_once('.')
        .and_then(|(_, n)| n.parse::<u32>().ok());
    let usual = index == Some(*next);
    *next = index.map_or(*next, |index| index.saturating_add(1));
    let some = |number: u32| (number != 0).then_some(number);
    let spec = ServerSpec {
        target: Target::Address(server.address),
        host_name: server.host_name.clone(),
        ports: server.ports,
        limits: ServerSettings {
            weight: (server.weight != 1).then_some(server.weight),
            max_connections: some(server.max_connections),
            min_connections: some(server.min_connections),
            tier: (server.tier != 0).then_some(server.tier),
        },
        id: (!usual).then(|| server.id.clone()),
        place,
        found: server.found,
    };
    words(["-s", &format!("server={spec}")])
}

fn check(out: &mut String, check: &HealthCheck) {
    let settings = HealthCheckSettings {
        name: None,
        ..HealthCheckSettings::from(check).brief()
    };
    let all = [
        words(["create-healthcheck"]),
        words(["-h", &settings.words()]),
        words([&check.name]),
    ];
    command(out, &all);
}

fn vrrp(out: &mut String, instance: &VrrpInstance) {
    let settings = VrrpSettings::from(instance).brief();
    let all = [
        words(["create-vrrp"]),
        words(["-i", &settings.words()]),
        words([&instance.name]),
    ];
    command(out, &all);
}

fn rule(out: &mut String, rule: &Rule) {
    let mut all = vec![words(["create-rule"])];
    if rule.enabled {
        all[0].push("-e".to_string());
    }
    for (n, vip) in rule.vips.iter().enumerate() {
        let mut text = format!("vip={}", vip.address);
        if vip.protocol.has_ports() {
            let _ = write!(text, ",port={}", vip.ports);
        }
        let _ = write!(text, ",protocol={}", vip.protocol);
        if n == 0 && !rule.manage_addresses {
            text.push_str(",manage-addresses=no");
        }
        all.push(words(["-i", &text]));
    }
    if !rule.clients.is_empty() {
        all.push(words(["-i", &format!("client={}", listed(&rule.clients))]));
    }
    all.push(words(["-m", &method(rule)]));
    for (event, command) in &rule.notify {
        all.push(words(["-n", &format!("{event}={command}")]));
    }
    if let Some(used) = &rule.health_check {
        let port = used
            .port
            .map_or(String::new(), |port| format!(",hc-port={port}"));
        all.push(words(["-h", &format!("hc-name={}{port}", used.name)]));
    }
    let times = times(rule);
    if !times.is_empty() {
        all.push(words(["-t", &times.join(",")]));
    }
    all.push(words([
        "-o",
        &format!("servergroup={}", rule.servergroup),
        &rule.name,
    ]));
    command(out, &all);
}

fn listed<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(",")
}

fn method(rule: &Rule) -> String {
    let mut text = format!("lbalg={},type={}", rule.algorithm, rule.topology);
    if !rule.flags.is_none() {
        let _ = write!(text, ",flags={}", rule.flags.words(rule.algorithm));
    }
    if let Some(tunnel) = rule.tunnel {
        let _ = write!(text, ",tunnel={tunnel}");
    }
    if !rule.proxy_src.is_empty() {
        let _ = write!(text, ",proxy-src={}", listed(&rule.proxy_src));
    }
    if let Some(persistence) = rule.persistence {
        let _ = write!(text, ",pmask=/{}", persistence.mask);
    }
    if rule.one_packet {
        text.push_str(",one-packet=yes");
    }
    if rule.orphans != Orphans::default() {
        let _ = write!(text, ",orphans={}", rule.orphans);
    }
    if rule.sync != Synchronise::default() {
        let _ = write!(text, ",sync={}", rule.sync);
    }
    if rule.quorum != 1 {
        let _ = write!(text, ",quorum={}", rule.quorum);
    }
    if rule.hysteresis != 0 {
        let _ = write!(text, ",hysteresis={}", rule.hysteresis);
    }
    if !rule.panic_mode.is_none() {
        let _ = write!(text, ",panic-mode={}", rule.panic_mode);
    }
    if rule.panic_threshold != PANIC_THRESHOLD {
        let _ = write!(text, ",panic-threshold={}", rule.panic_threshold);
    }
    if rule.max_new_flows != 0 {
        let _ = write!(text, ",max-new-flows={}", rule.max_new_flows);
    }
    text
}

fn times(rule: &Rule) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |key: &str, seconds: u32| {
        if seconds != 0 {
            all.push(format!("{key}={seconds}"));
        }
    };
    add("conn-drain", rule.conn_drain);
    add("nat-timeout", rule.nat_timeout);
    add("persist-timeout", rule.persistence.map_or(0, |p| p.timeout));
    add("slow-start", rule.slow_start);
    for (state, &seconds) in &rule.timeouts {
        add(state.name(), seconds);
    }
    all
}
