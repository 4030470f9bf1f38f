//! Path MTU discovery through the balancer: a hop of 1,400 bytes on either side of it.

use std::net::IpAddr;

use ilb_tests::capture::Capture;
use ilb_tests::lab::web::{big_file, uploaded};
use ilb_tests::lab::wiring::NarrowHop;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of, upload};
use ilb_tests::{Family, Topology};

const MTU: u32 = 1400;

fn too_big(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp[0] = 3 and icmp[1] = 4",
        Family::V6 => "icmp6 and ip6[40] = 2",
    }
}

/// Learnt path MTUs of the round before would hide everything.
fn forget_path_mtus(lab: &Lab) {
    for role in ["c1", "s1"] {
        lab.at(role).run("ip route flush cache");
        lab.at(role).run("ip -6 route flush cache");
    }
}

/// Source and destination of the packet that an ICMP error (as bytes from its IP header on) quotes.
fn quoted_addresses(family: Family, error: &[u8]) -> Option<(IpAddr, IpAddr)> {
    // IP header of the error, eight bytes of ICMP, then the addresses of the quoted header.
    match family {
        Family::V4 => {
            let at = |offset: usize| {
                Some(IpAddr::from(
                    <[u8; 4]>::try_from(error.get(offset..offset + 4)?).ok()?,
                ))
            };
            Some((at(20 + 8 + 12)?, at(20 + 8 + 16)?))
        }
        Family::V6 => {
            let at = |offset: usize| {
                Some(IpAddr::from(
                    <[u8; 16]>::try_from(error.get(offset..offset + 16)?).ok()?,
                ))
            };
            Some((at(40 + 8 + 8)?, at(40 + 8 + 24)?))
        }
    }
}

/// Transfers in both directions complete, and the error reaches the end whose packets met the hop behind the balancer, and
/// quotes the packet as that end had sent it.
fn transfers_complete(hop: NarrowHop) {
    let lab = Lab::with_ilb(Spec {
        narrow: Some((hop, MTU)),
        // One server: it is known who has to hear.
        servers: 1,
        ..Spec::default()
    });
    let big = big_file(lab.directory());
    let expected = sha256_of(&big);
    let mut number = 0;
    for topology in [Topology::HalfNat, Topology::Nat] {
        for family in Family::BOTH {
            let service = Service::http(number, topology, family);
            number += 1;
            let target = service.create(&lab);
            let (client, server) = (lab.client(family, 1), lab.server(family, 1));
            let at_client = Capture::start(lab.at("c1"), "eth0", too_big(family));
            let at_server = Capture::start(lab.at("s1"), "eth0", too_big(family));
            let file = uploaded(lab.directory(), "s1", "file");
            let upload = || {
                forget_path_mtus(&lab);
                lab.at("c1")
                    .enter(|| upload(target, "/upload/file", &big))
                    .unwrap_or_else(|error| {
                        panic!("given {service} and a hop of {MTU} bytes, when a big file is uploaded, then it completes: {error}")
                    });
                assert_eq!(
                    sha256_of(&file),
                    expected,
                    "given {service} and a hop of {MTU} bytes, when a big file is uploaded, then the same bytes arrive"
                );
                std::fs::remove_file(&file).expect("the file was just read");
            };
            let download = || {
                forget_path_mtus(&lab);
                Downloads::start(lab.at("c1"), target, "/files/big", 3).none_broken(
                    &expected,
                    &format!("given {service} and a hop of {MTU} bytes, when three downloads run"),
                );
            };
            // First that whose errors go through the balancer, since a host that has learnt a path MTU offers it as its
            // maximum segment size.
            match hop {
                NarrowHop::BehindBalancer => {
                    upload();
                    download();
                }
                NarrowHop::BeforeBalancer => {
                    download();
                    upload();
                }
            }

            let (at_client, at_server) = (at_client.stop(), at_server.stop());
            // The end whose big packets met the hop only behind the balancer: its error went through the balancer.
            let (seen, end, embedded) = match hop {
                NarrowHop::BehindBalancer => (&at_client, "client", (client, target.ip())),
                NarrowHop::BeforeBalancer => {
                    let peer = match topology {
                        Topology::Nat => lab.proxy_source(family, service.number),
                        Topology::HalfNat | Topology::Dsr => client,
                    };
                    (&at_server, "server", (server, peer))
                }
            };
            let given = format!("given {service} and a hop of {MTU} bytes");
            assert!(
                seen.iter().any(|packet| packet.contains(&MTU.to_string())),
                "{given}, then the {end} hears of it; the client saw {at_client:?}, the server {at_server:?}"
            );
            for packet in seen {
                let quoted = quoted_addresses(family, &Capture::bytes(packet));
                assert_eq!(
                    quoted,
                    Some(embedded),
                    "{given}, then the error quotes the packet as the {end} had sent it: {packet}"
                );
            }
        }
    }
}

#[test]
fn a_narrow_hop_between_balancer_and_servers() {
    transfers_complete(NarrowHop::BehindBalancer);
}

#[test]
fn a_narrow_hop_between_clients_and_balancer() {
    transfers_complete(NarrowHop::BeforeBalancer);
}
