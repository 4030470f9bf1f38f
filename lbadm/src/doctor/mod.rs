//! `doctor`: everything that the node's work depends on.
//!
//! [`look`] gathers facts, reading only: from the manager, from `/proc` and `/sys`, and from `ip` and `nft`, which every
//! system has where they matter. [`judge`] is pure.

mod clashes;
mod interfaces;
pub mod judge;
mod machine;
mod network;
mod servers;
mod system;
#[cfg(test)]
mod tests;

use std::path::Path;

use ilb_node::settings::Settings;
use libilb::client::Client;
use libilb::describe::Description;
use libilb::fastpath::FastpathDescription;

use crate::error::Exit;
use crate::finding::{Finding, Level, worst};
use crate::table::Style;
use network::Network;
use system::System;

/// Everything that was found out.
#[derive(Debug)]
pub struct Facts {
    /// The settings file, or what is wrong with it.
    pub settings: Result<Settings, String>,
    /// Configuration and state, or why there is none.
    pub node: Result<Description, String>,
    /// The fast path, or why it says nothing.
    pub fastpath: Result<FastpathDescription, String>,
    /// What the kernel says in files.
    pub system: System,
    /// What `ip` and `nft` say.
    pub network: Network,
}

/// Gathers the facts.
pub async fn look(config: &Path) -> Facts {
    let settings = Settings::load(config).map_err(|error| error.to_string());
    let client = Client::connect().await;
    let (node, fastpath) = match &client {
        Ok(client) => (
            client.describe().await.map_err(|error| error.to_string()),
            client
                .describe_fastpath()
                .await
                .map_err(|error| error.to_string()),
        ),
        Err(error) => (Err(error.to_string()), Err(error.to_string())),
    };
    let system = System::read(Path::new("/"), settings.as_ref().ok());
    let network = Network::ask(node.as_ref().ok());
    Facts {
        settings,
        node,
        fastpath,
        system,
        network,
    }
}

/// Writes what was found, and a last line that sums it up.
pub fn render(findings: &[Finding], style: Style) -> String {
    let width = findings.iter().map(|finding| finding.about.len()).max();
    let mut out: String = findings
        .iter()
        .map(|finding| finding.render(width.unwrap_or(0), style))
        .collect();
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (bad, warn, unknown) = (count(Level::Bad), count(Level::Warn), count(Level::Unknown));
    let text = match (bad, warn) {
        (0, 0) => "nothing is wrong".to_string(),
        (0, warn) => format!("it works; {warn} to be warned of"),
        (bad, 0) => format!("{bad} bad"),
        (bad, warn) => format!("{bad} bad, {warn} to be warned of"),
    };
    out.push_str(&style.paint(worst(findings).tone(), &text));
    if unknown > 0 {
        out.push_str(&format!("; {unknown} could not be told"));
    }
    out.push('\n');
    out
}

/// The exit code.
pub fn exit(findings: &[Finding]) -> Exit {
    match worst(findings) {
        Level::Bad => Exit::Degraded,
        Level::Warn => Exit::Failed,
        Level::Ok | Level::Unknown => Exit::Ok,
    }
}
