//! `status` and what needs no manager.

use crate::action::Action;
use crate::cli::NodeCommand;
use crate::complete;
use crate::error::Error;
use crate::status::Status;

/// Reads a command about the node.
///
/// # Errors
/// None.
pub fn understand(command: NodeCommand) -> Result<Action, Error> {
    Ok(match command {
        NodeCommand::Status => Action::Show(Box::new(Status)),
        NodeCommand::Doctor(args) => Action::Doctor(args.config),
        NodeCommand::Completion(args) => Action::Say(complete::script(args.shell)),
        NodeCommand::Complete(args) => Action::Complete(args.line),
        NodeCommand::GenerateMan(args) => Action::Man(args.directory),
    })
}
