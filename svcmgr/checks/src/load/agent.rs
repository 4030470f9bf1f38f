//! An agent's word: a line of text with the share that the server wants.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use super::Reading;
use crate::probe::socket::Way;

/// Most octets of a line that are looked at.
const LINE: u64 = 256;

/// Connects to an agent and reads its line. The caller bounds the time.
///
/// # Errors
/// What went wrong, in words.
pub(crate) async fn ask(place: SocketAddr) -> Result<Reading, String> {
    let stream = Way::Routes(None)
        .connect(place)
        .await
        .map_err(|error| error.to_string())?;
    let mut line = Vec::new();
    let mut limited = stream.take(LINE);
    while !line.contains(&b'\n') {
        let read = limited
            .read_buf(&mut line)
            .await
            .map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
    }
    parse(&String::from_utf8_lossy(&line))
}

/// Reads what HAProxy's agent-check understands, as far as it is about weights: words between blanks and commas, of which
/// one is a percentage.
fn parse(line: &str) -> Result<Reading, String> {
    let line = line.lines().next().unwrap_or_default();
    let words = line.split([' ', '\t', ',']);
    let mut percent = words.filter_map(|word| word.trim().strip_suffix('%')?.parse::<f64>().ok());
    match percent.rfind(|percent| (0.0..=100.0).contains(percent)) {
        Some(percent) => Ok(Reading::Share(percent / 100.0)),
        None => Err(format!(
            "the agent said `{}`, without a percentage from 0% to 100%",
            libilb::health::printable(line)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_found() {
        for (line, share) in [
            ("75%\n", 0.75),
            ("up 100%\n", 1.0),
            ("ready, 12.5%\r\n90%", 0.125),
            ("0%", 0.0),
        ] {
            assert_eq!(parse(line), Ok(Reading::Share(share)), "{line:?}");
        }
        for line in ["", "up", "%", "101%", "-1%", "NaN%", "75 %"] {
            let error = parse(line).unwrap_err();
            assert!(error.contains("percentage"), "{line:?}: {error}");
        }
    }
}
