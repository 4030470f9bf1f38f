//! Packets that are not by a node of ours, on a real wire: they change nothing, and each is counted by what is wrong with it.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use common::{Net, configure, one, stands, two_nodes, wait};
use libilb::vrrp::VrrpState::{Active, Backup};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use vrrp_rs::{Advertisement, Authentication, ChecksumForm, Config, Interval, Machine, Version};

/// As raw sockets take it: the header is their user's.
const RAW: i32 = 255;

/// A packet as it goes over the wire.
#[derive(Clone)]
struct Forged {
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    bytes: Vec<u8>,
}

impl Forged {
    /// What a node of the highest priority says, which everybody has to believe.
    fn good(version: Version, from: &str, to: IpAddr, addresses: &[&str]) -> Forged {
        let from = from.parse().unwrap();
        let bytes = advertisement(version, from, addresses)
            .encode(from, to)
            .unwrap();
        Forged {
            from,
            to,
            hops: 255,
            bytes,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Forged)) -> Forged {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// With other bytes before the checksum is made.
    fn saying(&self, advertisement: &Advertisement) -> Forged {
        self.with(|it| it.bytes = advertisement.encode(it.from, it.to).unwrap())
    }

    /// The IP header and what follows it. The kernel adds the checksum of IPv4's.
    fn packet(&self) -> Vec<u8> {
        let length = self.bytes.len() as u16;
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [
                &[0x45, 0xc0][..],
                &(20 + length).to_be_bytes(),
                &[0, 0, 0, 0, self.hops, vrrp_rs::PROTOCOL, 0, 0],
                &from.octets(),
                &to.octets(),
                &self.bytes,
            ]
            .concat(),
            (IpAddr::V6(from), IpAddr::V6(to)) => [
                &[0x6c, 0, 0, 0][..],
                &length.to_be_bytes(),
                &[vrrp_rs::PROTOCOL, self.hops],
                &from.octets(),
                &to.octets(),
                &self.bytes,
            ]
            .concat(),
            _ => panic!("two families"),
        }
    }

    /// Puts it on the wire of this node.
    fn send(&self, node: &Net) {
        let (packet, to) = (self.packet(), self.to);
        node.enter(move || {
            let domain = Domain::for_address((to, 0).into());
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))).unwrap();
            socket.bind_device(Some(b"eth0")).unwrap();
            let to = match to {
                IpAddr::V4(_) => SocketAddr::new(to, 0),
                IpAddr::V6(to) => {
                    let index = if_nametoindex("eth0").unwrap();
                    SocketAddrV6::new(to, 0, 0, index).into()
                }
            };
            socket.send_to(&packet, &to.into()).unwrap();
        });
    }
}

fn advertisement(version: Version, from: IpAddr, addresses: &[&str]) -> Advertisement {
    let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
    let mut config = Config::new(version, 51, from, addresses);
    config.priority = 254;
    if version == Version::V2 {
        config.interval = Interval::seconds(1).unwrap();
    }
    Machine::new(config).unwrap().advertisement(254)
}

