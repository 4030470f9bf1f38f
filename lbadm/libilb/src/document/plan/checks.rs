//! Health checks of a document: which are new, changed or as they were.

use std::sync::Arc;

use super::super::entry::CheckEntry;
use super::super::read::field;
use super::super::report::{Action, Item};
use super::super::write::check_fields;
use super::{Planner, fields};
use crate::model::key;

impl Planner<'_> {
    /// Makes one health check of a document.
    pub(super) fn check(&mut self, entry: &CheckEntry) {
        let k = key(&entry.name);
        let old = self.present.checks.get(&k).cloned();
        let made = match &old {
            Some(old) if self.merge => entry.settings.amend(old).map_err(|error| vec![error]),
            _ => entry.settings.check_all(&entry.name),
        };
        let mut check = match made {
            Ok(check) => check,
            Err(errors) => {
                for error in errors {
                    self.note(
                        &format!("healthcheck.{}.{}", entry.name, field(&error)),
                        error,
                    );
                }
                return;
            }
        };
        let after = check_fields(&CheckEntry::of(&check));
        match &old {
            Some(old) => {
                check.name.clone_from(&old.name);
                if check == **old {
                    return;
                }
                let before = check_fields(&CheckEntry::of(old));
                let said = fields(&before, &after);
                self.change(Action::Changed, Item::HealthCheck, &old.name, said);
            }
            None => {
                let said = fields(&[], &after);
                self.change(Action::Created, Item::HealthCheck, &entry.name, said);
            }
        }
        self.checks.insert(k.clone());
        self.next.checks.insert(k, Arc::new(check));
    }
}
