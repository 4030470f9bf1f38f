//! The fast path as the manager sees it: something that answers requests and may come and go.

pub mod pulse;
mod simulated;
mod socket;

use std::future::Future;
use std::time::Duration;

use ilb_node::control::{Hello, Request, Response};

pub use simulated::SimulatedDataPlane;
pub use socket::{SocketDataPlane, unexpected};

/// Something that forwards packets by the snapshots it is given.
pub trait DataPlane: Send + 'static {
    /// Sends a request and waits for its response.
    fn request(
        &mut self,
        request: Request,
    ) -> impl Future<Output = Result<Response, LinkError>> + Send;

    /// The next time that it comes or goes. May be dropped and called again.
    fn event(&mut self) -> impl Future<Output = Event> + Send;
}

/// The data plane came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is there and said who it is.
    Up(Hello),
    /// It is gone.
    Down(LinkError),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens on the control socket.
    #[error("the fast path is not running (nobody listens on {0})")]
    Absent(String),
    /// The connection broke.
    #[error("the connection to the fast path is lost: {0}")]
    Lost(String),
    /// No answer came in time.
    #[error("the fast path has not answered for {} s", .0.as_secs())]
    Timeout(Duration),
    /// Something else than the protocol allows.
    #[error("the fast path answered something unexpected: {0}")]
    Protocol(String),
}
