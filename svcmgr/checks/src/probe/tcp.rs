//! A TCP connection is made and reset: nothing lingers on either side, so that thousands a second cost no ports.

use std::net::SocketAddr;

use libilb::health::Layer;

use super::socket::Way;
use crate::outcome::{Failure, Success};

pub async fn probe(place: SocketAddr, way: &Way) -> Result<Success, Failure> {
    let stream = way
        .connect(place)
        .await
        .map_err(|error| Failure::of_socket(Layer::L4, &error))?;
    stream.reset();
    Ok(Success::at(Layer::L4))
}
