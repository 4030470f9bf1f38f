//! TUN in every kind and family: the servers' ends of the tunnels are ours (`ilb_tests::tunnel`), everything behind them is
//! the kernel's and nginx's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ilb_tests::capture::Capture;
use ilb_tests::lab::web::{big_file, uploaded};
use ilb_tests::lab::wiring::NarrowHop;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::transfer::{Downloads, sha256_of, upload};
use ilb_tests::tunnel::{FarEnd, Kind};
use ilb_tests::{Family, udp};

/// A kind of tunnel, the words for it, and what they promise.
#[derive(Debug, Clone, Copy)]
struct Tunnel {
    kind: Kind,
    words: &'static str,
    /// Bytes between the outer IP header and the inner one, of TCP packets.
    shim: usize,
    checked: bool,
    offloaded: bool,
}

const fn tunnel(kind: Kind, words: &'static str, shim: usize) -> Tunnel {
    Tunnel {
        kind,
        words,
        shim,
        checked: false,
        offloaded: false,
    }
}

const TUNNELS: [Tunnel; 6] = [
    tunnel(Kind::Ipip, "tunnel=ipip", 0),
    tunnel(Kind::Gre, "tunnel=gre", 4),
    Tunnel {
        checked: true,
        ..tunnel(Kind::Gre, "tunnel=gre,tunnel-checksum=full", 8)
    },
    tunnel(Kind::Gue, "tunnel=gue", 12),
    Tunnel {
        checked: true,
        ..tunnel(Kind::Gue, "tunnel=gue,tunnel-checksum=full", 12)
    },
    Tunnel {
        checked: true,
        offloaded: true,
        ..tunnel(Kind::Gue, "tunnel=gue,tunnel-checksum=remote", 20)
    },
];

/// A rule for HTTP and a UDP echo over a tunnel, with the far ends of its servers.
struct Service {
    tunnel: Tunnel,
    inner: Family,
    outer: Family,
    number: u8,
    far_ends: Vec<FarEnd>,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Service {
            tunnel,
            inner,
            outer,
            ..
        } = self;
        write!(f, "{} with {inner} in {outer}", tunnel.words)
    }
}

impl Service {
    /// Number `number` has a VIP and two outer source addresses of its own.
    fn create(
        lab: &Lab,
        servers: u8,
        tunnel: Tunnel,
        inner: Family,
        outer: Family,
        number: u8,
    ) -> Service {
        let vip = lab.vip(inner, number);
        lab.dsr_address(vip);
        let far_ends = (1..=servers).map(|n| {
            let at = lab.at(&format!("s{n}"));
            FarEnd::start(at, tunnel.kind, lab.server(outer, n))
        });
        let far_ends = far_ends.collect();
        let [first, second] = [0, 1].map(|n| lab.proxy_source(outer, 2 * number + n));
        lab.node.lbadm(&format!(
            "create-servergroup -s server={} group{number}",
            lab.server_specs(outer, "")
        ));
        lab.node.lbadm(&format!(
            "create-rule -e -i vip={vip},port=80 -i vip={vip},port=7,protocol=udp \
             -m lbalg=rr,type=TUN,{},proxy-src={first},{second} -o servergroup=group{number} rule{number}",
            tunnel.words
        ));
        Service {
            tunnel,
            inner,
            outer,
            number,
            far_ends,
        }
    }

    fn target(&self, lab: &Lab, port: u16) -> SocketAddr {
        (lab.vip(self.inner, self.number), port).into()
    }

    fn overhead(&self) -> usize {
        self.tunnel.shim
            + match self.outer {
                Family::V4 => 20,
                Family::V6 => 40,
            }
    }

    /// The far ends had nothing to complain about, and saw what the words promise.
    fn check_far_ends(&self, lab: &Lab) {
        let (mut ports, mut addresses) = (0, std::collections::BTreeSet::new());
        for (n, end) in self.far_ends.iter().enumerate() {
            let seen = end.seen();
            assert!(
                seen.faults.is_empty(),
                "given {self}, then the far end of server {} understands all: {:?}",
                n + 1,
                seen.faults.first()
            );
            assert!(
                seen.packets > 0,
                "given {self}, then every far end has some"
            );
            let all = |yes| if yes { seen.packets } else { 0 };
            assert_eq!(
                seen.checked,
                all(self.tunnel.checked),
                "given {self}, then all packets have outer checksums, or none"
            );
            assert_eq!(
                seen.offloaded > 0,
                self.tunnel.offloaded,
                "given {self}, then inner checksums are left to the far end, or not"
            );
            ports += seen.sources.len();
            addresses.extend(seen.sources.iter().map(SocketAddr::ip));
        }
        let expected = [0, 1].map(|n| lab.proxy_source(self.outer, 2 * self.number + n));
        assert_eq!(
            addresses,
            expected.into(),
            "given {self}, then the outer sources are the rule's, by flow"
        );
        if self.tunnel.kind == Kind::Gue {
            assert!(
                ports > 30,
                "given {self}, then outer ports vary with the flow: {ports} sources"
            );
        }
    }
}

