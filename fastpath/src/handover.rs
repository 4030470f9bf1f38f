//! Other nodes that addresses are taken over from: who they are, whether their link-layer addresses are known, and until when
//! packets are sent on to them. What is sent on is the forwarder's to decide (`ilb_forwarder::relay`).

use std::net::IpAddr;

use ilb_forwarder::network::{Network, NextHop, PortIndex};
use ilb_forwarder::relay::{ALWAYS, Relay};
use ilb_node::control::Giver;

/// A node on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    port: PortIndex,
    address: IpAddr,
    /// The last second since boot in which packets are sent on.
    until: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Handover {
    nodes: Vec<Node>,
}

impl Handover {
    /// These are the nodes now. Those on interfaces that are not served are nobody to us; of several on one interface the
    /// first whose link-layer address is known counts.
    pub fn set(&mut self, givers: &[Giver], port_of: impl Fn(&str) -> Option<PortIndex>, now: u32) {
        let node = |giver: &Giver| {
            let seconds = giver.milliseconds.map(|it| it.div_ceil(1000));
            Some(Node {
                port: port_of(&giver.interface)?,
                address: giver.address,
                until: seconds.map_or(ALWAYS, |seconds| {
                    now.saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX))
                }),
            })
        };
        self.nodes = givers.iter().filter_map(node).collect();
    }

    /// Where they are.
    pub fn places(&self) -> impl Iterator<Item = (PortIndex, IpAddr)> {
        self.nodes.iter().map(|node| (node.port, node.address))
    }

    /// Those whose link-layer addresses are not known.
    pub fn unresolved(&self, network: &Network) -> Vec<(PortIndex, IpAddr)> {
        let known = |(port, address): &(PortIndex, IpAddr)| {
            let hop = network.neighbour(*port, (*address).into());
            matches!(hop, NextHop::Known { .. })
        };
        self.places().filter(|it| !known(it)).collect()
    }

    /// Has the workers send on to those whose link-layer addresses are known, by these many interfaces.
    pub fn put_in_force(&self, network: &Network, relay: &Relay, ports: usize) {
        for port in 0..ports.min(usize::from(PortIndex::MAX)) as PortIndex {
            let nodes = self.nodes.iter().filter(|node| node.port == port);
            let known =
                nodes.filter_map(|node| match network.neighbour(port, node.address.into()) {
                    NextHop::Known { mac, .. } => Some((mac, node.until)),
                    NextHop::Unknown { .. } | NextHop::Local | NextHop::None(_) => None,
                });
            match known.max_by_key(|(_, until)| *until) {
                Some((mac, until)) => relay.set(port, Some(mac), until),
                None => relay.set(port, None, 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ilb_forwarder::network::{Interface, Neighbour};

    use super::*;

    const MAC: [u8; 6] = [4, 0, 0, 0, 0, 2];

    fn network() -> Network {
        let interface = |n| Interface {
            mac: [2, 0, 0, 0, 0, n],
            mtu: 1500,
        };
        let neighbour = Neighbour {
            port: 1,
            address: "fe80::2".parse().unwrap(),
            mac: MAC,
        };
        Network::new((0..3).map(interface).collect(), vec![], vec![neighbour])
    }

    fn giver(interface: &str, address: &str, milliseconds: Option<u64>) -> Giver {
        Giver {
            interface: interface.into(),
            address: address.parse().unwrap(),
            milliseconds,
        }
    }

    fn port_of(name: &str) -> Option<PortIndex> {
        name.strip_prefix("eth")?.parse().ok()
    }

    #[test]
    fn whose_link_layer_address_is_known_is_sent_to_for_as_long_as_it_is_said() {
        // (given; who is unresolved; until when packets of eth1 are sent on)
        type Row<'a> = (&'a [Giver], &'a [(PortIndex, &'a str)], Option<u32>);
        let known = giver("eth1", "fe80::2", Some(1_500));
        let always = giver("eth1", "fe80::2", None);
        let unknown = giver("eth1", "192.0.2.2", None);
        let elsewhere = giver("wlan0", "192.0.2.3", None);
        let (one, two) = ([unknown.clone()], [unknown, known.clone()]);
        #[rustfmt::skip]
        let table: [Row<'_>; 5] = [
            (&[], &[], None),
            (&[elsewhere], &[], None),
            (&one, &[(1, "192.0.2.2")], None),
            (&two, &[(1, "192.0.2.2")], Some(102)),
            (&[known, always], &[], Some(ALWAYS)),
        ];
        let (network, relay) = (network(), Relay::default());
        let mut handover = Handover::default();
        for (given, unresolved, until) in table {
            handover.set(given, port_of, 100);
            handover.put_in_force(&network, &relay, 3);
            let expected: Vec<(PortIndex, IpAddr)> = unresolved
                .iter()
                .map(|(port, address)| (*port, address.parse().unwrap()))
                .collect();
            assert_eq!(handover.unresolved(&network), expected, "given {given:?}");
            assert_eq!(relay.to(1, 101), until.map(|_| MAC), "given {given:?}");
            let later = until.map_or(0, |until| until.saturating_add(1));
            let still = later == ALWAYS;
            assert_eq!(relay.to(1, later).is_some(), still, "given {given:?}");
            assert_eq!((relay.to(0, 0), relay.to(2, 0)), (None, None));
        }
    }
}
