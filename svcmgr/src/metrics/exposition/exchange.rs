//! What the fast path and its peer tell each other of connections. Without a peer there is nothing to say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ilb_node::control::PeerStatus;

use super::{Kind, Writer};

/// A family, its words, and its value.
type Column = (&'static str, &'static str, fn(&PeerStatus) -> u64);

const COLUMNS: &[Column] = &[
    (
        "ilb_sync_up",
        "1 while the peer of the fast path answers.",
        |peer| peer.up.into(),
    ),
    (
        "ilb_sync_complete",
        "1 when the peer has told everything since it, or this fast path, started.",
        |peer| peer.complete.into(),
    ),
    (
        "ilb_sync_pending",
        "Entries that wait to be told.",
        |peer| peer.pending,
    ),
];

/// A family of counters, its words, its label, and where it is.
type Table = (
    &'static str,
    &'static str,
    &'static str,
    fn(&PeerStatus) -> &BTreeMap<String, u64>,
);

const TABLES: &[Table] = &[
    (
        "ilb_sync_records",
        "Records of the peer, by what became of them.",
        "outcome",
        |peer| &peer.records,
    ),
    (
        "ilb_sync_refused",
        "Datagrams that were not believed, by reason.",
        "reason",
        |peer| &peer.refused,
    ),
];

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    /// Everything about the exchange.
    pub(super) fn exchange(&mut self, peer: Option<&PeerStatus>) {
        let Some(peer) = peer else {
            return;
        };
        for (name, help, value) in COLUMNS {
            self.family(name, Kind::Gauge, help);
            self.line(name, Kind::Gauge, &[], value(peer));
        }
        let lag = "ilb_sync_lag_seconds";
        let help = "For how long something has been waiting to be told.";
        self.family(lag, Kind::Gauge, help);
        let (seconds, millis) = (peer.lag_ms / 1000, peer.lag_ms % 1000);
        self.sample(lag, "", &[], format_args!("{seconds}.{millis:03}"));
        for (what, count) in &peer.counters {
            let name = format!("ilb_sync_{what}");
            let help = format!("Exchange of connections: {}.", what.replace('_', " "));
            let kind = match what.as_str() {
                // Those that are known now come and go.
                "known_traces" => Kind::Gauge,
                _ => Kind::Counter,
            };
            self.family(&name, kind, &help);
            self.line(&name, kind, &[], *count);
        }
        for (name, help, label, table) in TABLES {
            self.family(name, Kind::Counter, help);
            for (key, count) in table(peer) {
                let labels = [(*label, Cow::from(key.as_str()))];
                self.line(name, Kind::Counter, &labels, *count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Format;

    fn written(peer: Option<&PeerStatus>) -> String {
        let mut all = Vec::new();
        let mut writer = Writer {
            format: Format::Prometheus,
            created: 0,
            text: String::new(),
            out: |piece: Vec<u8>| {
                all.extend(piece);
                true
            },
            listening: true,
        };
        writer.exchange(peer);
        writer.flush();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn what_was_refused_has_its_reason() {
        let counts = |entries: &[(&str, u64)]| {
            let entries = entries
                .iter()
                .map(|(key, count)| ((*key).to_owned(), *count));
            entries.collect::<BTreeMap<_, _>>()
        };
        let peer = PeerStatus {
            up: true,
            lag_ms: 12,
            pending: 3,
            counters: counts(&[("sent_datagrams", 4)]),
            records: counts(&[("entered", 5)]),
            refused: counts(&[("seal", 6), ("stranger", 7)]),
            ..PeerStatus::default()
        };
        let text = written(Some(&peer));
        let lines: Vec<&str> = text.lines().filter(|it| !it.starts_with('#')).collect();
        let expected = [
            "ilb_sync_up 1",
            "ilb_sync_complete 0",
            "ilb_sync_pending 3",
            "ilb_sync_lag_seconds 0.012",
            "ilb_sync_sent_datagrams_total 4",
            "ilb_sync_records_total{outcome=\"entered\"} 5",
            "ilb_sync_refused_total{reason=\"seal\"} 6",
            "ilb_sync_refused_total{reason=\"stranger\"} 7",
        ];
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn without_a_peer_there_is_nothing() {
        assert_eq!(written(None), "");
    }
}
