//! A web server of a test's own in a server namespace, that falls sick as the test likes: killed, frozen, shut off by a
//! firewall, with another answer to the question of its health, or with a certificate that is too old.
//!
//! `/` says who it is, as the lab's own nginx does; `/health` says `well`. Port [`PORT`] speaks HTTP, [`TLS_PORT`] HTTPS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::lab::namespace::Namespace;
use crate::lab::process::Daemon;
use crate::shell;

/// Where it speaks HTTP.
pub const PORT: u16 = 8090;
/// Where it speaks HTTPS.
pub const TLS_PORT: u16 = 8443;
/// The name in its certificate.
pub const NAME: &str = "site.example";

/// One server.
#[derive(Debug)]
pub struct Site {
    role: String,
    namespace: Arc<Namespace>,
    folder: PathBuf,
    daemon: Option<Daemon>,
}

/// Certificates of all sites of a lab, by an authority of their own.
#[derive(Debug)]
pub struct Authority(PathBuf);

impl Authority {
    /// Makes an authority, a good certificate and one that has expired, for [`NAME`].
    #[track_caller]
    pub fn new(lab: &Lab) -> Authority {
        let folder = lab.directory().join("authority");
        std::fs::create_dir(&folder).expect("cannot write into the lab's directory");
        let root = folder.display();
        let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        // `openssl x509` of Debian bookworm knows no dates, `openssl ca` does.
        write(
            &folder.join("ca.cnf"),
            &format!(
                "[ca]\ndefault_ca=c\n[c]\ndatabase={root}/index.txt\nnew_certs_dir={root}\nrand_serial=yes\n\
                 default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n\
                 [x]\nsubjectAltName=DNS:{NAME}\n"
            ),
        );
        write(&folder.join("index.txt"), "");
        let mut script = format!(
            "cd {root}\nopenssl req -x509 {curve} -days 3650 -subj /CN=lab -keyout ca.key -out ca.pem\n\
             openssl req {curve} -subj /CN={NAME} -keyout key.pem -out request.pem\n"
        );
        for (name, last) in [("good", "20990101000000Z"), ("old", "20210203000000Z")] {
            script += &format!(
                "openssl ca -batch -config ca.cnf -extensions x -cert ca.pem -keyfile ca.key \
                 -startdate 20200101000000Z -enddate {last} -in request.pem -out {name}.pem\n"
            );
        }
        let mut command = std::process::Command::new("sh");
        command.args(["-e", "-c", &script]);
        shell::run(command).ok();
        Authority(folder)
    }

    /// The file to trust.
    pub fn file(&self) -> PathBuf {
        self.0.join("ca.pem")
    }
}

impl Site {
    /// Starts it in the server `role`, and waits until it answers.
    #[track_caller]
    pub fn start(lab: &Lab, authority: &Authority, role: &str) -> Site {
        let folder = lab.directory().join(format!("site-{role}"));
        std::fs::create_dir(&folder).expect("cannot write into the lab's directory");
        let root = folder.display();
        let listen = |port, how| {
            format!(
                "listen {port}{how} backlog=4096; listen [::]:{port}{how} ipv6only=on backlog=4096;"
            )
        };
        write(
            &folder.join("nginx.conf"),
            &format!(
                "daemon off;\nuser root;\nworker_processes 1;\npid {root}/pid;\nerror_log {root}/error.log warn;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{\n  access_log off;\n  default_type text/plain;\n  keepalive_timeout 600s;\n\
                 client_body_temp_path {root};\n  proxy_temp_path {root};\n  fastcgi_temp_path {root};\n\
                 uwsgi_temp_path {root};\n  scgi_temp_path {root};\n\
                 server {{\n    {}\n    {}\n    ssl_certificate {root}/cert.pem;\n\
                 ssl_certificate_key {}/key.pem;\n    root {root};\n\
                 location = / {{ return 200 \"{role}\\n\"; }}\n\
                 location = /health {{\n\
                 if (-f {root}/broken) {{ return 500; }}\n      if (-f {root}/slow) {{ set $limit_rate 1; }}\n    }}\n\
                 }}\n}}\n",
                listen(PORT, ""),
                listen(TLS_PORT, " ssl"),
                authority.0.display(),
            ),
        );
        let mut site = Site {
            role: role.to_owned(),
            namespace: Arc::clone(lab.at(role)),
            folder,
            daemon: None,
        };
        site.certificate(authority, "good");
        site.says("well");
        site.revive();
        site
    }

    /// Who it is.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Starts it again after [`Site::kill`], and waits until it answers.
    #[track_caller]
    pub fn revive(&mut self) {
        let mut command = self.namespace.command("nginx");
        command
            .arg("-e")
            .arg(self.folder.join("error.log"))
            .arg("-c")
            .arg(self.folder.join("nginx.conf"));
        let log = self.folder.with_extension("log");
        self.daemon = Some(Daemon::spawn(&format!("site {}", self.role), command, &log));
        let listens = shell::wait_for(Duration::from_secs(15), || {
            self.namespace
                .enter(|| std::net::TcpStream::connect(("127.0.0.1", PORT)).ok())
        });
        assert!(
            listens.is_some(),
            "the site in {} does not listen",
            self.role
        );
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Freezes it: its kernel still takes connections, but nobody answers.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Goes on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let daemon = self.daemon.as_ref().expect("the site runs");
        killpg(Pid::from_raw(daemon.pid() as i32), signal).expect("the site runs");
    }

    /// Puts rules in the way of everything that comes in, such as `tcp dport 8090 drop`.
    #[track_caller]
    pub fn firewall(&self, rules: &[&str]) {
        self.namespace.run("nft add table inet site");
        let mut command = self.namespace.command("nft");
        command.arg("add chain inet site in { type filter hook input priority 0; }");
        shell::run(command).ok();
        for rule in rules {
            let line = format!("nft add rule inet site in {rule}");
            self.namespace.run(&line);
        }
    }

    /// Takes it away.
    #[track_caller]
    pub fn open(&self) {
        self.namespace.run("nft delete table inet site");
    }

    /// What `/health` says from now on.
    #[track_caller]
    pub fn says(&self, words: &str) {
        // A file that is replaced is never half there.
        write(&self.folder.join("new"), &format!("{words}\n"));
        std::fs::rename(self.folder.join("new"), self.folder.join("health"))
            .expect("cannot rename a file of ours");
    }

    /// `/health` answers with status 500, or no longer.
    #[track_caller]
    pub fn broken(&self, broken: bool) {
        self.mark("broken", broken);
    }

    /// `/health` answers an octet a second, or no longer.
    #[track_caller]
    pub fn slow(&self, slow: bool) {
        self.mark("slow", slow);
    }

    #[track_caller]
    fn mark(&self, name: &str, there: bool) {
        let path = self.folder.join(name);
        match there {
            true => write(&path, ""),
            false => drop(std::fs::remove_file(path)),
        }
    }

    /// Takes another certificate: `good` or `old`.
    #[track_caller]
    pub fn certificate(&self, authority: &Authority, which: &str) {
        let of = authority.0.join(format!("{which}.pem"));
        std::fs::copy(of, self.folder.join("cert.pem")).expect("cannot copy a certificate");
        if let Some(daemon) = &self.daemon {
            // To the master only, which is the leader of the group.
            nix::sys::signal::kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGHUP)
                .expect("the site runs");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            // What is frozen does not end.
            self.thaw();
        }
    }
}

#[track_caller]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
