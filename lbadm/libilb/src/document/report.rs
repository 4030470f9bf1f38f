//! What applying a document does, or did.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Created, changed and removed items. Displayed, it is what `lbadm diff` prints: `+` for what is created, `-` for what is
/// removed, `~` for what is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Report {
    /// Generation of the configuration that it is about: with a dry run the present one, otherwise the new one. 0 if no
    /// manager was asked.
    pub generation: u64,
    /// In the order in which they are displayed; servers come after their group.
    pub changes: Vec<Change>,
    /// How many items stay as they are.
    pub unchanged: Counts,
    /// What a person should know, such as an id that could not be had.
    pub notes: Vec<String>,
    /// Unix time in seconds until when it has to be confirmed, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
}

/// Numbers of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Counts {
    /// Rules.
    pub rules: usize,
    /// Server groups.
    pub groups: usize,
    /// Servers.
    pub servers: usize,
    /// Health checks.
    pub healthchecks: usize,
    /// VRRP instances.
    pub vrrp: usize,
}

/// What is done to one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// To what.
    pub item: Item,
    /// Its name; of a server its id.
    pub name: String,
    /// Of a server: its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The rule is made anew under its name: its connections depend on what is changed, and end with the old one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// What is different; of what is created or removed, what it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
}

/// See [`Change::action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is new.
    Created,
    /// It is different.
    Changed,
    /// It is gone.
    Removed,
}

/// See [`Change::item`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// A rule.
    Rule,
    /// A server group.
    Group,
    /// A server.
    Server,
    /// A health check.
    #[serde(rename = "healthcheck")]
    HealthCheck,
    /// A VRRP instance.
    Vrrp,
}

/// One key of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Field {
    /// As documents have it.
    pub field: String,
    /// Its value before; none if it was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// Its value after; none if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

impl Report {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Names or ids of everything that is different.
    pub fn names(&self) -> Vec<String> {
        self.changes.iter().map(|c| c.name.clone()).collect()
    }

    /// The changes of one kind to one kind of item.
    pub fn names_of(&self, action: Action, item: Item) -> Vec<&str> {
        let all = self.changes.iter();
        all.filter(|c| c.action == action && c.item == item)
            .map(|c| c.name.as_str())
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Action::Created => '+',
            Action::Changed => '~',
            Action::Removed => '-',
        };
        match self.item {
            Item::Rule => write!(f, "{sign} rule {}", self.name)?,
            Item::Group => write!(f, "{sign} group {}", self.name)?,
            Item::HealthCheck => write!(f, "{sign} healthcheck {}", self.name)?,
            Item::Vrrp => write!(f, "{sign} vrrp {}", self.name)?,
            Item::Server => write!(f, "{sign}   server {}", self.name)?,
        }
        if self.anew {
            f.write_str(" (made anew; its connections end with the old one)")?;
        }
        if self.action == Action::Changed && self.fields.is_empty() {
            return Ok(());
        }
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|field| field.words(self.action, self.item))
            .collect();
        match fields.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", fields.join(", ")),
        }
    }
}

impl Field {
    fn words(&self, action: Action, item: Item) -> String {
        let value = |value: &Option<String>| match value {
            Some(text) if text.is_empty() => "none".to_string(),
            Some(text) => text.clone(),
            None => "default".to_string(),
        };
        let one = match action {
            Action::Changed => {
                return format!("{} {} → {}", self.field, value(&self.old), value(&self.new));
            }
            Action::Created => value(&self.new),
            Action::Removed => value(&self.old),
        };
        match item == Item::Server && self.field == "address" {
            true => one,
            false => format!("{} {one}", self.field),
        }
    }
}
