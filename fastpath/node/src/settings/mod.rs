//! The node's settings: interfaces, queues, table size and paths, from a TOML file that both daemons read at their start.
//!
//! Every mistake of a file is reported at once, each with line, column, key, value and what is allowed.

mod different;
mod read;
mod suggest;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ilb_forwarder::spec::Limits;
use read::Reader;

/// Where both daemons look for the settings when they are not told otherwise.
pub const DEFAULT_PATH: &str = "/etc/ilb/ilb.toml";

/// Most interfaces that one fast path serves.
pub const MAX_INTERFACES: usize = 64;
/// Most queues of an interface, and so most workers.
pub const MAX_QUEUES: u32 = 64;

/// Sections of the file with their keys: what is known, and what suggestions are made from.
const SECTIONS: &[(&str, &[&str])] = &[
    ("node", &["runtime-dir", "state-dir", "bpf-dir"]),
    (
        "fastpath",
        &[
            "interfaces",
            "queues",
            "table-size",
            "mode",
            "zero-copy",
            "ring-size",
            "frames",
            "busy-poll",
        ],
    ),
    ("manager", &["manage-addresses"]),
    ("pair", &["address", "port"]),
    ("metrics", &["listen", "per-server"]),
    (
        "limits",
        &[
            "new-flows-per-second",
            "icmp-errors-per-second",
            "embryonic-percent",
            "waiting-fragments",
        ],
    ),
];

/// Longest path of a Unix socket in bytes (`sun_path` of 108 with its terminating zero, unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The whole settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Section `[node]`.
    pub node: Node,
    /// Section `[fastpath]`.
    pub fastpath: Fastpath,
    /// Section `[manager]`.
    pub manager: Manager,
    /// Section `[pair]`.
    pub pair: Pair,
    /// Section `[metrics]`.
    pub metrics: Metrics,
    /// Section `[limits]`: what the node as a whole lets in. Read by the manager, which passes it on with the rules.
    pub limits: Limits,
}

/// Section `[node]`: where things live. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `runtime-dir`, default `/run/ilb`: control socket and connection table. Emptied by a reboot.
    pub runtime_dir: PathBuf,
    /// `state-dir`, default `/var/lib/ilb`: database and snapshots of the configuration.
    pub state_dir: PathBuf,
    /// `bpf-dir`, default `/sys/fs/bpf/ilb`: pins of the XDP program, its links and maps. On a bpf file system.
    pub bpf_dir: PathBuf,
}

/// Section `[fastpath]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fastpath {
    /// `interfaces`, required, 1 to [`MAX_INTERFACES`] different names.
    pub interfaces: Vec<String>,
    /// `queues`, default all.
    pub queues: Queues,
    /// `table-size`, connections, 64 to 268435456, default 1048576.
    pub table_size: u32,
    /// `mode`, default auto.
    pub mode: Mode,
    /// `zero-copy`, default auto.
    pub zero_copy: ZeroCopy,
    /// `ring-size`, descriptors of each AF_XDP ring, a power of two from 64 to 32768, default 2048.
    pub ring_size: u32,
    /// `frames`, UMEM frames for each worker and interface, a power of two from 64 to 1048576 and not below
    /// `ring-size`, default 4096 (or `ring-size` when that is larger).
    pub frames: u32,
    /// `busy-poll`, default false.
    pub busy_poll: bool,
}

/// Section `[manager]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// `manage-addresses`, default true: whether VIPs and proxy-src addresses are put on interfaces.
    pub manage_addresses: bool,
}

/// Section `[pair]`: where the node that creates a pair listens for the other one, unless it is told otherwise then. Read by the
/// manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// `address`, one of this node, or all: the default.
    pub address: Option<IpAddr>,
    /// `port`, TCP, default [`PAIR_PORT`].
    pub port: u16,
}

/// TCP port of the pair if nothing else is said: one of the dynamic ones (RFC 6335).
pub const PAIR_PORT: u16 = 49_281;

/// Section `[metrics]`: the endpoint for Prometheus and its like. Read by the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `listen`, an address and a port such as `127.0.0.1:9749`, or `off`, the default.
    pub listen: Option<SocketAddr>,
    /// `per-server`, default true: whether every server of every rule has lines of its own.
    pub per_server: bool,
}

/// How many queues of each interface are served, one worker each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queues {
    /// All that the interface with most queues has.
    All,
    /// This many, 1 to [`MAX_QUEUES`].
    Count(u32),
}

/// Where the XDP program shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver if it can, otherwise generic.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// Behind the driver.
    Generic,
}

/// Whether frames may or must stay where the NIC put them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver offers it.
    Auto,
    /// Never.
    Never,
    /// Always: an interface without it is an error.
    Require,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            runtime_dir: "/run/ilb".into(),
            state_dir: "/var/lib/ilb".into(),
            bpf_dir: "/sys/fs/bpf/ilb".into(),
        }
    }
}

impl Default for Manager {
    fn default() -> Manager {
        Manager {
            manage_addresses: true,
        }
    }
}

impl Fastpath {
    /// The defaults with these interfaces.
    pub fn new(interfaces: Vec<String>) -> Fastpath {
        Fastpath {
            interfaces,
            queues: Queues::All,
            table_size: 1 << 20,
            mode: Mode::Auto,
            zero_copy: ZeroCopy::Auto,
            ring_size: 2048,
            frames: 4096,
            busy_poll: false,
        }
    }
}

