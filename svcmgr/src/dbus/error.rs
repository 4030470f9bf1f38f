//! The one conversion of errors at the D-Bus edge.

use zbus::message::{Header, Message};
use zbus::names::ErrorName;

use crate::manager::error::ManagerError;

/// A [`ManagerError`] under its D-Bus name, with its text.
#[derive(Debug)]
pub struct MethodError {
    name: String,
    text: String,
}

impl<E: Into<ManagerError>> From<E> for MethodError {
    fn from(error: E) -> MethodError {
        let error = error.into();
        MethodError {
            name: libilb::dbus::error_name(error.kind()),
            text: error.to_string(),
        }
    }
}

impl zbus::DBusError for MethodError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(&self.text,))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}
