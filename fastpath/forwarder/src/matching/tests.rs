//! Packets against rules: tables that a person can read, and a search through all patterns that must find the same.

use proptest::prelude::*;

use super::*;
use crate::spec::{RuleSpec, SnapshotSpec, VipSpec};
use crate::{CompileError, Snapshot};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `10.0.0.0/8`.
fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix {
        address: ip(address),
        len: len.parse().unwrap(),
    }
}

/// `tcp 80`, `udp 5000-6000`, `icmp`.
fn vip(address: &str, what: &str) -> VipSpec {
    let (protocol, ports) = what.split_once(' ').unwrap_or((what, "0-65535"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let protocol = [
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Sctp,
        Protocol::Icmp,
        Protocol::Any,
    ]
    .into_iter()
    .find(|candidate| candidate.to_string() == protocol)
    .unwrap();
    VipSpec {
        address: ip(address),
        protocol,
        ports: PortRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        },
    }
}

/// Name, VIPs, clients.
type Given<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

fn rules(given: &[Given<'_>]) -> Vec<RuleSpec> {
    given
        .iter()
        .zip(1..)
        .map(|((name, vips, clients), id)| RuleSpec {
            id,
            name: name.to_string(),
            vips: vips
                .iter()
                .map(|(address, what)| vip(address, what))
                .collect(),
            clients: clients.iter().map(|text| prefix(text)).collect(),
            ..RuleSpec::default()
        })
        .collect()
}

fn compile(rules: Vec<RuleSpec>) -> Result<Snapshot, CompileError> {
    let spec = SnapshotSpec {
        generation: 1,
        rules,
        ..SnapshotSpec::default()
    };
    Snapshot::compile(&spec, None, 1)
}

fn tuple(client: &str, vip: &str, protocol: u8, port: u16) -> Tuple {
    Tuple {
        src: ip(client).into(),
        dst: ip(vip).into(),
        sport: 40_000,
        dport: port,
        protocol,
    }
}

fn found(snapshot: &Snapshot, tuple: &Tuple) -> String {
    match snapshot.accepting(tuple) {
        Some((rule, vip)) => format!("{} {vip}", snapshot.rules()[rule as usize].name),
        None => "none".into(),
    }
}

const VIP: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

#[test]
fn the_most_specific_rule_gets_the_packet() {
    let snapshot = compile(rules(&[
        ("any", &[(VIP, "any")], &[]),
        ("ping", &[(VIP, "icmp")], &[]),
        ("all-tcp", &[(VIP, "tcp")], &[]),
        ("range", &[(VIP, "tcp 8000-8999"), (VIP, "udp 53")], &[]),
        ("port", &[("192.0.2.2", "tcp 80"), (VIP, "tcp 8080")], &[]),
        (
            "office",
            &[(VIP, "tcp 8000-8999")],
            &["10.0.0.0/8", "172.16.0.0/12"],
        ),
        (
            "desk",
            &[(VIP, "tcp 8080"), (VIP, "sctp 8080")],
            &["10.1.0.0/16"],
        ),
        ("lab", &[(VIP, "any")], &["10.1.2.0/24"]),
        ("one", &[(VIP, "tcp 22")], &["10.1.2.3/32"]),
        (
            "six",
            &[(VIP6, "tcp 80"), (VIP6, "icmp")],
            &["2001:db8:1::/48"],
        ),
        ("six-all", &[(VIP6, "tcp 80-90")], &["::/0"]),
    ]))
    .unwrap();
    let (far, office, desk, lab, one) = (
        "203.0.113.1",
        "10.200.0.1",
        "10.1.9.9",
        "10.1.2.9",
        "10.1.2.3",
    );
    for (client, vip, protocol, port, rule) in [
        (far, VIP, 6, 8080, "port 1"),
        (far, VIP, 6, 8081, "range 0"),
        (far, VIP, 6, 7999, "all-tcp 0"),
        (far, VIP, 6, 0, "all-tcp 0"),
        (far, VIP, 6, 65_535, "all-tcp 0"),
        (far, VIP, 17, 53, "range 1"),
        (far, VIP, 17, 54, "any 0"),
        (far, VIP, 132, 8080, "any 0"),
        (far, VIP, 1, 0, "ping 0"),
        (far, VIP, 47, 0, "any 0"),
        (far, VIP, 58, 0, "any 0"),
        (far, "192.0.2.2", 6, 80, "port 0"),
        (far, "192.0.2.2", 6, 81, "none"),
        (far, "192.0.2.3", 6, 80, "none"),
        // A longer client prefix counts for more than a narrower range.
        (office, VIP, 6, 8080, "office 0"),
        ("172.31.255.255", VIP, 6, 8080, "office 0"),
        ("172.32.0.0", VIP, 6, 8080, "port 1"),
        ("9.255.255.255", VIP, 6, 8080, "port 1"),
        ("11.0.0.0", VIP, 6, 8080, "port 1"),
        (office, VIP, 6, 80, "all-tcp 0"),
        (desk, VIP, 6, 8080, "desk 0"),
        (desk, VIP, 6, 8081, "office 0"),
        (desk, VIP, 132, 8080, "desk 1"),
        ("10.2.0.0", VIP, 132, 8080, "any 0"),
        (lab, VIP, 6, 8080, "lab 0"),
        (lab, VIP, 1, 0, "lab 0"),
        (one, VIP, 6, 22, "one 0"),
        (one, VIP, 6, 23, "lab 0"),
        ("10.1.3.0", VIP, 6, 8080, "desk 0"),
        ("2001:db8:1::5", VIP6, 6, 80, "six 0"),
        ("2001:db8:1::5", VIP6, 6, 81, "six-all 0"),
        ("2001:db8:1::5", VIP6, 58, 0, "six 1"),
        ("2001:db8:2::5", VIP6, 58, 0, "none"),
        ("2001:db8:2::5", VIP6, 6, 80, "six-all 0"),
        ("2001:db8:1::5", VIP6, 1, 0, "none"),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            VIP6,
            6,
            90,
            "six-all 0",
        ),
    ] {
        let tuple = tuple(client, vip, protocol, port);
        assert_eq!(
            found(&snapshot, &tuple),
            rule,
            "{client} to {vip} protocol {protocol} port {port}"
        );
    }
}

#[test]
fn only_what_is_equally_specific_is_ambiguous() {
    let clash = |port| {
        Some(format!(
            "rules 'a' and 'b' both accept tcp connections to 192.0.2.1 port {port}"
        ))
    };
    for (a, a_clients, b, b_clients, expected) in [
        ("tcp 80", "", "tcp 80", "", clash(80)),
        ("tcp 80-90", "", "tcp 85-95", "", clash(85)),
        ("tcp", "", "tcp", "", clash(0)),
        ("tcp 80-90", "", "tcp 85-96", "", None),
        ("tcp 80-90", "", "tcp 91-101", "", None),
        ("tcp 80", "", "tcp 80-81", "", None),
        ("tcp", "", "any", "", None),
        ("tcp 80", "", "udp 80", "", None),
        ("tcp 80", "10.0.0.0/8", "tcp 80", "10.0.0.0/8", clash(80)),
        ("tcp 80", "10.0.0.0/8", "tcp 80", "10.9.9.9/8", clash(80)),
        ("tcp 80", "0.0.0.0/0", "tcp 80", "", clash(80)),
        ("tcp 80", "10.0.0.0/8", "tcp 80", "10.0.0.0/9", None),
        ("tcp 80", "10.0.0.0/8", "tcp 80", "11.0.0.0/8", None),
        ("tcp 80", "10.0.0.0/8", "tcp 80", "", None),
    ] {
        let clients = |text: &'static str| if text.is_empty() { vec![] } else { vec![text] };
        let (a_clients, b_clients) = (clients(a_clients), clients(b_clients));
        let result = compile(rules(&[
            ("a", &[(VIP, a)], &a_clients),
            ("b", &[(VIP, b)], &b_clients),
        ]));
        let error = result.err().map(|error| error.to_string());
        assert_eq!(error, expected, "{a} {a_clients:?} and {b} {b_clients:?}");
    }
    let twice = compile(rules(&[(
        "a",
        &[(VIP, "tcp 80")],
        &["10.0.0.0/8", "10.0.0.0/8"],
    )]));
    assert!(
        twice.is_ok(),
        "a client prefix that is named twice is no harm"
    );
}

#[test]
fn what_no_rule_can_be_is_refused_in_words() {
    for (address, what, clients, words) in [
        (
            "224.0.0.18",
            "any",
            "0.0.0.0/0",
            "224.0.0.18 is not the address of a single host",
        ),
        ("255.255.255.255", "udp 67", "0.0.0.0/0", "cannot be a VIP"),
        (
            "ff02::1",
            "icmp",
            "::/0",
            "ff02::1 is not the address of a single host",
        ),
        ("::", "tcp 1", "::/0", "cannot be a VIP"),
        (
            VIP,
            "icmp 8",
            "0.0.0.0/0",
            "protocol icmp has no ports, but the VIP names ports 8-8",
        ),
        (VIP, "any 1-65535", "0.0.0.0/0", "protocol any has no ports"),
        (
            VIP,
            "tcp 80",
            "10.0.0.0/33",
            "a prefix of 10.0.0.0 cannot be 33 bits long",
        ),
        (VIP6, "tcp 80", "::/129", "cannot be 129 bits long"),
        (
            VIP,
            "tcp 80",
            "2001:db8::/32",
            "2001:db8:: is not of the family of the VIP",
        ),
    ] {
        let error = compile(rules(&[("a", &[(address, what)], &[clients])])).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_nearest_miss_comes_first_and_says_what_is_in_the_way() {
    let mut given = rules(&[
        ("far-off", &[(VIP, "udp 53")], &["10.0.0.0/8"]),
        ("web", &[(VIP, "tcp 80"), ("192.0.2.2", "tcp 443")], &[]),
        ("old", &[(VIP, "tcp 443")], &[]),
        ("elsewhere", &[("192.0.2.3", "tcp 443")], &[]),
        (
            "office",
            &[(VIP, "tcp 443")],
            &["10.0.0.0/8", "172.16.0.0/12"],
        ),
    ]);
    given[2].accepting = false;
    let snapshot = compile(given).unwrap();
    let misses = |client| -> Vec<String> {
        let tuple = tuple(client, VIP, 6, 443);
        let words = |miss: &Miss| {
            let reasons = [
                (miss.disabled, "disabled"),
                (miss.protocol, "protocol"),
                (miss.port, "port"),
                (miss.client, "client"),
            ];
            let reasons = reasons
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, word)| format!(" {word}"));
            let rule = &snapshot.rules()[miss.claim.rule as usize];
            rule.name.clone() + &reasons.collect::<String>()
        };
        snapshot.misses(&tuple).iter().map(words).collect()
    };
    assert_eq!(
        misses("203.0.113.1"),
        [
            "web port",
            "old disabled",
            "office client",
            "far-off protocol port client"
        ]
    );
    assert_eq!(
        misses("10.0.0.1"),
        ["web port", "old disabled", "far-off protocol port"],
        "what accepts it is no miss"
    );
}

#[test]
fn ten_thousand_client_prefixes_and_ports_on_one_address() {
    let mut given: Vec<RuleSpec> = (0..10_000u32)
        .map(|n| RuleSpec {
            id: n + 1,
            vips: vec![vip(VIP, "tcp 80")],
            clients: vec![Prefix {
                address: (0x0a00_0000 + (n << 8)).to_be_bytes().into(),
                len: 24,
            }],
            ..RuleSpec::default()
        })
        .collect();
    given.extend((0..10_000u16).map(|n| RuleSpec {
        id: n as u32 + 20_000,
        vips: vec![vip(VIP, &format!("udp {}-{}", n * 6, n * 6 + 2))],
        ..RuleSpec::default()
    }));
    let snapshot = compile(given).unwrap();
    for n in [0u32, 1, 77, 9_999] {
        let client = IpAddr::from((0x0a00_0000 + (n << 8) + 5).to_be_bytes());
        let mut tuple = tuple(&client.to_string(), VIP, 6, 80);
        assert_eq!(snapshot.accepting(&tuple), Some((n, 0)));
        tuple.protocol = 17;
        for (port, rule) in [
            (n * 6, Some(n + 10_000)),
            (n * 6 + 2, Some(n + 10_000)),
            (n * 6 + 3, None),
        ] {
            tuple.dport = port as u16;
            assert_eq!(
                snapshot.accepting(&tuple),
                rule.map(|rule| (rule, 0)),
                "port {port}"
            );
        }
    }
}

/// The order of the module's text, without any index.
fn search(patterns: &[Pattern], tuple: &Tuple) -> Option<Claim> {
    let protocol = protocol_of(tuple);
    patterns
        .iter()
        .filter(|pattern| {
            pattern.address == tuple.dst
                && pattern.clients.contains(tuple.src)
                && [protocol, Protocol::Any].contains(&pattern.protocol)
                && pattern.ports.contains(tuple.dport)
        })
        .min_by_key(|pattern| {
            let clients = pattern.clients.last - pattern.clients.first;
            let ports = pattern.ports.last - pattern.ports.first;
            (clients, ports, pattern.protocol == Protocol::Any)
        })
        .map(|pattern| pattern.claim)
}

prop_compose! {
    /// Few different values, so that much overlaps.
    fn pattern()(
        address in 1u128..3, host in 0u32..64, len in 24u8..=32, all in any::<bool>(),
        protocol in 0usize..3, first in 0u16..40, width in 0u16..12, vip in any::<u8>(), rule in 0u32..1000
    ) -> Pattern {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Any][protocol];
        let clients = Prefix { address: (0x0a00_0000 + host * 4).to_be_bytes().into(), len };
        let ports = if protocol == Protocol::Any { PortRange::ANY } else { PortRange { first, last: first + width } };
        Pattern {
            address: Addr::v4((address as u32).to_be_bytes()),
            clients: if all { Clients::ALL } else { Clients::of(&clients) },
            protocol,
            ports,
            claim: Claim { rule, vip },
        }
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_a_search_finds(
        candidates in proptest::collection::vec(pattern(), 0..60),
        probes in proptest::collection::vec((1u32..3, 0u32..300, 0u16..60, 0usize..3), 100),
    ) {
        // Without those that would be ambiguous with an earlier one.
        let mut patterns: Vec<Pattern> = Vec::new();
        for candidate in candidates {
            let rival = |other: &Pattern| other.address == candidate.address
                && other.clients == candidate.clients && other.protocol == candidate.protocol
                && other.ports.last - other.ports.first == candidate.ports.last - candidate.ports.first
                && other.ports.first <= candidate.ports.last && candidate.ports.first <= other.ports.last;
            match patterns.iter().any(rival) {
                true => {
                    let mut both = patterns.clone();
                    both.push(Pattern { claim: Claim { rule: 5000, vip: 0 }, ..candidate });
                    prop_assert!(Matcher::new(both).is_err());
                }
                false => patterns.push(candidate),
            }
        }
        let matcher = Matcher::new(patterns.clone()).unwrap();
        for (vip, client, dport, protocol) in probes {
            let tuple = Tuple {
                src: Addr::v4((0x0a00_0000 + client).to_be_bytes()),
                dst: Addr::v4(vip.to_be_bytes()),
                sport: 1,
                dport,
                protocol: [6, 17, 47][protocol],
            };
            prop_assert_eq!(matcher.find(&tuple), search(&patterns, &tuple));
        }
    }
}
