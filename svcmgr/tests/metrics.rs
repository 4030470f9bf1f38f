//! The metrics endpoint as scrapers meet it, judged by Prometheus's own `promtool` and the OpenMetrics parser of its Python
//! client; and counters that go on over restarts of both daemons.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Bus, FakeFastpath, Node, PATIENCE, Process, answering, rule, until};
use ilb_node::control::PeerStatus;
use libilb::client::Client;
use libilb::pair::{PairDescription, Step};
use libilb::source::SourceSettings;

/// A port that nobody has right now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}

/// A node whose manager has an endpoint.
fn node_with_metrics(more: &str) -> (Node, SocketAddr) {
    let (node, address) = (Node::new(), free_address());
    node.configure(&format!("[metrics]\nlisten = \"{address}\"\n{more}"));
    (node, address)
}

/// Sends a request as it is and gives the whole answer.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the endpoint listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The body of a scrape. By HTTP/1.0, so that it does not come in chunks; curl shows that those are right.
fn scrape(address: SocketAddr, accept: &str) -> String {
    let request = format!("GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n");
    let answer = exchange(address, &request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

/// Values by name and labels, without fractions.
fn values(body: &str) -> BTreeMap<String, u64> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let value: f64 = value.parse().expect("a number");
            (name.to_owned(), value as u64)
        })
        .collect()
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error} (make deps)"));
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// The real one, which tests/deps.sh fetches.
fn promtool() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_ilb-svcmgr"));
    let target = program.ancestors().nth(2).expect("target/debug/program");
    Command::new(target.join("tools/promtool"))
}

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name)
}

fn succeeds(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn both_formats_are_what_others_accept_and_say_what_there_is() {
    let bus = Bus::start();
    let (node, address) = node_with_metrics("");
    let fastpath = FakeFastpath::start(&node);
    {
        let mut mind = fastpath.mind.lock().unwrap();
        (mind.packets, mind.connections) = (1000, 3);
        let counts = |key: &str, count| [(key.to_owned(), count)].into();
        mind.peer = Some(PeerStatus {
            up: true,
            pending: 8,
            counters: counts("sent_octets", 400),
            records: counts("entered", 5),
            refused: counts("late", 7),
            ..PeerStatus::default()
        });
    }
    let _manager = Process::start(&mut node.command(&bus));
    let client = answering(&bus).await;
    client
        .create_group("web", &["192.0.2.1", "[2001:db8::1]:8080"])
        .await
        .expect("a group");
    let mut mixed = rule("198.51.100.1", "four");
    mixed.port = "80-81".into();
    client
        .create_group("four", &["192.0.2.7"])
        .await
        .expect("a group");
    client.create_rule("www", &mixed).await.expect("a rule");
    // Nobody listens there.
    let mut source = SourceSettings::default();
    let said = "dns=app.example.com,resolver=127.0.0.1:9,interval=60";
    source.parse(said).expect("a source");
    client
        .create_following_group("named", &["192.0.2.8"], &source)
        .await
        .expect("a group");
    fastpath.wait_for_rules(1);

    let plain = scrape(address, "text/plain");
    let checked = run(promtool().args(["check", "metrics"]), &plain);
    succeeds(&checked);
    assert!(
        checked.stdout.is_empty() && checked.stderr.is_empty(),
        "{checked:?}"
    );

    let open = scrape(
        address,
        "application/openmetrics-text; version=1.0.0,text/plain;q=0.5",
    );
    let parser = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let parsed = run(Command::new("/usr/bin/python3").args(["-c", parser]), &open);
    succeeds(&parsed);
    let samples: usize = String::from_utf8_lossy(&parsed.stdout)
        .trim()
        .parse()
        .expect("a number");
    assert_eq!(samples, values(&open).len());
    assert!(open.ends_with("# EOF\n"));

    let curl = Command::new("curl")
        .args(["-sS", "--fail", &format!("http://{address}/metrics")])
        .output();
    let by_curl = String::from_utf8(curl.expect("curl runs").stdout).expect("text");
    let names = |text: &str| values(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&by_curl), names(&plain), "in chunks and in one");

    let server = "rule=\"www\",server=\"_four.0\",local_address=\"198.51.100.1\",local_port=\"80-81\",remote_address=\"192.0.2.7\",\
                  remote_port=\"80-81\",proto=\"TCP\"";
    let values = values(&plain);
    for (name, expected) in [
        ("ilb_fastpath_up".to_owned(), 1),
        ("ilb_fastpath_in_step".to_owned(), 1),
        ("ilb_degraded".to_owned(), 0),
        ("ilb_drift".to_owned(), 0),
        ("ilb_rule_backends_usable{rule=\"www\"}".to_owned(), 1),
        ("ilb_source_answers_total{group=\"named\"}".to_owned(), 0),
        ("ilb_source_servers{group=\"named\"}".to_owned(), 0),
        ("ilb_source_candidates{group=\"named\"}".to_owned(), 0),
        ("ilb_rule_quorum{rule=\"www\"}".to_owned(), 1),
        ("ilb_rule_panic{rule=\"www\"}".to_owned(), 0),
        ("ilb_sync_up".to_owned(), 1),
        ("ilb_sync_complete".to_owned(), 0),
        ("ilb_sync_pending".to_owned(), 8),
        ("ilb_sync_sent_octets_total".to_owned(), 400),
        ("ilb_sync_records_total{outcome=\"entered\"}".to_owned(), 5),
        ("ilb_sync_refused_total{reason=\"late\"}".to_owned(), 7),
        ("ilb_rules".to_owned(), 1),
        ("ilb_rule_enabled{rule=\"www\"}".to_owned(), 1),
        ("ilb_rule_packets_total{rule=\"www\"}".to_owned(), 1000),
        (format!("ilb_backend_weight{{{server}}}"), 1),
        (format!("ilb_backend_enabled{{{server}}}"), 1),
        (format!("ilb_backend_connections_active{{{server}}}"), 3),
    ] {
        assert_eq!(values.get(&name), Some(&expected), "{name} in {plain}");
    }
}

