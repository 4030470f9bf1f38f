//! ICMP errors about connections.

use super::{Path, known::Hit, not_ours};
use crate::icmp;
use crate::network::NextHop;
use crate::packet::{Headers, Packet};
use crate::table::Direction;
use crate::verdict::{DropReason, Verdict};
use crate::view::{Recognised, View};

impl Path {
    #[cold]
    pub(super) fn icmp_error(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
    ) -> Verdict {
        if let Some(verdict) = self.tunnel_error(view, packet, headers) {
            return verdict;
        }
        let frame = packet.frame_mut();
        let Some(quoted) = icmp::quoted(frame, headers) else {
            return not_ours::verdict(view, headers);
        };
        let tuple = quoted.tuple.reversed();
        let hash = self.hasher.tuple(&tuple);
        let Some(Hit {
            found,
            recognised: Recognised::Flow(flow),
        }) = self.find(view, &tuple, hash)
        else {
            return not_ours::verdict(view, headers);
        };
        if found.direction == Direction::Forward && view.hop(flow.target_index) == NextHop::Local {
            return Verdict::Kernel;
        }
        let traffic = flow.target.account.of(self.worker);
        let too_big = icmp::is_too_big(frame, headers);
        let allowed = self.may_carry_icmp(view);
        let rewritten = match allowed {
            true => icmp::rewrite(frame, headers, &quoted, &flow, found.direction),
            false => Err(DropReason::IcmpLimit),
        };
        let verdict = match rewritten {
            Ok(_) if flow.target.encapsulation.is_some() => {
                self.wrap_and_send(view, packet, headers, &flow, hash)
            }
            Ok(destination) => {
                let hop = match found.direction {
                    Direction::Forward => view.hop(flow.target_index),
                    Direction::Reverse => view.network.next_hop(destination, hash as u32),
                };
                view.network.send(hop, headers.ip_len(), frame)
            }
            Err(reason) => Verdict::Drop(reason),
        };
        icmp::count(traffic, verdict, too_big, headers.ip_len());
        verdict
    }
}
