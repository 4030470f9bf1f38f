//! What a node keeps of the pair beside its database: who it is, who its peer is, and what they both know. Files of mode 0600 in
//! the state directory, because it is secret and must not get into snapshots, exports or the history; and because who is in a
//! pair does not come back with an older configuration.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ilb_pair::{Identity, PublicKey, Secret};
use serde::{Deserialize, Serialize};

/// The key pair of the node.
const IDENTITY: &str = "pair.key";
/// Everything else.
const KEPT: &str = "pair.json";

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Kept {
    /// Whether the node takes no addresses.
    pub maintenance: bool,
    /// Whether it has given its addresses to the other node and does not take them back while that one has them.
    pub yielded: bool,
    /// The pair, if it is in one.
    pub membership: Option<Membership>,
    /// The other node of the last pair, if it was that one that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

/// Somebody who has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Left {
    /// When, in seconds since 1970.
    pub time: u64,
    /// Its host name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// One node's part of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Membership {
    /// Our number: 0 created the pair, 1 joined it.
    pub node: u8,
    /// By what the other node is known.
    pub peer: PublicKey,
    /// What both know and nobody else does.
    pub secret: Secret,
    /// Address of the other node: for node 1 where to dial, for node 0 from where the other one came last.
    pub address: IpAddr,
    /// Our address on the way there.
    pub local: IpAddr,
    /// What node 0 listens on; all addresses if there is none.
    #[serde(default)]
    pub listen: Option<IpAddr>,
    /// TCP port of node 0.
    pub port: u16,
}

/// Why nothing is kept, or nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} {}: {why}", path.display())]
pub struct KeepError {
    /// What was to be done.
    pub action: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// Why not.
    pub why: String,
}

fn failed<E: ToString>(action: &'static str, path: &Path) -> impl Fn(E) -> KeepError {
    let path = path.to_owned();
    move |error| KeepError {
        action,
        path: path.clone(),
        why: error.to_string(),
    }
}

/// The files. Calls block.
#[derive(Debug, Clone)]
pub struct Keep {
    folder: PathBuf,
}

impl Keep {
    /// Those in a folder, which must be there when something is written.
    pub fn new(folder: &Path) -> Keep {
        Keep {
            folder: folder.to_owned(),
        }
    }

    /// What was kept; nothing if there is no file.
    ///
    /// # Errors
    /// A file that cannot be read or is none of ours; it stays.
    pub fn load(&self) -> Result<Kept, KeepError> {
        let path = self.folder.join(KEPT);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        // Where it is damaged may be said, but not what is there.
        serde_json::from_slice(&text).map_err(|error| KeepError {
            action: "understand",
            path,
            why: format!("line {}, column {}", error.line(), error.column()),
        })
    }

    /// Keeps this instead, durably.
    ///
    /// # Errors
    /// What the file system says; then the former is kept.
    pub fn store(&self, kept: &Kept) -> Result<(), KeepError> {
        let path = self.folder.join(KEPT);
        let mut text = serde_json::to_vec_pretty(kept).map_err(failed("write", &path))?;
        text.push(b'\n');
        self.write(KEPT, &text).map_err(failed("write", &path))
    }

    /// Who the node is; it becomes somebody with the first call.
    ///
    /// # Errors
    /// A file that cannot be read, written, or is damaged.
    pub fn identity(&self) -> Result<Arc<Identity>, KeepError> {
        let path = self.folder.join(IDENTITY);
        match fs::read(&path) {
            Ok(octets) => {
                let identity = Identity::from_bytes(&octets).map_err(failed("use", &path))?;
                Ok(Arc::new(identity))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let identity = Identity::generate().map_err(failed("make", &path))?;
                let written = self.write(IDENTITY, identity.to_bytes());
                written.map_err(failed("write", &path))?;
                Ok(Arc::new(identity))
            }
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// All of the file or nothing, and durable.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{name}.writing"));
        // One that was left over may have another mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, self.folder.join(name))?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::test_folder::TestFolder;

    fn membership() -> Membership {
        Membership {
            node: 1,
            peer: Identity::generate().unwrap().public(),
            secret: Secret::generate().unwrap(),
            address: "192.0.2.1".parse().unwrap(),
            local: "192.0.2.2".parse().unwrap(),
            listen: None,
            port: 49_281,
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_nobody_else_reads_it() {
        let folder = TestFolder::new("pair-keep");
        let keep = Keep::new(folder.path());
        assert_eq!(keep.load(), Ok(Kept::default()), "nothing yet");
        let kept = Kept {
            maintenance: true,
            yielded: false,
            membership: Some(membership()),
            left: Some(Left {
                time: 1_763_749_843,
                name: "lb2".into(),
                address: "192.0.2.1".parse().unwrap(),
            }),
        };
        keep.store(&kept).unwrap();
        assert_eq!(keep.load(), Ok(kept));
        let identity = keep.identity().unwrap();
        assert_eq!(keep.identity().unwrap().public(), identity.public());
        for name in [IDENTITY, KEPT] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_its_content_is_not() {
        let folder = TestFolder::new("pair-damaged");
        let keep = Keep::new(folder.path());
        fs::write(folder.path().join(KEPT), "{\"membership\": \"hush\"}").unwrap();
        let error = keep.load().unwrap_err().to_string();
        assert!(
            error.contains("pair.json") && !error.contains("hush"),
            "{error}"
        );
        fs::write(folder.path().join(IDENTITY), "hush").unwrap();
        let error = keep.identity().unwrap_err().to_string();
        assert!(
            error.contains("pair.key") && !error.contains("hush"),
            "{error}"
        );
    }

    #[test]
    fn nothing_secret_is_shown() {
        let membership = membership();
        let digits = serde_json::to_string(&membership.secret).unwrap();
        let shown = format!("{membership:?}");
        assert!(!shown.contains(digits.trim_matches('"')), "{shown}");
    }
}
