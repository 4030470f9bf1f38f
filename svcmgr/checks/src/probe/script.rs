//! A program of the administrator decides. It runs in a process group of its own, which is killed with all who are still in
//! it when the test ends, and not more of its output is kept than is needed.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use libilb::health::{Code, Layer, Weight};
use libilb::healthcheck::{Contract, Script};
use libilb::rule::{Protocol, Topology};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::Circumstances;
use crate::outcome::{Failure, Rtt, Success};

/// How much is kept of what a script writes; what it writes beyond gets an error.
const MAX_OUTPUT: u64 = 4096;
/// What a script finds its programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kills the group when the test ends, however it does.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // There may be nobody left.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

pub async fn probe(
    place: SocketAddr,
    script: &Script,
    circumstances: Circumstances,
    timeout: Duration,
) -> Result<Success, Failure> {
    let mut command = Command::new(&script.path);
    match script.contract {
        Contract::Ilbadm => command.args(arguments(place, circumstances, timeout)),
        Contract::ExitCode => command.args(&script.arguments),
    };
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C")
        .env("ILB_ADDRESS", place.ip().to_string())
        .env("ILB_PORT", place.port().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
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
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw);
    let Some(pid) = pid else {
        let words = "the script has no process id";
        return Err(Failure::new(Layer::Local, Code::NotAsked, words));
    };
    let group = Group(pid);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let status = child.wait().await;
        // Whoever is left would keep the output open.
        drop(group);
        status
    };
    let (status, out, err) = tokio::join!(ended, keep(out), keep(err));
    let status = status.map_err(|error| Failure::local("wait for the script", &error))?;
    let line = first_line(&out);
    let words = if line.is_empty() {
        first_line(&err)
    } else {
        line
    };
    judge(script, status, line, words)
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

async fn keep(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut octets = Vec::new();
    if let Some(stream) = stream {
        // What could not be read is not there.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut octets).await;
    }
    String::from_utf8_lossy(&octets).into_owned()
}

fn first_line(output: &str) -> &str {
    output.lines().next().unwrap_or_default().trim()
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
