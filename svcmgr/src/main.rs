//! The service manager of the ilb load balancer.
//!
//! This program owns the configuration: it takes changes over D-Bus, validates the whole, stores it durably, compiles it
//! into the snapshot that the fast path forwards by, puts the addresses of rules on the node's interfaces, and shows state
//! and counters. It never touches a packet, and forwarding goes on without it.

#![forbid(unsafe_code)]

mod addresses;
mod args;
mod author;
mod checks;
mod compile;
mod dataplane;
mod dbus;
mod followed;
mod history;
mod manager;
mod metrics;
mod notify;
mod pair;
mod panicmode;
mod pending;
mod quorum;
mod reload;
mod retired;
mod risen;
mod run;
mod sources;
mod standing;
mod state;
mod store;
#[cfg(test)]
mod test_folder;
mod tiers;
mod vigour;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    ilb_node::journal::start();
    match run::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
