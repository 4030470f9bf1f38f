//! Namespaces, veth pairs, bridges, addresses and routes of a lab.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Spec;
use super::namespace::Namespace;
use super::plan::{Net, prefix_length};
use crate::Family;
use crate::shell;

/// The wired network: its namespaces by role.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) namespaces: BTreeMap<String, Arc<Namespace>>,
}

/// Where a narrow hop lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NarrowHop {
    /// Between the balancer and the servers.
    BehindBalancer,
    /// Between the clients and the balancer.
    BeforeBalancer,
}

impl Wiring {
    /// Builds everything that `spec` asks for. Namespaces are registered one by one in `self.namespaces`, so that a
    /// failure half-way leaves them where the lab's teardown finds them (by name).
    pub(crate) fn build(identity: &str, spec: &Spec) -> Wiring {
        let mut wiring = Wiring {
            namespaces: BTreeMap::new(),
        };
        for role in wiring.roles(spec) {
            let namespace = Namespace::create(format!("{identity}-{role}"));
            wiring.namespaces.insert(role, Arc::new(namespace));
        }
        wiring.bridges();
        wiring.balancer(spec, "lb", 1);
        if spec.pair {
            wiring.balancer(spec, "lb2", 2);
        }
        if spec.twin {
            wiring.balancer(spec, "lb2", 1);
            wiring.twin();
        }
        wiring.router();
        match spec.narrow {
            None => {
                wiring.clients(spec, Net::Front);
                wiring.servers(spec, Net::Back);
            }
            Some((NarrowHop::BehindBalancer, mtu)) => {
                wiring.clients(spec, Net::Front);
                wiring.narrow(Net::Back, Net::FarBack, mtu);
                wiring.servers(spec, Net::FarBack);
            }
            Some((NarrowHop::BeforeBalancer, mtu)) => {
                wiring.narrow(Net::Front, Net::FarFront, mtu);
                wiring.clients(spec, Net::FarFront);
                wiring.servers(spec, Net::Back);
            }
        }
        wiring
    }

    fn roles(&self, spec: &Spec) -> Vec<String> {
        let mut roles = vec!["sw".to_owned(), "lb".to_owned(), "rt".to_owned()];
        if spec.pair || spec.twin {
            roles.push("lb2".to_owned());
        }
        if spec.narrow.is_some() {
            roles.extend(["na".to_owned(), "nb".to_owned()]);
        }
        roles.extend((1..=spec.clients).map(|n| format!("c{n}")));
        roles.extend((1..=spec.servers).map(|n| format!("s{n}")));
        roles
    }

    pub(crate) fn at(&self, role: &str) -> &Arc<Namespace> {
        self.namespaces
            .get(role)
            .unwrap_or_else(|| panic!("this lab has no namespace for the role {role}"))
    }

