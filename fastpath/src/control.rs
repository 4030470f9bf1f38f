//! The control socket: takes requests of the service manager, has the engine answer them, sends the answers back.
//!
//! ```text
//!   client ──frames──▶ one task a connection ──Command──▶ engine
//!          ◀──frames──                       ◀──Response── (oneshot)
//! ```

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ilb_node::control::{
    FrameError, LENGTH_BYTES, Request, Response, decode, encode, frame_length,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A request on its way to the engine.
pub struct Command {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Response>,
}

/// Requests that may wait for the engine.
const QUEUE: usize = 16;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[error("control socket {path}: {source}")]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

/// Opens the socket; what a killed process has left there is removed. The caller holds the lock of the runtime
/// directory and has set a umask that makes the socket private: it is then opened to the group that we run in, which is the
/// manager's. Within a tokio runtime.
///
/// # Errors
/// When the path cannot be bound, or its mode not be set.
pub fn listen(path: &Path) -> Result<mpsc::Receiver<Command>, ControlError> {
    let failed = |source| ControlError {
        path: path.into(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    let (commands, queue) = mpsc::channel(QUEUE);
    tokio::spawn(accept(listener, commands));
    Ok(queue)
}

async fn accept(listener: UnixListener, commands: mpsc::Sender<Command>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, commands.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others have to close theirs first.
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, commands: mpsc::Sender<Command>) {
    loop {
        let response = match read(&mut stream).await {
            Ok(Some(request)) => ask(request, &commands).await,
            Ok(None) => return,
            Err(error @ FrameError::Body(_)) => Response::Error {
                message: error.to_string(),
            },
            Err(error) => {
                tracing::warn!("{error}");
                let message = error.to_string();
                let _ = write(&mut stream, &Response::Error { message }).await;
                return;
            }
        };
        if let Err(error) = write(&mut stream, &response).await {
            tracing::warn!("{error}");
            return;
        }
    }
}

async fn ask(request: Request, commands: &mpsc::Sender<Command>) -> Response {
    let (answer, response) = oneshot::channel();
    let stopping = || Response::Error {
        message: "the fast path is stopping".into(),
    };
    if commands.send(Command { request, answer }).await.is_err() {
        return stopping();
    }
    response.await.unwrap_or_else(|_| stopping())
}

async fn read(stream: &mut UnixStream) -> Result<Option<Request>, FrameError> {
    let mut prefix = [0; LENGTH_BYTES];
    match stream.read(&mut prefix[..1]).await? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut prefix[1..]).await?,
    };
    let expected = frame_length(prefix)?;
    let mut body = Vec::new();
    // Memory grows with what arrives, not with what is promised.
    let got = stream.take(expected as u64).read_to_end(&mut body).await?;
    if got < expected {
        return Err(FrameError::Truncated { expected, got });
    }
    decode(&body).map(Some)
}

async fn write(stream: &mut UnixStream, response: &Response) -> Result<(), FrameError> {
    stream.write_all(&encode(response)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_node::control::{read_frame, write_frame};

    #[tokio::test]
    async fn requests_are_answered_in_order_and_nonsense_politely() {
        let path = std::env::temp_dir().join(format!("ilb-control-{}.sock", std::process::id()));
        let mut queue = listen(&path).unwrap();
        let engine = tokio::spawn(async move {
            let mut generation = 0;
            while let Some(Command { answer, .. }) = queue.recv().await {
                generation += 1;
                let _ = answer.send(Response::Applied { generation });
            }
        });
        let client = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
                for expected in 1..4 {
                    write_frame(&mut stream, &Request::Status).unwrap();
                    let answer: Response = read_frame(&mut stream).unwrap().unwrap();
                    assert_eq!(
                        answer,
                        Response::Applied {
                            generation: expected
                        }
                    );
                }
                write_frame(&mut stream, &"dance").unwrap();
                let answer: Response = read_frame(&mut stream).unwrap().unwrap();
                assert!(matches!(answer, Response::Error { .. }));
                write_frame(&mut stream, &Request::Status).unwrap();
                let answer: Response = read_frame(&mut stream).unwrap().unwrap();
                assert_eq!(answer, Response::Applied { generation: 4 });
                // A length that is not allowed ends the connection, with a reason.
                io::Write::write_all(&mut stream, &[0xff; 8]).unwrap();
                let answer: Response = read_frame(&mut stream).unwrap().unwrap();
                assert!(matches!(answer, Response::Error { .. }));
                assert!(
                    read_frame::<_, Response>(&mut stream)
                        .unwrap_or(None)
                        .is_none()
                );
            })
        };
        client.await.unwrap();
        engine.abort();
        std::fs::remove_file(&path).unwrap();
    }
}