/// A way to speak, and what somebody else on the wire says.
struct Way {
    what: &'static str,
    settings: &'static str,
    /// What everybody has to believe.
    good: Forged,
    forged: Vec<(&'static str, Forged)>,
}

const V4: &[&str] = &["192.0.2.80"];
const V6: &[&str] = &["fe80::80"];

/// What is wrong in the same way in all of them.
fn everywhere(good: &Forged) -> Vec<(&'static str, Forged)> {
    vec![
        ("ttl", good.with(|it| it.hops = 254)),
        ("ttl", good.with(|it| it.hops = 1)),
        ("checksum", good.with(|it| it.bytes[7] ^= 1)),
        ("length", good.with(|it| it.bytes.truncate(9))),
        ("length", good.with(|it| it.bytes.truncate(1))),
        ("length", good.with(|it| it.bytes.clear())),
        ("length", good.with(|it| it.bytes.extend([0; 4]))),
        ("type", good.with(|it| it.bytes[0] += 1)),
        ("version", good.with(|it| it.bytes[0] += 0x20)),
    ]
}

fn ways() -> Vec<Way> {
    let group4 = IpAddr::V4(vrrp_rs::GROUP_V4);
    let group6 = IpAddr::V6(vrrp_rs::GROUP_V6);
    let ours4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let ours6: IpAddr = "fe80::1".parse().unwrap();
    let multicast4 = Forged::good(Version::V3, "192.0.2.2", group4, V4);
    let unicast4 = Forged::good(Version::V3, "192.0.2.2", ours4, V4);
    let multicast6 = Forged::good(Version::V3, "fe80::2", group6, V6);
    let second = Forged::good(Version::V2, "192.0.2.2", group4, V4);
    let says = advertisement(Version::V2, "192.0.2.2".parse().unwrap(), V4);
    let mut all = vec![
        Way {
            what: "IPv4 multicast",
            settings: "addresses=192.0.2.80,interval=0.1",
            forged: vec![("stranger", unicast4.clone()), ("version", second.clone())],
            good: multicast4,
        },
        Way {
            what: "IPv4 unicast",
            settings: "addresses=192.0.2.80,interval=0.1,peers=192.0.2.2",
            forged: vec![(
                "stranger",
                Forged::good(Version::V3, "192.0.2.3", ours4, V4),
            )],
            good: unicast4,
        },
        Way {
            what: "IPv6 multicast",
            settings: "addresses=fe80::80,interval=0.1",
            forged: vec![
                ("stranger", Forged::good(Version::V3, "fe80::2", ours6, V6)),
                // What we have said ourselves, said again.
                ("own", Forged::good(Version::V3, "fe80::1", group6, V6)),
                // Its checksum is that of another sender.
                (
                    "checksum",
                    multicast6.with(|it| it.from = "fe80::3".parse().unwrap()),
                ),
            ],
            good: multicast6,
        },
        Way {
            what: "version 2",
            settings: "addresses=192.0.2.80,version=2,interval=1",
            forged: vec![
                (
                    "interval",
                    second.saying(&Advertisement {
                        interval: Interval::seconds(2).unwrap(),
                        ..says.clone()
                    }),
                ),
                (
                    "addresses",
                    Forged::good(Version::V2, "192.0.2.2", group4, &["192.0.2.81"]),
                ),
                (
                    "authentication",
                    second.saying(&Advertisement {
                        authentication: Authentication::password("guess"),
                        checksum: ChecksumForm::default(),
                        ..says
                    }),
                ),
            ],
            good: second,
        },
    ];
    for way in &mut all {
        way.forged.extend(everywhere(&way.good));
    }
    all
}

#[tokio::test]
async fn what_is_forged_truncated_or_foreign_changes_nothing_and_is_counted() {
    for way in ways() {
        let what = way.what;
        let (left, right) = two_nodes();
        let a = left.driver();
        let settings = format!("interface=eth0,vrid=51,track=none,{}", way.settings);
        configure(&a, &[("x", &settings)]);
        stands(&a, &format!("{what}: it is active"), Active).await;
        let before = one(&a).await.counters;

        // Another virtual router of the same wire is not even counted.
        way.good.with(|it| it.bytes[1] = 52).send(&right);
        let mut expected = before.refused.clone();
        for (label, packet) in &way.forged {
            packet.send(&right);
            *expected.entry((*label).to_owned()).or_default() += 1;
            wait(&format!("{what}: {label} is counted"), || async {
                let refused = one(&a).await.counters.refused;
                (refused != expected).then(|| format!("{refused:?}"))
            })
            .await;
        }
        let report = one(&a).await;
        assert_eq!(report.status.state, Active, "{what}");
        let counters = report.counters;
        assert_eq!(
            (
                counters.transitions,
                counters.received,
                counters.other_addresses
            ),
            (before.transitions, 0, 0),
            "{what}"
        );
        // It was not for deafness.
        way.good.send(&right);
        stands(&a, &format!("{what}: it hears who is higher"), Backup).await;
        a.stop().await;
    }
}

/// Whoever says that the active node is alive when it is not would keep the addresses from everybody.
#[tokio::test]
async fn nobody_can_keep_a_backup_from_taking_over_by_what_is_not_believed() {
    for way in ways().into_iter().filter(|way| way.what != "version 2") {
        let what = way.what;
        let (left, right) = two_nodes();
        let a = left.driver();
        let settings = format!("interface=eth0,vrid=51,track=none,{}", way.settings);
        configure(&a, &[("x", &settings)]);
        wait(
            &format!("{what}: it is the backup of who is there"),
            || async {
                way.good.send(&right);
                let report = one(&a).await;
                let hears = report.counters.received > 3 && report.status.state == Backup;
                (!hears).then(|| format!("{report:?}"))
            },
        )
        .await;
        // He falls silent, and somebody goes on in his place.
        wait(&format!("{what}: it takes over"), || async {
            for (_, packet) in &way.forged {
                packet.send(&right);
            }
            let report = one(&a).await;
            (report.status.state != Active).then(|| format!("{report:?}"))
        })
        .await;
        let refused = one(&a).await.counters.refused;
        assert!(refused.values().sum::<u64>() > 0, "{what}: {refused:?}");
        a.stop().await;
    }
}
