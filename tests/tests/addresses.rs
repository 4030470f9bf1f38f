//! VIPs and proxy-src addresses come and go with the rules that need them; others' addresses stay.

use std::net::IpAddr;
use std::time::Duration;

use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::{Load, get};
use ilb_tests::noise::hardware_address;
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, shell};

/// Lines of `ip -o addr` in the balancer that have this address, as `device address/length`.
fn held(lab: &Lab, address: IpAddr) -> Vec<String> {
    lab.at("lb")
        .run("ip -o addr show")
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (device, held) = (words.get(1)?, words.get(3)?);
            (held.split('/').next() == Some(&address.to_string()))
                .then(|| format!("{device} {held}"))
        })
        .collect()
}

/// What client 1 has learnt: the link-layer address of its neighbour.
fn neighbour(lab: &Lab, address: IpAddr) -> Option<String> {
    let text = lab.at("c1").run(&format!("ip neigh show {address}"));
    let mut words = text.split_whitespace();
    words.find(|word| *word == "lladdr")?;
    words.next().map(str::to_owned)
}

#[test]
fn a_vip_answers_once_its_rule_is_enabled() {
    let lab = Lab::with_ilb(Spec::default());
    let own = hardware_address(lab.at("lb"), "eth0");
    let own = own.map(|byte| format!("{byte:02x}")).join(":");
    let mut number = 0;
    for topology in Topology::ALL {
        for family in Family::BOTH {
            let service = Service::http(number, topology, family);
            number += 1;
            let vip = lab.vip(family, service.number);
            let source = lab.proxy_source(family, service.number);
            if topology == Topology::Dsr {
                lab.dsr_address(vip);
            }
            lab.node.lbadm(&service.group_line(&lab));
            // The balancer does not see how a DSR connection ends, so it would be long until the last one is over.
            let line = service
                .rule_line(&lab)
                .replace("create-rule -e", "create-rule -t conn-drain=1");
            lab.node.lbadm(&line);
            assert_eq!(
                held(&lab, vip),
                Vec::<String>::new(),
                "given {service}, when its rule is created disabled, then its VIP is nowhere"
            );
            lab.node.lbadm(&format!("enable-rule {}", service.rule()));
            // At once: no waiting for duplicate address detection.
            let answer = lab.at("c1").enter(|| get((vip, 80).into(), None, "/"));
            assert!(
                answer.is_ok(),
                "given {service}, when its rule is enabled, then its VIP answers without any other command: {answer:?}"
            );
            assert_eq!(
                neighbour(&lab, vip).as_deref(),
                Some(own.as_str()),
                "given {service}, when its rule is enabled, then the balancer answers ARP and neighbour discovery"
            );
            let length = if family == Family::V4 { 32 } else { 128 };
            assert_eq!(
                held(&lab, vip),
                [format!("eth0 {vip}/{length}")],
                "given {service}, when its rule is enabled, then its VIP is on the interface of its network"
            );
            if topology == Topology::Nat {
                assert_eq!(
                    held(&lab, source),
                    [format!("eth1 {source}/{length}")],
                    "given {service}, when its rule is enabled, then its proxy-src is on the interface of its network"
                );
            }
            lab.node.lbadm(&format!("delete-rule {}", service.rule()));
            let gone = shell::wait_for(Duration::from_secs(10), || {
                (held(&lab, vip).is_empty() && held(&lab, source).is_empty()).then_some(())
            });
            assert!(
                gone.is_some(),
                "given {service}, when its rule is deleted and has drained, then its addresses are taken away: {:?} {:?}",
                held(&lab, vip),
                held(&lab, source)
            );
        }
    }
}

#[test]
fn addresses_that_were_there_before_are_left_as_they_were() {
    let lab = Lab::with_ilb(Spec::default());
    for (number, family) in Family::BOTH.into_iter().enumerate() {
        let service = Service::http(number as u8, Topology::Nat, family);
        let vip = lab.vip(family, service.number);
        let source = lab.proxy_source(family, service.number);
        let length = if family == Family::V4 { 24 } else { 64 };
        lab.at("lb").ip(&[
            format!("addr add {vip}/{length} dev eth0"),
            format!("addr add {source}/{length} dev eth1"),
        ]);
        let settled = shell::wait_for(Duration::from_secs(5), || {
            (!lab.at("lb").run("ip addr show").contains("tentative")).then_some(())
        });
        assert!(
            settled.is_some(),
            "given new addresses, then the kernel accepts them"
        );
        let show = || (held(&lab, vip), held(&lab, source));
        let expected = (
            vec![format!("eth0 {vip}/{length}")],
            vec![format!("eth1 {source}/{length}")],
        );
        assert_eq!(
            show(),
            expected,
            "given addresses of the administrator, then they are there"
        );

        let target = service.create(&lab);
        Load::new(target, 9).run(lab.at("c1")).none_failed(&format!(
            "given {service} and addresses that were there before"
        ));
        assert_eq!(
            show(),
            expected,
            "given {service}, when its rule is created, then they are adopted as they are"
        );
        lab.node.kill_manager();
        lab.node.start_manager();
        lab.node.wait_ready();
        assert_eq!(
            show(),
            expected,
            "given {service}, when the manager restarts, then they are left as they are"
        );
        lab.node.lbadm(&format!("delete-rule {}", service.rule()));
        // Longer than the manager takes to tidy up after a deleted rule.
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(
            show(),
            expected,
            "given {service}, when its rule is deleted, then they are left as they are"
        );
    }
}

#[test]
fn a_restarted_manager_still_knows_which_addresses_are_its_own() {
    let lab = Lab::with_ilb(Spec::default());
    for (number, family) in Family::BOTH.into_iter().enumerate() {
        let service = Service::http(number as u8, Topology::Nat, family);
        let vip = lab.vip(family, service.number);
        let source = lab.proxy_source(family, service.number);
        service.create(&lab);
        lab.node.kill_manager();
        // Somebody is thorough while nobody looks.
        lab.at("lb").ip(&[format!("addr flush to {vip}")]);
        lab.node.start_manager();
        lab.node.wait_ready();
        let back = shell::wait_for(Duration::from_secs(5), || {
            (!held(&lab, vip).is_empty()).then_some(())
        });
        assert!(
            back.is_some(),
            "given {service} whose VIP was removed while the manager was dead, when it starts, then the VIP is back"
        );
        lab.node.lbadm(&format!("delete-rule {}", service.rule()));
        let gone = shell::wait_for(Duration::from_secs(10), || {
            (held(&lab, vip).is_empty() && held(&lab, source).is_empty()).then_some(())
        });
        assert!(
            gone.is_some(),
            "given {service} made before the manager was killed, when its rule is deleted, then its addresses go: {:?} {:?}",
            held(&lab, vip),
            held(&lab, source)
        );
    }
}

/// Two rules on one VIP: the address stays until the last one is gone.
#[test]
fn an_address_stays_as_long_as_one_rule_needs_it() {
    let lab = Lab::with_ilb(Spec::default());
    let service = Service::http(0, Topology::HalfNat, Family::V4);
    let target = service.create(&lab);
    let second = service
        .rule_line(&lab)
        .replace("port=80,", "port=8080,")
        .replace("rule0", "second");
    lab.node.lbadm(&second);
    lab.node.lbadm("delete-rule second");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(
        held(&lab, target.ip()).len(),
        1,
        "given two rules on one VIP, when one is deleted, then the VIP stays"
    );
    Load::new(target, 9).run(lab.at("c1")).none_failed(
        "given two rules on one VIP, when one is deleted and requests come for the other",
    );
}
