//! What is to be tested.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use libilb::health::HealthState;
use libilb::healthcheck::{CheckPort, HealthCheck};
use libilb::rule::{Protocol, Topology};
use libilb::tunnel::Tunnel;

use crate::random::Random;

/// A server in a rule, by their durable numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Number of the rule.
    pub rule: u32,
    /// Number of the server.
    pub server: u32,
}

/// A server in a rule with its health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who it is. One engine tests each once.
    pub id: Id,
    /// Name of the rule.
    pub rule: String,
    /// Id of the server.
    pub server: String,
    /// How it is tested.
    pub check: Arc<HealthCheck>,
    /// The server's address.
    pub address: IpAddr,
    /// The rule's choice of a port; that of the check where it has none.
    pub port: Option<CheckPort>,
    /// The server's ports: where connections of the rule go to.
    pub ports: Ports,
    /// The rule's first VIP of the server's family: where tests by a way go, and for scripts.
    pub vip: IpAddr,
    /// The rule's first protocol, for scripts.
    pub protocol: Protocol,
    /// The rule's topology, for scripts.
    pub topology: Topology,
    /// Whether it is tested at all: rule and server are enabled.
    pub enabled: bool,
    /// How packets get there, if not by the routes of this machine.
    pub via: Option<Via>,
    /// What was believed of it before this engine began: who was down stays down until it has proved otherwise.
    pub remembered: Option<HealthState>,
}

/// Ports of a server, both included; `first` 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// The way of a test to a server that serves the VIP itself (DSR, TUN): the test goes to the VIP, as client traffic does, and
/// this says how a packet for the VIP gets to this very server. Without one it goes to the server's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// In frames for the server's link address, or that of the router before it.
    Link,
    /// In the packets of a tunnel to the server's address.
    Tunnel(Tunnel),
}

impl Target {
    /// The port that is asked, if it does not change: the rule's choice, else the check's, else the server's first, else
    /// the usual one.
    pub fn fixed_port(&self) -> Option<u16> {
        match self.chosen() {
            Some(CheckPort::Number(port)) => Some(port),
            Some(CheckPort::Any) if self.ports.last > self.ports.first => None,
            _ => Some(self.ports.first).filter(|port| *port > 0).or(self
                .check
                .test
                .kind()
                .usual_port()),
        }
        .filter(|_| self.check.needs_port())
    }

    fn chosen(&self) -> Option<CheckPort> {
        self.port.or(self.check.port)
    }

    /// The address and port that are asked this time; port 0 if there is none.
    pub(crate) fn place(&self, random: &mut Random) -> SocketAddr {
        let address = self.check.address.unwrap_or(self.address);
        let port = self.fixed_port().unwrap_or_else(|| match self.chosen() {
            Some(CheckPort::Any) => {
                let span = u64::from(self.ports.last - self.ports.first);
                let more = u16::try_from(random.up_to(span)).unwrap_or(0);
                self.ports.first + more
            }
            _ => 0,
        });
        SocketAddr::new(address, port)
    }
}
