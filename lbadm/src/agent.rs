//! Asking a person for a password: polkit's agent for terminals, for as long as a change takes. As systemctl does.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use libilb::client::{Client, ClientError};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The agent, of package polkitd.
const PROGRAM: &str = "pkttyagent";

/// Whether we are root, whom nobody asks.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A client for changes, and with it the agent where one can ask: it ends with this value.
pub struct Asking {
    client: Client,
    _agent: Option<Agent>,
}

impl std::ops::Deref for Asking {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Connects in order to change something. If we are not root and may ask (`ask`), polkit may ask the user of this
/// terminal for a password; a call waits for it then.
///
/// # Errors
/// As [`Client::connect`].
pub async fn connect(ask: bool) -> Result<Asking, ClientError> {
    if is_root() {
        return Ok(Asking {
            client: Client::connect().await?,
            _agent: None,
        });
    }
    // A desktop has an agent of its own, so that somebody may be asked where there is no terminal, too.
    let client = Client::connect_patiently().await?;
    let agent = match ask && io::stdin().is_terminal() && io::stderr().is_terminal() {
        true => Agent::start(),
        false => None,
    };
    Ok(Asking {
        client,
        _agent: agent,
    })
}

/// The agent. What it did to the terminal is undone when it is dropped.
struct Agent {
    process: Child,
    terminal: Option<(File, Termios)>,
}

impl Agent {
    /// Starts it for this process and waits until polkit knows it. Without the program there is none: then the manager's
    /// refusal says what is missing.
    fn start() -> Option<Agent> {
        let terminal = File::open("/dev/tty").ok();
        let terminal = terminal.and_then(|tty| tcgetattr(&tty).ok().map(|was| (tty, was)));
        let (mut ready, closed_when_ready) = io::pipe().ok()?;
        let mut command = Command::new(PROGRAM);
        // The agent of a desktop is preferred to it; where there is no login session polkit never comes to a fallback.
        if std::env::var_os("XDG_SESSION_ID").is_some() {
            command.arg("--fallback");
        }
        // It talks to /dev/tty, so that its output is free to be what it closes when it is ready.
        command
            .args(["--notify-fd", "1"])
            .stdin(Stdio::null())
            .stdout(closed_when_ready)
            .stderr(Stdio::null());
        let process = command.spawn().ok()?;
        // Our copy of the other end.
        drop(command);
        // It ends when the agent is ready, or has ended.
        let _ = ready.read(&mut [0]);
        Some(Agent { process, terminal })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // A prompt hides what is typed; one that was killed cannot show it again.
        if let Some((tty, was)) = &self.terminal {
            let _ = tcsetattr(tty, OptionalActions::Now, was);
        }
    }
}
