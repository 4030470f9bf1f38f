//! A file decides: it has to be there, and the number in it, if any, speaks for the server.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use libilb::health::{Code, Layer, Weight};
use libilb::healthcheck::File;

use crate::outcome::{Failure, Rtt, Success};

/// How much of the file is looked at.
const MAX_READ: u64 = 64;
/// Numbers from here on down mean dead, as keepalived's tracked files have it.
const DEAD: i64 = -254;

pub async fn probe(file: &File) -> Result<Success, Failure> {
    let (path, weight) = (file.path.clone(), file.weight);
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let text = read.map_err(|error| {
        Failure::new(
            Layer::Local,
            Code::NotAsked,
            format!("cannot read: {error}"),
        )
    })??;
    judge(&text, weight)
}

/// Blocks, but never on a pipe.
fn read(path: &str) -> Result<String, Failure> {
    let missing = |error: std::io::Error| {
        let words = format!("{path}: {error}");
        match error.kind() {
            std::io::ErrorKind::NotFound => Failure::new(Layer::Local, Code::Missing, words),
            _ => Failure::local(&format!("read {path}"), &error),
        }
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(missing)?;
    if !file.metadata().map_err(missing)?.is_file() {
        let words = format!("{path} is no file");
        return Err(Failure::new(Layer::Local, Code::Missing, words));
    }
    let mut octets = Vec::new();
    file.take(MAX_READ)
        .read_to_end(&mut octets)
        .map_err(missing)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

fn judge(text: &str, weight: bool) -> Result<Success, Failure> {
    let success = Success {
        rtt: Rtt::None,
        ..Success::at(Layer::Local)
    };
    let Some(word) = text.split_ascii_whitespace().next() else {
        return Ok(success);
    };
    let Ok(number) = word.parse::<i64>() else {
        let words = format!("'{word}' is no number");
        return Err(Failure::new(Layer::Local, Code::Output, words));
    };
    if number <= DEAD {
        let words = format!("the file says {number}");
        return Err(Failure::new(Layer::Local, Code::Output, words).with_number(number));
    }
    let more = i32::try_from(number.min(-DEAD - 1)).unwrap_or(0);
    Ok(Success {
        number: Some(number),
        weight: (weight && more != 0).then_some(Weight::Add(more)),
        ..success
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_in_the_file_decides() {
        for (text, weighs, expected) in [
            ("", true, Ok(None)),
            ("\n \n", true, Ok(None)),
            ("0\n", true, Ok(None)),
            ("7 of nine", true, Ok(Some(Weight::Add(7)))),
            ("-253", true, Ok(Some(Weight::Add(-253)))),
            ("9999", true, Ok(Some(Weight::Add(253)))),
            ("7", false, Ok(None)),
            ("-254", true, Err("the file says -254")),
            ("-254", false, Err("the file says -254")),
            ("up", true, Err("'up' is no number")),
        ] {
            let found = judge(text, weighs).map(|success| success.weight);
            assert_eq!(
                found.map_err(|f| f.words),
                expected.map_err(str::to_string),
                "{text}"
            );
        }
    }
}