/// Both become a pair, and have the same.
async fn pair(first: &Client, second: &Client) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    drop(listener);
    let here = "127.0.0.1".parse().expect("an address");
    let invited = first.create_pair(Some(here), port).await.expect("a token");
    let joined = second.join_pair(here, port, &invited.token, false).await;
    joined.expect("joined");
    wait_for(first, "the second node has everything", |pair| {
        pair.configuration.step == Step::InStep && pair.following.wholes_given > 0
    })
    .await;
}

async fn wait_for(client: &Client, what: &str, is: impl Fn(&PairDescription) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pair = client.describe_pair().await.expect("an answer");
        if is(&pair) {
            return;
        }
        assert!(Instant::now() < deadline, "in vain: {what}: {pair:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pair_says_what_became_of_changes_on_their_way() {
    let (first_bus, second_bus) = (Bus::start(), Bus::start());
    let (node, address) = node_with_metrics("");
    let (other, other_address) = node_with_metrics("");
    let (_first, client) = node.start_sim(&first_bus).await;
    let (second, peer) = other.start_sim(&second_bus).await;
    let alone = values(&scrape(address, "text/plain"));
    let about: Vec<&String> = alone
        .keys()
        .filter(|it| it.starts_with("ilb_pair"))
        .collect();
    assert!(
        about.is_empty(),
        "without a pair there is nothing: {about:?}"
    );
    pair(&client, &peer).await;
    client
        .create_group("a", &["192.0.2.1"])
        .await
        .expect("made");
    client
        .create_group("b", &["192.0.2.2"])
        .await
        .expect("made");
    wait_for(&peer, "the second one has both", |it| {
        it.following.taken == 2
    })
    .await;
    for (address, expected) in [
        (
            address,
            [
                ("ilb_pair_link_up", 1),
                ("ilb_pair_in_step", 1),
                ("ilb_pair_peer_left", 0),
                ("ilb_pair_changes_behind", 0),
                ("ilb_pair_offers_total{outcome=\"taken\"}", 2),
                ("ilb_pair_offers_total{outcome=\"unanswered\"}", 0),
                ("ilb_pair_changes_taken_total", 0),
                ("ilb_pair_whole_transfers_total{direction=\"sent\"}", 1),
                ("ilb_pair_whole_transfers_total{direction=\"received\"}", 0),
            ],
        ),
        (
            other_address,
            [
                ("ilb_pair_link_up", 1),
                ("ilb_pair_link_lost_total", 0),
                ("ilb_pair_offers_total{outcome=\"taken\"}", 0),
                ("ilb_pair_changes_taken_total", 2),
                ("ilb_pair_changes_refused_total{reason=\"forged\"}", 0),
                ("ilb_pair_whole_transfers_total{direction=\"sent\"}", 0),
                ("ilb_pair_whole_transfers_total{direction=\"received\"}", 1),
                ("ilb_pair_forks_total{outcome=\"won\"}", 0),
                ("ilb_pair_forks_total{outcome=\"lost\"}", 0),
            ],
        ),
    ] {
        let body = scrape(address, "text/plain");
        let checked = run(promtool().args(["check", "metrics"]), &body);
        succeeds(&checked);
        let values = values(&body);
        for (name, count) in expected {
            assert_eq!(values.get(name), Some(&count), "{name} in {body}");
        }
    }
    // A link that is lost is counted, and what is made without the other node, too.
    drop(second);
    wait_for(&client, "the link is down", |it| !it.link.up).await;
    let values = values(&scrape(address, "text/plain"));
    assert_eq!(values.get("ilb_pair_link_lost_total"), Some(&1));
    assert_eq!(values.get("ilb_pair_link_up"), Some(&0));
}

#[tokio::test]
async fn without_lines_for_servers_there_are_those_of_rules() {
    let bus = Bus::start();
    let (node, address) = node_with_metrics("per-server = false\n");
    let (_manager, client) = node.start_sim(&bus).await;
    client
        .create_group("web", &["192.0.2.1"])
        .await
        .expect("a group");
    client
        .create_rule("www", &rule("198.51.100.1", "web"))
        .await
        .expect("a rule");
    let plain = scrape(address, "text/plain");
    assert!(
        plain.contains("ilb_rule_enabled{rule=\"www\"} 1\n"),
        "{plain}"
    );
    assert!(!plain.contains("ilb_backend"), "{plain}");
}

#[tokio::test]
async fn who_asks_badly_or_never_harms_nobody() {
    let bus = Bus::start();
    let (node, address) = node_with_metrics("");
    let (_manager, client) = node.start_sim(&bus).await;
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(10_000));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        ("\0\0\r\n\r\n", "400"),
        (&long, "400"),
    ] {
        let answer = exchange(address, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{answer}"
        );
    }
    // As many as are let in say nothing; the next one is told to come back, and nobody else notices.
    let silent: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(address).expect("it listens"))
        .collect();
    until("the ninth is refused", || {
        exchange(address, "GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 503 ")
    })
    .await;
    client
        .create_group("web", &["192.0.2.1"])
        .await
        .expect("the manager works");
    drop(silent);
    until("there is room again", || {
        exchange(address, "GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 ")
    })
    .await;
}

