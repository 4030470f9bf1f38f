//! Changes on their way to who asks for them. However slow that is, no more is kept than the latest of each target.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use libilb::health::TRANSITIONS;
use tokio::sync::Notify;

use super::Changed;
use crate::target::Id;

/// What was not taken yet.
#[derive(Debug, Default)]
pub struct Feed {
    pending: Mutex<BTreeMap<Id, Changed>>,
    notify: Notify,
}

impl Feed {
    /// Adds a change to what was not taken yet.
    pub fn publish(&self, change: Changed) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transitions = match pending.remove(&change.id) {
            Some(before) => before.transitions,
            None => Vec::new(),
        };
        transitions.extend(change.transitions);
        let surplus = transitions.len().saturating_sub(TRANSITIONS);
        transitions.drain(..surplus);
        pending.insert(
            change.id,
            Changed {
                transitions,
                ..change
            },
        );
        drop(pending);
        self.notify.notify_one();
    }

    /// Forgets what was not taken of a target that is gone.
    pub fn forget(&self, id: Id) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.remove(&id);
    }

    /// Waits until there is something and takes all of it.
    pub async fn take(&self) -> Vec<Changed> {
        loop {
            let taken = {
                let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *pending)
            };
            if !taken.is_empty() {
                return taken.into_values().collect();
            }
            self.notify.notified().await;
        }
    }
}
