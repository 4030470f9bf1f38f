//! The bus side of [`World`].

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::pin::pin;

use futures_util::future::{Either, select};
use futures_util::stream::StreamExt;
use zbus::fdo::{ObjectManagerProxy, PropertiesProxy};
use zbus::message::Type;
use zbus::names::InterfaceName;
use zbus::{Connection, MatchRule, Message, MessageStream, ObjectPath, OwnedVariant, Variant};

use super::world::Objects;
use super::{Event, Kind, What, World};
use crate::client::ClientError;
use crate::dbus::{BUS_NAME, MANAGER_INTERFACE, ROOT_PATH};

/// Signals that may wait; one command may create a hundred thousand objects.
const WAITING: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

struct Shown(OwnedVariant);

impl AsRef<Variant<'static>> for Shown {
    fn as_ref(&self) -> &Variant<'static> {
        &self.0
    }
}

/// Properties as the bus carries them.
type Given = HashMap<String, OwnedVariant>;

fn shown(given: Given) -> HashMap<String, Shown> {
    given.into_iter().map(|(k, v)| (k, Shown(v))).collect()
}

/// Hears of everything that happens at a node, also while the manager is restarted.
pub struct Watcher {
    connection: Connection,
    /// Signals of the manager's objects.
    signals: MessageStream,
    /// Who owns the manager's name.
    owners: MessageStream,
    world: World,
    waiting: VecDeque<Event>,
}

impl Watcher {
    /// Watches the manager on this connection; what is there now is no event.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if there is no manager.
    pub async fn on(connection: &Connection) -> Result<Watcher, ClientError> {
        // First the signals, then the state, so that nothing falls between them.
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(BUS_NAME)
            .path_namespace(ROOT_PATH)
            .build()?;
        let signals = MessageStream::for_match_rule(rule, connection, Some(WAITING)).await?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .add_arg(BUS_NAME)
            .build()?;
        let owners = MessageStream::for_match_rule(rule, connection, None).await?;
        let mut watcher = Watcher {
            connection: connection.clone(),
            signals,
            owners,
            world: World::default(),
            waiting: VecDeque::new(),
        };
        watcher.look().await?;
        Ok(watcher)
    }

    /// Waits for the next event. May be dropped and called again.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when the bus is gone.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let heard = {
                // Owners first: what a new one signals comes after it on the bus.
                let owner = pin!(self.owners.next());
                let signal = pin!(self.signals.next());
                match select(owner, signal).await {
                    Either::Left((message, _)) => (message, true),
                    Either::Right((message, _)) => (message, false),
                }
            };
            let (Some(message), of_owner) = heard else {
                return Err(ClientError::NotRunning(
                    "the D-Bus system bus has closed the connection".to_string(),
                ));
            };
            match of_owner {
                true => self.owner(&message?).await?,
                false => self.signal(&message?),
            }
        }
    }

    /// Takes over everything that there is.
    async fn look(&mut self) -> Result<Vec<Event>, ClientError> {
        let proxy = ObjectManagerProxy::new(&self.connection, BUS_NAME, ROOT_PATH).await?;
        let managed = proxy.get_managed_objects().await;
        let mut objects: Objects<Shown> = managed
            .map_err(zbus::Error::from)?
            .into_iter()
            .map(|(path, interfaces)| {
                let interfaces = interfaces.into_iter();
                let interfaces = interfaces.map(|(name, given)| (name.to_string(), shown(given)));
                (path.to_string(), interfaces.collect())
            })
            .collect();
        // An object manager tells of what is below it, not of itself.
        let proxy = PropertiesProxy::new(&self.connection, BUS_NAME, ROOT_PATH).await?;
        let own = proxy
            .get_all(InterfaceName::try_from(MANAGER_INTERFACE)?)
            .await;
        let own = shown(own.map_err(zbus::Error::from)?);
        objects.insert(
            ROOT_PATH.to_string(),
            [(MANAGER_INTERFACE.to_string(), own)].into(),
        );
        Ok(self.world.replace(&objects))
    }

    async fn owner(&mut self, message: &Message) -> Result<(), ClientError> {
        let (_, old, new): (String, String, String) = message.body().deserialize()?;
        let event = |what| Event {
            object: Kind::Manager,
            name: String::new(),
            what,
        };
        if !old.is_empty() {
            self.waiting.push_back(event(What::Stopped));
        }
        if new.is_empty() {
            return Ok(());
        }
        self.waiting.push_back(event(What::Started));
        match self.look().await {
            Ok(events) => self.waiting.extend(events),
            // It went away again; that is heard next.
            Err(ClientError::NotRunning(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A signal that is not understood is of another version, and no concern of ours.
    fn signal(&mut self, message: &Message) {
        let header = message.header();
        let body = message.body();
        let event = match header.member().map(|member| member.as_str()) {
            Some("InterfacesAdded") => body
                .deserialize::<(ObjectPath<'_>, HashMap<String, Given>)>()
                .ok()
                .and_then(|(path, interfaces)| {
                    let interfaces = interfaces.into_iter().map(|(k, v)| (k, shown(v)));
                    self.world.add(&path, &interfaces.collect())
                }),
            Some("InterfacesRemoved") => body
                .deserialize::<(ObjectPath<'_>, Vec<String>)>()
                .ok()
                .filter(|(_, interfaces)| interfaces.iter().any(|name| Kind::of(name).is_some()))
                .and_then(|(path, _)| self.world.remove(&path)),
            Some("PropertiesChanged") => body
                .deserialize::<(String, Given, Vec<String>)>()
                .ok()
                .and_then(|(interface, given, _)| {
                    let path = header.path()?;
                    self.world.change(path, &interface, &shown(given))
                }),
            _ => None,
        };
        self.waiting.extend(event);
    }
}
