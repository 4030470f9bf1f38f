//! The objects. Each is made when somebody calls it and is gone with its answer: what it says is in the view, so that a
//! hundred thousand servers need no more than that, neither memory nor time at the start.

use std::collections::HashMap;

use libilb::dbus::{
    ROOT_PATH, check_path, escape, group_path, rule_path, server_path, unescape, vrrp_path,
};
use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, Serializer};
use tokio::runtime::Handle;
use zbus::fdo::{self, ManagedObjects};
use zbus::message::{Flags, Header};
use zbus::names::InterfaceName;
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::{BoxDBusError, Connection, Message, ObjectPath, OwnedVariant, Signature, Type, wire};

use super::gate::LARGEST_ANSWER;
use super::healthcheck::HealthCheckObject;
use super::introspect;
use super::manager::ManagerObject;
use super::rule::RuleObject;
use super::server::ServerObject;
use super::servergroup::ServerGroupObject;
use super::vrrp::VrrpObject;
use crate::manager::ManagerHandle;

/// Bytes of the smallest object in the answer of `GetManagedObjects`, about.
const SMALLEST: usize = 256;

const PEER: &str = "org.freedesktop.DBus.Peer";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

/// One object with the interface that makes it what it is.
pub enum Object {
    /// The one at [`ROOT_PATH`].
    Manager(ManagerObject),
    /// A rule.
    Rule(RuleObject),
    /// A server group.
    Group(ServerGroupObject),
    /// A server.
    Server(ServerObject),
    /// A health check.
    Check(HealthCheckObject),
    /// A VRRP instance.
    Vrrp(VrrpObject),
}

impl Object {
    /// The object at a path, if there is one now.
    pub fn at(path: &str, handle: &ManagerHandle) -> Option<Object> {
        let below = path.strip_prefix(ROOT_PATH)?;
        if below.is_empty() {
            return Some(Object::Manager(ManagerObject::new(handle.clone())));
        }
        let (kind, element) = below.strip_prefix('/')?.split_once('/')?;
        let name = unescape(element)?;
        // What can be written in several ways has one path all the same.
        if escape(&name) != element {
            return None;
        }
        let view = handle.view();
        let configuration = &view.state.configuration;
        let handle = handle.clone();
        Some(match kind {
            "rule" => {
                let name = configuration.rule(&name)?.name.clone();
                Object::Rule(RuleObject::new(handle, name))
            }
            "servergroup" => {
                let name = configuration.group(&name)?.name.clone();
                Object::Group(ServerGroupObject::new(handle, name))
            }
            "server" => {
                let (group, server) = configuration.server(&name)?;
                let group = group.name.clone();
                Object::Server(ServerObject::new(handle, group, server.clone()))
            }
            "healthcheck" => {
                let name = configuration.check(&name)?.name.clone();
                Object::Check(HealthCheckObject::new(handle, name))
            }
            "vrrp" => {
                let name = configuration.instance(&name)?.name.clone();
                Object::Vrrp(VrrpObject::new(handle, name))
            }
            _ => return None,
        })
    }

    /// What it can do.
    pub fn interface(&self) -> &dyn Interface {
        match self {
            Object::Manager(object) => object,
            Object::Rule(object) => object,
            Object::Group(object) => object,
            Object::Server(object) => object,
            Object::Check(object) => object,
            Object::Vrrp(object) => object,
        }
    }

    /// Name of [`Object::interface`].
    pub fn name(&self) -> InterfaceName<'static> {
        match self {
            Object::Manager(_) => ManagerObject::name(),
            Object::Rule(_) => RuleObject::name(),
            Object::Group(_) => ServerGroupObject::name(),
            Object::Server(_) => ServerObject::name(),
            Object::Check(_) => HealthCheckObject::name(),
            Object::Vrrp(_) => VrrpObject::name(),
        }
    }

    /// All its properties.
    ///
    /// # Errors
    /// It is gone.
    pub async fn properties(
        &self,
        connection: &Connection,
        path: &str,
    ) -> fdo::Result<HashMap<String, OwnedVariant>> {
        let emitter = SignalEmitter::new(connection, path)?;
        let server = connection.object_server();
        let interface = self.interface();
        interface.get_all(server, connection, None, &emitter).await
    }
}

