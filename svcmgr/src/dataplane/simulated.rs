//! A data plane for `--sim`: accepts every snapshot, has no connections and counts nothing.

use std::future::pending;

use ilb_forwarder::spec::SnapshotSpec;
use ilb_node::control::{
    Hello, PROTOCOL_VERSION, PeerStatus, Request, Response, RuleStatistics, ServerStatistics,
    Statistics, Status,
};

use super::{DataPlane, Event, LinkError};

/// See the module.
#[derive(Debug, Default)]
pub struct SimulatedDataPlane {
    greeted: bool,
    spec: SnapshotSpec,
}

impl SimulatedDataPlane {
    fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            pid: std::process::id(),
            start_id: 1,
            generation: self.spec.generation,
            limits: self.spec.limits,
        }
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            start_id: 1,
            rules: self
                .spec
                .rules
                .iter()
                .map(|rule| RuleStatistics {
                    id: rule.id,
                    servers: rule
                        .servers
                        .iter()
                        .map(|server| ServerStatistics {
                            id: server.id,
                            ..ServerStatistics::default()
                        })
                        .collect(),
                    ..RuleStatistics::default()
                })
                .collect(),
            ..Statistics::default()
        }
    }
}

impl DataPlane for SimulatedDataPlane {
    async fn request(&mut self, request: Request) -> Result<Response, LinkError> {
        Ok(match request {
            Request::Hello { .. } => Response::Hello(self.hello()),
            Request::Apply(spec) => {
                self.spec = spec;
                Response::Applied {
                    generation: self.spec.generation,
                }
            }
            Request::Change(change) if change.base != self.spec.generation => Response::Gap {
                generation: self.spec.generation,
            },
            Request::Change(change) => {
                self.spec.change(change);
                Response::Applied {
                    generation: self.spec.generation,
                }
            }
            Request::Status => Response::Status(Status {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                generation: self.spec.generation,
                rules: Some(self.spec.rules.len() as u64),
                ..Status::default()
            }),
            Request::Statistics | Request::StatisticsOf(_) => {
                Response::Statistics(self.statistics())
            }
            // Nobody answers it.
            Request::Peer(peer) => Response::Peer(peer.map(|peer| PeerStatus {
                address: peer.address.to_string(),
                node: peer.node,
                ..PeerStatus::default()
            })),
            // No packet comes to them.
            Request::Close(_) => Response::Closed,
            Request::Handover(_) => Response::Handover,
            Request::Explain(_) | Request::Connections(_) | Request::PoolExport { .. } => {
                Response::Error {
                    message: "a simulated data plane has no packets".to_owned(),
                }
            }
        })
    }

    async fn event(&mut self) -> Event {
        if self.greeted {
            pending().await
        } else {
            self.greeted = true;
            Event::Up(self.hello())
        }
    }
}
