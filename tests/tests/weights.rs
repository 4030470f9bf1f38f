//! Weights that follow the load of real servers, from end to end: processors get busy, SNMP says so, new connections go elsewhere,
//! and come back.
//!
//! `ILB_WRITE=1` lets it take its time, with the processors' own objects, which agents renew every few seconds, and draws what
//! came out into `docs/load.svg`.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ilb_tests::held::Held;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::strain::{self, Strained, Stream};
use ilb_tests::{Family, Topology, shell};

/// Long enough for whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests a second to each service.
const RATE: u32 = 30;
/// What of its processor the burden of the second server takes.
const BURDEN: f64 = 0.75;
/// The law's allowance for servers that have next to nothing to do (docs/load.md).
const LITTLE: f64 = 0.2;
/// Servers as the lab counts.
const SERVERS: [&str; 3] = ["s1", "s2", "s3"];

/// How long each part lasts, and what is asked.
struct Course {
    load: String,
    before: Duration,
    burden: Duration,
    after: Duration,
    /// The end of each part, in which everything has come to rest.
    rest: Duration,
}

impl Course {
    /// Readings that are as old as they look, so that it is soon over.
    fn quick() -> Course {
        Course {
            load: format!("hc-load={}/100,hc-load-interval=0.5", strain::OBJECT),
            before: Duration::from_secs(5),
            burden: Duration::from_secs(13),
            after: Duration::from_secs(13),
            rest: Duration::from_secs(5),
        }
    }

    /// As users have it.
    fn whole() -> Course {
        Course {
            load: "hc-load=cpu,hc-load-interval=2".to_string(),
            before: Duration::from_secs(40),
            burden: Duration::from_secs(80),
            after: Duration::from_secs(80),
            rest: Duration::from_secs(25),
        }
    }
}

/// What was seen at a moment.
struct Sample {
    at: Instant,
    /// How busy each server's processor is, 0 to 1.
    loads: [f64; 3],
    /// What ilb says of the second server's share, in percent of its configured one, by service.
    told: [f64; 2],
}

/// All of it.
struct Record {
    begun: Instant,
    /// When the burden came, went, and all was over.
    parts: [Instant; 3],
    samples: Vec<Sample>,
    /// Who answered what was asked when, by service.
    answers: [Vec<(Instant, String)>; 2],
}

impl Record {
    /// The second server's part of the new connections of a service.
    fn part(&self, service: usize, from: Instant, to: Instant) -> f64 {
        self.part_of(service, SERVERS[1], from, to)
    }

    fn part_of(&self, service: usize, server: &str, from: Instant, to: Instant) -> f64 {
        let during = |at: &Instant| (from..to).contains(at);
        let of = self.answers[service].iter().filter(|(at, _)| during(at));
        let (all, its) = of.fold((0, 0), |(all, its), (_, who)| {
            (all + 1, its + usize::from(who == server))
        });
        f64::from(its as u32) / f64::from(all.max(1) as u32)
    }

    /// The part that the law gives the second server by what its processor and the others' had to do.
    fn predicted(&self, from: Instant, to: Instant) -> f64 {
        let during = self
            .samples
            .iter()
            .filter(|sample| (from..to).contains(&sample.at));
        let (mut sum, mut count) = ([0.0; 3], 0.0);
        for sample in during {
            for (sum, load) in sum.iter_mut().zip(sample.loads) {
                *sum += load;
            }
            count += 1.0;
        }
        let need = sum.map(|sum| sum / count + LITTLE);
        let least = need.iter().copied().fold(f64::INFINITY, f64::min);
        let shares = need.map(|need| least / need);
        shares[1] / shares.iter().sum::<f64>()
    }

    /// How often what is told of a service turns round: less and then more, or more and then less.
    fn turns(&self, service: usize, from: Instant, to: Instant) -> usize {
        let mut told: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| (from..to).contains(&sample.at))
            .map(|sample| sample.told[service])
            .collect();
        told.dedup();
        let mut turns = 0;
        for three in told.windows(3) {
            turns += usize::from((three[1] > three[0]) != (three[2] > three[1]));
        }
        turns
    }
}

