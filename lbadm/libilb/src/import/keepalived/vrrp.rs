//! `vrrp_instance` blocks, with the scripts, files and sync groups that they refer to.

use std::collections::HashMap;
use std::net::IpAddr;

use super::super::report::Kind;
use super::tree::Statement;
use super::{Reader, milliseconds};
use crate::error::ModelError;
use crate::healthcheck::Time;
use crate::vrrp::{Field, VrrpSettings};

/// What `vrrp_instance` blocks refer to.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// `vrrp_version` of `global_defs`.
    version: Option<String>,
    /// `vrrp_strict` of `global_defs`: as the RFC has it, which is to accept nothing.
    strict: bool,
    /// The sync group of each instance.
    groups: HashMap<String, String>,
    /// Scripts by name.
    scripts: HashMap<String, Script>,
}

#[derive(Debug, Clone, Default)]
struct Script {
    command: String,
    weight: Option<String>,
}

/// What is said about one instance.
#[derive(Default)]
struct Said {
    settings: VrrpSettings,
    version: Option<String>,
    /// What its own `strict_mode` says, if it has one.
    strict: Option<bool>,
    fraction: bool,
    tracked: Vec<String>,
}

impl Said {
    fn set(&mut self, field: Field, text: &str) -> Result<(), ModelError> {
        // The last one counts, as there.
        self.settings.fields.remove(&field);
        self.settings.set(field, text)
    }
}

/// What becomes of strictness.
const STRICT: &str = "of it only that the addresses take nothing for the node: accept=no, unless 'accept' says otherwise";

/// What becomes of a directive.
type Outcome = (Kind, String);

fn taken() -> Outcome {
    (Kind::Taken, String::new())
}

fn left_out(why: &str) -> Outcome {
    (Kind::LeftOut, why.to_string())
}

