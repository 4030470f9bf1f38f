//! Who asks for a change, as the history and the log name him.

use std::fmt;

use nix::unistd::{Uid, User};

/// A user, or the manager itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// Nobody asked: the manager did it of its own accord.
    Manager,
    /// Nobody asked: the source of this server group has found servers, or lost them.
    Discovery(String),
    /// A user of the system, as the bus knows him.
    User {
        /// His number.
        uid: u32,
        /// His name; `None` if nobody knows one.
        name: Option<String>,
    },
    /// Somebody on the other node of the pair, as that one names him.
    Peer(String),
}

impl Author {
    /// The user with this number. Asks the system's user database off the async thread: it may be a server far away.
    pub async fn of(uid: u32) -> Author {
        let found = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await;
        let name = match found {
            Ok(Ok(user)) => user.map(|user| user.name),
            Ok(Err(error)) => {
                tracing::warn!("no name for user {uid}: {error}");
                None
            }
            Err(error) => {
                tracing::warn!("no name for user {uid}: {error}");
                None
            }
        };
        Author::User { uid, name }
    }
}

#[cfg(test)]
impl Author {
    /// A user of whom nothing else is known.
    pub fn of_number(uid: u32) -> Author {
        Author::User { uid, name: None }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Author::Manager => f.write_str("ilb-svcmgr"),
            Author::Discovery(group) => write!(f, "discovery of {group}"),
            Author::User {
                name: Some(name), ..
            } => f.write_str(name),
            Author::User { uid, name: None } => write!(f, "user {uid}"),
            Author::Peer(name) => write!(f, "{name} on the other node"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_has_a_name_or_at_least_a_number() {
        assert_eq!(Author::of(0).await.to_string(), "root");
        let nobody = Author::of(3_999_999_999).await;
        assert_eq!(nobody.to_string(), "user 3999999999");
        assert_eq!(Author::Manager.to_string(), "ilb-svcmgr");
        let discovery = Author::Discovery("web".into());
        assert_eq!(discovery.to_string(), "discovery of web");
        let peer = Author::Peer("root".into());
        assert_eq!(peer.to_string(), "root on the other node");
    }
}