#[test]
fn new_connections_go_where_processors_are_free_and_come_back() {
    let drawn = std::env::var_os("ILB_WRITE").is_some();
    let course = match drawn {
        true => Course::whole(),
        false => Course::quick(),
    };
    let lab = Lab::with_ilb(Spec::default());
    let servers: Vec<Strained> = SERVERS
        .iter()
        .map(|role| Strained::start(&lab, role))
        .collect();
    lab.node.lbadm(&format!(
        "create-healthcheck -h hc-test=tcp,hc-timeout=2,hc-count=3,hc-interval=1,hc-community={},hc-load-least=10,{} busy",
        strain::COMMUNITY, course.load
    ));
    let services = [(Topology::HalfNat, Family::V4), (Topology::Nat, Family::V6)];
    let mut number = 0;
    let targets = services.map(|(topology, family)| {
        let service = Service {
            ports: "8070",
            ..Service::http(number, topology, family).algorithm("wrr")
        };
        number += 1;
        let target = service.create(&lab);
        lab.node
            .lbadm(&format!("modify-rule -h hc-name=busy {}", service.rule()));
        target
    });
    let told = || told(&lab);
    let streams = targets.map(|target| Stream::start(lab.at("c1"), target, RATE));
    let mut held: Vec<Held> = lab
        .at("c1")
        .enter(|| targets.map(|target| [(); 3].map(|()| Held::open(target))))
        .into_iter()
        .flatten()
        .collect();
    let known = shell::wait_for(PATIENCE, || {
        told().filter(|told| told.iter().all(|t| *t >= 80.0))
    });
    assert!(
        known.is_some(),
        "idle servers have their shares:\n{}",
        lab.node
            .lbadm("show-hc-result -o serverid,status,load,share,reason")
    );

    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut stay = move || {
        for held in &mut held {
            let answer = held.ask();
            assert_eq!(
                answer.as_ref().ok(),
                Some(&held.server),
                "a connection stays where it is, whatever its server has to do: {answer:?}"
            );
        }
    };
    let mut watch = |length: Duration| {
        let end = Instant::now() + length;
        while Instant::now() < end {
            let loads = [0, 1, 2].map(|n| servers[n].load());
            let told = told().expect("once known, a share stays known");
            samples.push(Sample {
                at: Instant::now(),
                loads,
                told,
            });
            stay();
            std::thread::sleep(Duration::from_millis(200));
        }
        Instant::now()
    };
    let mut parts = [watch(course.before); 3];
    servers[1].burden(BURDEN);
    parts[1] = watch(course.burden);
    servers[1].burden(0.0);
    parts[2] = watch(course.after);
    let answers = streams.map(|stream| {
        let seen = stream.stop().into_iter();
        seen.map(|(at, who)| {
            (
                at,
                who.unwrap_or_else(|error| panic!("a request failed: {error}")),
            )
        })
        .collect()
    });
    let record = Record {
        begun,
        parts,
        samples,
        answers,
    };
    if drawn {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/load.svg");
        std::fs::write(&path, draw(&record)).expect("docs/ can be written to");
    }

    for (number, (topology, family)) in services.iter().enumerate() {
        let of = format!("given {topology} over {family}");
        let resting = |end: Instant| (end - course.rest, end);
        let parts = record.parts.map(|end| {
            let (from, to) = resting(end);
            (
                record.part(number, from, to),
                record.predicted(from, to),
                record.turns(number, from, to),
            )
        });
        for (when, (part, predicted, turns)) in
            ["before", "under a burden", "after"].iter().zip(parts)
        {
            assert!(
                (part - predicted).abs() < 0.06,
                "{of}, {when}, its part of new connections is {predicted:.3}, not {part:.3}"
            );
            assert!(
                turns <= 1,
                "{of}, {when}, its share rests; it turned {turns} times"
            );
        }
        let [(before, ..), (burdened, ..), (after, ..)] = parts;
        assert!(
            burdened < 0.75 * before && after > 0.85 * before,
            "{of}, it has less while it has more to do: {parts:.3?}"
        );
        // On its way there and back it turns at most once, when a reading goes over the mark.
        let ways = [
            (record.parts[0], record.parts[1]),
            (record.parts[1], record.parts[2]),
        ];
        for (from, to) in ways {
            let turns = record.turns(number, from, to);
            assert!(
                turns <= 2,
                "{of}, its share does not swing; it turned {turns} times"
            );
        }
    }
}

