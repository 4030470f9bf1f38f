//! `create-healthcheck`, `delete-healthcheck`, `show-healthcheck`, `show-hc-result`.

use clap::Subcommand;

use super::Later;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum HealthcheckCommand {
    /// (not supported yet) Create a health check
    #[command(alias = "create-hc")]
    CreateHealthcheck(Later),
    /// (not supported yet) Delete health checks
    #[command(alias = "delete-hc")]
    DeleteHealthcheck(Later),
    /// (not supported yet) Show health checks
    #[command(alias = "show-hc")]
    ShowHealthcheck(Later),
    /// (not supported yet) Show results of health checks
    #[command(alias = "show-hc-res")]
    ShowHcResult(Later),
}