impl Settings {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`SettingsError::Read`] when there is no readable file, [`SettingsError::Invalid`] with every mistake in it.
    pub fn load(path: &Path) -> Result<Settings, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.into(),
            source,
        })?;
        Settings::parse(&text).map_err(|mistakes| SettingsError::Invalid {
            path: path.into(),
            mistakes,
        })
    }

    /// Checks the text of a settings file.
    ///
    /// # Errors
    /// Every mistake, in the order of the text.
    pub fn parse(text: &str) -> Result<Settings, Vec<Mistake>> {
        let (table, mut reader) = Reader::new(text);
        reader.only_known_sections(&table, SECTIONS);

        let node = Node::default();
        let section = reader.section(&table, "node");
        let node = Node {
            runtime_dir: reader.path(&section, "runtime-dir", node.runtime_dir),
            state_dir: reader.path(&section, "state-dir", node.state_dir),
            bpf_dir: reader.path(&section, "bpf-dir", node.bpf_dir),
        };

        let section = reader.section(&table, "manager");
        let manager = Manager {
            manage_addresses: reader.boolean(&section, "manage-addresses", true),
        };

        let section = reader.section(&table, "pair");
        let pair = Pair {
            address: reader.address(&section, "address"),
            // In range, so that it fits.
            port: reader.integer(
                &section,
                "port",
                1..=u32::from(u16::MAX),
                u32::from(PAIR_PORT),
            ) as u16,
        };

        let section = reader.section(&table, "metrics");
        let metrics = Metrics {
            listen: reader.listen(&section, "listen"),
            per_server: reader.boolean(&section, "per-server", true),
        };

        let section = reader.section(&table, "limits");
        let default = Limits::default();
        let mut limit = |key, range, default| reader.integer(&section, key, range, default);
        let limits = Limits {
            new_flows_per_second: limit(
                "new-flows-per-second",
                0..=u32::MAX,
                default.new_flows_per_second,
            ),
            icmp_errors_per_second: limit(
                "icmp-errors-per-second",
                0..=u32::MAX,
                default.icmp_errors_per_second,
            ),
            // In range, so that it fits.
            embryonic_percent: limit(
                "embryonic-percent",
                0..=100,
                u32::from(default.embryonic_percent),
            ) as u8,
            waiting_fragments: limit("waiting-fragments", 0..=1 << 20, default.waiting_fragments),
        };

        let section = reader.section(&table, "fastpath");
        let default = Fastpath::new(Vec::new());
        let ring_size = reader.power_of_two(&section, "ring-size", 64..=32768, default.ring_size);
        let fastpath = Fastpath {
            interfaces: reader.interfaces(&section, "interfaces", MAX_INTERFACES),
            queues: reader.queues(&section, "queues", MAX_QUEUES),
            table_size: reader.integer(&section, "table-size", 64..=1 << 28, default.table_size),
            mode: reader.choice(
                &section,
                "mode",
                &[
                    ("auto", Mode::Auto),
                    ("native", Mode::Native),
                    ("generic", Mode::Generic),
                ],
                default.mode,
            ),
            zero_copy: reader.choice(
                &section,
                "zero-copy",
                &[
                    ("auto", ZeroCopy::Auto),
                    ("never", ZeroCopy::Never),
                    ("require", ZeroCopy::Require),
                ],
                default.zero_copy,
            ),
            ring_size,
            frames: reader.power_of_two(
                &section,
                "frames",
                64..=1 << 20,
                default.frames.max(ring_size),
            ),
            busy_poll: reader.boolean(&section, "busy-poll", default.busy_poll),
        };

        if fastpath.frames < fastpath.ring_size {
            let message = format!(
                "{} frames cannot fill a ring of {}; allowed is at least ring-size",
                fastpath.frames, fastpath.ring_size
            );
            reader.mistake_at(&section, "frames", &message);
        }
        if fastpath.mode == Mode::Generic && fastpath.zero_copy == ZeroCopy::Require {
            reader.mistake_at(
                &section,
                "zero-copy",
                "\"require\" contradicts mode = \"generic\", which always copies; use mode = \"auto\" or \"native\"",
            );
        }
        let settings = Settings {
            node,
            fastpath,
            manager,
            pair,
            metrics,
            limits,
        };
        let length = settings.control_socket().as_os_str().len();
        if length > MAX_SOCKET_PATH {
            let section = reader.section(&table, "node");
            let message = format!(
                "the control socket's path {} would have {length} bytes; allowed are {MAX_SOCKET_PATH}",
                settings.control_socket().display()
            );
            reader.mistake_at(&section, "runtime-dir", &message);
        }
        reader.finish()?;
        Ok(settings)
    }

    /// The Unix socket on which the fast path takes its configuration: `<runtime-dir>/fastpath.sock`.
    pub fn control_socket(&self) -> PathBuf {
        self.node.runtime_dir.join("fastpath.sock")
    }

    /// The shared file that holds the connection table: `<runtime-dir>/connections`.
    pub fn table_file(&self) -> PathBuf {
        self.node.runtime_dir.join("connections")
    }

    /// The folder of the manager's database: `<state-dir>/db`.
    pub fn database(&self) -> PathBuf {
        self.node.state_dir.join("db")
    }

    /// The folder of the configuration's snapshots: `<state-dir>/snapshots`.
    pub fn snapshots(&self) -> PathBuf {
        self.node.state_dir.join("snapshots")
    }
}

/// One mistake in a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Which key, which value, what is allowed.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error(
        "cannot read the node settings {path}: {source}; create the file or name another one with --config"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file has mistakes, at least one.
    #[error("the node settings {path} have {}", list(mistakes))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of the text.
        mistakes: Vec<Mistake>,
    },
}

fn list(mistakes: &[Mistake]) -> String {
    let mut text = match mistakes.len() {
        1 => "1 mistake:".to_owned(),
        n => format!("{n} mistakes:"),
    };
    for mistake in mistakes {
        text.push_str("\n  ");
        text.push_str(&mistake.to_string());
    }
    text
}

#[cfg(test)]
mod tests;