    /// The switch: one bridge a network.
    fn bridges(&self) {
        let switch = self.at("sw");
        switch.sysctl(&[
            ("ipv6.conf.default.disable_ipv6", "1"),
            ("ipv6.conf.all.disable_ipv6", "1"),
        ]);
        let mut lines = Vec::new();
        for net in [Net::Front, Net::Back, Net::FarBack, Net::FarFront] {
            let bridge = bridge(net);
            lines.push(format!(
                "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ));
            lines.push(format!("link set {bridge} up"));
        }
        switch.ip(&lines);
    }

    /// A veth pair from `role` (as `device`, with `queues`) to the bridge of `net`.
    fn plug(&self, role: &str, device: &str, net: Net, queues: u32) {
        let (host, switch) = (self.at(role), self.at("sw"));
        let port = format!("{role}-{}", bridge(net));
        shell::run_line(&format!(
            "ip link add name {device} netns {} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name {port} netns {} numrxqueues {queues} numtxqueues {queues}",
            host.name(),
            switch.name()
        ))
        .ok();
        switch.ip(&[format!("link set {port} master {} up", bridge(net))]);
        // Senders must compute whole checksums: nobody does it for them on the way into AF_XDP.
        switch.run(&format!("ethtool -K {port} tx off"));
        if !["lb", "lb2"].contains(&role) {
            host.run(&format!("ethtool -K {device} tx off"));
        }
    }

    /// A balancer, host `number` of its networks.
    fn balancer(&self, spec: &Spec, role: &str, number: u8) {
        let balancer = self.at(role);
        // Forwarding must need none of these.
        balancer.sysctl(&[("ipv4.ip_forward", "0"), ("ipv6.conf.all.forwarding", "0")]);
        let mut lines = Vec::new();
        let devices = if spec.one_armed {
            vec![("eth0", Net::Back)]
        } else {
            vec![("eth0", Net::Front), ("eth1", Net::Back)]
        };
        for (device, net) in devices {
            self.plug(role, device, net, spec.queues);
            if spec.replies_on_last_queue {
                let queue = if net == Net::Front {
                    0
                } else {
                    spec.queues - 1
                };
                self.use_only_queue(net, queue, spec.queues);
            }
            for family in Family::BOTH {
                lines.push(address(net, family, number, device));
            }
            // A link-local address of its own choice would be tentative for two seconds, and IPv6 mute for as long.
            lines.push(format!("link set {device} addrgenmode none"));
            lines.push(format!("addr add fe80::{number}/64 dev {device} nodad"));
            lines.push(format!("link set {device} up"));
        }
        for family in Family::BOTH {
            if spec.one_armed {
                lines.push(default_route(family, Net::Back.host(family, 254)));
            }
            match spec.narrow {
                Some((NarrowHop::BehindBalancer, _)) => {
                    lines.push(route(
                        family,
                        &Net::FarBack.cidr(family),
                        Net::Back.host(family, 253),
                    ));
                }
                Some((NarrowHop::BeforeBalancer, _)) => {
                    lines.push(route(
                        family,
                        &Net::FarFront.cidr(family),
                        Net::Front.host(family, 253),
                    ));
                }
                None => {}
            }
        }
        balancer.ip(&lines);
    }

    /// Makes `lb2` one that nobody can tell from `lb`, pulls its cables, and joins both.
    fn twin(&self) {
        let (first, second) = (self.at("lb"), self.at("lb2"));
        for device in ["eth0", "eth1"] {
            let address = first.run(&format!("cat /sys/class/net/{device}/address"));
            second.ip(&[format!("link set {device} address {}", address.trim())]);
        }
        self.at("sw").ip(&[
            "link set lb2-front nomaster".to_owned(),
            "link set lb2-back nomaster".to_owned(),
        ]);
        shell::run_line(&format!(
            "ip link add name peer netns {} type veth peer name peer netns {}",
            first.name(),
            second.name()
        ))
        .ok();
        for (namespace, host) in [(first, 1), (second, 2)] {
            namespace.ip(&[
                format!("addr add 10.8.0.{host}/24 dev peer"),
                "link set peer up".to_owned(),
            ]);
        }
    }

    /// See [`super::Lab::swap`].
    pub(crate) fn swap(&self, from: &str, to: &str) {
        self.at("sw").ip(&[
            format!("link set {from}-front nomaster"),
            format!("link set {from}-back nomaster"),
            format!("link set {to}-front master front"),
            format!("link set {to}-back master back"),
        ]);
    }

    /// The plain router between front and back: the way home of DSR replies.
    fn router(&self) {
        self.route_packets("rt");
        let mut lines = Vec::new();
        for (device, net) in [("eth0", Net::Front), ("eth1", Net::Back)] {
            self.plug("rt", device, net, 1);
            for family in Family::BOTH {
                lines.push(address(net, family, 254, device));
            }
            lines.push(format!("link set {device} up"));
        }
        self.at("rt").ip(&lines);
    }

    fn route_packets(&self, role: &str) {
        self.at(role).sysctl(&[
            ("ipv6.conf.default.accept_dad", "0"),
            ("ipv6.conf.all.forwarding", "1"),
            ("ipv4.ip_forward", "1"),
            ("ipv4.conf.all.rp_filter", "0"),
            ("ipv4.conf.default.rp_filter", "0"),
            ("ipv4.conf.all.send_redirects", "0"),
            ("ipv4.conf.default.send_redirects", "0"),
            ("ipv4.icmp_ratelimit", "0"),
            ("ipv6.icmp.ratelimit", "0"),
        ]);
    }

    /// Two routers with a hop of `mtu` bytes between them join `near` (where the balancer is) and `far`.
    fn narrow(&self, near: Net, far: Net, mtu: u32) {
        self.route_packets("na");
        self.route_packets("nb");
        self.plug("na", "eth0", near, 1);
        self.plug("nb", "eth0", far, 1);
        let (a, b) = (self.at("na"), self.at("nb"));
        shell::run_line(&format!(
            "ip link add name hop netns {} type veth peer name hop netns {}",
            a.name(),
            b.name()
        ))
        .ok();
        let mut lines_a = vec![
            format!("link set hop mtu {mtu} up"),
            "link set eth0 up".to_owned(),
        ];
        let mut lines_b = lines_a.clone();
        for family in Family::BOTH {
            lines_a.push(address(near, family, 253, "eth0"));
            lines_a.push(address(Net::Narrow, family, 1, "hop"));
            lines_a.push(route(
                family,
                &far.cidr(family),
                Net::Narrow.host(family, 2),
            ));
            // What is neither near nor far lies behind the balancer.
            lines_a.push(default_route(family, near.host(family, 1)));
            lines_b.push(address(far, family, 1, "eth0"));
            lines_b.push(address(Net::Narrow, family, 2, "hop"));
            lines_b.push(default_route(family, Net::Narrow.host(family, 1)));
        }
        a.ip(&lines_a);
        b.ip(&lines_b);
    }

    fn clients(&self, spec: &Spec, net: Net) {
        for n in 1..=spec.clients {
            let role = format!("c{n}");
            self.end_host(&role);
            self.plug(&role, "eth0", net, 1);
            let mut lines = Vec::new();
            for family in Family::BOTH {
                lines.push(address(net, family, 9 + n, "eth0"));
                if n == 1 {
                    for source in 0..spec.sources {
                        lines.push(address(net, family, 150 + source, "eth0"));
                    }
                }
            }
            lines.push("link set eth0 up".to_owned());
            for family in Family::BOTH {
                // The router, or the narrow hop's near end.
                let gateway = if net == Net::Front { 254 } else { 1 };
                lines.push(default_route(family, net.host(family, gateway)));
            }
            self.at(&role).ip(&lines);
        }
    }

    fn servers(&self, spec: &Spec, net: Net) {
        for n in 1..=spec.servers {
            let role = format!("s{n}");
            self.end_host(&role);
            self.plug(&role, "eth0", net, 1);
            let mut lines = Vec::new();
            for family in Family::BOTH {
                lines.push(address(net, family, 10 + n, "eth0"));
            }
            lines.push("link set eth0 up".to_owned());
            for family in Family::BOTH {
                // Home through the balancer (HALF-NAT), or the narrow hop's far end.
                lines.push(default_route(family, net.host(family, 1)));
                // What has a VIP for its source goes home through the router (DSR).
                if net == Net::Back {
                    lines.push(default_route(family, net.host(family, 254)) + " table 100");
                }
            }
            self.at(&role).ip(&lines);
        }
    }

    /// Has the switch send everything towards the balancer on `net` through one transmit queue: the far end of a veth
    /// receives on the queue of the same number. Without this the flow's hash decides (as long as the sender has only
    /// one queue: the number of the sender's would stick to the packet).
    fn use_only_queue(&self, net: Net, queue: u32, queues: u32) {
        let cpus = std::thread::available_parallelism()
            .map_or(1, |n| n.get())
            .min(32);
        for number in 0..queues {
            let mask = if number == queue {
                (1u64 << cpus) - 1
            } else {
                0
            };
            let path = format!(
                "/sys/class/net/lb-{}/queues/tx-{number}/xps_cpus",
                bridge(net)
            );
            let mut shell = self.at("sw").command("sh");
            shell.args(["-c", &format!("echo {mask:x} > {path}")]);
            shell::run(shell).ok();
        }
    }

    fn end_host(&self, role: &str) {
        self.at(role).sysctl(&[
            ("ipv6.conf.default.accept_dad", "0"),
            ("ipv4.conf.all.arp_ignore", "1"),
            ("ipv4.conf.all.arp_announce", "2"),
            ("ipv4.conf.all.rp_filter", "0"),
            ("ipv4.conf.default.rp_filter", "0"),
            // Learnt path MTUs are what the PMTU tests look for; redirects are not.
            ("ipv4.conf.all.accept_redirects", "0"),
            ("ipv4.conf.default.accept_redirects", "0"),
            ("ipv6.conf.default.accept_redirects", "0"),
        ]);
    }

    /// Puts a VIP on a server as DSR wants it: on `lo`, silent, with its replies going home through the router.
    pub(crate) fn dsr_address(&self, role: &str, vip: IpAddr) {
        let (family, length) = match vip {
            IpAddr::V4(_) => (Family::V4, 32),
            IpAddr::V6(_) => (Family::V6, 128),
        };
        let dad = if family == Family::V6 { " nodad" } else { "" };
        let namespace = self.at(role);
        namespace.ip(&[format!("addr add {vip}/{length} dev lo{dad}")]);
        let family = if family == Family::V6 { "-6" } else { "-4" };
        shell::run_line(&format!(
            "ip -n {} {family} rule add from {vip} lookup 100",
            namespace.name()
        ))
        .ok();
    }
}

fn bridge(net: Net) -> &'static str {
    match net {
        Net::Front => "front",
        Net::Back => "back",
        Net::FarBack => "farback",
        Net::FarFront => "farfront",
        Net::Narrow => unreachable!("the narrow hop is a plain veth pair"),
    }
}

fn address(net: Net, family: Family, host: u8, device: &str) -> String {
    let dad = if family == Family::V6 { " nodad" } else { "" };
    format!(
        "addr add {}/{} dev {device}{dad}",
        net.host(family, host),
        prefix_length(family)
    )
}

fn route(family: Family, to: &str, via: IpAddr) -> String {
    // `default` alone does not tell the family.
    match (family, to) {
        (Family::V6, "default") => format!("route add ::/0 via {via}"),
        _ => format!("route add {to} via {via}"),
    }
}

fn default_route(family: Family, via: IpAddr) -> String {
    route(family, "default", via)
}
