//! A datagram is sent. What comes back decides, and for an empty one silence will do: only an ICMP error means dead.

use std::net::SocketAddr;
use std::time::Duration;

use libilb::health::{Code, Layer};
use libilb::healthcheck::{Reply, Udp};
use tokio::time::Instant;

use super::silence;
use super::socket::Way;
use crate::outcome::{Failure, Rtt, Success};

/// Longest reply that is looked at.
const MAX_REPLY: usize = 9000;

pub async fn probe(
    place: SocketAddr,
    way: &Way,
    udp: &Udp,
    timeout: Duration,
) -> Result<Success, Failure> {
    let began = Instant::now();
    let failed = |error: std::io::Error| Failure::of_socket(Layer::L4, &error);
    let mut socket = way.datagrams(place).await.map_err(failed)?;
    socket.send(&udp.payload.0).await.map_err(failed)?;
    let mut buffer = vec![0; MAX_REPLY];
    // A port of our own: what comes in time is the answer to this.
    let length = match tokio::time::timeout(timeout, socket.recv(&mut buffer)).await {
        Ok(received) => received.map_err(failed)?,
        Err(_) if udp.reply == Reply::None => {
            return Ok(Success {
                words: "no ICMP error came back".to_string(),
                rtt: Rtt::None,
                ..Success::at(Layer::L4)
            });
        }
        Err(_) => return Err(silence(Layer::L7, began, timeout)),
    };
    let reply = &buffer[..length];
    match &udp.reply {
        Reply::None => Ok(Success::at(Layer::L4)),
        Reply::Any => Ok(Success::at(Layer::L7)),
        Reply::Begins(masked) if masked.begins(reply) => Ok(Success::at(Layer::L7)),
        Reply::Begins(_) => {
            let begin: Vec<String> = reply.iter().take(16).map(|b| format!("{b:02x}")).collect();
            let words = format!("{length} octets came back: {}", begin.join(" "));
            Err(Failure::new(Layer::L7, Code::Answer, words))
        }
    }
}
