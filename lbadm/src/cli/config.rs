//! `export-config`, `import-config`.

use clap::Subcommand;

use super::Later;

/// The commands, each under its usual name and its alias.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// (not supported yet) Write the configuration as commands
    #[command(alias = "export-cf")]
    ExportConfig(Later),
    /// (not supported yet) Read a configuration
    #[command(alias = "import-cf")]
    ImportConfig(Later),
}
