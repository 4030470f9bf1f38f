//! A program of the administrator decides. Nobody of it survives the test, see [`ilb_programs`].

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use libilb::health::{Code, Layer, Weight};
use libilb::healthcheck::{Contract, Script};
use libilb::rule::{Protocol, Topology};
use nix::sys::signal::Signal;

use super::Circumstances;
use crate::outcome::{Failure, Rtt, Success};

pub async fn probe(
    place: SocketAddr,
    script: &Script,
    circumstances: Circumstances,
    timeout: Duration,
) -> Result<Success, Failure> {
    let arguments = match script.contract {
        Contract::Ilbadm => arguments(place, circumstances, timeout).to_vec(),
        Contract::ExitCode => script.arguments.clone(),
    };
    let environment = [
        ("ILB_ADDRESS", place.ip().to_string()),
        ("ILB_PORT", place.port().to_string()),
    ];
    let ended = ilb_programs::run(&script.path, &arguments, &environment).await;
    let ended = ended.map_err(|error| {
        let words = format!("{}: {error}", script.path);
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
                Failure::new(Layer::Local, Code::Missing, words)
            }
            _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => {
                Failure::new(Layer::Local, Code::Missing, words)
            }
            _ => Failure::local(&format!("run {}", script.path), &error),
        }
    })?;
    let line = ilb_programs::first_line(&ended.output);
    judge(script, ended.status, line, ended.first_line())
}

/// What ilbadm's scripts are given.
fn arguments(place: SocketAddr, about: Circumstances, timeout: Duration) -> [String; 6] {
    let protocol = match about.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Icmp => "ICMP",
        Protocol::Any => "ANY",
    };
    let topology = match about.topology {
        Topology::Dsr => "DSR",
        Topology::Nat => "NAT",
        Topology::HalfNat => "HALF_NAT",
        Topology::Tun => "TUN",
    };
    // Whole seconds, and never none.
    let seconds = timeout.as_millis().div_ceil(1000).max(1);
    [
        about.vip.to_string(),
        place.ip().to_string(),
        protocol.to_string(),
        topology.to_string(),
        place.port().to_string(),
        seconds.to_string(),
    ]
}

fn judge(script: &Script, status: ExitStatus, line: &str, words: &str) -> Result<Success, Failure> {
    let failed = |code, words: &str| Failure::new(Layer::Local, code, words);
    if let Some(signal) = status.signal() {
        let name = Signal::try_from(signal).map_or("signal", Signal::as_str);
        return Err(failed(Code::Killed, &format!("killed by {name}")).with_number(signal));
    }
    let code = status.code().unwrap_or(-1);
    let success = Success {
        words: words.to_string(),
        ..Success::at(Layer::Local)
    };
    match script.contract {
        Contract::Ilbadm => {
            let word = line.split_ascii_whitespace().next().unwrap_or_default();
            match word.parse::<i64>() {
                Ok(0) => Ok(Success {
                    rtt: Rtt::None,
                    ..success
                }),
                Ok(micros @ 1..) => {
                    let rtt = Rtt::Micros(micros.unsigned_abs());
                    Ok(Success { rtt, ..success })
                }
                Ok(number) => {
                    let rest = line.strip_prefix(word).unwrap_or_default().trim();
                    let words = if rest.is_empty() {
                        "the script says -1"
                    } else {
                        rest
                    };
                    Err(failed(Code::Output, words).with_number(number))
                }
                Err(_) if words.is_empty() => Err(failed(Code::Output, "the script says nothing")),
                Err(_) => Err(failed(Code::Output, words).with_number(code)),
            }
        }
        Contract::ExitCode => match code {
            0 => Ok(Success {
                number: Some(0),
                ..success
            }),
            2..=255 if script.weight => Ok(Success {
                number: Some(code.into()),
                weight: Some(Weight::Set(u16::try_from(code - 2).unwrap_or(0))),
                ..success
            }),
            code => Err(failed(Code::Exit, words).with_number(code)),
        },
    }
}
