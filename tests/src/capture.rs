//! What a wire saw: tcpdump with a filter, its lines kept.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::namespace::Namespace;
use crate::shell;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Capture {
    /// Starts `tcpdump -i device filter` in a namespace and returns once it listens.
    #[track_caller]
    pub fn start(namespace: &Namespace, device: &str, filter: &str) -> Capture {
        let mut command = namespace.command("tcpdump");
        // -l: a line at once; -x: the bytes behind the Ethernet header; --immediate-mode: no waiting for a full buffer.
        command.args([
            "-i",
            device,
            "-n",
            "-e",
            "-l",
            "-vv",
            "-x",
            "-p",
            "--immediate-mode",
            filter,
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("cannot run tcpdump (`make deps`)");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let words = Arc::new(Mutex::new(Vec::new()));
        let out = child.stdout.take().expect("the pipe was asked for");
        let err = child.stderr.take().expect("the pipe was asked for");
        let readers = vec![collect(out, &lines), collect(err, &words)];
        let capture = Capture {
            child,
            lines,
            readers,
        };
        let up = shell::wait_for(Duration::from_secs(10), || {
            let words = words.lock().unwrap_or_else(PoisonError::into_inner);
            words
                .iter()
                .any(|line: &String| line.contains("listening on"))
                .then_some(())
        });
        assert!(
            up.is_some(),
            "tcpdump -i {device} {filter} does not listen: {:?}",
            words.lock().unwrap_or_else(PoisonError::into_inner)
        );
        capture
    }

    /// Lines so far. A packet makes one line or several; continuation lines begin with white space.
    pub fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends it and returns one string a packet.
    pub fn stop(mut self) -> Vec<String> {
        // What was sent a moment ago may still be on its way through the kernel.
        std::thread::sleep(Duration::from_millis(100));
        self.end();
        let mut packets: Vec<String> = Vec::new();
        for line in self.lines().into_iter().filter(|line| !line.is_empty()) {
            match packets.last_mut() {
                Some(last) if line.starts_with([' ', '\t']) => {
                    last.push(' ');
                    last.push_str(line.trim());
                }
                _ => packets.push(line),
            }
        }
        packets
    }

    /// The bytes behind the Ethernet header of a packet that [`Capture::stop`] returned.
    pub fn bytes(packet: &str) -> Vec<u8> {
        // Lines of `0x0010:  4500 003c …`.
        let mut bytes = Vec::new();
        let mut words = packet.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if !(word.starts_with("0x") && word.ends_with(':')) {
                continue;
            }
            while let Some(group) = words.next_if(|word| !word.ends_with(':')) {
                for at in (0..group.len().saturating_sub(1)).step_by(2) {
                    bytes.extend(u8::from_str_radix(&group[at..at + 2], 16));
                }
            }
        }
        bytes
    }

    fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).ok();
        }
        self.child.wait().ok();
        for reader in self.readers.drain(..) {
            reader.join().ok();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

fn collect(
    from: impl std::io::Read + Send + 'static,
    into: &Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_from_the_hexadecimal_lines() {
        let packet = "12:00:00 IP 10.0.0.1 > 10.0.0.2: x 0x0000:  4500 003c 01 0x0010:  ff0a";
        assert_eq!(Capture::bytes(packet), [0x45, 0, 0, 0x3c, 1, 0xff, 0x0a]);
    }
}
