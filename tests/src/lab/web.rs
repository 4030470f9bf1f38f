//! nginx in a server namespace: `/` says who it is, `/files/` has a big and a small file, `/paced/` the same with a speed limit,
//! `/upload/` takes files by PUT, `/who` tells the addresses and ports it saw.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::namespace::Namespace;
use super::process::Daemon;
use crate::shell;

/// Bytes of the big file `/files/big`: more than 10 MiB, and no multiple of anything.
pub const BIG_FILE_BYTES: u64 = 10 * 1024 * 1024 + 12_345;

/// Bytes of `/files/small`, for many downloads at a time.
pub const SMALL_FILE_BYTES: u64 = 1_000_003;

/// Ports on which every server listens: the usual one and a range to map.
pub const PORTS: [u16; 6] = [80, 8080, 8081, 8082, 8083, 9000];

/// Makes the files that all servers of a lab serve.
pub(crate) fn make_files(directory: &Path) {
    let files = directory.join("files");
    std::fs::create_dir(&files).expect("cannot write into the lab's directory");
    let mut random = std::fs::File::open("/dev/urandom")
        .expect("no /dev/urandom")
        .take(BIG_FILE_BYTES);
    let mut big = std::fs::File::create(files.join("big")).expect("cannot make a file");
    std::io::copy(&mut random, &mut big).expect("cannot fill a file");
    let mut start = std::fs::File::open(files.join("big"))
        .expect("it is there")
        .take(SMALL_FILE_BYTES);
    let mut small = std::fs::File::create(files.join("small")).expect("cannot make a file");
    std::io::copy(&mut start, &mut small).expect("cannot fill a file");
}

/// The small file on disk.
pub fn small_file(directory: &Path) -> PathBuf {
    directory.join("files/small")
}

/// The big file on disk.
pub fn big_file(directory: &Path) -> PathBuf {
    directory.join("files/big")
}

/// Where a file lies that was uploaded to `/upload/<name>` of a server.
pub fn uploaded(directory: &Path, role: &str, name: &str) -> PathBuf {
    directory.join(role).join("upload").join(name)
}

/// Starts nginx in `namespace`.
#[track_caller]
pub(crate) fn start(namespace: &Namespace, role: &str, directory: &Path) -> Daemon {
    let own = directory.join(role);
    for part in ["", "body", "upload"] {
        std::fs::create_dir(own.join(part)).expect("cannot write into the lab's directory");
    }
    let listen: String = PORTS
        .iter()
        .map(|port| {
            format!(
                "    listen {port} backlog=4096; listen [::]:{port} ipv6only=on backlog=4096;\n"
            )
        })
        .collect();
    let own_path = own.display();
    let configuration = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {own_path}/pid;\nerror_log {own_path}/error.log warn;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off;\n  default_type text/plain;\n  sendfile on;\n  client_max_body_size 1g;\n\
           client_body_temp_path {own_path}/body;\n  proxy_temp_path {own_path}/body;\n\
           fastcgi_temp_path {own_path}/body;\n  uwsgi_temp_path {own_path}/body;\n  scgi_temp_path {own_path}/body;\n\
           server {{\n{listen}\
             location = / {{ return 200 \"{role}\\n\"; }}\n\
             location = /who {{ return 200 \"{role} $server_addr $server_port $remote_addr $remote_port\\n\"; }}\n\
             location /files/ {{ alias {files}/; }}\n\
             location /paced/ {{ alias {files}/; limit_rate $arg_rate; }}\n\
             location /upload/ {{ alias {own_path}/upload/; dav_methods PUT; }}\n\
           }}\n\
         }}\n",
        files = directory.join("files").display(),
    );
    let path = own.join("nginx.conf");
    std::fs::write(&path, configuration).expect("cannot write into the lab's directory");
    let mut command = namespace.command("nginx");
    command
        .arg("-e")
        .arg(own.join("error.log"))
        .arg("-c")
        .arg(&path);
    Daemon::spawn(
        &format!("nginx {role}"),
        command,
        &directory.join(format!("nginx-{role}.log")),
    )
}

/// Waits until nginx answers inside its own namespace.
#[track_caller]
pub(crate) fn wait(namespace: &Namespace) {
    let answer = shell::wait_for(Duration::from_secs(10), || namespace.enter(ask_loopback));
    assert!(
        answer.is_some(),
        "nginx in {} does not answer",
        namespace.name()
    );
}

fn ask_loopback() -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", 80)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then_some(())
}