/// Whether a call is answered here. All are, but those that are answered without objects.
pub fn is_for(header: &Header<'_>) -> bool {
    header
        .interface()
        .is_none_or(|interface| interface.as_str() != PEER)
}

/// Answers a call.
pub async fn answer(connection: &Connection, handle: &ManagerHandle, call: &Message) {
    let header = call.header();
    let wanted = !header.primary().flags().contains(Flags::NO_REPLY_EXPECTED);
    let sent = match dispatch(connection, handle, call, &header).await {
        Ok(Some(answer)) if wanted => connection.send(&answer).await,
        Err(error) if wanted => connection.reply_dbus_error(&header, error).await,
        Ok(_) | Err(_) => Ok(()),
    };
    if let Err(error) = sent {
        tracing::debug!("no answer to {header:?}: {error}");
    }
}

/// The answer, unless the object has sent it itself.
async fn dispatch(
    connection: &Connection,
    handle: &ManagerHandle,
    call: &Message,
    header: &Header<'_>,
) -> Result<Option<Message>, BoxDBusError> {
    let missing = |what: &str| fdo::Error::Failed(format!("the call has no {what}"));
    let path = header.path().ok_or_else(|| missing("object path"))?;
    let member = header.member().ok_or_else(|| missing("member"))?;
    let interface = header.interface().ok_or_else(|| missing("interface"))?;
    if interface.as_str() == INTROSPECTABLE && member.as_str() == "Introspect" {
        let xml = introspect::answer(handle, path).map_err(fdo::Error::UnknownObject)?;
        return answered(header, &xml);
    }
    let object = Object::at(path, handle)
        .ok_or_else(|| fdo::Error::UnknownObject(format!("no object {path}")))?;
    match interface.as_str() {
        PROPERTIES => property(connection, &object, call, header).await,
        OBJECT_MANAGER if path.as_str() == ROOT_PATH && member.as_str() == "GetManagedObjects" => {
            managed(connection, handle, call).await.map(Some)
        }
        name if object.name().as_str() == name => {
            let server = connection.object_server();
            match object
                .interface()
                .call(server, connection, call, member.as_ref())
            {
                DispatchResult::Async(done) => done.await.map(|()| None),
                // Objects are not kept, so none of their methods changes them.
                DispatchResult::NotFound | DispatchResult::RequiresMut => {
                    let words = format!("no method {member} of {interface}");
                    Err(fdo::Error::UnknownMethod(words).into())
                }
            }
        }
        INTROSPECTABLE | OBJECT_MANAGER if path.as_str() == ROOT_PATH => {
            let words = format!("no method {member} of {interface}");
            Err(fdo::Error::UnknownMethod(words).into())
        }
        _ => {
            let words = format!("{path} has no interface {interface}");
            Err(fdo::Error::UnknownInterface(words).into())
        }
    }
}

fn answered<T: Serialize + wire::DynamicType>(
    header: &Header<'_>,
    body: &T,
) -> Result<Option<Message>, BoxDBusError> {
    Ok(Some(Message::method_return(header).build(body)?))
}

