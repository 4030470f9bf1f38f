//! The lab, the end-to-end tests, the demonstration and the benchmarks of ilb.
//!
//! This crate owns throw-away networks ([`lab`]) made of network namespaces and veth pairs in which the *real*
//! programs run: `ilb-fastpath`, `ilb-svcmgr`, `lbadm`, a private D-Bus daemon, nginx servers and curl clients; and
//! the tools that measure what comes out ([`load`], [`transfer`], [`udp`], [`capture`], [`noise`]).
//!
//! It refuses to be part of the product: nothing of ilb depends on it, it looks at the product only from outside
//! (packets, D-Bus, exit codes, files), and it never touches a network interface of the machine it runs on.
//!
//! It is test code, and speaks like it: a lab that cannot be built is a failed test, so functions here panic and
//! say what they tried, unless they return a `Result`.
#![forbid(unsafe_code)]

pub mod bench;
pub mod capture;
pub mod clock;
pub mod cut;
pub mod disk;
pub mod flood;
pub mod fragments;
pub mod held;
pub mod joined;
pub mod keepalived;
pub mod lab;
pub mod load;
pub mod machine;
pub mod noise;
pub mod pair;
pub mod peers;
pub mod raw;
pub mod sctp;
pub mod service;
pub mod shell;
pub mod site;
pub mod strain;
pub mod transfer;
pub mod tunnel;
pub mod tutorial;
pub mod udp;

/// The two address families that everything is tried with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// That of an address.
    pub fn of(address: std::net::IpAddr) -> Family {
        match address {
            std::net::IpAddr::V4(_) => Family::V4,
            std::net::IpAddr::V6(_) => Family::V6,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// How a rule hands packets to its servers, as `lbadm -m type=` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    /// Only the next hop changes; servers hold the VIP and answer clients directly.
    Dsr,
    /// The destination is rewritten; replies come back through the balancer.
    HalfNat,
    /// Both addresses are rewritten.
    Nat,
}

impl Topology {
    /// All three.
    pub const ALL: [Topology; 3] = [Topology::Dsr, Topology::HalfNat, Topology::Nat];
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Topology::Dsr => "DSR",
            Topology::HalfNat => "HALF-NAT",
            Topology::Nat => "NAT",
        })
    }
}
