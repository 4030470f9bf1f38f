//! Where selectors are made when a snapshot is compiled. What is the same as before is taken over instead: a selector
//! as a whole, or its hash table, which rules with the same servers also share.

use std::collections::HashMap;
use std::sync::Arc;

use super::maglev::{self, Maglev};
use super::{Recipe, Selector, Turns};
use crate::counters::Account;

/// See the module's text. For one run of the compiler.
#[derive(Debug, Default)]
pub struct Workshop {
    tables: HashMap<maglev::Recipe, Arc<Maglev>>,
}

impl Workshop {
    /// The selector for a recipe; `accounts` belong to its servers, `old` is what the rule had before.
    pub fn selector(
        &mut self,
        recipe: Recipe,
        accounts: Vec<Arc<Account>>,
        turns: &Arc<Turns>,
        old: Option<&Arc<Selector>>,
    ) -> Arc<Selector> {
        if let Some(old) = old
            && old.recipe == recipe
            && old
                .among
                .all()
                .iter()
                .map(|c| &c.account)
                .zip(&accounts)
                .all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return old.clone();
        }
        let table = recipe.table().map(|wanted| self.table(wanted, old));
        Arc::new(Selector::new(recipe, accounts, turns, table))
    }

    fn table(&mut self, wanted: maglev::Recipe, old: Option<&Arc<Selector>>) -> Arc<Maglev> {
        if let Some(old) = old
            && let Some(table) = old.table()
            && old.recipe.table().as_ref() == Some(&wanted)
        {
            return table.clone();
        }
        let made = |wanted: &maglev::Recipe| Arc::new(Maglev::new(wanted));
        self.tables.entry(wanted).or_insert_with_key(made).clone()
    }
}
