//! One connection with the other manager, from its first word to its last.

use std::net::IpAddr;
use std::time::Duration;

use ilb_pair::follow::SILENCE;
use ilb_pair::{Link, LinkReceiver, LinkSender};
use libilb::pair::NodeDescription;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::wire::Frame;

/// How often something is said, whether there is anything to say or not.
const BEAT: Duration = Duration::from_secs(1);

/// A connection with somebody who is the other node.
pub struct Arrived {
    /// What is said through it.
    pub link: Link,
    /// Our address.
    pub local: IpAddr,
    /// The other node's.
    pub remote: IpAddr,
    /// Told at its end whether both have heard each other.
    pub over: oneshot::Sender<bool>,
}

/// What a session tells.
#[derive(Debug)]
pub enum News {
    /// A frame.
    Heard(Frame),
    /// It is over, with the reason.
    Over(String),
}

/// Runs until the connection ends, silence is too long, or nobody wants to hear of it.
pub async fn run(
    link: Link,
    beat: watch::Receiver<NodeDescription>,
    frames: mpsc::UnboundedReceiver<Frame>,
    news: mpsc::Sender<News>,
) {
    let (sender, receiver) = link.split();
    let why = tokio::select! {
        why = hear(receiver, &news) => why,
        why = say(sender, beat, frames) => why,
    };
    // Whoever was to be told may have gone away.
    drop(news.send(News::Over(why)).await);
}

async fn hear(mut receiver: LinkReceiver, news: &mpsc::Sender<News>) -> String {
    loop {
        let frame = match timeout(SILENCE, receiver.receive()).await {
            Err(_) => return format!("nothing was heard for {} s", SILENCE.as_secs()),
            Ok(Err(error)) => return error.to_string(),
            Ok(Ok(None)) => return "the other node has ended the connection".to_owned(),
            Ok(Ok(Some(frame))) => frame,
        };
        match Frame::decode(frame) {
            Ok(Frame::Unknown | Frame::Kept) => {}
            Ok(frame) => {
                if news.send(News::Heard(frame)).await.is_err() {
                    return "the manager has ended it".to_owned();
                }
            }
            Err(why) => return format!("the other node says {why}"),
        }
    }
}

async fn say(
    mut sender: LinkSender,
    mut beat: watch::Receiver<NodeDescription>,
    mut frames: mpsc::UnboundedReceiver<Frame>,
) -> String {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            _ = ticks.tick() => Frame::Beat(Box::new(beat.borrow_and_update().clone())),
            Ok(()) = beat.changed() => Frame::Beat(Box::new(beat.borrow_and_update().clone())),
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => return "the manager has ended it".to_owned(),
            },
        };
        match timeout(SILENCE, sender.send(&frame.encode())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("nothing was taken for {} s", SILENCE.as_secs()),
        }
    }
}
