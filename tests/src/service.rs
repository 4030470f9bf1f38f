//! Rules as the tests and the demonstration need them, made with `lbadm`.

use std::net::SocketAddr;

use crate::lab::Lab;
use crate::{Family, Topology};

/// A rule to be made in a lab. `number` gives its VIP, its `proxy-src` and the names `rule<number>`, `group<number>`.
#[derive(Debug, Clone)]
pub struct Service {
    /// See [`Service`]; 0..=49.
    pub number: u8,
    /// How packets get to servers.
    pub topology: Topology,
    /// Address family of VIP and servers.
    pub family: Family,
    /// As `lbadm -m lbalg=` takes it.
    pub algorithm: &'static str,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// A port or a range `a-b`.
    pub ports: &'static str,
    /// What follows each server's address: `` or `:port` or `:a-b`.
    pub server_ports: &'static str,
}

impl Service {
    /// HTTP on port 80 by round robin.
    pub fn http(number: u8, topology: Topology, family: Family) -> Service {
        Service {
            number,
            topology,
            family,
            algorithm: "roundrobin",
            protocol: "tcp",
            ports: "80",
            server_ports: "",
        }
    }

    /// UDP on port 7 by round robin.
    pub fn echo(number: u8, topology: Topology, family: Family) -> Service {
        Service {
            protocol: "udp",
            ports: "7",
            ..Service::http(number, topology, family)
        }
    }

    /// The same with another algorithm.
    pub fn algorithm(self, algorithm: &'static str) -> Service {
        Service { algorithm, ..self }
    }

    /// Name of its rule.
    pub fn rule(&self) -> String {
        format!("rule{}", self.number)
    }

    /// Name of its server group.
    pub fn group(&self) -> String {
        format!("group{}", self.number)
    }

    /// The words after `lbadm` that make its group.
    pub fn group_line(&self, lab: &Lab) -> String {
        let servers = lab.server_specs(self.family, self.server_ports);
        format!("create-servergroup -s server={servers} {}", self.group())
    }

    /// The words after `lbadm` that make its rule, enabled.
    pub fn rule_line(&self, lab: &Lab) -> String {
        let source = match self.topology {
            Topology::Nat => format!(",proxy-src={}", lab.proxy_source(self.family, self.number)),
            Topology::HalfNat | Topology::Dsr => String::new(),
        };
        format!(
            "create-rule -e -i vip={},port={},protocol={} -m lbalg={},type={}{source} -o servergroup={} {}",
            lab.vip(self.family, self.number),
            self.ports,
            self.protocol,
            self.algorithm,
            self.topology,
            self.group(),
            self.rule()
        )
    }

    /// Makes it; returns where clients find it (at its first port).
    #[track_caller]
    pub fn create(&self, lab: &Lab) -> SocketAddr {
        let vip = lab.vip(self.family, self.number);
        if self.topology == Topology::Dsr {
            lab.dsr_address(vip);
        }
        lab.node.lbadm(&self.group_line(lab));
        lab.node.lbadm(&self.rule_line(lab));
        let port = self.ports.split('-').next().unwrap_or_default();
        (vip, port.parse().expect("a rule's port is a number")).into()
    }

    /// HTTP in all topologies and families: six services, numbered from `first`.
    #[track_caller]
    pub fn all_six(lab: &Lab, first: u8) -> Vec<(Service, SocketAddr)> {
        let mut services = Vec::new();
        for topology in Topology::ALL {
            for family in Family::BOTH {
                let service = Service::http(first + services.len() as u8, topology, family);
                let target = service.create(lab);
                services.push((service, target));
            }
        }
        services
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} over {}, {}",
            self.topology, self.family, self.algorithm
        )
    }
}