/// `org.freedesktop.DBus.Properties`.
async fn property(
    connection: &Connection,
    object: &Object,
    call: &Message,
    header: &Header<'_>,
) -> Result<Option<Message>, BoxDBusError> {
    let wrong = |error: zbus::Error| fdo::Error::InvalidArgs(error.to_string());
    let path = header.path().map_or("", |path| path.as_str());
    let member = header.member().map_or("", |member| member.as_str());
    let body = call.body();
    let has = |interface: &str| match interface == object.name().as_str() {
        true => Ok(()),
        false => Err(fdo::Error::UnknownInterface(format!(
            "{path} has no interface {interface} with properties"
        ))),
    };
    let unknown = |name: &str| fdo::Error::UnknownProperty(format!("no property {name}"));
    let get = async |name: &str| {
        let emitter = SignalEmitter::new(connection, path)?;
        let server = connection.object_server();
        let interface = object.interface();
        let value = interface.get(name, server, connection, Some(header), &emitter);
        value.await.unwrap_or_else(|| Err(unknown(name).into()))
    };
    match member {
        "Get" => {
            let (interface, name): (&str, &str) = body.deserialize().map_err(wrong)?;
            has(interface)?;
            answered(header, &get(name).await?)
        }
        "GetAll" => {
            let interface: &str = body.deserialize().map_err(wrong)?;
            let all = match interface {
                PEER | INTROSPECTABLE | PROPERTIES => HashMap::new(),
                OBJECT_MANAGER if path == ROOT_PATH => HashMap::new(),
                _ => {
                    // An empty name stands for all interfaces.
                    has(interface).or_else(|error| match interface {
                        "" => Ok(()),
                        _ => Err(error),
                    })?;
                    object.properties(connection, path).await?
                }
            };
            answered(header, &all)
        }
        "Set" => {
            let (interface, name, _): (&str, &str, zbus::Variant<'_>) =
                body.deserialize().map_err(wrong)?;
            has(interface)?;
            get(name).await?;
            let words = format!("{name} is changed by methods");
            Err(fdo::Error::PropertyReadOnly(words).into())
        }
        other => {
            let words = format!("no method {other} of {PROPERTIES}");
            Err(fdo::Error::UnknownMethod(words).into())
        }
    }
}

/// `GetManagedObjects`, off the async thread: of a large configuration it is a second's work.
async fn managed(
    connection: &Connection,
    handle: &ManagerHandle,
    call: &Message,
) -> Result<Message, BoxDBusError> {
    let all = Managed {
        connection: connection.clone(),
        // Whatever changes meanwhile, the answer is of one moment.
        handle: handle.frozen(),
        runtime: Handle::current(),
    };
    let least = all.count() * SMALLEST;
    if least > LARGEST_ANSWER {
        return Err(fdo::Error::LimitsExceeded(too_large(least)).into());
    }
    let call = call.clone();
    let made =
        tokio::task::spawn_blocking(move || Message::method_return(&call.header()).build(&all));
    let message = made
        .await
        .map_err(|error| fdo::Error::Failed(error.to_string()))??;
    Ok(message)
}

/// All objects but the manager's, each made while it is written.
struct Managed {
    connection: Connection,
    handle: ManagerHandle,
    runtime: Handle,
}

impl Managed {
    fn count(&self) -> usize {
        let view = self.handle.view();
        let configuration = &view.state.configuration;
        let servers = configuration
            .groups
            .values()
            .map(|group| group.servers.len());
        configuration.rules.len()
            + configuration.groups.len()
            + configuration.checks.len()
            + configuration.vrrp.len()
            + servers.sum::<usize>()
    }
}

impl Type for Managed {
    const SIGNATURE: &'static Signature = ManagedObjects::SIGNATURE;
}

impl Serialize for Managed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let view = self.handle.view();
        let configuration = &view.state.configuration;
        let rules = configuration
            .rules
            .values()
            .map(|rule| rule_path(&rule.name));
        let groups = configuration.groups.values();
        let checks = configuration
            .checks
            .values()
            .map(|check| check_path(&check.name));
        let instances = configuration
            .vrrp
            .values()
            .map(|instance| vrrp_path(&instance.name));
        let servers = groups
            .clone()
            .flat_map(|group| group.servers.iter().map(|server| server_path(&server.id)));
        let paths = rules
            .chain(groups.map(|group| group_path(&group.name)))
            .chain(servers)
            .chain(checks)
            .chain(instances);
        let mut map = serializer.serialize_map(None)?;
        for path in paths {
            let Some(object) = Object::at(&path, &self.handle) else {
                continue;
            };
            let properties = self
                .runtime
                .block_on(object.properties(&self.connection, &path))
                .map_err(S::Error::custom)?;
            let path = ObjectPath::try_from(path).map_err(S::Error::custom)?;
            map.serialize_entry(&path, &HashMap::from([(object.name(), properties)]))?;
        }
        map.end()
    }
}

/// What to say of an answer of so many bytes, or more.
pub fn too_large(length: usize) -> String {
    format!(
        "the answer has {} MiB or more, and the system bus lets no message through that has more than 32: ask for less \
         at a time",
        length >> 20
    )
}
