//! Each packet against what the reference says of it.

use super::*;

impl World {
    /// Holds a client's packet against the reference. True if the reference cannot know what the table holds now.
    pub(super) fn hold_client(
        &mut self,
        key: &Key,
        build: &Build,
        piece: Option<Piece>,
        verdict: Verdict,
        out: &[u8],
    ) -> bool {
        let expected = self.reference.expect(key, build.flags);
        if !matches!(expected, Expected::Continues(_) | Expected::Orphan(_)) {
            // One that was over makes way, whatever becomes of the packet.
            self.reference.flows.remove(key);
        }
        let datagram = piece.map(|(_, id, _)| (*key, id));
        if let Some(datagram) = datagram {
            // Until it is known better below.
            self.reference.datagrams.insert(datagram, Unchecked);
        }
        let known = match expected {
            Expected::Continues(known) => known,
            Expected::Orphan(known) => match self.hold_orphan(key, build, &known, verdict, out) {
                Ok(known) => known,
                Err(surprise) => return surprise,
            },
            Expected::Kernel => {
                assert_eq!(verdict, Verdict::Kernel, "{key:?}");
                if let Some(datagram) = datagram {
                    self.reference
                        .datagrams
                        .insert(datagram, Kernel { since: self.now });
                }
                return false;
            }
            // Established once, and forgotten since by the table but not by the rule's pool.
            Expected::NoConnection if is_sent(verdict) || is_entered(verdict) => return true,
            Expected::NoConnection => {
                assert_eq!(verdict, Verdict::Drop(DropReason::NoConnection), "{key:?}");
                return false;
            }
            Expected::Begins(rule) => match self.learn(rule, key, verdict, out) {
                Some(known) => known,
                None => {
                    let is_entered = is_entered(verdict);
                    if let (Some(datagram), false) = (datagram, is_entered) {
                        self.reference.datagrams.remove(&datagram);
                    }
                    return is_entered;
                }
            },
        };
        let rule = self.reference.rule(known.rule).expect("rules stay");
        let (one_packet, persistence) = (rule.one_packet, rule.persistence);
        if !one_packet {
            self.reference.makes_way_for(key, &known);
            self.reference.flows.insert(*key, known);
        }
        if let (Some(persistence), false) =
            (persistence, matches!(expected, Expected::Continues(_)))
        {
            let client = masked(key.client.0, persistence.mask);
            self.reference
                .claims
                .insert((known.rule, client), known.server);
        }
        let id = self.renumbered(build, &known, piece, out);
        if let (Some(datagram), Some(id)) = (datagram, id) {
            let known = Follows {
                known,
                id,
                since: self.now,
            };
            self.reference.datagrams.insert(datagram, known);
        }
        let piece = piece.map(|(n, own, size)| (n, id.unwrap_or(own), size));
        self.goes_to_server(key, build, &known, piece, verdict, out);
        self.reference.passed(key, true, build.flags, self.now);
        false
    }

    /// A packet of a connection whose server is dead or gone: its new server, or whether the reference cannot know what the
    /// table holds now.
    fn hold_orphan(
        &mut self,
        key: &Key,
        build: &Build,
        known: &Known,
        verdict: Verdict,
        out: &[u8],
    ) -> Result<Known, bool> {
        let at = self
            .reference
            .rules
            .iter()
            .position(|rule| rule.id == known.rule);
        let at = at.expect("rules stay");
        match self.reference.rules[at].orphans {
            Orphans::Reschedule => {
                let learnt = self.learn(at, key, verdict, out);
                // The old entry makes way for a server that is found, even if no connection to it can be told apart.
                let collides = [DropReason::ReplyCollision, DropReason::NatPortsExhausted];
                if collides.map(Verdict::Drop).contains(&verdict) {
                    self.reference.flows.remove(key);
                }
                learnt.ok_or_else(|| is_entered(verdict))
            }
            Orphans::Drop => {
                assert_eq!(verdict, Verdict::Drop(DropReason::Orphaned), "{key:?}");
                Err(false)
            }
            Orphans::Reset if key.protocol == 6 => {
                if build.flags & tcp::RST != 0 {
                    assert_eq!(verdict, Verdict::Drop(DropReason::Orphaned), "{key:?}");
                } else {
                    assert!(
                        wire::is_reset_of(out, &build.frame()),
                        "{key:?} is reset: {verdict:?} {out:02x?}"
                    );
                    arrives(key.client.0, FRONT, out, verdict, out);
                }
                if let Some(known) = self.reference.flows.get_mut(key) {
                    known.life = Life::Reset;
                }
                Err(false)
            }
            Orphans::Reset => {
                assert!(is_sent(verdict), "{key:?} is refused: {verdict:?}");
                arrives(key.client.0, FRONT, out, verdict, out);
                self.reference.flows.remove(key);
                Err(false)
            }
        }
    }

