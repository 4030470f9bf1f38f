//! `real_server`, within a virtual server.

use std::net::IpAddr;

use super::super::report::Kind;
use super::super::service::Backend;
use super::checkers;
use super::tree::Statement;
use super::values::{method, number, port_of, too_many};
use super::virtual_server::{Server, note_default};
use super::{Reader, said};

/// What a real server may say, for hints.
const KNOWN_REAL: &[&str] = &[
    "weight",
    "lb_kind",
    "lvs_method",
    "uthreshold",
    "lthreshold",
    "notify_up",
    "notify_down",
    "smtp_alert",
    "virtualhost",
    "snmp_name",
    "alpha",
    "connect_timeout",
    "retry",
    "delay_before_retry",
    "warmup",
    "delay_loop",
    "inhibit_on_failure",
    "HTTP_GET",
    "SSL_GET",
    "TCP_CHECK",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "FILE_CHECK",
    "BFD_CHECK",
];

impl Reader<'_> {
    /// `real_server ADDRESS [PORT] { … }`.
    pub(super) fn real_server(&mut self, block: &Statement, server: &mut Server) {
        let place = match block.values() {
            [address] => address.parse::<IpAddr>().ok().map(|a| (a, Ok(0))),
            [address, port] => address.parse::<IpAddr>().ok().map(|a| (a, port_of(port))),
            _ => None,
        };
        let Some((address, port)) = place else {
            let note = "a real server is an address and a port";
            self.say(block, Kind::Wrong, note);
            return;
        };
        let port = match port {
            Ok(port) => port,
            Err(problem) => {
                self.say(block, Kind::Wrong, problem);
                return;
            }
        };
        let mut backend = Backend {
            place: block.place.clone(),
            what: block.what(),
            address,
            port,
            method: server.service.method,
            weight: server.weight,
            upper: 0,
            lower: 0,
            sorry: false,
        };
        let mut scripts = [None, None];
        let mut defaults = server.defaults.clone();
        let mut tests: Vec<&Statement> = Vec::new();
        for statement in block.inner() {
            if let Some(problem) = too_many(statement) {
                self.say(statement, Kind::Wrong, problem);
                continue;
            }
            let mut count = |field: &mut u32, most| match number(statement, most) {
                Ok(n) => *field = n,
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            };
            match statement.key() {
                "weight" => count(&mut backend.weight, 1 << 31),
                "uthreshold" => count(&mut backend.upper, u32::MAX),
                "lthreshold" => count(&mut backend.lower, u32::MAX),
                "lb_kind" | "lvs_method" => match method(statement.values()) {
                    Ok(method) => backend.method = Some(method),
                    Err(problem) => self.say(statement, Kind::Wrong, problem),
                },
                "notify_up" => scripts[0] = self.script(statement),
                "notify_down" => scripts[1] = self.script(statement),
                "smtp_alert" => self.say(
                    statement,
                    Kind::Unneeded,
                    "ilb sends no mail; 'lbadm monitor' tells of changes",
                ),
                "snmp_name" => self.say(
                    statement,
                    Kind::Unneeded,
                    "statistics go by the id of the server",
                ),
                key if checkers::is_checker(key) => tests.push(statement),
                _ => match defaults.take(statement) {
                    Some(Ok(())) => note_default(statement, &mut server.pool),
                    Some(Err(problem)) => self.say(statement, Kind::Wrong, problem),
                    None => self.unknown(statement, KNOWN_REAL),
                },
            }
        }
        let check = self.checks_of(&tests, &defaults);
        server
            .pool
            .server(said(block, ""), scripts, defaults.inhibit);
        server.checks.push((said(block, ""), check));
        server.service.servers.push(backend);
    }
}
