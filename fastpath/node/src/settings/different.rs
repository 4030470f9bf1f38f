//! Which settings of two files differ, by name: what a reload has to say.

use super::Settings;

impl Settings {
    /// Names such as `fastpath.interfaces` of the keys of these sections whose values differ from those of `other`.
    pub fn different(&self, other: &Settings, sections: &[&str]) -> Vec<String> {
        let (ours, theirs) = (self.entries(), other.entries());
        ours.iter()
            .zip(&theirs)
            .filter(|((section, _, ours), (_, _, theirs))| {
                sections.contains(section) && ours != theirs
            })
            .map(|((section, key, _), _)| format!("{section}.{key}"))
            .collect()
    }

    /// Every key with its section and its value in some text that tells values apart.
    fn entries(&self) -> Vec<(&'static str, &'static str, String)> {
        let Settings {
            node,
            fastpath,
            manager,
            pair,
            metrics,
            limits,
        } = self;
        macro_rules! entries {
            ($($section:literal, $key:literal, $value:expr;)+) => {
                vec![$(($section, $key, format!("{:?}", $value)),)+]
            };
        }
        entries![
            "node", "runtime-dir", node.runtime_dir;
            "node", "state-dir", node.state_dir;
            "node", "bpf-dir", node.bpf_dir;
            "fastpath", "interfaces", fastpath.interfaces;
            "fastpath", "queues", fastpath.queues;
            "fastpath", "table-size", fastpath.table_size;
            "fastpath", "mode", fastpath.mode;
            "fastpath", "zero-copy", fastpath.zero_copy;
            "fastpath", "ring-size", fastpath.ring_size;
            "fastpath", "frames", fastpath.frames;
            "fastpath", "busy-poll", fastpath.busy_poll;
            "manager", "manage-addresses", manager.manage_addresses;
            "pair", "address", pair.address;
            "pair", "port", pair.port;
            "metrics", "listen", metrics.listen;
            "metrics", "per-server", metrics.per_server;
            "limits", "new-flows-per-second", limits.new_flows_per_second;
            "limits", "icmp-errors-per-second", limits.icmp_errors_per_second;
            "limits", "embryonic-percent", limits.embryonic_percent;
            "limits", "waiting-fragments", limits.waiting_fragments;
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::SECTIONS;
    use super::*;

    #[test]
    fn every_key_that_the_file_may_have_is_compared() {
        let settings = Settings::parse("[fastpath]\ninterfaces = [\"eth0\"]").unwrap();
        let compared: Vec<_> = settings
            .entries()
            .iter()
            .map(|(section, key, _)| (*section, *key))
            .collect();
        let known: Vec<_> = SECTIONS
            .iter()
            .flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)))
            .collect();
        assert_eq!(compared, known);
    }

    #[test]
    fn what_is_another_is_named_and_only_in_the_sections_asked_for() {
        let of = |text: &str| Settings::parse(text).unwrap();
        let one = of("[fastpath]\ninterfaces = [\"eth0\"]");
        let two =
            of("[fastpath]\ninterfaces = [\"eth0\", \"eth1\"]\n[limits]\nembryonic-percent = 20");
        let nothing: [&str; 0] = [];
        assert_eq!(one.different(&one, &["node", "fastpath"]), nothing);
        let found = one.different(&two, &["node", "fastpath"]);
        assert_eq!(found, ["fastpath.interfaces"]);
        let found = one.different(&two, &["limits"]);
        assert_eq!(found, ["limits.embryonic-percent"]);
    }
}