    /// The identification that a first fragment was given; None if it has none that can be read.
    fn renumbered(
        &self,
        build: &Build,
        known: &Known,
        piece: Option<Piece>,
        out: &[u8],
    ) -> Option<u32> {
        let (_, id, _) = piece?;
        let (rule, _) = self.reference.configured(known.rule, known.server)?;
        if !build.src.0.is_ipv4() || !rule.topology.has_reverse() {
            return Some(id);
        }
        let is_local = known.is_local(self);
        (build.ttl > 1 && !is_local).then(|| u32::from(u16::from_be_bytes([out[18], out[19]])))
    }

    /// A packet of a known connection, or a fragment of it, arrives at the server as it should.
    fn goes_to_server(
        &self,
        key: &Key,
        build: &Build,
        known: &Known,
        piece: Option<Piece>,
        verdict: Verdict,
        out: &[u8],
    ) {
        let (src, dst) = self
            .reference
            .towards_server(key, known)
            .expect("is configured");
        let (rule, server) = self
            .reference
            .configured(known.rule, known.server)
            .expect("is configured");
        if known.is_local(self) {
            let right = match dst.1 == key.vip.1 || rule.topology == Topology::Dsr {
                true => Verdict::Kernel,
                false => Verdict::Drop(DropReason::LocalPort),
            };
            assert_eq!(verdict, right, "{key:?}");
            return;
        }
        let hop = rule.topology != Topology::Dsr;
        if hop && build.ttl == 1 {
            assert_eq!(verdict, Verdict::Drop(DropReason::TtlExpired), "{key:?}");
            return;
        }
        let expected = Build {
            src,
            dst,
            ttl: build.ttl - u8::from(hop),
            is_reply: Some(build.is_reply()),
            ..build.clone()
        };
        let frame = match piece {
            None => expected.frame(),
            Some((n, id, size)) => expected.fragments(id, size).swap_remove(n),
        };
        if rule.topology != Topology::Tun {
            arrives(server.address, BACK, &frame, verdict, out);
            return;
        }
        let unwrapped = wire::unwrap(out, GUE_PORT);
        let unwrapped = unwrapped.unwrap_or_else(|| panic!("{key:?}: {verdict:?} {out:02x?}"));
        assert!(unwrapped.is_intact, "{key:?}");
        assert_eq!(unwrapped.dst, server.address, "{key:?}");
        assert!(rule.proxy_src.contains(&unwrapped.src), "{key:?}");
        arrives(server.address, BACK, &frame, verdict, &unwrapped.frame);
    }

    /// A fragment behind the first one follows it, or waits for it.
    pub(super) fn hold_later(
        &mut self,
        key: &Key,
        build: &Build,
        (n, id, size): Piece,
        verdict: Verdict,
        out: &[u8],
    ) {
        match self.reference.datagram(key, id, self.now) {
            Some(Unchecked) => {}
            None => assert!(
                matches!(verdict, Verdict::Hold { .. }),
                "{key:?}: {verdict:?}"
            ),
            Some(Kernel { .. }) => assert_eq!(verdict, Verdict::Kernel, "{key:?}"),
            Some(Follows { known, id, .. }) => {
                match self.reference.configured(known.rule, known.server) {
                    None => {
                        assert_eq!(verdict, Verdict::Drop(DropReason::ServerGone), "{key:?}");
                    }
                    Some(_) => {
                        self.goes_to_server(key, build, &known, Some((n, id, size)), verdict, out);
                    }
                }
            }
        }
    }

