//! Which health check the servers of a rule have to pass, and at which of their ports.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::healthcheck::{CheckPort, HealthCheck};
use crate::port::PortRange;
use crate::rule::{Rule, Vip};
use crate::server::Server;

/// A health check as a rule uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheckUse {
    /// Name of the health check, spelled as the check is.
    pub name: String,
    /// Where servers are probed; none is as the check says, and if it says nothing any of the server's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<CheckPort>,
}

/// Whether a word says that a rule has no health check.
pub fn is_none(name: &str) -> bool {
    name.eq_ignore_ascii_case("none")
}

/// Changes the health check of a rule as far as something is said. Whether the check exists is not looked at.
///
/// # Errors
/// [`ModelError::Invalid`], or [`ModelError::Missing`] for a port without a check.
pub(crate) fn change(
    rule: &mut Rule,
    name: Option<&str>,
    port: Option<&str>,
) -> Result<(), ModelError> {
    let port = port
        .map(|text| CheckPort::parse("hc-port", text))
        .transpose()?;
    if let Some(name) = name.filter(|name| is_none(name)) {
        if let Some(port) = port {
            return Err(ModelError::invalid(
                "hc-port",
                port.to_string(),
                format!("is given, but hc-name is {name}"),
                "leave it out, or name a health check",
            ));
        }
        rule.health_check = None;
        return Ok(());
    }
    match (name, &mut rule.health_check) {
        (Some(name), now) => {
            let before = now.as_ref().and_then(|check| check.port);
            *now = Some(HealthCheckUse {
                name: name.to_string(),
                port: port.or(before),
            });
        }
        (None, Some(now)) => now.port = port.or(now.port),
        (None, None) if port.is_some() => {
            return Err(ModelError::Missing {
                field: "hc-name",
                allowed: "hc-port belongs to a health check; name it, such as hc-name=web"
                    .to_string(),
            });
        }
        (None, None) => {}
    }
    Ok(())
}

/// Checks that a health check can be carried out on these servers of a rule, as far as the rule uses one.
///
/// # Errors
/// [`ModelError::CheckMismatch`].
pub(crate) fn check_use(
    rule: &Rule,
    check: &HealthCheck,
    servers: &[Server],
) -> Result<(), ModelError> {
    let mismatch = |problem: String| {
        Err(ModelError::CheckMismatch {
            rule: rule.name.clone(),
            check: check.name.clone(),
            problem,
        })
    };
    let said = rule.health_check.as_ref().and_then(|used| used.port);
    let named = matches!(said.or(check.port), Some(CheckPort::Number(_)))
        || check.test.kind().usual_port().is_some();
    let ported = |vip: &Vip| vip.protocol.has_ports() && vip.ports != PortRange::ANY;
    if check.needs_port() && !named && !rule.vips.iter().any(ported) {
        return mismatch(
            "the rule has no ports of its own, so say which one is probed: hc-port=PORT"
                .to_string(),
        );
    }
    if check.load.is_some() && !rule.algorithm.shares_by_weight() {
        return mismatch(format!(
            "it changes shares by load, but lbalg={} does not share by weight: use another one, such as wrr, wlc or mh",
            rule.algorithm
        ));
    }
    for server in servers {
        if let Err(error) = check.check_server(server.address) {
            return mismatch(format!("server {}: {error}", server.id));
        }
    }
    Ok(())
}
