//! VRRP instances of a document: which are new, changed or as they were.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::Document;
use super::super::entry::VrrpEntry;
use super::super::read::field;
use super::super::read_vrrp::vrrp_fields;
use super::super::report::{Action, Item};
use super::{Planner, fields};
use crate::model::key;
use crate::vrrp::VrrpInstance;

impl Planner<'_> {
    /// VRRP instances: all are made or changed, and then held against each other.
    pub(super) fn instances(&mut self, document: &Document, broken: &HashSet<String>) {
        let named = self.names("vrrp", document.vrrp.iter().map(|v| &v.name));
        if !self.merge {
            let gone = |(k, _): &(&String, &Arc<VrrpInstance>)| !named.contains(*k);
            for (k, instance) in self.present.vrrp.iter().filter(gone) {
                self.next.vrrp.remove(k);
                let said = fields(&vrrp_fields(&VrrpEntry::of(instance)), &[]);
                self.change(Action::Removed, Item::Vrrp, &instance.name, said);
            }
        }
        let mut made = Vec::new();
        for entry in &document.vrrp {
            let k = key(&entry.name);
            if broken.contains(&k) {
                self.next.vrrp.remove(&k);
            } else {
                made.extend(self.instance(entry));
            }
        }
        for k in made {
            let Some(instance) = self.next.vrrp.get(&k).cloned() else {
                continue;
            };
            if let Err(error) = self.next.check_vrrp_among(&instance) {
                self.note(&format!("vrrp.{}", instance.name), error);
            }
        }
    }

    /// One of them; its [`key`] if it is different.
    fn instance(&mut self, entry: &VrrpEntry) -> Option<String> {
        let k = key(&entry.name);
        let old = self.present.vrrp.get(&k).cloned();
        let made = match &old {
            Some(old) if self.merge => entry.settings.amend(old),
            _ => entry.settings.check(&entry.name),
        };
        let mut instance = match made {
            Ok(instance) => instance,
            Err(error) => {
                self.note(&format!("vrrp.{}.{}", entry.name, field(&error)), error);
                return None;
            }
        };
        let after = vrrp_fields(&VrrpEntry::of(&instance));
        match &old {
            Some(old) => {
                instance.name.clone_from(&old.name);
                if instance == **old {
                    return None;
                }
                let said = fields(&vrrp_fields(&VrrpEntry::of(old)), &after);
                self.change(Action::Changed, Item::Vrrp, &old.name, said);
            }
            None => {
                let said = fields(&[], &after);
                self.change(Action::Created, Item::Vrrp, &entry.name, said);
            }
        }
        self.next.vrrp.insert(k.clone(), Arc::new(instance));
        Some(k)
    }
}
