//! Answers to what is asked about single packets, connections and pools: from the view and the table that the workers
//! use, by the control thread, without the workers noticing.

use std::fmt::Write;
use std::sync::Arc;

use ilb_forwarder::spec::RuleId;
use ilb_forwarder::{Table, View, explain, listing};
use ilb_node::control::{PoolVersion, Response};

use crate::clock::Instant;

fn error(error: &dyn std::error::Error) -> Response {
    Response::Error {
        message: error.to_string(),
    }
}

/// What would become of a packet.
pub fn explain(view: &View, table: &Arc<Table>, query: &explain::Query) -> Response {
    match explain::explain(view, table, query, Instant::now().seconds()) {
        Ok(explanation) => Response::Explanation(Box::new(explanation)),
        Err(reason) => error(&reason),
    }
}

/// One page of connections.
pub fn connections(view: &View, table: &Table, query: &listing::Query) -> Response {
    match listing::page(view, table, query, Instant::now().seconds()) {
        Ok(page) => Response::Connections(page),
        Err(reason) => error(&reason),
    }
}

/// The versions of a rule's pool.
pub fn pool(view: &View, rule: RuleId) -> Response {
    let Some(found) = view.snapshot.rule_by_id(rule) else {
        return Response::Error {
            message: format!("there is no rule {rule}"),
        };
    };
    let versions = found.pool.versions().iter().map(|version| PoolVersion {
        number: version.number(),
        servers: version.servers().to_vec(),
        live: version.live(),
        retired: version.is_retired(),
        bytes: hexadecimal(&version.export(rule).unwrap_or_default()),
    });
    Response::Pool(versions.collect())
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_forwarder::network::Network;
    use ilb_forwarder::spec::{
        PortRange, Prefix, Protocol, RuleSpec, ServerSpec, SnapshotSpec, VipSpec,
    };
    use ilb_forwarder::{Forwarder, Packet, Snapshot};

    fn end(address: &str, port: u16) -> listing::End {
        listing::End {
            address: address.parse().unwrap(),
            port,
        }
    }

    fn node() -> (View, Arc<Table>) {
        let spec = SnapshotSpec {
            generation: 3,
            rules: vec![RuleSpec {
                id: 7,
                name: "web".into(),
                vips: vec![VipSpec {
                    address: "192.0.2.1".parse().unwrap(),
                    protocol: Protocol::Tcp,
                    ports: PortRange::single(80),
                }],
                servers: vec![ServerSpec {
                    id: 1,
                    name: "_web.0".into(),
                    address: "198.51.100.1".parse().unwrap(),
                    ..ServerSpec::default()
                }],
                ..RuleSpec::default()
            }],
            ..SnapshotSpec::default()
        };
        let snapshot = Arc::new(Snapshot::compile(&spec, None, 1).unwrap());
        let network = Arc::new(Network::new(vec![], vec![], vec![]));
        let table = Arc::new(Table::private(64, [1, 3, 5, 7]).unwrap());
        (View::new(snapshot, network), table)
    }

    /// A SYN of 203.0.113.9 port 4000 to the VIP.
    fn syn() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([203, 0, 113, 9, 192, 0, 2, 1]);
        frame.extend([0x0f, 0xa0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0]);
        frame.extend([0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn questions_are_answered_from_what_the_workers_use() {
        let (view, table) = node();
        let query = explain::Query {
            source: end("203.0.113.9", 4000),
            destination: end("192.0.2.1", 80),
            ..explain::Query::default()
        };
        let Response::Explanation(said) = explain(&view, &table, &query) else {
            panic!("no explanation");
        };
        assert_eq!((said.generation, said.origin), (3, explain::Origin::Begins));
        assert_eq!(said.server.unwrap().name, "_web.0");
        assert_eq!(table.used(), 0);

        let mut frame = syn();
        let length = frame.len();
        let mut packets = [Packet::new(&mut frame, 0, length, 0)];
        let now = Instant::now().seconds();
        Forwarder::new(0, Arc::clone(&table)).process(&view, &mut packets, now);
        let all = listing::Query::default();
        let Response::Connections(page) = connections(&view, &table, &all) else {
            panic!("no connections");
        };
        assert_eq!(page.next, None);
        assert_eq!(page.entries.len(), 1);
        assert_eq!(
            (page.entries[0].rule, page.entries[0].client),
            (7, query.source)
        );
        let Response::Explanation(said) = explain(&view, &table, &query) else {
            panic!("no explanation");
        };
        assert_eq!(said.entry.as_ref(), page.entries.first());

        let Response::Pool(versions) = pool(&view, 7) else {
            panic!("no pool");
        };
        assert_eq!(versions.len(), 1);
        assert_eq!(versions[0].servers, [(1, 1)]);
        assert_eq!(versions[0].number, page.entries[0].pool_version);
        assert!(versions[0].bytes.starts_with("696c6250"));
    }

    #[test]
    fn what_cannot_be_answered_is_said_in_words() {
        let (view, table) = node();
        let message = |response| match response {
            Response::Error { message } => message,
            other => panic!("{other:?}"),
        };
        let query = explain::Query {
            destination: end("2001:db8::1", 80),
            ..explain::Query::default()
        };
        assert!(message(explain(&view, &table, &query)).contains("family"));
        let filter = listing::Filter {
            client: Some(Prefix {
                address: "10.0.0.0".parse().unwrap(),
                len: 40,
            }),
            ..listing::Filter::default()
        };
        let query = listing::Query {
            filter,
            ..listing::Query::default()
        };
        assert_eq!(
            message(connections(&view, &table, &query)),
            "10.0.0.0/40 is no network"
        );
        assert_eq!(message(pool(&view, 8)), "there is no rule 8");
    }
}
