//! The keys of a document, with their aliases: those of `lbadm` and of the D-Bus interface.

use crate::words::Word;

/// What a document consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Group,
    HealthCheck,
    Rule,
    Vrrp,
    Kept,
}

pub(super) const SECTIONS: &[Word<Section>] = &[
    (Section::Group, "group", &["servergroup", "sg"]),
    (Section::HealthCheck, "healthcheck", &["hc", "health-check"]),
    (Section::Rule, "rule", &["rl"]),
    (Section::Vrrp, "vrrp", &[]),
    (Section::Kept, "kept", &[]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupKey {
    Servers,
    Source,
}

pub(super) const GROUP_KEYS: &[Word<GroupKey>] = &[
    (GroupKey::Servers, "servers", &["server"]),
    (GroupKey::Source, "source", &["discover"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerKey {
    Address,
    Host,
    Port,
    Weight,
    MaxConnections,
    MinConnections,
    Tier,
    Enabled,
    Id,
    Place,
    Found,
}

pub(super) const SERVER_KEYS: &[Word<ServerKey>] = &[
    (ServerKey::Address, "address", &["server", "ip"]),
    (ServerKey::Host, "host", &["host-name"]),
    (ServerKey::Port, "port", &["ports"]),
    (ServerKey::Weight, "weight", &[]),
    (
        ServerKey::MaxConnections,
        "max-conn",
        &["max-connections", "u-threshold"],
    ),
    (
        ServerKey::MinConnections,
        "min-conn",
        &["min-connections", "l-threshold"],
    ),
    (ServerKey::Tier, "tier", &["priority"]),
    (ServerKey::Enabled, "enabled", &[]),
    (ServerKey::Id, "id", &[]),
    (ServerKey::Place, "place", &[]),
    (ServerKey::Found, "found", &[]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VipKey {
    Vip,
    Port,
    Protocol,
}

pub(super) const VIP_KEYS: &[Word<VipKey>] = &[
    (VipKey::Vip, "vip", &["address"]),
    (VipKey::Port, "port", &["ports"]),
    (VipKey::Protocol, "protocol", &["prot"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleKey {
    Enabled,
    Vip,
    Port,
    Protocol,
    Vips,
    Clients,
    Algorithm,
    Flags,
    Topology,
    Tunnel,
    GuePort,
    TunnelChecksum,
    ProxySrc,
    Group,
    HealthCheck,
    HealthCheckPort,
    Mask,
    PersistTimeout,
    ConnDrain,
    NatTimeout,
    Timeouts,
    OnePacket,
    Orphans,
    Sync,
    SlowStart,
    MaxNewFlows,
    Quorum,
    Hysteresis,
    PanicMode,
    PanicThreshold,
    Notify,
    ManageAddresses,
}

/// In the order in which they are written.
pub(super) const RULE_KEYS: &[Word<RuleKey>] = &[
    (RuleKey::Enabled, "enabled", &[]),
    (RuleKey::Vip, "vip", &[]),
    (RuleKey::Port, "port", &["ports"]),
    (RuleKey::Protocol, "protocol", &["prot"]),
    (RuleKey::Vips, "vips", &[]),
    (RuleKey::Clients, "clients", &["client", "src"]),
    (RuleKey::Algorithm, "algorithm", &["lbalg", "algo"]),
    (RuleKey::Flags, "flags", &["flag"]),
    (RuleKey::Topology, "topology", &["type", "topo"]),
    (RuleKey::Tunnel, "tunnel", &["tun-type"]),
    (RuleKey::GuePort, "gue-port", &["tun-port"]),
    (RuleKey::TunnelChecksum, "tunnel-checksum", &["tun-csum"]),
    (RuleKey::ProxySrc, "proxy-src", &["nat-src"]),
    (RuleKey::Group, "group", &["servergroup", "sg"]),
    (
        RuleKey::HealthCheck,
        "healthcheck",
        &["hc-name", "hcn", "hc", "health-check"],
    ),
    (
        RuleKey::HealthCheckPort,
        "healthcheck-port",
        &["hc-port", "hcp"],
    ),
    (RuleKey::Mask, "pmask", &["persist", "persistence"]),
    (RuleKey::PersistTimeout, "persist-timeout", &[]),
    (RuleKey::ConnDrain, "conn-drain", &[]),
    (RuleKey::NatTimeout, "nat-timeout", &[]),
    (RuleKey::Timeouts, "timeouts", &[]),
    (RuleKey::OnePacket, "one-packet", &["ops"]),
    (RuleKey::Orphans, "orphans", &[]),
    (RuleKey::Sync, "sync", &[]),
    (RuleKey::SlowStart, "slow-start", &[]),
    (RuleKey::MaxNewFlows, "max-new-flows", &[]),
    (RuleKey::Quorum, "quorum", &[]),
    (RuleKey::Hysteresis, "hysteresis", &[]),
    (RuleKey::PanicMode, "panic-mode", &[]),
    (RuleKey::PanicThreshold, "panic-threshold", &[]),
    (RuleKey::Notify, "notify", &[]),
    (RuleKey::ManageAddresses, "manage-addresses", &[]),
];
