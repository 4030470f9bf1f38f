//! The real fast path, over its control socket. A task of its own keeps the connection:
//!
//! ```text
//!             calls (mpsc, each with a oneshot for the answer)
//!  manager ────────────────────────────────────────▶ link task ◀── Unix socket ──▶ ilb-fastpath
//!          ◀────────────────────────────────────────
//!             events (Up with Hello, Down with reason)
//! ```
//!
//! While nobody listens the task tries again and again; while somebody does, it waits and notices the end of the connection
//! at once, without polling.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ilb_node::control::{
    self, FrameError, Hello, LENGTH_BYTES, PROTOCOL_VERSION, Request, Response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::{DataPlane, Event, LinkError};

/// How long a response may take. Compiling the largest configurations takes seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between attempts to connect: the first ones, when it probably restarts, and the later ones.
const EAGER_RETRY: Duration = Duration::from_millis(50);
const LAZY_RETRY: Duration = Duration::from_millis(500);
const EAGER_ATTEMPTS: u32 = 200;

struct Call {
    request: Request,
    answer: oneshot::Sender<Result<Response, LinkError>>,
}

/// See the module.
pub struct SocketDataPlane {
    calls: mpsc::Sender<Call>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl SocketDataPlane {
    /// Starts the link task for the control socket at `path`. Needs a running tokio runtime.
    pub fn start(path: &Path) -> SocketDataPlane {
        let (calls, call_receiver) = mpsc::channel(1);
        let (event_sender, events) = mpsc::unbounded_channel();
        tokio::spawn(keep_link(path.into(), call_receiver, event_sender));
        SocketDataPlane { calls, events }
    }
}

impl DataPlane for SocketDataPlane {
    async fn request(&mut self, request: Request) -> Result<Response, LinkError> {
        let gone = || LinkError::Lost("the link task has ended".to_owned());
        let (answer, response) = oneshot::channel();
        self.calls
            .send(Call { request, answer })
            .await
            .map_err(|_| gone())?;
        response.await.map_err(|_| gone())?
    }

    async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

/// Ends when the [`SocketDataPlane`] is dropped.
async fn keep_link(
    path: PathBuf,
    mut calls: mpsc::Receiver<Call>,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Some((mut stream, hello)) = connect(&path, &mut calls).await {
        if events.send(Event::Up(hello)).is_err() {
            return;
        }
        let Some(reason) = serve(&mut stream, &mut calls).await else {
            return;
        };
        if events.send(Event::Down(reason)).is_err() {
            return;
        }
    }
}

/// Tries until somebody says hello; answers calls meanwhile. `None` when there can be no more calls.
async fn connect(path: &Path, calls: &mut mpsc::Receiver<Call>) -> Option<(UnixStream, Hello)> {
    let mut attempts = 0;
    loop {
        match greet(path).await {
            Ok(link) => return Some(link),
            Err(error) => tracing::trace!("no fast path yet: {error}"),
        }
        attempts += 1;
        let pause = sleep(if attempts < EAGER_ATTEMPTS {
            EAGER_RETRY
        } else {
            LAZY_RETRY
        });
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                call = calls.recv() => {
                    let absent = LinkError::Absent(path.display().to_string());
                    // The caller may have given up; then nobody misses the answer.
                    drop(call?.answer.send(Err(absent)));
                }
            }
        }
    }
}

pub(super) async fn greet(path: &Path) -> Result<(UnixStream, Hello), LinkError> {
    let mut stream = UnixStream::connect(path)
        .await
        .map_err(|_| LinkError::Absent(path.display().to_string()))?;
    let request = Request::Hello {
        version: PROTOCOL_VERSION,
    };
    match ask(&mut stream, &request).await? {
        Response::Hello(hello) if hello.version == PROTOCOL_VERSION => Ok((stream, hello)),
        Response::Hello(hello) => {
            let message = format!(
                "it speaks version {} of the control protocol, this manager {PROTOCOL_VERSION}; install both from one release",
                hello.version
            );
            tracing::error!("{message}");
            Err(LinkError::Protocol(message))
        }
        other => Err(unexpected(&other)),
    }
}

/// Serves calls until the connection ends, which is the reason returned; `None` when there can be no more calls.
async fn serve(stream: &mut UnixStream, calls: &mut mpsc::Receiver<Call>) -> Option<LinkError> {
    let mut byte = [0];
    loop {
        tokio::select! {
            call = calls.recv() => {
                let call = call?;
                let result = ask(stream, &call.request).await;
                let failure = result.as_ref().err().cloned();
                drop(call.answer.send(result));
                if failure.is_some() {
                    return failure;
                }
            }
            read = stream.read(&mut byte) => {
                return Some(match read {
                    Ok(0) => LinkError::Lost("it closed the connection".to_owned()),
                    Ok(_) => LinkError::Protocol("data that nobody asked for".to_owned()),
                    Err(error) => LinkError::Lost(error.to_string()),
                });
            }
        }
    }
}

async fn ask(stream: &mut UnixStream, request: &Request) -> Result<Response, LinkError> {
    let frame = control::encode(request).map_err(frame_error)?;
    timeout(RESPONSE_TIMEOUT, exchange(stream, &frame))
        .await
        .map_err(|_| LinkError::Timeout(RESPONSE_TIMEOUT))?
}

async fn exchange(stream: &mut UnixStream, frame: &[u8]) -> Result<Response, LinkError> {
    let lost = |error: std::io::Error| LinkError::Lost(error.to_string());
    stream.write_all(frame).await.map_err(lost)?;
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await.map_err(lost)?;
    let length = control::frame_length(prefix).map_err(frame_error)?;
    let mut body = Vec::new();
    let got = stream
        .take(length as u64)
        .read_to_end(&mut body)
        .await
        .map_err(lost)?;
    if got < length {
        return Err(frame_error(FrameError::Truncated {
            expected: length,
            got,
        }));
    }
    control::decode(&body).map_err(frame_error)
}

fn frame_error(error: FrameError) -> LinkError {
    LinkError::Protocol(error.to_string())
}

/// What to say of a response that does not belong to its request.
pub fn unexpected(response: &Response) -> LinkError {
    let what = match response {
        Response::Error { message } => message.clone(),
        Response::Hello(_) => "a hello".to_owned(),
        Response::Applied { generation } => format!("generation {generation} applied"),
        Response::Rejected { reason, .. } => format!("a rejection: {reason}"),
        Response::Gap { generation } => format!("it forwards by generation {generation}"),
        Response::Status(_) => "its status".to_owned(),
        Response::Statistics(_) => "statistics".to_owned(),
        Response::Explanation(_) => "an explanation".to_owned(),
        Response::Connections(_) => "connections".to_owned(),
        Response::Peer(_) => "a peer".to_owned(),
        Response::Closed => "addresses closed".to_owned(),
        Response::Handover => "a hand-over".to_owned(),
        Response::Pool(_) => "a pool".to_owned(),
    };
    LinkError::Protocol(what)
}
