//! Pages are fetched with HTTP/1.1, one connection each, and compared with what they should be.

mod reader;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use libilb::health::{Code, Layer};
use libilb::healthcheck::{Digest, Http, Tls, Url};
use md5::Md5;
use regex::bytes::Regex;
use rustls::ClientConfig;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use self::reader::{Body, Reader};
use super::socket::Way;
use super::tls;
use crate::outcome::{Failure, Success};

/// How much of a body is kept to seek a pattern in it.
const MAX_SOUGHT: usize = 256 << 10;
/// How much of a body a digest is computed of.
const MAX_DIGESTED: usize = 16 << 20;

pub async fn probe(
    place: SocketAddr,
    way: &Way,
    http: &Http,
    tls: Option<(&Tls, Arc<ClientConfig>)>,
    patterns: &[Option<Regex>],
) -> Result<Success, Failure> {
    let mut success = Success::at(Layer::L7);
    for (i, url) in http.urls.iter().enumerate() {
        let stream = way
            .connect(place)
            .await
            .map_err(|error| Failure::of_socket(Layer::L4, &error))?;
        // A request is one packet, and so is its handshake's last.
        stream.hurry();
        let named = url.host.as_ref().or(http.host.as_ref());
        let usual = if tls.is_some() { 443 } else { 80 };
        let host = named.cloned().unwrap_or_else(|| by_address(place, usual));
        let pattern = patterns.get(i).and_then(Option::as_ref);
        let found = match &tls {
            None => fetch(stream, url, &host, pattern).await,
            Some((settings, config)) => {
                let named = named.map(String::as_str);
                let name = tls::server_name(settings, named, place.ip())?;
                let stream = tls::handshake(stream, name, config.clone()).await?;
                fetch(stream, url, &host, pattern).await
            }
        };
        let status = found.map_err(|failure| match http.urls.len() {
            1 => failure,
            _ => Failure {
                words: format!("{}: {}", url.path, failure.words),
                ..failure
            },
        })?;
        success.number = Some(status.into());
    }
    Ok(success)
}

/// What stands in `Host:` where nobody said a name.
fn by_address(place: SocketAddr, usual: u16) -> String {
    match (place.port() == usual, place.ip()) {
        (true, IpAddr::V4(address)) => address.to_string(),
        (true, IpAddr::V6(address)) => format!("[{address}]"),
        (false, _) => place.to_string(),
    }
}

/// Fetches one page and returns its status.
async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    url: &Url,
    host: &str,
    pattern: Option<&Regex>,
) -> Result<u16, Failure> {
    let broken = |error: std::io::Error| Failure::of_socket(Layer::L7, &error);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ilb-check/{}\r\nAccept: */*\r\nAccept-Encoding: \
         identity\r\nConnection: close\r\n\r\n",
        url.path,
        env!("CARGO_PKG_VERSION"),
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut reader = Reader::new(stream);
    let head = reader.head().await?;
    if !url.status.contains(head.status) {
        let location = head
            .location
            .map(|to| format!(" to {to}"))
            .unwrap_or_default();
        let words = format!("{}{location}", head.reason);
        return Err(Failure::new(Layer::L7, Code::Status, words).with_number(head.status));
    }
    if url.digest.is_some() || pattern.is_some() {
        let found = read(&mut reader, head.body, url, pattern).await;
        found.map_err(|failure| failure.with_number(head.status))?;
    }
    Ok(head.status)
}

/// Reads a body and compares it.
async fn read<S: AsyncRead + Unpin>(
    reader: &mut Reader<S>,
    mut body: Body,
    url: &Url,
    pattern: Option<&Regex>,
) -> Result<(), Failure> {
    let mut hash = match url.digest {
        Some(Digest::Md5(_)) => Hash::Md5(Md5::new()),
        Some(Digest::Sha256(_)) => Hash::Sha256(Sha256::new()),
        None => Hash::None,
    };
    let mut kept = Vec::new();
    let mut length = 0;
    while let Some(piece) = reader.piece(&mut body).await? {
        length += piece.len();
        match &mut hash {
            Hash::Md5(hash) => hash.update(piece),
            Hash::Sha256(hash) => hash.update(piece),
            Hash::None => {}
        }
        if pattern.is_some() {
            let room = MAX_SOUGHT - kept.len();
            kept.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let enough = match url.digest {
            Some(_) => length > MAX_DIGESTED,
            // What is not found by here will not be.
            None => length > MAX_SOUGHT,
        };
        if enough {
            break;
        }
    }
    if url.digest.is_some() && length > MAX_DIGESTED {
        let words = format!("the body has more than {MAX_DIGESTED} octets");
        return Err(Failure::new(Layer::L7, Code::TooLarge, words));
    }
    let found = match hash {
        Hash::Md5(hash) => Some(Digest::Md5(hash.finalize().into())),
        Hash::Sha256(hash) => Some(Digest::Sha256(hash.finalize().into())),
        Hash::None => None,
    };
    if let Some(found) = found.filter(|found| Some(*found) != url.digest) {
        let words = format!("the body of {length} octets has the digest {found}");
        return Err(Failure::new(Layer::L7, Code::Digest, words));
    }
    let Some(pattern) = pattern else {
        return Ok(());
    };
    // `$` is also before the line end at the end, as with the expressions that people know from elsewhere.
    let line = kept
        .strip_suffix(b"\n")
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let matched = pattern.is_match(&kept) || line.is_some_and(|line| pattern.is_match(line));
    if matched != url.regex_no_match {
        if url.regex_no_match && length > MAX_SOUGHT {
            let words = format!("the body has more than {MAX_SOUGHT} octets");
            return Err(Failure::new(Layer::L7, Code::TooLarge, words));
        }
        return Ok(());
    }
    let begin = String::from_utf8_lossy(&kept[..kept.len().min(128)]).into_owned();
    let words = match matched {
        true => "the body has what it must not have".to_string(),
        false => format!("the pattern does not occur in the body, which begins: {begin}"),
    };
    Err(Failure::new(Layer::L7, Code::Regex, words))
}

enum Hash {
    Md5(Md5),
    Sha256(Sha256),
    None,
}
