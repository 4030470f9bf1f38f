//! What is wrong with a rule or a server in itself, if anything.

use super::CompileError;
use crate::spec::{PortMap, PortRange, Protocol, RuleSpec, ServerSpec, Topology};
use crate::table;

/// Checks a rule without its servers.
pub(super) fn rule(spec: &RuleSpec) -> Result<(), CompileError> {
    id(spec, "rule", spec.id, table::MAX_RULE_ID)?;
    let count = |what, count, allowed| CompileError::Count {
        rule: spec.name.clone(),
        what,
        count,
        allowed,
    };
    let Some(vip) = spec.vips.first().filter(|_| spec.vips.len() <= 256) else {
        return Err(count("VIPs", spec.vips.len(), "1 to 256"));
    };
    let v4 = spec.proxy_src.iter().filter(|a| a.is_ipv4()).count();
    let all = spec.proxy_src.len();
    let (counted, sources, allowed) = match spec.topology {
        Topology::Nat => (all, 1..=10, "1 to 10"),
        // Whether there is one of each family that is needed is seen with each server.
        Topology::Tun => (v4.max(all - v4), 0..=10, "up to 10 of each family"),
        Topology::Dsr | Topology::HalfNat => (all, 0..=0, "none"),
    };
    if !sources.contains(&counted) {
        return Err(count("proxy-src addresses", counted, allowed));
    }
    let vips = spec.vips.iter().map(|vip| vip.address);
    let servers = spec.servers.iter().map(|server| server.address);
    let others = spec.proxy_src.iter().copied().chain(servers);
    // A tunnel's outer packets may be of another family than what they carry.
    let others = others.filter(|_| spec.topology != Topology::Tun);
    for address in vips.chain(others) {
        if address.is_ipv4() != vip.address.is_ipv4() {
            return Err(CompileError::Family {
                rule: spec.name.clone(),
                address,
                vip: vip.address,
            });
        }
    }
    let most = if vip.address.is_ipv4() { 32 } else { 128 };
    if let Some(persistence) = spec.persistence
        && persistence.mask > most
    {
        return Err(CompileError::PrefixLength {
            rule: spec.name.clone(),
            address: vip.address,
            len: persistence.mask,
        });
    }
    let udp = spec.vips.iter().all(|vip| vip.protocol == Protocol::Udp);
    if spec.one_packet && (!udp || spec.topology.has_reverse()) {
        return Err(CompileError::OnePacket {
            rule: spec.name.clone(),
        });
    }
    Ok(())
}

fn id(rule: &RuleSpec, what: &'static str, id: u32, most: u32) -> Result<(), CompileError> {
    if (1..=most).contains(&id) {
        return Ok(());
    }
    Err(CompileError::Id {
        rule: rule.name.clone(),
        what,
        id,
        most,
    })
}

/// Checks a server of a rule.
pub(super) fn server(rule: &RuleSpec, server: &ServerSpec) -> Result<(), CompileError> {
    id(rule, "server", server.id, table::MAX_SERVER_ID)?;
    if matches!(rule.topology, Topology::Dsr | Topology::Tun) && server.ports != PortMap::Same {
        return Err(CompileError::DsrPorts {
            rule: rule.name.clone(),
            server: server.name.clone(),
        });
    }
    let with_ports = rule.vips.iter().filter(|vip| vip.protocol.has_ports());
    for PortRange { first, last } in with_ports.map(|vip| vip.ports) {
        let to = match server.ports {
            PortMap::Shift(to) => to,
            PortMap::Same | PortMap::Collapse(_) => first,
        };
        if first > last || to.checked_add(last - first).is_none() {
            return Err(CompileError::Ports {
                rule: rule.name.clone(),
                server: server.name.clone(),
                first,
                last,
                to,
            });
        }
    }
    Ok(())
}
