//! The OpenMetrics endpoint: what the node counts, for Prometheus and its like. Off unless the settings name an address.
//!
//! ```text
//!   scraper ──HTTP/1.1──▶ serve (one task a connection, at most 8) ──Numbers──▶ Manager
//!           ◀──chunks──── bounded channel ◀── exposition (blocking thread, 64 KiB at a time)
//! ```
//!
//! The responder is our own: it understands `GET /metrics` and `HEAD`, reads at most 8 KiB of a request, answers and closes.
//! A whole HTTP library would be larger than the manager to do the same.

mod exposition;
mod http;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ilb_node::control::{Request as Question, Response, Status};
use libilb::healthfilter::HealthFilter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::manager::ManagerHandle;
use exposition::{Format, Scrape};
use http::{Answer, Request};

/// Scrapers at a time; more are told to come back.
const MOST: usize = 8;
/// How long a request may take to arrive, and a piece of the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pieces of an answer that may wait for the network.
const PIECES: usize = 4;

/// Answers scrapers for as long as the manager lives.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn listen(
    address: SocketAddr,
    per_server: bool,
    manager: ManagerHandle,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!("metrics: http://{address}/metrics");
    let places = Arc::new(Semaphore::new(MOST));
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: others have to close theirs first.
                    tracing::warn!("metrics: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tokio::spawn(say(stream, Answer::Busy));
                continue;
            };
            let manager = manager.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, per_server, &manager).await {
                    tracing::debug!("metrics: {error}");
                }
                drop(place);
            });
        }
    });
    Ok(())
}

async fn say(mut stream: TcpStream, answer: Answer) {
    // Whoever does not take it has not missed anything.
    let _ = timeout(PATIENCE, async {
        stream.write_all(answer.text().as_bytes()).await?;
        stream.shutdown().await?;
        // What is closed while something has not been read ends with a reset, which may overtake the answer.
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    })
    .await;
}

async fn serve(mut stream: TcpStream, per_server: bool, manager: &ManagerHandle) -> io::Result<()> {
    let request = match timeout(PATIENCE, read(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(answer)) => {
            say(stream, answer).await;
            return Ok(());
        }
        Err(_) => return Ok(()),
    };
    let format = match request.openmetrics {
        true => Format::OpenMetrics,
        false => Format::Prometheus,
    };
    let head = Answer::Metrics {
        kind: format.content_type(),
        chunked: request.chunked,
    };
    let Ok(numbers) = manager.numbers().await else {
        say(stream, Answer::Busy).await;
        return Ok(());
    };
    stream.write_all(head.text().as_bytes()).await?;
    if request.head_only {
        return Ok(());
    }
    let scrape = Scrape {
        view: manager.view(),
        numbers,
        status: status(manager).await,
        health: match per_server {
            true => {
                let all = manager.health_results(&HealthFilter::default()).await;
                all.unwrap_or_default()
            }
            false => Vec::new(),
        },
        per_server,
    };
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let writer = tokio::task::spawn_blocking(move || {
        // A scraper that has gone away needs no more.
        exposition::write(&scrape, format, |piece| sender.blocking_send(piece).is_ok());
    });
    while let Some(piece) = pieces.recv().await {
        let sent = timeout(PATIENCE, send(&mut stream, &piece, request.chunked)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    writer.await.map_err(io::Error::other)?;
    if request.chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.shutdown().await
}

async fn send(stream: &mut TcpStream, piece: &[u8], chunked: bool) -> io::Result<()> {
    if !chunked {
        return stream.write_all(piece).await;
    }
    let size = format!("{:x}\r\n", piece.len());
    stream.write_all(size.as_bytes()).await?;
    stream.write_all(piece).await?;
    stream.write_all(b"\r\n").await
}

async fn read(stream: &mut TcpStream) -> Result<Request, Answer> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    loop {
        let got = stream.read(&mut part).await.map_err(|_| Answer::Bad)?;
        head.extend_from_slice(&part[..got]);
        if let Some(answer) = Request::parse(&head) {
            return answer;
        }
        if got == 0 || head.len() > http::LONGEST {
            return Err(Answer::Bad);
        }
    }
}

/// What only the fast path knows of itself; None while it is away.
async fn status(manager: &ManagerHandle) -> Option<Status> {
    match manager.ask_fastpath(Question::Status).await {
        Ok(Response::Status(status)) => Some(status),
        _ => None,
    }
}
