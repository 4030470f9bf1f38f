//! A burst of malformed, truncated, lying and random frames through the real rings.

use std::collections::BTreeMap;

use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::noise::{Noise, Wire, hardware_address};
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology};

/// Frames in the burst.
const FRAMES: usize = 300_000;

#[test]
fn a_burst_of_noise_harms_nobody() {
    let lab = Lab::with_ilb(Spec {
        clients: 2,
        queues: 2,
        ..Spec::default()
    });
    let services = Service::all_six(&lab, 0);
    let mut number = 10;
    for topology in Topology::ALL {
        for family in Family::BOTH {
            Service::echo(number, topology, family).create(&lab);
            number += 1;
        }
    }
    let pid = lab.node.fastpath_pid();
    let mut aims: Vec<_> = services
        .iter()
        .map(|(_, target)| (target.ip(), target.port()))
        .collect();
    aims.extend((10..number).map(|n| {
        (
            lab.vip(if n % 2 == 0 { Family::V4 } else { Family::V6 }, n),
            7,
        )
    }));
    // Where replies come to.
    aims.push((lab.proxy_source(Family::V4, 4), 2000));
    aims.push((lab.proxy_source(Family::V6, 5), 2000));

    let running = Load {
        parallel: 2,
        ..Load::new(services[0].1, 0)
    }
    .start(lab.at("c1"));
    let wire = Wire::open(lab.at("c2"), "eth0");
    let balancer = hardware_address(lab.at("lb"), "eth0");
    let seed = 20_261_121;
    let mut noise = Noise::new(
        seed,
        wire.address,
        balancer,
        lab.client(Family::V4, 2),
        aims,
    );
    let mut sent = 0;
    for _ in 0..FRAMES {
        // The socket's own queue may be full; that frame never was on the wire.
        sent += usize::from(wire.send(&noise.frame()).is_ok());
    }
    assert!(
        sent > FRAMES / 2,
        "given a wire, then most frames get on it: {sent} of {FRAMES} did"
    );
    // A third of the noise are whole SYNs and such for the same servers: some requests may see their server's backlog
    // busy, but none may fail.
    running.stop().none_failed(&format!(
        "given a burst of {sent} frames of noise (seed {seed}), when clients come meanwhile"
    ));

    lab.node.assert_alive();
    assert_eq!(
        lab.node.fastpath_pid(),
        pid,
        "given a burst of noise (seed {seed}), then the fast path is the same process"
    );
    for log in [lab.node.fastpath_log(), lab.node.manager_log()] {
        assert!(
            !log.contains("panicked"),
            "given a burst of noise (seed {seed}), then nothing panics:\n{log}"
        );
    }
    // Far more frames than there are in the UMEM: were one lost now and then, nothing would get through any more.
    for (service, target) in &services {
        let given = format!(
            "given {service} after a burst of {sent} frames of noise (seed {seed}), when 300 requests are sent"
        );
        let tally = Load::new(*target, 300).run(lab.at("c1"));
        tally.none_failed(&given);
        assert_eq!(
            tally.answers.len(),
            3,
            "{given}, then all servers answer: {tally}"
        );
    }

    let counters = node_counters(&lab);
    let dropped = counters.get("packets-dropped").copied().unwrap_or(0);
    let named: u64 = counters
        .iter()
        .filter(|(name, _)| name.starts_with("drop:"))
        .map(|(_, count)| count)
        .sum();
    assert!(
        dropped > 0 && dropped == named,
        "given a burst of noise, then every drop has a name: {dropped} dropped, {named} by name: {counters:?}"
    );
}

/// The counters of the node as a whole, by GetStatistics over plain D-Bus.
fn node_counters(lab: &Lab) -> BTreeMap<String, u64> {
    let text = lab.node.call("GetStatistics", &[]).ok();
    // dbus-send prints: struct { string "" string "" array [ dict entry( string "name" uint64 1 ) … ] }
    let mut counters = BTreeMap::new();
    let mut strings: Vec<String> = Vec::new();
    let mut name = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("struct {") {
            strings.clear();
        } else if let Some(value) = line.strip_prefix("string ") {
            let value = value.trim_matches('"').to_owned();
            if strings.len() < 2 {
                strings.push(value);
            } else {
                name = value;
            }
        } else if let Some(value) = line.strip_prefix("uint64 ")
            && strings == ["", ""]
        {
            counters.insert(name.clone(), value.parse().expect("a number"));
        }
    }
    assert!(
        !counters.is_empty(),
        "given GetStatistics, then it has the node's totals:\n{text}"
    );
    counters
}
