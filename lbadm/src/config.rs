//! `export-config`, `import-config`.

mod export;
mod import;
mod script;
#[cfg(test)]
mod tests;

use crate::action::Action;
use crate::cli::ConfigCommand;
use crate::error::Error;

pub use export::{export, write};
pub use import::Import;

/// Reads a command about the configuration as a whole.
///
/// # Errors
/// Values that are wrong in themselves.
pub fn understand(command: ConfigCommand) -> Result<Action, Error> {
    match command {
        ConfigCommand::ExportConfig(args) => Ok(Action::Export(args)),
        ConfigCommand::ImportConfig(args) => {
            Ok(Action::Import(Box::new(Import::understand(args)?)))
        }
    }
}
