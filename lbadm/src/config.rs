//! `export-config`, `import-config`.

use crate::action::Action;
use crate::cli::ConfigCommand;
use crate::error::Error;

/// Reads a command about the configuration as a whole.
///
/// # Errors
/// What this version cannot do.
pub fn understand(command: ConfigCommand) -> Result<Action, Error> {
    match command {
        ConfigCommand::ExportConfig(_) => Err(Error::not_supported(
            "export of the configuration",
            Some("'lbadm show-rule -j' and 'lbadm show-servergroup -j' write it as JSON"),
        )),
        ConfigCommand::ImportConfig(_) => {
            Err(Error::not_supported("import of a configuration", None))
        }
    }
}
