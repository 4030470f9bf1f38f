//! VRRP of the ilb load balancer: what [`vrrp_rs`] decides is done here, with sockets, timers and the kernel's addresses.
//!
//! ```text
//!            Order (mpsc)                    ┌────────┐ ──advertisements──▶ VrrpSocket (raw, one an instance)
//!  manager ────────────────────────────────▶ │        │ ◀──Packet (mpsc)──  its reader task
//!          ◀──────────────────────────────── │ Engine │ ──add/remove──────▶ Holder (rtnetlink)
//!            News (mpsc): changes of state   │        │ ──ARP, NA─────────▶ announcer
//!                                            │        │ ◀──Finding (mpsc)─  probes: scripts and files, a task each
//!                                            └────────┘ ◀──changed────────  rtnetlink: interfaces
//! ```
//!
//! The engine has a thread of its own, so that an advertisement is not late because the manager writes to its disk or describes
//! ten thousand rules; the kernel lets it go before ordinary ones ([`urgent`]). It owns the addresses of its instances: they carry a mark of their own ([`holder`]), by which a
//! new start finds what a killed one has left behind. It refuses to know rules, servers and the store.

#![deny(unsafe_code)]

mod announcer;
mod engine;
mod holder;
mod interfaces;
mod notify;
mod router;
mod schedule;
mod simulated;
mod socket;
mod track;
mod urgent;
mod virtual_mac;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use libilb::vrrp::{VrrpCounters, VrrpInstance, VrrpStatus};
use tokio::sync::{mpsc, oneshot, watch};

pub use holder::{ADDRESS_PROTOCOL, sweep};

/// What the manager says.
#[derive(Debug)]
pub enum Order {
    /// These are the instances now, all of them.
    Configure(Vec<Arc<VrrpInstance>>),
    /// Whether the fast path is there and has something to forward by.
    Fastpath(bool),
    /// Whether the fast path answers, as far as it is there.
    Pulse(bool),
    /// How the rules are that are tracked, by key of their names: why one is not well. A rule that is not there does not exist.
    Rules(BTreeMap<String, Option<String>>),
    /// These instances, by key of their names, have addresses that clients ask. Of a sync group they come last when it takes
    /// over: servers shall know where to answer before anybody asks them from here.
    Outer(BTreeSet<String>),
    /// Say everything that is known.
    Report(oneshot::Sender<Vec<Report>>),
    /// Give up everything, say so to the network, and end.
    Stop(oneshot::Sender<()>),
}

/// An instance stands otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Its name.
    pub name: String,
    /// Where it stands now.
    pub status: VrrpStatus,
    /// The address, on the instance's interface, of a node that lives and has its addresses, or had them until this one has
    /// taken over.
    pub other: Option<IpAddr>,
}

/// All about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: VrrpStatus,
    /// What was counted.
    pub counters: VrrpCounters,
}

/// The manager's end.
#[derive(Debug)]
pub struct Driver {
    orders: mpsc::UnboundedSender<Order>,
    news: mpsc::UnboundedReceiver<News>,
    any: watch::Sender<bool>,
}

/// For somebody else who has something to say, while there are instances.
#[derive(Debug)]
pub struct Speaker {
    orders: mpsc::UnboundedSender<Order>,
    any: watch::Receiver<bool>,
}

impl Speaker {
    /// Returns while there are instances; false when there never will be any again. May be dropped and called again.
    pub async fn wanted(&mut self) -> bool {
        self.any.wait_for(|any| *any).await.is_ok()
    }

    /// Says something. At the end of the program there may be nobody any more.
    pub fn order(&self, order: Order) {
        drop(self.orders.send(order));
    }
}

/// The other end.
#[derive(Debug)]
pub struct Server {
    /// What the manager says.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// What it is told.
    pub news: mpsc::UnboundedSender<News>,
}

impl Driver {
    /// Both ends.
    pub fn pair() -> (Driver, Server) {
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (news_sender, news) = mpsc::unbounded_channel();
        let driver = Driver {
            orders: order_sender,
            news,
            any: watch::Sender::new(false),
        };
        let server = Server {
            orders,
            news: news_sender,
        };
        (driver, server)
    }

    /// A driver with the engine behind it, on a thread of its own that belongs to the network namespace of the caller.
    ///
    /// # Errors
    /// If the system gives no thread or no netlink socket.
    pub fn start() -> io::Result<Driver> {
        let (driver, server) = Driver::pair();
        engine::spawn(server)?;
        Ok(driver)
    }

    /// A driver that sends and hears nothing, for simulations. Needs a running tokio runtime.
    pub fn simulated() -> Driver {
        let (driver, server) = Driver::pair();
        tokio::spawn(simulated::play(server));
        driver
    }

    /// For somebody else.
    pub fn speaker(&self) -> Speaker {
        Speaker {
            orders: self.orders.clone(),
            any: self.any.subscribe(),
        }
    }

    /// Says something. At the end of the program there may be nobody any more.
    pub fn order(&self, order: Order) {
        if let Order::Configure(instances) = &order {
            self.any.send_replace(!instances.is_empty());
        }
        drop(self.orders.send(order));
    }

    /// The next change. May be dropped and called again.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// All about all instances, in the order of their configuration.
    pub async fn report(&self) -> Vec<Report> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Report(reply));
        answer.await.unwrap_or_default()
    }

    /// Gives up everything and returns when another node has taken over, or had the time to.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Stop(reply));
        // An engine that is gone has nothing to give up.
        drop(answer.await);
    }
}
