//! What might happen at the node.

use libilb::events::{Difference, Event, Kind, Properties, What};
use serde_json::{Value, json};

fn properties(value: Value) -> Properties {
    serde_json::from_value(value).unwrap()
}

fn event(object: Kind, name: &str, what: What) -> Event {
    Event {
        object,
        name: name.to_string(),
        what,
    }
}

fn created(object: Kind, name: &str, value: Value) -> Event {
    let properties = properties(value);
    event(object, name, What::Created { properties })
}

fn changed(object: Kind, name: &str, changes: &[(&str, Value, Value)]) -> Event {
    let changes = changes.iter().map(|(name, old, new)| {
        let (old, new) = (old.clone(), new.clone());
        (name.to_string(), Difference { old, new })
    });
    let changes = changes.collect();
    event(object, name, What::Changed { changes })
}

/// A morning.
pub fn events() -> Vec<Event> {
    let rule = json!({
        "name": "www", "enabled": true, "vip": "192.0.2.80", "protocol": "tcp", "port": "80",
        "algorithm": "roundrobin", "topology": "NAT", "server-group": "web", "clients": [],
    });
    let server = json!({
        "id": "_web.0", "enabled": true, "address": "192.0.2.11", "port": "8080", "weight": 3,
    });
    let check = json!({ "name": "tcp", "test": "tcp", "timeout": 5 });
    vec![
        created(
            Kind::ServerGroup,
            "web",
            json!({"name": "web", "servers": []}),
        ),
        created(Kind::Server, "_web.0", server),
        changed(
            Kind::ServerGroup,
            "web",
            &[("servers", json!([]), json!(["_web.0"]))],
        ),
        created(Kind::HealthCheck, "tcp", check),
        created(Kind::Rule, "www", rule),
        changed(Kind::Manager, "", &[("generation", json!(11), json!(12))]),
        changed(
            Kind::Rule,
            "www",
            &[
                ("clients", json!([]), json!(["10.0.0.0/8", "192.0.2.7/32"])),
                ("enabled", json!(true), json!(false)),
            ],
        ),
        changed(Kind::Server, "_web.0", &[("weight", json!(3), json!(1))]),
        changed(
            Kind::Server,
            "_web.0",
            &[("health", json!("alive"), json!("dead"))],
        ),
        changed(
            Kind::Manager,
            "",
            &[
                ("fastpath", json!("connected"), json!("absent")),
                ("fastpath-generation", json!(12), json!(0)),
            ],
        ),
        event(Kind::Manager, "", What::Stopped),
        event(Kind::Manager, "", What::Started),
        event(Kind::Rule, "www", What::Removed),
    ]
}
