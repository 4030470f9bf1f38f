//! Where server groups get servers from by themselves, as the manager sees it: somebody who is asked about a source, and
//! tells what came of it. What follows from that is pure ([`follow`]); who asks is [`ask`].
//!
//! ```text
//!            Order (mpsc): ask this then, forget that
//!  manager ───────────────────────────────────────────▶ ask: a task a group, name servers and probes
//!          ◀───────────────────────────────────────────
//!            News (mpsc): what was heard
//! ```

mod ask;
pub mod follow;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libilb::address::Family;
use libilb::healthcheck::HealthCheck;
use libilb::source::Source;
use tokio::sync::mpsc;

pub use ask::{start, suits};
use follow::Heard;

/// Which addresses of a name are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// Of one family.
    One(Family),
    /// Of both.
    Both,
    /// Those of IPv4 if there are any, otherwise those of IPv6.
    Either,
}

/// What is asked of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// About what.
    pub source: Source,
    /// Of a name: which addresses.
    pub families: Families,
    /// Of a subnet: how its addresses are tested.
    pub check: Option<Arc<HealthCheck>>,
    /// Of a subnet: the port that is asked, if the source does not say one.
    pub port: Option<u16>,
    /// Of a subnet: addresses that are ours.
    pub ours: Vec<IpAddr>,
}

/// What the manager says.
#[derive(Debug)]
pub enum Order {
    /// Ask this after a while, instead of what was to be asked for this group.
    Ask {
        /// Key of the group.
        group: String,
        /// Comes back with the answer.
        serial: u64,
        /// What.
        question: Box<Question>,
        /// When.
        after: Duration,
    },
    /// Ask nothing for this group any more.
    Forget(String),
}

/// What was heard.
#[derive(Debug)]
pub struct News {
    /// Key of the group.
    pub group: String,
    /// That of the order.
    pub serial: u64,
    /// What.
    pub heard: Heard,
}

/// The manager's end.
#[derive(Debug)]
pub struct Sources {
    orders: mpsc::UnboundedSender<Order>,
    news: mpsc::Receiver<News>,
}

/// The other end.
#[derive(Debug)]
pub struct Asked {
    /// What the manager says.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// What it is told.
    pub news: mpsc::Sender<News>,
}

/// Answers that may wait for the manager.
const WAITING: usize = 64;

impl Sources {
    /// Both ends.
    pub fn pair() -> (Sources, Asked) {
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (news_sender, news) = mpsc::channel(WAITING);
        let sources = Sources {
            orders: order_sender,
            news,
        };
        let asked = Asked {
            orders,
            news: news_sender,
        };
        (sources, asked)
    }

    /// Says what is to be asked.
    pub fn order(&self, order: Order) {
        // At the end of the program there may be nobody any more.
        drop(self.orders.send(order));
    }

    /// What was heard next. May be dropped and called again.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}
