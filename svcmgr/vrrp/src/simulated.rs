//! Somebody who takes orders and does nothing: no packet is sent, no address is put up.

use libilb::vrrp::{VrrpCounters, VrrpState, VrrpStatus};

use crate::{News, Order, Report, Server};

/// Until nobody gives orders any more.
pub async fn play(mut server: Server) {
    let mut reports: Vec<Report> = Vec::new();
    while let Some(order) = server.orders.recv().await {
        match order {
            Order::Configure(instances) => {
                let status = VrrpStatus {
                    state: VrrpState::Disabled,
                    why: "simulated: no packet is sent".to_owned(),
                    ..VrrpStatus::default()
                };
                reports = instances
                    .into_iter()
                    .map(|instance| Report {
                        name: instance.name.clone(),
                        status: status.clone(),
                        counters: VrrpCounters::default(),
                    })
                    .collect();
                for report in &reports {
                    // Who listened may have gone away.
                    drop(server.news.send(News {
                        name: report.name.clone(),
                        status: report.status.clone(),
                        other: None,
                    }));
                }
            }
            Order::Fastpath(_) | Order::Pulse(_) | Order::Rules(_) | Order::Outer(_) => {}
            // Who asked may have gone away.
            Order::Report(reply) => drop(reply.send(reports.clone())),
            Order::Stop(reply) => {
                let _ = reply.send(());
                return;
            }
        }
    }
}
