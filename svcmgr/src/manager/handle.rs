//! The manager for everybody else.

use std::sync::Arc;

use ilb_node::control::{Request, Response};
use libilb::describe::Description;
use libilb::stats;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::change::Change;
use super::command::{Command, Live};
use super::error::ManagerError;
use super::statistics::Numbers;
use super::view::View;
use crate::author::Author;
use crate::checks::Order;
use crate::pair::Place;
use crate::store::snapshots::Snapshots;

/// Sends commands. A clone is cheap.
#[derive(Debug, Clone)]
pub struct ManagerHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) checks: mpsc::UnboundedSender<Order>,
    pub(super) database: Arc<str>,
    pub(super) interfaces: Arc<[String]>,
    /// Where a node that creates a pair listens, unless it is said otherwise.
    pub(super) listen: Place,
    pub(super) snapshots: Option<Snapshots>,
    /// One preview at a time: they are for everybody, and a large one is work.
    pub(super) previews: Arc<Semaphore>,
}

impl ManagerHandle {
    /// Does a change and waits until it is in force.
    ///
    /// # Errors
    /// [`ManagerError`]; nothing was changed.
    pub async fn change(
        &self,
        author: Author,
        change: Change,
    ) -> Result<Vec<String>, ManagerError> {
        self.ask(|reply| Command::Change {
            author,
            change,
            reply,
        })
        .await?
    }

    /// The counters of this moment.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn statistics(&self) -> Result<stats::Statistics, ManagerError> {
        self.ask(|reply| Command::Statistics { reply }).await
    }

    /// All sums of this moment, for machines.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn numbers(&self) -> Result<Numbers, ManagerError> {
        self.ask(|reply| Command::Numbers { reply }).await
    }

    /// Configuration and state of this moment.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn describe(&self) -> Result<Description, ManagerError> {
        self.ask(|reply| Command::Describe { reply }).await
    }

    /// Waits until the manager has done what it was asked before.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn attend(&self) -> Result<(), ManagerError> {
        let settings = None;
        self.ask(|reply| Command::Attend { settings, reply }).await
    }

    /// Has the manager go by these settings.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn reload(&self, settings: Live) -> Result<(), ManagerError> {
        let settings = Some(settings);
        self.ask(|reply| Command::Attend { settings, reply }).await
    }

    /// Asks the fast path something that changes nothing.
    ///
    /// # Errors
    /// [`ManagerError::Fastpath`] when it does not answer.
    pub async fn ask_fastpath(&self, request: Request) -> Result<Response, ManagerError> {
        self.ask(|reply| Command::Ask { request, reply }).await?
    }

    /// The fast path's interfaces, in its order.
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// What was published last.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The same, for which nothing changes any more: its view stays what it is now.
    pub fn frozen(&self) -> ManagerHandle {
        ManagerHandle {
            view: watch::channel(self.view()).1,
            ..self.clone()
        }
    }

    /// Where the configuration is stored.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ManagerError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| ManagerError::Stopping)?;
        answer.await.map_err(|_| ManagerError::Stopping)
    }
}
