//! A whole configuration as a person writes it: one text, in TOML or in JSON, that names rules and server groups with all
//! about them.
//!
//! ```
//! use libilb::document;
//! use libilb::model::Configuration;
//!
//! let text = r#"
//!     [group.web]
//!     servers = ["10.0.0.1:80", { address = "10.0.0.2:80", weight = 3 }]
//!
//!     [rule.www]
//!     vip = "192.0.2.10"
//!     port = 80
//!     algorithm = "wrr"
//!     topology = "HALF-NAT"
//!     group = "web"
//! "#;
//! let present = Configuration::default();
//! let plan = document::plan(text, &present, false)?;
//! assert_eq!(plan.configuration.rules.len(), 1);
//! println!("{}", plan.report);
//!
//! // The same document again changes nothing.
//! let again = document::plan(text, &plan.configuration, false)?;
//! assert!(again.report.is_empty());
//! # Ok::<(), document::Mistakes>(())
//! ```
//!
//! What is left out has its default; a rule is enabled unless it says `enabled = false`. Keys, words and names are the same
//! in any case, and keys have the aliases that they have in `lbadm`. [`Document`] is the form in memory; importers make
//! one, too.
//!
//! A document replaces a configuration, or is merged into it: then it changes only what it names. Either way what stays the
//! same keeps its numbers and ids, so that its connections do not notice: a rule is known by its name, a server of a group
//! by its address and ports.

mod entry;
mod ids;
mod keys;
mod mistake;
mod node;
mod plan;
mod read;
mod read_check;
mod read_server;
mod read_source;
mod read_vip;
mod read_vrrp;
mod report;
#[cfg(test)]
mod tests;
mod value;
mod write;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Configuration;

pub use entry::{CheckEntry, GroupEntry, Mask, RuleEntry, ServerEntry, VrrpEntry};
pub use mistake::{Marks, Mistake, Mistakes};
pub use plan::{Checked, Plan, check, plan};
pub use read::seconds;
pub use report::{Action, Change, Counts, Field, Item, Report};
pub use value::Value;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Server groups, in the order of the text.
    pub groups: Vec<GroupEntry>,
    /// Health checks, in the order of the text.
    pub checks: Vec<CheckEntry>,
    /// Rules, in the order of the text.
    pub rules: Vec<RuleEntry>,
    /// VRRP instances, in the order of the text.
    pub vrrp: Vec<VrrpEntry>,
    /// What an importer found and nothing is done about, by kind: kept as it was written.
    pub kept: Vec<(String, Value)>,
    /// Where in its text everything is, for messages; empty for a document that was not read from a text.
    pub marks: Marks,
}

impl Document {
    /// Reads TOML, or JSON if the text begins with a brace. Each value is checked by itself; whether all of them fit
    /// together shows when it is [planned](Document::plan).
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Document, Mistakes> {
        read::strictly(text)
    }

    /// The document that describes a configuration: what has its default is left out.
    pub fn of(configuration: &Configuration) -> Document {
        write::document(configuration)
    }

    /// The document as TOML, in the order of names.
    pub fn to_toml(&self) -> String {
        write::to_toml(self)
    }

    /// The configuration that there would be, beginning with `present`, and what would be different. With `merge` only what
    /// the document names is changed: of a rule or server only the keys that are given; otherwise the document is the
    /// whole, and what it does not name is removed.
    ///
    /// # Errors
    /// Everything that does not fit together.
    pub fn plan(&self, present: &Configuration, merge: bool) -> Result<Plan, Mistakes> {
        plan::plan_document(self, present, merge)
    }
}

/// A configuration as TOML, see [`Document::of`].
pub fn to_toml(configuration: &Configuration) -> String {
    Document::of(configuration).to_toml()
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write::value(self).to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        read::from_node(node::Node::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