#[tokio::test]
async fn counters_go_on_over_restarts_of_both() {
    let bus = Bus::start();
    let (node, address) = node_with_metrics("");
    let packets = || values(&scrape(address, "text/plain"))["ilb_rule_packets_total{rule=\"www\"}"];
    let start = |packets: u64| {
        let fastpath = FakeFastpath::start(&node);
        fastpath.mind.lock().unwrap().packets = packets;
        fastpath
    };
    let first = start(1000);
    let mut manager = Process::start(&mut node.command(&bus));
    let client = answering(&bus).await;
    client
        .create_group("web", &["192.0.2.1"])
        .await
        .expect("a group");
    client
        .create_rule("www", &rule("198.51.100.1", "web"))
        .await
        .expect("a rule");
    until("it counts", || packets() == 1000).await;

    manager.signal("TERM");
    assert!(manager.wait().success());
    let mut manager = Process::start(&mut node.command(&bus));
    answering(&bus).await;
    until("the same fast path is not counted twice", || {
        packets() == 1000
    })
    .await;

    drop(first);
    until("what it had counted stays", || packets() == 1000).await;
    let second = start(5);
    until("another adds to it", || packets() == 1005).await;
    manager.kill();
    let manager = Process::start(&mut node.command(&bus));
    answering(&bus).await;
    until("kill -9 loses nothing either", || packets() == 1005).await;
    second.mind.lock().unwrap().packets = 7;
    until("and it goes on", || packets() == 1007).await;
    drop((manager, second));
}

/// Names of metrics in a text.
fn names_in(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("ilb_"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_what_there_is() {
    let rules = packaging("prometheus/ilb.rules.yml");
    succeeds(&run(promtool().args(["check", "rules"]).arg(&rules), ""));
    let tests = packaging("prometheus/ilb.rules.test.yml");
    succeeds(&run(promtool().args(["test", "rules"]).arg(&tests), ""));

    let text = std::fs::read_to_string(packaging("grafana/ilb.json")).expect("a dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().expect("a query"))
        .collect();
    assert!(queries.len() > 10, "{queries:?}");
    // promtool reads queries of rules only: so each becomes one, with something in the place of Grafana's variables.
    let mut as_rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let query = query
            .replace("$__rate_interval", "5m")
            .replace("$instance", "lb1")
            .replace("$rule", ".*");
        as_rules += &format!(
            "  - record: query{number}\n    expr: {}\n",
            serde_json::json!(query)
        );
    }
    let node = Node::new();
    let file = node.path("dashboard.yml");
    std::fs::write(&file, as_rules).expect("the test's folder can be written");
    succeeds(&run(promtool().args(["check", "rules"]).arg(&file), ""));

    let bus = Bus::start();
    let address = free_address();
    node.configure(&format!("[metrics]\nlisten = \"{address}\"\n"));
    let fastpath = FakeFastpath::start(&node);
    let _manager = Process::start(&mut node.command(&bus));
    let client = answering(&bus).await;
    client
        .create_group("web", &["192.0.2.1"])
        .await
        .expect("a group");
    client
        .create_rule("www", &rule("198.51.100.1", "web"))
        .await
        .expect("a rule");
    fastpath.wait_for_rules(1);
    let (other_bus, other) = (Bus::start(), Node::new());
    let (_other_manager, peer) = other.start_sim(&other_bus).await;
    pair(&client, &peer).await;
    let known = names_in(&scrape(address, "text/plain"));
    let asked = names_in(&(queries.join(" ") + &std::fs::read_to_string(rules).expect("rules")));
    let unknown: Vec<_> = asked.iter().filter(|name| !known.contains(name)).collect();
    assert!(
        unknown.is_empty(),
        "nobody says {unknown:?}; known are {known:?}"
    );
}