    /// Which server a new connection was given, by what became of its first packet.
    fn learn(&self, rule: usize, key: &Key, verdict: Verdict, out: &[u8]) -> Option<Known> {
        let rule = &self.reference.rules[rule];
        let candidates = || rule.servers.iter().filter(|server| may_be_chosen(server));
        let chosen: IpAddr = match verdict {
            Verdict::Drop(DropReason::NoServer) => {
                assert!(
                    candidates().next().is_none(),
                    "a server could be chosen: {rule:#?}"
                );
                return None;
            }
            Verdict::Drop(DropReason::ServerLimits) => {
                // Overflow takes a weight as a limit.
                let overflow = rule.algorithm == Algorithm::Overflow;
                assert!(
                    candidates().any(|server| overflow || server.max_connections > 0),
                    "nobody is at a limit: {rule:#?}"
                );
                return None;
            }
            Verdict::Drop(DropReason::TtlExpired) => return None,
            // The local node; what it has for a NAT source is in the table only.
            Verdict::Kernel | Verdict::Drop(DropReason::LocalPort) => {
                assert!(
                    candidates().any(|server| is_local(server.address)),
                    "{key:?}"
                );
                return None;
            }
            Verdict::Drop(reason) => {
                assert!(REFUSALS.contains(&reason.label()), "{key:?}: {reason:?}");
                return None;
            }
            Verdict::Unresolved { next_hop, .. } => next_hop,
            Verdict::Transmit(_) => {
                let mut all = candidates();
                all.find(|server| out[..6] == mac(server.address))?.address
            }
            other => panic!("{key:?}: {other:?}"),
        };
        let server = candidates()
            .find(|server| server.address == chosen)
            .unwrap_or_else(|| panic!("{chosen} may not be chosen: {rule:#?}"));
        match self.reference.claim(rule, key.client.0) {
            Some(claimed) => assert_eq!(server.id, claimed, "{key:?} has a claim"),
            None if server.max_connections > 0 && rule.topology != Topology::HalfNat => {
                let others = self.reference.flows.iter();
                let others =
                    others.filter(|(other, known)| known.server == server.id && *other != key);
                assert!(
                    others.count() < server.max_connections as usize,
                    "{key:?}: {server:?} is full"
                );
            }
            None => {}
        }
        let nat = (rule.topology == Topology::Nat).then(|| {
            let tuple = packet::parse(out).expect("what is sent can be read").tuple;
            (tuple.src.into(), tuple.sport)
        });
        if let Some((address, port)) = nat {
            // Echo requests have ids, of which all are as good.
            let least = if key.protocol == 17 || key.protocol == 6 {
                1024
            } else {
                0
            };
            assert!(
                rule.proxy_src.contains(&address) && port >= least,
                "NAT by {address}:{port}"
            );
        }
        Some(Known {
            rule: rule.id,
            server: server.id,
            nat,
            life: Life::Open,
            seen: self.now,
        })
    }

    pub(super) fn hold_server(&mut self, build: &Build, verdict: Verdict, out: &[u8]) {
        let Some((key, _)) = self
            .reference
            .of_reply(build.src, build.dst, build.protocol)
        else {
            return;
        };
        if build.ttl == 1 {
            assert_eq!(verdict, Verdict::Drop(DropReason::TtlExpired), "{key:?}");
        } else {
            let expected = Build {
                src: key.vip,
                dst: key.client,
                ttl: build.ttl - 1,
                is_reply: Some(build.is_reply()),
                ..build.clone()
            };
            arrives(key.client.0, FRONT, &expected.frame(), verdict, out);
        }
        self.reference.passed(&key, false, build.flags, self.now);
    }
}

/// Whether a packet that begins a connection has left one in the table that it does not tell enough about.
fn is_entered(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Kernel | Verdict::Drop(DropReason::TtlExpired | DropReason::LocalPort)
    )
}

impl Known {
    /// Whether its server is the host that balances.
    fn is_local(&self, world: &World) -> bool {
        let configured = world.reference.configured(self.rule, self.server);
        configured.is_some_and(|(_, server)| is_local(server.address))
    }
}

/// Whether this is our own address.
fn is_local(address: IpAddr) -> bool {
    FAMILIES
        .iter()
        .any(|family| family.server(LOCAL) == address)
}
