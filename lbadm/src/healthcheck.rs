//! `create-healthcheck`, `delete-healthcheck`, `show-healthcheck`, `show-hc-result`.

use crate::action::Action;
use crate::cli::HealthcheckCommand;
use crate::error::Error;

/// Reads a command about health checks.
///
/// # Errors
/// What this version cannot do.
pub fn understand(command: HealthcheckCommand) -> Result<Action, Error> {
    match command {
        HealthcheckCommand::CreateHealthcheck(_)
        | HealthcheckCommand::DeleteHealthcheck(_)
        | HealthcheckCommand::ShowHealthcheck(_)
        | HealthcheckCommand::ShowHcResult(_) => Err(Error::not_supported("health checks", None)),
    }
}