/// What ilb says of the second server's share, in percent, by service; none before the first readings.
fn told(lab: &Lab) -> Option<[f64; 2]> {
    let text = lab.node.lbadm("show-hc-result -p -o serverid,share");
    let of = |id: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(id))?;
        line.trim_start_matches(':')
            .trim_end_matches('%')
            .parse()
            .ok()
    };
    Some([of("_group0.1")?, of("_group1.1")?])
}

/// The record as a picture: parts of new connections over time, and the loads below.
fn draw(record: &Record) -> String {
    const WIDTH: f64 = 860.0;
    const LEFT: f64 = 60.0;
    const RIGHT: f64 = 170.0;
    const COLOURS: [&str; 3] = ["#1f77b4", "#d62728", "#2ca02c"];
    let seconds = |at: Instant| at.saturating_duration_since(record.begun).as_secs_f64();
    let length = seconds(record.parts[2]);
    let x = |at: f64| LEFT + at / length * (WIDTH - LEFT - RIGHT);
    // Two pictures, one above the other: their upper end, height, and what is full height.
    let y =
        |place: (f64, f64, f64), value: f64| place.0 + place.1 * (1.0 - (value / place.2).min(1.0));
    let (parts, loads) = ((40.0, 180.0, 0.6), (270.0, 120.0, 1.0));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} 430\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Shares of new connections while one of three servers is busy</title>\n\
         <rect width=\"{WIDTH}\" height=\"430\" fill=\"white\"/>\n"
    );
    let (from, to) = (x(seconds(record.parts[0])), x(seconds(record.parts[1])));
    let _ = writeln!(
        out,
        "<rect x=\"{from:.1}\" y=\"40\" width=\"{:.1}\" height=\"350\" fill=\"#f3e6e6\"/>\n\
         <text x=\"{:.1}\" y=\"54\" text-anchor=\"middle\">{:.0} % of s2's processor is busy with something else</text>",
        to - from,
        (from + to) / 2.0,
        BURDEN * 100.0
    );
    for (place, title, step) in [
        (
            parts,
            "part of new connections (each point: 2 s, both services)",
            0.1,
        ),
        (loads, "load of processors", 0.25),
    ] {
        let _ = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>",
            place.0 - 10.0
        );
        for n in 0..=f64::round(place.2 / step) as u32 {
            let value = f64::from(n) * step;
            let at = y(place, value);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                value * 100.0
            );
        }
    }
    for n in 0..=(length / 20.0) as u32 {
        let at = f64::from(n) * 20.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"410\" text-anchor=\"middle\">{at:.0} s</text>",
            x(at)
        );
    }
    let line = |points: Vec<(f64, f64)>, place, style: &str| {
        let points: Vec<String> = points
            .into_iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(at), y(place, value)))
            .collect();
        format!(
            "<polyline fill=\"none\" {style} points=\"{}\"/>\n",
            points.join(" ")
        )
    };
    for (number, (server, colour)) in SERVERS.iter().zip(COLOURS).enumerate() {
        let step = Duration::from_secs(2);
        let mut points = Vec::new();
        let mut at = record.begun;
        while at + step <= record.parts[2] {
            let part = [0, 1].map(|service| record.part_of(service, server, at, at + step));
            points.push((seconds(at) + 1.0, (part[0] + part[1]) / 2.0));
            at += step;
        }
        let style = format!("stroke=\"{colour}\" stroke-width=\"1.8\"");
        out += &line(points, parts, &style);
        let busy = record.samples.iter();
        let busy = busy
            .map(|sample| (seconds(sample.at), sample.loads[number]))
            .collect();
        out += &line(
            busy,
            loads,
            &format!("stroke=\"{colour}\" stroke-opacity=\"0.7\""),
        );
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{server}</text>",
            WIDTH - RIGHT + 10.0,
            60.0 + 18.0 * f64::from(number as u32)
        );
    }
    // What ilb says of s2: its weight, of the sum with two others that have theirs whole.
    let said = record.samples.iter();
    let said = said.map(|sample| {
        let share = (sample.told[0] + sample.told[1]) / 200.0;
        (seconds(sample.at), share / (2.0 + share))
    });
    out += &line(
        said.collect(),
        parts,
        "stroke=\"black\" stroke-dasharray=\"5 3\"",
    );
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"114\">dashed: s2 by weight</text>\n</svg>",
        WIDTH - RIGHT + 10.0
    );
    out
}
