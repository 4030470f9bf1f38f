//! Each mistake that an administrator can make: what was asked for, which kind of error it is, and its exact words. A
//! refused request leaves the configuration as it was.

use libilb::ErrorKind::{self, *};
use libilb::ModelError;
use libilb::healthcheck::HealthCheckSettings;
use libilb::model::{Configuration, RuleSettings, ServerSettings, VipSettings};

/// Groups `web` (two IPv4 servers), `web6` (IPv6), `ported` (a port and a range) and `empty`; rules `www`, `inner` (for
/// clients of 10.0.0.0/8) and `outer` use `web` and `own`; rule `checked` uses health check `Alive` and group `probed`, none uses `spare`.
fn configured() -> Configuration {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11", "192.0.2.12:8080"])
        .unwrap();
    c.create_group("web6", &["[2001:db8::11]"]).unwrap();
    c.create_group("ported", &["192.0.2.21:8000-8002"]).unwrap();
    c.create_group::<&str>("Empty", &[]).unwrap();
    c.create_group("own", &["192.0.2.15"]).unwrap();
    c.create_group("probed", &["192.0.2.16"]).unwrap();
    c.create_rule("www", &rule()).unwrap();
    let clients = |list: &[&str]| RuleSettings {
        vip: "192.0.2.83".into(),
        servergroup: "own".into(),
        clients: list.iter().map(|c| c.to_string()).collect(),
        ..rule()
    };
    c.create_rule("inner", &clients(&["10.0.0.0/8"])).unwrap();
    c.create_check("Alive", &check("test=tcp")).unwrap();
    c.create_check("spare", &check("test=ping,source=192.0.2.1"))
        .unwrap();
    let checked = RuleSettings {
        vip: "192.0.2.84".into(),
        servergroup: "probed".into(),
        health_check: Some("ALIVE".into()),
        ..rule()
    };
    c.create_rule("checked", &checked).unwrap();
    c.create_rule("outer", &clients(&[])).unwrap();
    c
}

fn vip(vip: &str, port: &str) -> VipSettings {
    VipSettings {
        vip: vip.into(),
        port: port.into(),
        protocol: None,
    }
}

fn tun(r: &mut RuleSettings) {
    r.topology = "TUN".into();
    r.proxy_src = vec!["192.0.2.9".into()];
}

fn check(text: &str) -> HealthCheckSettings {
    let mut settings = HealthCheckSettings::default();
    settings.parse(text).unwrap();
    settings
}

fn weight(weight: u16) -> ServerSettings {
    ServerSettings {
        weight: Some(weight),
        ..ServerSettings::default()
    }
}

fn modify(
    c: &mut Configuration,
    name: &str,
    change: impl FnOnce(&mut RuleSettings),
) -> Result<(), ModelError> {
    let mut settings = RuleSettings::default();
    change(&mut settings);
    c.modify_rule(name, &settings).map(drop)
}

/// A good rule at another VIP than [`other`].
fn rule() -> RuleSettings {
    RuleSettings {
        vip: "192.0.2.80".into(),
        port: "80-90".into(),
        algorithm: "roundrobin".into(),
        topology: "HALF-NAT".into(),
        servergroup: "web".into(),
        ..RuleSettings::default()
    }
}

fn other() -> RuleSettings {
    RuleSettings {
        vip: "192.0.2.81".into(),
        port: "80".into(),
        ..rule()
    }
}

/// One case: what is done, which kind of error comes of it, and what a person reads.
type Case = (
    fn(&mut Configuration) -> Result<(), ModelError>,
    ErrorKind,
    &'static str,
);

