//! The fast path daemon of ilb: reads the command line and the node settings, and starts what the library holds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ilb_fastpath::{error, start};
use ilb_node::settings::{DEFAULT_PATH, Settings};

/// Fast path of the load balancer ilb.
#[derive(Debug, Parser)]
#[command(
    name = "ilb-fastpath",
    version,
    after_help = "ILB_LOG sets what is logged, to the journal under systemd and to stderr elsewhere: error, warn, info (the default), debug or trace."
)]
struct Arguments {
    /// Node settings.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Take everything out of the kernel that the fast path has put there (XDP program, links, maps), and end.
    #[arg(long)]
    detach: bool,
    /// Read the node settings, say what is wrong with them, and end.
    #[arg(long, conflicts_with = "detach")]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ilb_node::journal::start();
    end_on_panic();
    let outcome = Settings::load(&arguments.config)
        .map_err(error::StartError::from)
        .and_then(|settings| match (arguments.check, arguments.detach) {
            (true, _) => Ok(()),
            (_, true) => start::detach(&settings),
            _ => start::run(settings, &arguments.config),
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A thread that panics ends the process: systemd starts it anew, which repairs more than a worker that is missing.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
