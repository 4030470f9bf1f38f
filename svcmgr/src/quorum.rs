//! Whether the servers that are able are enough. Pure.
//!
//! Weights count, not servers: with weights of 1 that is the same. A quorum is lost and had again at different weights, so
//! that one server that comes and goes does not move everything each time.

/// What a rule demands of its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Weight that is enough, at least 1.
    pub quorum: u32,
    /// Weight above it that it takes to have it again, and below it to lose it; less than the quorum.
    pub hysteresis: u32,
}

impl Demands {
    /// Whether the weight of those that are `able`, out of `all` that there are, is enough, after what it was `before`.
    pub fn met(self, able: u64, all: u64, before: Option<bool>) -> bool {
        let (quorum, hysteresis) = (u64::from(self.quorum.max(1)), u64::from(self.hysteresis));
        able >= match before {
            None => quorum,
            Some(true) => quorum.saturating_sub(hysteresis).max(1),
            // More than there are cannot be asked for.
            Some(false) => (quorum + hysteresis).min(all.max(quorum)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_lost_and_had_again_at_different_weights() {
        for quorum in 1..=4u32 {
            for hysteresis in 0..quorum {
                let demands = Demands { quorum, hysteresis };
                for all in 0..=8u64 {
                    for able in 0..=all {
                        let case = format!("{demands:?} {able} of {all}");
                        let met = |before| demands.met(able, all, before);
                        let (low, high) = (quorum - hysteresis, quorum + hysteresis);
                        assert_eq!(met(None), able >= quorum.into(), "{case}");
                        // Never without anybody, whatever the hysteresis.
                        let keeps = able > 0 && able >= low.into();
                        assert_eq!(met(Some(true)), keeps, "{case}");
                        let regains = able >= high.into() || able == all && able >= quorum.into();
                        assert_eq!(met(Some(false)), regains, "{case}");
                        // What was found stays while nothing changes.
                        for before in [None, Some(true), Some(false)] {
                            let found = met(before);
                            assert_eq!(met(Some(found)), found, "{case} {before:?}");
                        }
                    }
                }
            }
        }
    }
}
