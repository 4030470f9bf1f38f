//! Joining: what the second node does once, with the token.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ilb_pair::{Identity, LinkReceiver, LinkSender, Secret, Token};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::LASTING;
use super::keep::Membership;
use super::listener::{JOIN_PATIENCE, ends};
use super::wire::Frame;

/// How long a connection may take to be made.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A join that both sides have agreed on, and neither keeps yet.
pub struct Joining {
    /// What is to be kept.
    pub membership: Membership,
    sender: LinkSender,
    receiver: LinkReceiver,
}

/// A connection to the other node's port.
///
/// # Errors
/// Why there is none, for a person.
pub async fn dial(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let whom = SocketAddr::new(address, port);
    let stream = match timeout(CONNECT_PATIENCE, TcpStream::connect(whom)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("{whom} cannot be reached: {error}")),
        Err(_) => {
            let seconds = CONNECT_PATIENCE.as_secs();
            return Err(format!("{whom} does not answer within {seconds} s"));
        }
    };
    // A beat shall not wait for another one.
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Shows the token to the node at this address, and agrees with it on a secret.
///
/// # Errors
/// Why not, for a person.
pub async fn begin(
    address: IpAddr,
    port: u16,
    token: &Token,
    identity: &Arc<Identity>,
) -> Result<Joining, String> {
    let stream = dial(address, port).await?;
    let (local, remote) = ends(&stream).map_err(|error| error.to_string())?;
    let link = ilb_pair::join(stream, identity, token).await;
    let link = link.map_err(|error| {
        format!(
            "{}: {error}; a token is good for an hour and for one node: 'lbadm pair create' there makes another one",
            SocketAddr::new(address, port)
        )
    })?;
    let secret = link.export(LASTING).map_err(|error| error.to_string())?;
    let (sender, receiver) = link.split();
    Ok(Joining {
        membership: Membership {
            node: 1,
            peer: token.creator,
            secret: Secret::new(secret),
            address: remote,
            local,
            listen: None,
            port,
        },
        sender,
        receiver,
    })
}

impl Joining {
    /// Says that this side keeps it, and returns when the other one does, too.
    ///
    /// # Errors
    /// Why not, for a person.
    pub async fn finish(mut self) -> Result<(), String> {
        let agree = async {
            let said = self.sender.send(&Frame::Kept.encode()).await;
            said.map_err(|error| error.to_string())?;
            match self.receiver.receive().await {
                Ok(Some(frame)) if Frame::decode(frame.clone()) == Ok(Frame::Kept) => Ok(()),
                Ok(_) => Err("the other node did not take it: another one has joined, or it cannot write its disk".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        match timeout(JOIN_PATIENCE, agree).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "the other node has not finished within {} s",
                JOIN_PATIENCE.as_secs()
            )),
        }
    }
}
