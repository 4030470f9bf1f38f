//! Fuzz targets of ilb: functions that take any bytes and panic when something does not hold.
//!
//! This crate owns what must hold for every input: of the decoders (frames, quoted packets, control frames, the
//! settings file, snapshots, VRRP, what a peer says to the fast path and to the manager), of files that describe a configuration, of a virtual router, and of the forwarder as a whole ([`process`]), which it holds against a slow and simple
//! reference. It refuses to know how inputs come about: libFuzzer makes them in `make fuzz` (feature `libfuzzer`), and
//! `tests/replay.rs` gives every target its corpus, its regressions and seeded random bytes in every `cargo test`.

mod bytes;
#[path = "../../../fastpath/forwarder/tests/common/mod.rs"]
mod common;
mod configuration;
mod decoders;
mod pair;
mod process;
mod reference;
mod sync;
mod vrrp;
mod wire;

pub use configuration::{document, import};
pub use decoders::{control, packet, quoted, settings, snapshot};
pub use pair::pair;
pub use process::process;
pub use sync::sync;
pub use vrrp::vrrp;

/// A target: any bytes, and a panic if something does not hold.
pub type Target = fn(&[u8]);

/// All targets with their names, which are those of their directories below `corpus` and `regressions`.
pub const TARGETS: &[(&str, Target)] = &[
    ("packet", packet),
    ("quoted", quoted),
    ("control", control),
    ("settings", settings),
    ("snapshot", snapshot),
    ("vrrp", vrrp),
    ("sync", sync),
    ("pair", pair),
    ("process", process),
    ("import", import),
    ("document", document),
];