impl Reader<'_> {
    /// Takes up what instances refer to.
    pub(super) fn prepare_vrrp(&mut self, statement: &Statement) {
        let name = statement.value().unwrap_or_default().to_string();
        match statement.key() {
            "global_defs" => {
                let mut inner = statement.inner().iter();
                let version = inner.rfind(|inner| inner.key() == "vrrp_version");
                if let Some(version) = version {
                    self.vrrp.version = version.value().map(str::to_string);
                }
                let mut inner = statement.inner().iter();
                self.vrrp.strict |= inner.any(|inner| inner.key() == "vrrp_strict");
            }
            "vrrp_sync_group" => {
                let members = statement.inner().iter().filter(|i| i.key() == "group");
                for member in members.flat_map(|group| group.inner()) {
                    for instance in &member.words {
                        self.vrrp.groups.insert(instance.clone(), name.clone());
                    }
                }
            }
            "vrrp_script" => {
                let mut script = Script::default();
                for inner in statement.inner() {
                    match inner.key() {
                        "script" => script.command = inner.values().join(" "),
                        "weight" => script.weight = inner.value().map(str::to_string),
                        _ => {}
                    }
                }
                self.vrrp.scripts.insert(name, script);
            }
            _ => {}
        }
    }

    /// Says what becomes of a block that instances refer to.
    pub(super) fn referred(&mut self, block: &Statement) {
        let note = "with the VRRP instances that refer to it";
        self.say(block, Kind::Taken, note);
        let known: &[&str] = match block.key() {
            "vrrp_sync_group" => &["group"],
            "vrrp_script" => &["script", "weight"],
            _ => &["file", "weight"],
        };
        for inner in block.inner() {
            let (kind, note) = match inner.key() {
                key if known.contains(&key) => continue,
                "interval" | "timeout" => (
                    Kind::Changed,
                    "a script is run every second and may take five",
                ),
                "fall" | "rise" => (Kind::Changed, "what a script says counts at once"),
                "notify" | "notify_master" | "notify_backup" | "notify_fault" | "notify_stop" => {
                    (Kind::LeftOut, "programs are told by instances: notify=")
                }
                _ => (Kind::LeftOut, "ilb has nothing like it"),
            };
            self.say(inner, kind, note);
        }
    }

    /// Makes a VRRP instance, or keeps the block as it is and says why.
    pub(super) fn instance(&mut self, block: &Statement) {
        let name = block.value().unwrap_or_default().to_string();
        let mut said = Said {
            version: self.vrrp.version.clone(),
            ..Said::default()
        };
        let mut outcomes = Vec::new();
        for inner in block.inner() {
            let outcome = self.directive(inner, &mut said).unwrap_or_else(|error| {
                // The rest may still be of use.
                (Kind::Wrong, error.to_string())
            });
            outcomes.push((inner, outcome));
        }
        match self.make(&name, said) {
            Ok(made) => {
                self.say(block, Kind::Taken, format!("VRRP instance {made}"));
                for (inner, (kind, note)) in outcomes {
                    if kind != Kind::Taken || !note.is_empty() {
                        self.say(inner, kind, note);
                    }
                }
            }
            Err(error) => {
                self.say(block, Kind::Wrong, error.to_string());
                self.keep(block);
            }
        }
    }

    fn make(&mut self, name: &str, mut said: Said) -> Result<String, ModelError> {
        let v6 = said
            .settings
            .fields
            .get(&Field::Addresses)
            .is_some_and(|addresses| addresses.contains(':'));
        // Without a word it is 2 there, but for IPv6 and fractions of a second, which only 3 has.
        let version = match said.version.take() {
            Some(version) => version,
            None if v6 || said.fraction => "3".to_string(),
            None => "2".to_string(),
        };
        said.set(Field::Version, &version)?;
        let strict = said.strict.unwrap_or(self.vrrp.strict);
        if strict && !said.settings.fields.contains_key(&Field::Accept) {
            said.set(Field::Accept, "no")?;
        }
        if let Some(group) = self.vrrp.groups.get(name).cloned() {
            said.set(Field::SyncGroup, &group)?;
        }
        if !said.tracked.is_empty() {
            let tracked = format!("fastpath,{}", said.tracked.join(","));
            said.set(Field::Track, &tracked)?;
        }
        let configuration = &mut self.builder.configuration;
        let instance = configuration.create_vrrp(name, &said.settings)?;
        Ok(instance.name.clone())
    }

    fn directive(&self, inner: &Statement, said: &mut Said) -> Result<Outcome, ModelError> {
        let value = inner.value().unwrap_or_default();
        let mut plain = |field, value: &str| said.set(field, value).map(|()| taken());
        Ok(match inner.key() {
            "interface" => plain(Field::Interface, value)?,
            "virtual_router_id" => plain(Field::Vrid, value)?,
            "priority" => plain(Field::Priority, value)?,
            "accept" => plain(Field::Accept, "yes")?,
            "no_accept" => plain(Field::Accept, "no")?,
            "strict_mode" => {
                let strict = !matches!(value, "off" | "false" | "no");
                said.strict = Some(strict);
                match strict {
                    true => (Kind::Changed, STRICT.to_string()),
                    false => taken(),
                }
            }
            "nopreempt" => plain(Field::Preempt, "no")?,
            "preempt" => plain(Field::Preempt, "yes")?,
            "preempt_delay" => plain(Field::PreemptDelay, value)?,
            "unicast_src_ip" | "mcast_src_ip" => plain(Field::Source, value)?,
            "garp_master_repeat" => plain(Field::Announcements, value)?,
            // No later ones there; here they cannot hurt.
            "garp_master_delay" if value == "0" => taken(),
            "garp_master_delay" => plain(Field::AnnounceDelay, value)?,
            "garp_master_refresh" => plain(Field::AnnounceInterval, value)?,
            "version" => {
                said.version = Some(value.to_string());
                taken()
            }
            "advert_int" => {
                let millis = milliseconds(value).unwrap_or_default();
                said.fraction = !millis.is_multiple_of(1000);
                let time = Time::from_millis(millis).to_string();
                said.set(Field::Interval, &time)?;
                taken()
            }
            "unicast_peer" => {
                let peers: Vec<&str> = inner.inner().iter().map(Statement::key).collect();
                said.set(Field::Peers, &peers.join(","))?;
                taken()
            }
            "virtual_ipaddress" => addresses(inner, said)?,
            "track_interface" => {
                for line in inner.inner() {
                    let weight = weight(&line.words).unwrap_or_default();
                    said.tracked
                        .push(format!("interface:{}{weight}", line.key()));
                }
                taken()
            }
            "track_script" => self.tracked_scripts(inner, said),
            "track_file" => {
                for line in inner.inner() {
                    let file = self.files.get(line.key()).cloned().unwrap_or_default();
                    let Some(path) = file.path else {
                        return Ok((
                            Kind::Wrong,
                            format!("there is no track_file {}", line.key()),
                        ));
                    };
                    let own = file.weight.map(|weight| format!(":{weight}"));
                    let weight = weight(&line.words).or(own).unwrap_or_default();
                    said.tracked.push(format!("file:{path}{weight}"));
                }
                taken()
            }
            "notify" => match inner.values() {
                [program] if program.starts_with('/') && !program.contains(' ') => {
                    match said.settings.fields.contains_key(&Field::Notify) {
                        true => left_out("an instance has one program that is told"),
                        false => {
                            said.set(Field::Notify, program)?;
                            taken()
                        }
                    }
                }
                _ => left_out("a program is told without arguments of its own"),
            },
            "state" => (
                Kind::Unneeded,
                "who is active is found out; every node begins as backup".to_string(),
            ),
            "dont_track_primary" => left_out("an instance always needs its interface"),
            "authentication" => left_out("there is no authentication of VRRP"),
            "use_vmac" => {
                said.set(Field::Mac, "virtual")?;
                taken()
            }
            "vmac_xmit_base" => left_out("advertisements come from the virtual MAC address"),
            "virtual_ipaddress_excluded" => {
                left_out("all addresses are advertised; add them to the instance")
            }
            "virtual_routes" | "virtual_rules" => left_out("ilb manages no routes"),
            "notify_master" | "notify_backup" | "notify_fault" | "notify_stop" => left_out(
                "one program is told of every change, with the state as third argument: notify=",
            ),
            "native_ipv6" | "smtp_alert" | "debug" | "lvs_sync_daemon_interface" => {
                (Kind::Unneeded, String::new())
            }
            _ => left_out("ilb has nothing like it"),
        })
    }

    fn tracked_scripts(&self, inner: &Statement, said: &mut Said) -> Outcome {
        for line in inner.inner() {
            let Some(script) = self.vrrp.scripts.get(line.key()) else {
                return (
                    Kind::Wrong,
                    format!("there is no vrrp_script {}", line.key()),
                );
            };
            let path = &script.command;
            if !path.starts_with('/') || path.contains(char::is_whitespace) {
                return left_out(
                    "a script is one program without arguments: write one that has them",
                );
            }
            let own = script.weight.as_ref().map(|weight| format!(":{weight}"));
            let weight = weight(&line.words).or(own).unwrap_or_default();
            said.tracked.push(format!("script:{path}{weight}"));
        }
        (Kind::Taken, String::new())
    }
}

/// `weight N` behind a name, as it stands behind a tracked thing.
fn weight(words: &[String]) -> Option<String> {
    let at = words.iter().position(|word| word == "weight")?;
    words.get(at + 1).map(|weight| format!(":{weight}"))
}

/// Addresses of the family of the first one.
fn addresses(inner: &Statement, said: &mut Said) -> Result<Outcome, ModelError> {
    let mut list: Vec<IpAddr> = Vec::new();
    let mut others = Vec::new();
    for line in inner.inner() {
        // The address stands first, or behind a word such as `local`.
        let word = line.words.iter().find_map(|word| {
            let address = word.split_once('/').map_or(word.as_str(), |(it, _)| it);
            address.parse::<IpAddr>().ok()
        });
        match word {
            Some(it) if list.first().is_none_or(|f| f.is_ipv4() == it.is_ipv4()) => list.push(it),
            Some(it) => others.push(it.to_string()),
            None => others.push(line.key().to_string()),
        }
    }
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    said.set(Field::Addresses, &texts.join(","))?;
    Ok(match others.is_empty() {
        true => taken(),
        false => left_out(&format!(
            "{}: the addresses of an instance have one family; create another one",
            others.join(", ")
        )),
    })
}
