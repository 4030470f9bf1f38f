//! `lbadm` of a user who is not root, on a terminal: polkit's own agent asks for the password, its helper looks whether it is
//! right, and the change is made or not. Programs of polkit, PAM and the password file (of this test) are the real ones.

mod common;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Bus, Folder, NOBODY, Node, PATIENCE, Polkit, need_root};

/// The password of root, as the test's own shadow file has it.
const PASSWORD: &str = "open sesame";
/// `openssl passwd -6 -salt ilbtest 'open sesame'`.
const HASH: &str = "$6$ilbtest$S1JoQVBJU92P6hWzueRxT4klEW8kAtKyVj2O1f6wAkW4OkrwSyn5ZCOwRnxZD41uh0v0Amw8ZvQPZMfGjX91V0";

/// Whoever knows root's password is an administrator.
const RULES: &str = r#"
polkit.addAdminRule(function(action, subject) { return ["unix-user:root"]; });
"#;

/// A terminal on which nobody has typed a command. What the machine has in /etc/shadow and /run is hidden from it.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(bus: &Bus, folder: &Folder, words: &str) -> Terminal {
        let shadow = folder.path().join("shadow");
        let text = format!("root:{HASH}:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n");
        std::fs::write(&shadow, text).expect("the test's folder can be written");
        let lbadm = Path::new(env!("CARGO_BIN_EXE_ilb-svcmgr")).with_file_name("lbadm");
        assert!(
            lbadm.exists(),
            "{} is not there: run `cargo build --workspace --bins` first",
            lbadm.display()
        );
        // Where everybody may run it; the helper finds the bus at its usual place only.
        let program = folder.path().join("lbadm");
        std::fs::copy(lbadm, &program).expect("the test's folder can be written");
        let script = "mount --bind \"$1\" /etc/shadow && mount -t tmpfs tmpfs /run && mkdir /run/dbus && \
                      ln -s \"$2\" /run/dbus/system_bus_socket && \
                      exec setpriv --reuid=\"$4\" --regid=\"$4\" --clear-groups script -qefc \"$3\" /dev/null";
        let socket = bus.address().replace("unix:path=", "");
        let line = format!("{} {words}", program.display());
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "terminal"])
            .arg(&shadow)
            .args([&socket, &line, &NOBODY.to_string()])
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .env("LC_ALL", "C")
            .env_remove("XDG_SESSION_ID")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be run");
        let shown = Arc::new(Mutex::new(String::new()));
        let mut output = child.stdout.take().expect("a pipe");
        let seen = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
                seen.lock().unwrap().push_str(&text);
            }
        });
        Terminal { child, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn until_shown(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown().contains(text) {
            let shown = self.shown();
            assert!(Instant::now() < deadline, "not {text:?} but: {shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn type_line(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{text}").expect("the terminal reads");
    }

    /// Its exit code, and everything that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return (status.code(), self.shown());
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {}",
                self.shown()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_user_on_a_terminal_is_asked_for_the_password() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    let _polkit = Polkit::start(&bus, RULES);
    let folder = Folder::new();
    let prompt = "Authentication is required to change the configuration of the load balancer";

    // Given the right password, then the change is made.
    let mut terminal = Terminal::start(&bus, &folder, "create-servergroup asked");
    terminal.until_shown("Password:");
    assert!(terminal.shown().contains(prompt), "{}", terminal.shown());
    terminal.type_line(PASSWORD);
    let (code, text) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains(PASSWORD), "what is typed is hidden: {text}");
    assert!(client.describe().await.unwrap().group("asked").is_some());

    // Given a wrong one, then it is not, and the exit code says so.
    let mut terminal = Terminal::start(&bus, &folder, "create-servergroup wrong");
    terminal.until_shown("Password:");
    terminal.type_line("sesame");
    let (code, text) = terminal.end();
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("not authorised"), "{text}");

    // Given that nobody shall be asked, or that nothing is changed, then nobody is.
    for (words, code) in [
        ("--no-ask-password create-servergroup unasked", 4),
        ("show-servergroup", 0),
        ("rollback --dry-run 1", 0),
    ] {
        let (got, text) = Terminal::start(&bus, &folder, words).end();
        assert_eq!(got, Some(code), "{words}: {text}");
        assert!(!text.contains("Password"), "{words}: {text}");
    }
    let node = client.describe().await.unwrap();
    let names: Vec<&str> = node.groups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["asked"]);
}