fn create(c: &mut Configuration, change: impl FnOnce(&mut RuleSettings)) -> Result<(), ModelError> {
    let mut settings = other();
    change(&mut settings);
    c.create_rule("new", &settings).map(drop)
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Words.
    (|c| create(c, |r| r.algorithm = "roundrobbin".into()), InvalidArgument,
     "lbalg 'roundrobbin' is not known: use roundrobin (rr), wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos, hash-ip (hip), hash-ip-port (hipp) or hash-ip-vip (hipv); did you mean 'roundrobin'?"),
    (|c| create(c, |r| r.topology = "HALFNAT".into()), InvalidArgument,
     "type 'HALFNAT' is not known: use DSR (d), NAT (n), HALF-NAT (h) or TUN (t); did you mean 'HALF-NAT'?"),
    (|c| create(c, |r| r.protocol = Some("tpc".into())), InvalidArgument,
     "protocol 'tpc' is not known: use tcp, udp, sctp, icmp (icmpv6) or any; did you mean 'tcp'?"),
    // Rules that say more.
    (|c| create(c, |r| { r.port = String::new(); r.protocol = Some("sctp".into()) }), InvalidArgument,
     "port is missing: say which port clients connect to, such as port=80"),
    (|c| create(c, |r| r.protocol = Some("icmp".into())), InvalidArgument,
     "port '80' is given, but protocol is icmp: icmp and any have no ports; leave port out, or use tcp, udp or sctp"),
    (|c| create(c, |r| { r.port = String::new(); r.protocol = Some("any".into()); r.servergroup = "ported".into() }), Conflict,
     "server _ported.0 (192.0.2.21:8000-8002) of server group 'ported' does not fit rule 'new': its port is 8000-8002, but packets of protocol any keep what ports they have; leave the server's port out"),
    (|c| create(c, |r| r.more_vips = vec![vip("2001:db8::80", "80")]), InvalidArgument,
     "vip '2001:db8::80' is IPv6, but the vip 192.0.2.81 is IPv4: use one address family in a rule; make a rule for each"),
    (|c| create(c, |r| r.more_vips = vec![vip("192.0.2.81", "any")]), InvalidArgument,
     "vip '192.0.2.81 tcp port any' overlaps 192.0.2.81 tcp port 80 of the same rule: give each address, protocol and port once"),
    (|c| create(c, |r| r.more_vips = (0..256).map(|n| vip("192.0.2.82", &(n + 1).to_string())).collect()), InvalidArgument,
     "vip '257' is too many: a rule has at most 256"),
    (|c| create(c, |r| { r.servergroup = "ported".into(); r.port = "80-82".into(); r.more_vips = vec![vip("192.0.2.90", "90-91")] }), Conflict,
     "server _ported.0 (192.0.2.21:8000-8002) of server group 'ported' does not fit rule 'new': its 3 ports cannot stand for the 3,2 ports 80-82,90-91 of the rule; give no port, one port, or as many as the rule has"),
    (|c| create(c, |r| r.clients = vec!["10.0.0.0/33".into()]), InvalidArgument,
     "client '10.0.0.0/33' has no such length: use /0 to /32 with IPv4"),
    (|c| create(c, |r| r.clients = vec!["10.1.0.0/8".into()]), InvalidArgument,
     "client '10.1.0.0/8' has bits set behind its length: write 10.0.0.0/8"),
    (|c| create(c, |r| r.clients = vec!["home".into()]), InvalidArgument,
     "client 'home' is not a network: use an address, or a network such as 10.0.0.0/8 or 2001:db8::/32"),
    (|c| create(c, |r| r.clients = vec!["10.0.0.0/8".into(), "10.0.0.0/8".into()]), InvalidArgument,
     "client '10.0.0.0/8' is given twice: give each network once"),
    (|c| create(c, |r| r.clients = vec!["2001:db8::/32".into()]), InvalidArgument,
     "client '2001:db8::/32' is IPv6, but the vip 192.0.2.81 is IPv4: use one address family in a rule; make a rule for each"),
    (|c| create(c, |r| r.flags = vec!["mh-port".into()]), InvalidArgument,
     "flag 'mh-port' is given, but lbalg is roundrobin: it belongs to lbalg=mh; roundrobin has no flags"),
    (|c| create(c, |r| { r.algorithm = "mh".into(); r.flags = vec!["sh-port".into()] }), InvalidArgument,
     "flag 'sh-port' is given, but lbalg is mh: mh has mh-fallback and mh-port"),
    (|c| create(c, |r| { r.algorithm = "mh".into(); r.flags = vec!["mh-prot".into()] }), InvalidArgument,
     "flag 'mh-prot' is not known: use sh-fallback, sh-port, mh-fallback or mh-port; did you mean 'mh-port'?"),
    (|c| create(c, |r| r.tunnel = Some("gre".into())), InvalidArgument,
     "tunnel 'gre' is given, but type is HALF-NAT: only type=TUN has a tunnel; leave it out or use TUN"),
    (|c| create(c, |r| r.topology = "tun".into()), InvalidArgument,
     "proxy-src is missing: type=TUN needs 1 to 10 source addresses towards the servers, such as proxy-src=192.0.2.9"),
    (|c| create(c, |r| { tun(r); r.tunnel = Some("geneve".into()) }), InvalidArgument,
     "tunnel 'geneve' is not known: use ipip, gre or gue"),
    (|c| create(c, |r| { tun(r); r.gue_port = Some(6080) }), InvalidArgument,
     "gue-port '6080' is given, but tunnel is ipip: only tunnel=gue has a port"),
    (|c| create(c, |r| { tun(r); r.tunnel = Some("gue".into()); r.gue_port = Some(65536) }), InvalidArgument,
     "gue-port '65536' is out of range: use a UDP port from 1 to 65535, or leave it out for 6080"),
    (|c| create(c, |r| { tun(r); r.tunnel = Some("gre".into()); r.tunnel_checksum = Some("remote".into()) }), InvalidArgument,
     "tunnel-checksum 'remote' is given, but tunnel is gre: gre has none or full; only gue has remote"),
    (|c| create(c, |r| { tun(r); r.tunnel_checksum = Some("yes".into()) }), InvalidArgument,
     "tunnel-checksum 'full' is given, but tunnel is ipip: ipip has no checksum; use gre or gue, or leave it out"),
    (|c| create(c, |r| { tun(r); r.servergroup = "web6".into() }), Conflict,
     "server _web6.0 ([2001:db8::11]) of server group 'web6' does not fit rule 'new': it is IPv6, but the rule has no IPv6 proxy-src address for the outer header; give one"),
    (|c| create(c, |r| { tun(r); r.servergroup = "web".into() }), Conflict,
     "server _web.1 (192.0.2.12:8080) of server group 'web' does not fit rule 'new': its port is 8080, but with TUN the packet keeps the rule's port 80; leave the server's port out, or use NAT or HALF-NAT"),
    (|c| create(c, |r| r.pmask = Some("/33".into())), InvalidArgument,
     "pmask '/33' is not a prefix length: use /0 to /32 with IPv4, or none"),
    (|c| create(c, |r| { r.pmask = Some("24".into()); r.persist_timeout = Some(0) }), InvalidArgument,
     "persist-timeout '0' is out of range: use 1 or more seconds"),
    (|c| create(c, |r| r.persist_timeout = Some(60)), InvalidArgument,
     "persist-timeout '60' is given, but the rule is not persistent: give -p or pmask too, or leave it out"),
    (|c| create(c, |r| { r.one_packet = Some(true); r.topology = "dsr".into() }), InvalidArgument,
     "one-packet 'yes' is given, but protocol is tcp: only udp can be scheduled by the packet"),
    (|c| create(c, |r| { r.one_packet = Some(true); r.protocol = Some("udp".into()) }), InvalidArgument,
     "one-packet 'yes' is given, but type is HALF-NAT: answers would find no connection; use DSR or TUN"),
    (|c| create(c, |r| { r.one_packet = Some(true); r.topology = "dsr".into(); r.protocol = Some("udp".into()); r.pmask = Some("".into()) }), InvalidArgument,
     "one-packet 'yes' is given with persistence: each packet is a choice of its own; use one of both"),
    (|c| create(c, |r| r.orphans = Some("rst".into())), InvalidArgument,
     "orphans 'rst' is not known: use reschedule, reset, drop or keep (inhibit)"),
    (|c| create(c, |r| r.sync = Some("half".into())), InvalidArgument,
     "sync 'half' is not known: use full, light or off (none)"),
    (|c| create(c, |r| {
         r.topology = "NAT".into();
         r.proxy_src = vec!["192.0.2.99".into()];
         r.sync = Some("light".into());
     }), InvalidArgument,
     "sync 'light' is given, but type is NAT: the port of a connection towards its server is known by the connection alone; use full or off"),
    (|c| create(c, |r| { r.protocol = Some("udp".into()); r.sync = Some("light".into()); }), InvalidArgument,
     "sync 'light' is given, but protocol is udp: it is for connections with a handshake, those of tcp and sctp; use full or off"),
    // Rules that are there.
    (|c| modify(c, "wwww", |r| r.algorithm = "wlc".into()), NotFound,
     "no rule is named 'wwww'; did you mean 'www'?"),
    (|c| modify(c, "www", |r| r.vip = "192.0.2.81".into()), InvalidArgument,
     "vip '192.0.2.81' cannot be changed: connections of the rule depend on it; create another rule and delete this one"),
    (|c| modify(c, "www", |r| r.topology = "dsr".into()), InvalidArgument,
     "type 'dsr' cannot be changed: connections of the rule depend on it; create another rule and delete this one"),
    (|c| modify(c, "www", |r| r.proxy_src = vec!["192.0.2.9".into()]), InvalidArgument,
     "proxy-src '192.0.2.9' cannot be changed: connections of the rule depend on it; create another rule and delete this one"),
    (|c| modify(c, "www", |r| r.flags = vec!["sh-port".into()]), InvalidArgument,
     "flag 'sh-port' is given, but lbalg is roundrobin: it belongs to lbalg=sh; roundrobin has no flags"),
    (|c| modify(c, "www", |r| r.persist_timeout = Some(5)), InvalidArgument,
     "persist-timeout '5' is given, but the rule is not persistent: give -p or pmask too, or leave it out"),
    (|c| modify(c, "inner", |r| r.clients = vec!["any".into()]), Conflict,
     "rule 'inner' would claim 192.0.2.83 tcp port 80-90, which rule 'outer' has: use another vip, protocol, port or client, or delete rule 'outer' first"),
    // VIP.
    (|c| create(c, |r| r.vip = String::new()), InvalidArgument,
     "vip is missing: say which address clients connect to, such as vip=192.0.2.1"),
    (|c| create(c, |r| r.vip = "192.0.2.300".into()), InvalidArgument,
     "vip '192.0.2.300' is not an IP address: use an address such as 192.0.2.1 or 2001:db8::1"),
    (|c| create(c, |r| r.vip = "127.1.2.3".into()), InvalidArgument,
     "vip '127.1.2.3' is a loopback address: use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "::1".into()), InvalidArgument,
     "vip '::1' is a loopback address: use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "239.1.1.1".into()), InvalidArgument,
     "vip '239.1.1.1' is a multicast address: use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "[ff02::1]".into()), InvalidArgument,
     "vip 'ff02::1' is a multicast address: use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "::".into()), InvalidArgument,
     "vip '::' is the unspecified address: use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "255.255.255.255".into()), InvalidArgument,
     "vip '255.255.255.255' is the broadcast address: use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "0.1.2.3".into()), InvalidArgument,
     "vip '0.1.2.3' is in 0.0.0.0/8, which means \"this network\": use a unicast address that other hosts can reach"),
    (|c| create(c, |r| r.vip = "fe80::1".into()), InvalidArgument,
     "vip 'fe80::1' is a link-local address, which is valid on one link only: use a global or unique local (fc00::/7) address"),
    (|c| create(c, |r| r.vip = "::ffff:192.0.2.1".into()), InvalidArgument,
     "vip '::ffff:192.0.2.1' is an IPv4-mapped IPv6 address: write 192.0.2.1"),
    // Ports.
    (|c| create(c, |r| r.port = "00".into()), InvalidArgument,
     "port '00' is out of range: use a port from 1 to 65535, a range such as 8000-8009, or the name of a service such as https"),
    (|c| create(c, |r| r.port = "1-65536".into()), InvalidArgument,
     "port '1-65536' is out of range: use a port from 1 to 65535, a range such as 8000-8009, or the name of a service such as https"),
    (|c| create(c, |r| r.port = "90-80".into()), InvalidArgument,
     "port '90-80' ends before it begins: write 80-90"),
    (|c| create(c, |r| r.port = "80;".into()), InvalidArgument,
     "port '80;' is not a port: use a port from 1 to 65535, a range such as 8000-8009, or the name of a service such as https"),
    // Times.
    (|c| create(c, |r| r.conn_drain = Some(0)), InvalidArgument,
     "conn-drain '0' is out of range: use 1 or more seconds, or leave it out to wait for the last connection"),
    // proxy-src.
    (|c| create(c, |r| r.topology = "NAT".into()), InvalidArgument,
     "proxy-src is missing: type=NAT needs 1 to 10 source addresses towards the servers, such as proxy-src=192.0.2.9"),
    (|c| create(c, |r| r.proxy_src = vec!["192.0.2.9".into()]), InvalidArgument,
     "proxy-src '192.0.2.9' is given, but type is HALF-NAT: only type=NAT and type=TUN have source addresses of their own; leave proxy-src out or use one of these"),
    (|c| create(c, |r| { r.topology = "n".into(); r.proxy_src = vec!["192.0.2.1-192.0.2.10".into(), "192.0.2.20".into()] }), InvalidArgument,
     "proxy-src '192.0.2.1 to 192.0.2.20' has 11 addresses: use 1 to 10"),
    (|c| create(c, |r| { r.topology = "n".into(); r.proxy_src = vec!["192.0.2.9".into(), "192.0.2.9".into()] }), InvalidArgument,
     "proxy-src '192.0.2.9' is given twice: give each address once"),
    (|c| create(c, |r| { r.topology = "n".into(); r.proxy_src = vec!["2001:db8::9".into()] }), InvalidArgument,
     "proxy-src '2001:db8::9' is IPv6, but the vip 192.0.2.81 is IPv4: use IPv4 addresses"),
    (|c| create(c, |r| { r.topology = "n".into(); r.proxy_src = vec!["192.0.2.9-2001:db8::9".into()] }), InvalidArgument,
     "proxy-src '192.0.2.9-2001:db8::9' begins in one address family and ends in the other: use two IPv4 or two IPv6 addresses"),
    (|c| create(c, |r| { r.topology = "n".into(); r.proxy_src = vec!["192.0.2.11".into()] }), Conflict,
     "server _web.0 (192.0.2.11) of server group 'web' does not fit rule 'new': its address is one of the rule's proxy-src addresses; these have to be the balancer's own"),
    // Names.
    (|c| c.create_rule("", &other()).map(drop), InvalidArgument,
     "rule name '' is empty: use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"),
    (|c| c.create_rule("_x", &other()).map(drop), InvalidArgument,
     "rule name '_x' begins with '_': use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"),
    (|c| c.create_rule("a b", &other()).map(drop), InvalidArgument,
     "rule name 'a b' contains ' ': use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"),
    (|c| c.create_rule("bücher", &other()).map(drop), InvalidArgument,
     "rule name 'bücher' contains '\\u{fc}': use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"),
    (|c| c.create_group::<&str>("0123456789012345678901234567890123456789012345678901234567890123", &[]).map(drop), InvalidArgument,
     "server group name '0123456789012345678901234567890123456789012345678901234567890123' has 64 characters: use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"),
    (|c| c.create_rule("WWW", &other()).map(drop), AlreadyExists,
     "a rule named 'www' exists already: choose another name, or delete it first"),
    (|c| c.create_group::<&str>("EMPTY", &[]).map(drop), AlreadyExists,
     "a server group named 'Empty' exists already: choose another name, or delete it first"),
    // Rules among others.
    (|c| create(c, |r| { r.vip = "192.0.2.80".into(); r.port = "90-99".into() }), Conflict,
     "rule 'new' would claim 192.0.2.80 tcp port 90, which rule 'www' has: use another vip, protocol, port or client, or delete rule 'www' first"),
    (|c| create(c, |r| { r.vip = "192.0.2.80".into(); r.port = "85-200".into() }), Conflict,
     "rule 'new' would claim 192.0.2.80 tcp port 85-90, which rule 'www' has: use another vip, protocol, port or client, or delete rule 'www' first"),
    (|c| create(c, |r| r.servergroup = "wbe".into()), NotFound,
     "no server group is named 'wbe'; did you mean 'web'?"),
    (|c| create(c, |r| r.servergroup = "zzz".into()), NotFound,
     "no server group is named 'zzz'"),
    (|c| create(c, |r| r.servergroup = "WEB6".into()), Conflict,
     "server _web6.0 ([2001:db8::11]) of server group 'web6' does not fit rule 'new': it is IPv6, but the vip 192.0.2.81 is IPv4; use servers of the vip's address family"),
    (|c| create(c, |r| r.topology = "dsr".into()), Conflict,
     "server _web.1 (192.0.2.12:8080) of server group 'web' does not fit rule 'new': its port is 8080, but with DSR the packet keeps the rule's port 80; leave the server's port out, or use NAT or HALF-NAT"),
    (|c| create(c, |r| { r.servergroup = "ported".into(); r.port = "80-81".into() }), Conflict,
     "server _ported.0 (192.0.2.21:8000-8002) of server group 'ported' does not fit rule 'new': its 3 ports cannot stand for the 2 ports 80-81 of the rule; give no port, one port, or as many as the rule has"),
    (|c| create(c, |r| r.vip = "192.0.2.11".into()), Conflict,
     "server _web.0 (192.0.2.11) of server group 'web' does not fit rule 'new': its address is the rule's own vip; give the server's own address"),
    // Servers.
    (|c| c.add_servers("web", &["192.0.2.11"]).map(drop), Conflict,
     "server 192.0.2.11 is in server group 'web' already, as _web.0: each address and port can be there once"),
    (|c| c.add_servers("web", &["192.0.2.30", "192.0.2.30"]).map(drop), Conflict,
     "server 192.0.2.30 is in server group 'web' already, as _web.2: each address and port can be there once"),
    (|c| c.add_servers("web", &["192.0.2.11:80-90"]).map(drop), Conflict,
     "server _web.2 (192.0.2.11:80-90) of server group 'web' does not fit rule 'www': with the rule's port 80-90 it is the same as _web.0; remove one of them"),
    (|c| c.add_servers("web", &["[2001:db8::1]"]).map(drop), Conflict,
     "server _web.2 ([2001:db8::1]) of server group 'web' does not fit rule 'www': it is IPv6, but the vip 192.0.2.80 is IPv4; use servers of the vip's address family"),
    (|c| c.add_servers("web", &["192.0.2.80"]).map(drop), Conflict,
     "server _web.2 (192.0.2.80) of server group 'web' does not fit rule 'www': its address is the rule's own vip; give the server's own address"),
    (|c| c.add_servers("web", &["192.0.2.30:1-5"]).map(drop), Conflict,
     "server _web.2 (192.0.2.30:1-5) of server group 'web' does not fit rule 'www': its 5 ports cannot stand for the 11 ports 80-90 of the rule; give no port, one port, or as many as the rule has"),
    (|c| c.add_servers::<&str>("web", &[]).map(drop), InvalidArgument,
     "server is missing: name at least one, such as server=192.0.2.10:80"),
    (|c| c.add_servers("nosuch", &["192.0.2.30"]).map(drop), NotFound,
     "no server group is named 'nosuch'"),
    (|c| c.add_servers("web", &["www.example.net:80"]).map(drop), InvalidArgument,
     "server 'www.example.net:80' is a host name: give name=address; lbadm resolves names by itself"),
    (|c| c.create_group("x", &["10.0.0.0-10.0.1.0"]).map(drop), InvalidArgument,
     "server address '10.0.0.0-10.0.1.0' spans too many addresses: a range may span at most 256; split it"),
    (|c| c.create_group("x", &["10.0.0.9-10.0.0.1"]).map(drop), InvalidArgument,
     "server address '10.0.0.9-10.0.0.1' ends before it begins: write 10.0.0.1-10.0.0.9"),
    (|c| c.create_group("x", &["10.0.0.1:0"]).map(drop), InvalidArgument,
     "server port '0' is out of range: use a port from 1 to 65535, a range such as 8000-8009, or the name of a service such as https"),
    (|c| c.create_group("x", &["2001:db8::1"]).map(drop), InvalidArgument,
     "server '2001:db8::1' looks like an IPv6 address without brackets: write [2001:db8::1], and a port after it: [2001:db8::1]:80"),
    (|c| c.create_group("x", &["[2001:db8::1"]).map(drop), InvalidArgument,
     "server '[2001:db8::1' has no closing bracket: write host[:port], address[:port] or first-last[:port], with IPv6 addresses in brackets: [2001:db8::1]:80"),
    (|c| c.create_group("x", &["[2001:db8::1]80"]).map(drop), InvalidArgument,
     "server '[2001:db8::1]80' goes on after the bracket: write host[:port], address[:port] or first-last[:port], with IPv6 addresses in brackets: [2001:db8::1]:80"),
    (|c| c.create_group("x", &["127.0.0.1"]).map(drop), InvalidArgument,
     "server address '127.0.0.1' is a loopback address: use a unicast address that other hosts can reach"),
    (|c| c.create_group("x", &[":80"]).map(drop), InvalidArgument,
     "server ':80' has no host or address: write host[:port], address[:port] or first-last[:port], with IPv6 addresses in brackets: [2001:db8::1]:80"),
    (|c| c.create_group("x", &["a=10.0.0.1-10.0.0.2"]).map(drop), InvalidArgument,
     "server 'a=10.0.0.1-10.0.0.2' gives one name to several addresses: write name=address"),
    (|c| c.create_group("x", &["10.0.0.1", "223.255.255.255-224.0.0.0"]).map(drop), InvalidArgument,
     "server address '224.0.0.0' is a multicast address: use a unicast address that other hosts can reach"),
    // Weights and limits.
    (|c| c.add_servers("web", &["192.0.2.30,weight=65536"]).map(drop), InvalidArgument,
     "weight '65536' is out of range: use 0 to 65535; 0 takes no new connections"),
    (|c| c.add_servers("web", &["192.0.2.30,wieght=1"]).map(drop), InvalidArgument,
     "server key 'wieght' is not known: use weight, max-conn (max-connections, u-threshold), min-conn (min-connections, l-threshold) or tier (priority); did you mean 'weight'?"),
    (|c| c.add_servers("web", &["192.0.2.30,tier=256"]).map(drop), InvalidArgument,
     "tier '256' is out of range: use 0 (serves first) to 254, or sorry for when all others are too few"),
    (|c| c.modify_rule("www", &RuleSettings { quorum: Some(0), ..RuleSettings::default() }).map(drop), InvalidArgument,
     "quorum '0' is out of range: use a weight from 1 to 2147483647"),
    (|c| c.modify_rule("www", &RuleSettings { panic_mode: Some("keep".into()), ..RuleSettings::default() }).map(drop), InvalidArgument,
     "panic-mode 'keep' is not known: use none (off), keep-last, fail-open or sorry"),
    (|c| c.modify_rule("www", &RuleSettings { panic_threshold: Some(101), ..RuleSettings::default() }).map(drop), InvalidArgument,
     "panic-threshold '101' is not a percentage of servers: use 1 (when all look dead) to 100 (when one does)"),
    (|c| c.modify_rule("www", &RuleSettings { quorum: Some(2), hysteresis: Some(2), ..RuleSettings::default() }).map(drop), InvalidArgument,
     "hysteresis '2' is not less than quorum 2: use 0 to 1, or give a larger quorum"),
    (|c| c.add_servers("web", &["192.0.2.30,max-conn=many"]).map(drop), InvalidArgument,
     "max-conn 'many' is out of range: use a number of connections; 0 is no limit"),
    (|c| c.add_servers("web", &["192.0.2.30,max-conn=5,min-conn=6"]).map(drop), InvalidArgument,
     "min-conn '6' is more than max-conn 5: use a number up to max-conn, or leave it out for three quarters of it"),
    (|c| c.add_servers("web", &["192.0.2.30,min-conn=6"]).map(drop), InvalidArgument,
     "min-conn '6' is given without max-conn: use a number up to max-conn, or leave it out for three quarters of it"),
    (|c| c.modify_servers(&["_web.0", "_web.9"], &weight(3)).map(drop), NotFound,
     "no server is named '_web.9'; did you mean '_web.0'?"),
    (|c| c.modify_servers(&["_web.0"], &ServerSettings::default()).map(drop), InvalidArgument,
     "weight is missing: say what to change: weight, max-conn, min-conn or tier"),
    (|c| c.modify_servers(&["_web.0"], &ServerSettings { min_connections: Some(1), ..weight(3) }).map(drop), InvalidArgument,
     "min-conn '1' is given without max-conn: use a number up to max-conn, or leave it out for three quarters of it"),
    // Names that do not exist, and what is in use.
    (|c| c.delete_rules(&["www", "nosuch", "neither"]).map(drop), NotFound,
     "no rule is named 'nosuch' or 'neither'"),
    (|c| c.enable_rules(&["www", "ww"], true).map(drop), NotFound,
     "no rule is named 'ww'; did you mean 'www'?"),
    (|c| c.delete_groups(&["empty", "nosuch"]).map(drop), NotFound,
     "no server group is named 'nosuch'"),
    (|c| c.delete_groups(&["empty", "WEB"]).map(drop), InUse,
     "server group 'web' is used by rule 'www': delete it first"),
    (|c| c.remove_servers("web", &["_web.0", "_web.7"]).map(drop), NotFound,
     "server group 'web' has no server '_web.7'; 'lbadm show-servergroup web' lists those that it has; did you mean '_web.0'?"),
    (|c| c.remove_servers("web", &["192.0.2.12:80"]).map(drop), NotFound,
     "server group 'web' has no server '192.0.2.12:80'; 'lbadm show-servergroup web' lists those that it has"),
    (|c| c.remove_servers("web", &["192.0.2.11-192.0.2.13"]).map(drop), NotFound,
     "server group 'web' has no server '192.0.2.13'; 'lbadm show-servergroup web' lists those that it has"),
    (|c| c.remove_servers("web", &["_web6.0"]).map(drop), NotFound,
     "server group 'web' has no server '_web6.0'; 'lbadm show-servergroup web' lists those that it has; did you mean '_web.0'?"),
    (|c| c.enable_servers(&["_web.0", "_web.9"], false).map(drop), NotFound,
     "no server is named '_web.9'; did you mean '_web.0'?"),
    (|c| c.enable_servers(&["web.0"], false).map(drop), NotFound,
     "no server is named 'web.0'; did you mean '_web.0'?"),
    // Health checks.
    (|c| c.create_check("alive", &check("test=ping")).map(drop), AlreadyExists,
     "a health check named 'Alive' exists already: choose another name, or delete it first"),
    (|c| c.create_check("None", &check("test=ping")).map(drop), InvalidArgument,
     "health check name 'None' means no health check: choose another name"),
    (|c| c.create_check("-x", &check("test=ping")).map(drop), InvalidArgument,
     "health check name '-x' begins with '-': use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"),
    (|c| c.create_check("x", &check("test=tcp,jitter=51")).map(drop), InvalidArgument,
     "jitter '51' is out of range: use 0 to 50 percent"),
    (|c| c.modify_check("aliv", &check("count=2")).map(drop), NotFound,
     "no health check is named 'aliv'; did you mean 'Alive'?"),
    (|c| c.modify_check("alive", &check("count=0")).map(drop), InvalidArgument,
     "count '0' is out of range: use 1 to 255"),
    (|c| c.modify_check("alive", &check("source=2001:db8::1")).map(drop), Conflict,
     "health check 'Alive' does not fit rule 'checked': server _probed.0: source '2001:db8::1' cannot ask 192.0.2.16, which is of another address family: use a source of the servers' family, or leave it out"),
    (|c| c.delete_checks(&["spare", "nosuch"]).map(drop), NotFound,
     "no health check is named 'nosuch'"),
    (|c| c.delete_checks(&["spare", "alive"]).map(drop), InUse,
     "health check 'Alive' is used by rule 'checked': take it off with 'lbadm modify-rule -h none checked' first"),
    (|c| create(c, |r| r.health_check = Some("spar".into())), NotFound,
     "no health check is named 'spar'; did you mean 'spare'?"),
    (|c| create(c, |r| r.health_check_port = Some("80".into())), InvalidArgument,
     "hc-name is missing: hc-port belongs to a health check; name it, such as hc-name=web"),
    (|c| create(c, |r| { r.health_check = Some("alive".into()); r.health_check_port = Some("0".into()) }), InvalidArgument,
     "hc-port '0' is not a port: use a port from 1 to 65535, or ANY for any of the server's ports"),
    (|c| create(c, |r| { r.health_check = Some("alive".into()); r.port = "any".into() }), Conflict,
     "health check 'Alive' does not fit rule 'new': the rule has no ports of its own, so say which one is probed: hc-port=PORT"),
    (|c| create(c, |r| { r.health_check = Some("spare".into()); r.vip = "2001:db8::80".into(); r.servergroup = "web6".into() }), Conflict,
     "health check 'spare' does not fit rule 'new': server _web6.0: source '192.0.2.1' cannot ask 2001:db8::11, which is of another address family: use a source of the servers' family, or leave it out"),
    (|c| modify(c, "checked", |r| { r.health_check = Some("none".into()); r.health_check_port = Some("80".into()) }), InvalidArgument,
     "hc-port '80' is given, but hc-name is none: leave it out, or name a health check"),
    (|c| modify(c, "www", |r| r.health_check = Some("nosuch".into())), NotFound,
     "no health check is named 'nosuch'"),
    (|c| c.enable_servers::<&str>(&[], false).map(drop), InvalidArgument,
     "server id is missing: name at least one; 'lbadm show-servergroup' lists them"),
];

#[test]
fn each_mistake_has_its_words_and_changes_nothing() {
    let before = configured();
    let mut wrong = Vec::new();
    for (i, (request, kind, words)) in CASES.iter().enumerate() {
        let mut c = before.clone();
        let result = request(&mut c);
        if result.is_err() {
            assert_eq!(c, before, "case {i} ({words}) changed something");
        }
        match result {
            Ok(()) => wrong.push(format!("case {i} was accepted, expected: {words}")),
            Err(e) if e.to_string() != *words || e.kind() != *kind => wrong.push(format!(
                "case {i}\n  expected {kind:?}: {words}\n  got      {:?}: {e}",
                e.kind()
            )),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
