//! A TCP connection is made and reset: nothing lingers on either side, so that thousands a second cost no ports.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libilb::health::Layer;

use super::socket;
use crate::outcome::{Failure, Success};

pub async fn probe(place: SocketAddr, source: Option<IpAddr>) -> Result<Success, Failure> {
    let stream = socket::connect(place, source)
        .await
        .map_err(|error| Failure::of_socket(Layer::L4, &error))?;
    // If it cannot be reset it is closed.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    Ok(Success::at(Layer::L4))
}