/// HTTP, a big download and UDP, with datagrams that fill a packet and ones in fragments.
#[test]
fn every_kind_of_tunnel_in_every_family() {
    let lab = Lab::with_ilb(Spec::default());
    let expected = sha256_of(&big_file(lab.directory()));
    let mut number = 0;
    for tunnel in TUNNELS {
        for inner in Family::BOTH {
            for outer in Family::BOTH {
                let service = Service::create(&lab, 3, tunnel, inner, outer, number);
                number += 1;
                let target = service.target(&lab, 80);
                let given = format!("given {service}, when 60 requests are sent");
                let tally = Load::new(target, 60).run(lab.at("c1"));
                tally.none_failed(&given);
                for server in ["s1", "s2", "s3"] {
                    assert_eq!(
                        tally.of(server),
                        20,
                        "{given}, then {server} answers 20: {tally}"
                    );
                }
                Downloads::start(lab.at("c1"), target, "/files/big", 2).none_broken(
                    &expected,
                    &format!("given {service}, when two downloads run"),
                );
                echo(&lab, &service);
                service.check_far_ends(&lab);
                lab.node
                    .lbadm(&format!("delete-rule rule{}", service.number));
            }
        }
    }
    lab.node.assert_alive();
}

fn echo(lab: &Lab, service: &Service) {
    let target = service.target(lab, 7);
    lab.udp_echo_on(target);
    for (first_port, count, size) in [(21_000, 30, 1), (22_000, 30, 1300)] {
        let answers = udp::tally(lab.at("c1"), target, first_port, count, size).unwrap_or_else(|error| {
            let faults: Vec<_> = service.far_ends.iter().map(|end| end.seen().faults).collect();
            panic!(
                "given {service}, when {count} datagrams of {size} bytes are sent, then all are answered: {error}; \
                 at the far ends: {faults:?}"
            )
        });
        let share = usize::from(count / 3);
        assert_eq!(
            answers,
            BTreeMap::from(["s1", "s2", "s3"].map(|server| (server.to_owned(), share))),
            "given {service}, when {count} datagrams of {size} bytes are sent, then each server has a third"
        );
    }
}

/// The MTU and the sender of an ICMP error (as bytes from its IP header on).
fn reported(family: Family, error: &[u8]) -> (usize, IpAddr) {
    match family {
        Family::V4 => {
            let from: [u8; 4] = error[12..16].try_into().expect("four bytes");
            (
                usize::from(error[26]) << 8 | usize::from(error[27]),
                from.into(),
            )
        }
        Family::V6 => {
            let from: [u8; 16] = error[8..24].try_into().expect("sixteen bytes");
            (
                usize::from(error[46]) << 8 | usize::from(error[47]),
                from.into(),
            )
        }
    }
}

/// A client that fills its packets is told what fits, by errors from the VIP, and its upload completes.
fn uploads_fit(narrow: Option<(NarrowHop, u32)>) {
    let lab = Lab::with_ilb(Spec {
        narrow,
        // One server: it is known where the file arrives.
        servers: 1,
        ..Spec::default()
    });
    if narrow.is_some() {
        // The servers' answers have a way home that does not lead through the balancer.
        for (family, words) in [(Family::V4, "default"), (Family::V6, "::/0")] {
            let router = ilb_tests::lab::plan::Net::Back.host(family, 254);
            lab.at("na")
                .run(&format!("ip route replace {words} via {router}"));
        }
    }
    let big = big_file(lab.directory());
    let expected = sha256_of(&big);
    let file = uploaded(lab.directory(), "s1", "file");
    let mut number = 0;
    for tunnel in [TUNNELS[0], TUNNELS[1], TUNNELS[4]] {
        for inner in Family::BOTH {
            for outer in Family::BOTH {
                let service = Service::create(&lab, 1, tunnel, inner, outer, number);
                number += 1;
                lab.at("c1").run("ip route flush cache");
                lab.at("c1").run("ip -6 route flush cache");
                let filter = match inner {
                    Family::V4 => "icmp[0] = 3 and icmp[1] = 4",
                    Family::V6 => "icmp6 and ip6[40] = 2",
                };
                let at_client = Capture::start(lab.at("c1"), "eth0", filter);
                let target = service.target(&lab, 80);
                lab.at("c1")
                    .enter(|| upload(target, "/upload/file", &big))
                    .unwrap_or_else(|error| {
                        panic!("given {service} and {narrow:?}, when a big file is uploaded, then it completes: {error}")
                    });
                let errors: Vec<(usize, IpAddr)> = at_client
                    .stop()
                    .iter()
                    .map(|packet| reported(inner, &Capture::bytes(packet)))
                    .collect();
                assert_eq!(
                    sha256_of(&file),
                    expected,
                    "given {service} and {narrow:?}, when a big file is uploaded, then the same bytes arrive"
                );
                std::fs::remove_file(&file).expect("the file was just read");
                // Ours, about the interface's MTU, or what the balancer has heard from the way; it remembers that for
                // all that goes to this server.
                let mtu = narrow.map_or(1500, |(_, mtu)| mtu as usize);
                let told = (mtu - service.overhead(), target.ip());
                assert!(
                    errors.contains(&told),
                    "given {service} and {narrow:?}, then the client hears of {told:?}; it heard {errors:?}"
                );
                let faults = service.far_ends[0].seen().faults;
                assert!(
                    faults.is_empty(),
                    "given {service}, then all is understood: {faults:?}"
                );
            }
        }
    }
    lab.node.assert_alive();
}

#[test]
fn clients_are_told_what_fits_into_a_tunnel() {
    uploads_fit(None);
}

#[test]
fn clients_are_told_what_fits_through_the_way_of_a_tunnel() {
    uploads_fit(Some((NarrowHop::BehindBalancer, 1400)));
}
