//! A server of a rule, compiled.

use std::sync::Arc;

use super::Vip;
use crate::address::Addr;
use crate::counters::Account;
use crate::spec::{PortMap, ServerId};
use crate::tunnel::Encapsulation;

/// A server of a rule, compiled.
#[derive(Debug, Clone)]
pub struct Target {
    /// Index of its rule in [`super::Snapshot::rules`].
    pub rule: u32,
    /// The server's id.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: Addr,
    /// How ports map.
    pub ports: PortMap,
    /// Whether it takes new connections.
    pub accepting: bool,
    /// Whether it does not answer.
    pub dead: bool,
    /// Its counters.
    pub account: Arc<Account>,
    /// Its lane: a number that no other server of a rule ever had in this process.
    pub lane: u32,
    /// Its number among the candidates of the rule's selector.
    pub(super) candidate: Option<u32>,
    /// What stands for it and its rule in traces, the same on both nodes; 0 if the rule's connections leave none.
    pub mark: u64,
    /// TUN: what goes before its packets.
    pub encapsulation: Option<Arc<Encapsulation>>,
}

impl Target {
    /// Whether it is a candidate for new connections, thresholds aside: accepting, alive, and of a weight above 0.
    pub fn takes_new(&self) -> bool {
        self.candidate.is_some()
    }

    /// The server's port for a port of this VIP. A VIP of any protocol keeps ports as they are, and ICMP has none.
    #[inline(always)]
    pub fn port(&self, vip: &Vip, vip_port: u16) -> u16 {
        match self.ports {
            _ if !vip.protocol.has_ports() => vip_port,
            PortMap::Same => vip_port,
            PortMap::Collapse(port) => port,
            PortMap::Shift(first) => first.wrapping_add(vip_port.wrapping_sub(vip.ports.first)),
        }
    }
}
