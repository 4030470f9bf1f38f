//! Files of commands: what lbadm and ilbadm export, and any commands that change something.
//!
//! Each command is read by the command line's own code and carried out on a configuration in memory, so that a file can do
//! what a person can, in the same words.

use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::Arc;

use libilb::ModelError;
use libilb::import::report::{Kind, Place, Report};
use libilb::import::{Failure, Import, Source, check_size, lines};
use libilb::model::Configuration;
use libilb::server::{ServerSpec, Target};

use crate::action::{Action, Request, understand};
use crate::cli;
use crate::error::Error;
use crate::usage;

/// Finds the addresses of a host name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Result<Vec<IpAddr>, String>;

/// Reads a file.
///
/// # Errors
/// [`Failure::Structure`] for a quote without end, [`Failure::TooMuch`].
pub fn import(
    source: Source,
    text: &str,
    file: &str,
    lookup: Lookup<'_>,
) -> Result<Import, Failure> {
    let file: Arc<str> = file.into();
    check_size(text, &file)?;
    let place = |line| Place {
        file: file.clone(),
        line,
    };
    let lines = lines::split(text).map_err(|open| Failure::Structure {
        place: place(open.line),
        problem: format!("a quote {} is opened here and has no end", open.quote),
    })?;
    let mut configuration = Configuration::default();
    let mut report = Report::default();
    let mut parser = cli::CommandLines::new();
    for line in lines {
        let what = line.words.join(" ");
        let mut words = &line.words[..];
        let program = words[0].rsplit('/').next().unwrap_or_default();
        if ["lbadm", "ilbadm"].contains(&program) {
            words = &words[1..];
        }
        let words = match source {
            Source::Ilbadm => old_style(words),
            _ => words.to_vec(),
        };
        let done = read(&mut parser, &words).and_then(|request| {
            perform(request, &mut configuration, lookup).map_err(|e| (Kind::Wrong, e.to_string()))
        });
        let (kind, note) = match done {
            Ok(note) => (Kind::Taken, note),
            Err(problem) => problem,
        };
        report.add(&place(line.number), kind, &what, note);
    }
    Ok(Import {
        source,
        configuration,
        failover: serde_json::Map::new(),
        report,
    })
}

/// The manual of ilbadm shows exports of an older form: `create-rule -e protocol=tcp,VIP=1.2.3.4,port=80 -m …`, without the
/// `-i` that the program writes.
fn old_style(words: &[String]) -> Vec<String> {
    let rule = words.first().is_some_and(|w| {
        ["create-rule", "create-rl"]
            .iter()
            .any(|c| w.eq_ignore_ascii_case(c))
    });
    let mut out: Vec<String> = Vec::with_capacity(words.len() + 1);
    for word in words {
        let takes = out
            .last()
            .is_some_and(|w| ["-i", "-m", "-h", "-t", "-o"].contains(&w.as_str()));
        if rule && !takes && !word.starts_with('-') && word.contains('=') {
            out.push("-i".to_string());
        }
        out.push(word.clone());
    }
    out
}

/// What a line asks for.
fn read(parser: &mut cli::CommandLines, words: &[String]) -> Result<Request, (Kind, String)> {
    let mut args: Vec<OsString> = vec!["lbadm".into()];
    args.extend(words.iter().map(OsString::from));
    let wrong = |note: String| (Kind::Wrong, note);
    let cli = parser
        .parse(args)
        .map_err(|e| wrong(usage::message(&e, words)))?;
    match understand(cli) {
        Ok(Action::Change(request)) => Ok(request),
        Ok(_) => Err(wrong(
            "this command changes nothing that is configured; a file has those that do".to_string(),
        )),
        Err(error @ Error::Model(ModelError::NotSupported { .. })) => {
            Err((Kind::LeftOut, error.to_string()))
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Carries out a request in memory and says what was done.
fn perform(
    request: Request,
    configuration: &mut Configuration,
    lookup: Lookup<'_>,
) -> Result<String, ModelError> {
    let names = |names: Vec<String>| names.join(", ");
    Ok(match request {
        Request::CreateRule { name, settings } => {
            format!("rule {}", configuration.create_rule(&name, &settings)?.name)
        }
        Request::ModifyRule { name, settings } => {
            configuration.modify_rule(&name, &settings)?;
            format!("rule {name} is changed")
        }
        Request::DeleteRules(which) => {
            let deleted = configuration.delete_rules(&which)?;
            format!(
                "deleted {}",
                names(deleted.iter().map(|r| r.name.clone()).collect())
            )
        }
        Request::DeleteAllRules => {
            let deleted = configuration.delete_all_rules();
            format!("{} rules are deleted", deleted.len())
        }
        Request::EnableRules {
            names: which,
            enabled,
        } => {
            let changed = configuration.enable_rules(&which, enabled)?;
            let word = if enabled { "enabled" } else { "disabled" };
            format!(
                "{word} {}",
                names(changed.iter().map(|r| r.name.clone()).collect())
            )
        }
        Request::CreateGroup {
            name,
            servers,
            source,
        } => {
            let servers = resolve(servers, lookup)?;
            let group = configuration.create_group_from(&name, &servers, &source)?;
            match group.servers.len() {
                1 => format!("server group {} with 1 server", group.name),
                n => format!("server group {} with {n} servers", group.name),
            }
        }
        Request::ModifyGroup { name, source } => {
            configuration.modify_group(&name, &source)?;
            format!("server group {name} is changed")
        }
        Request::ApproveServers { group, .. } => {
            return Err(ModelError::invalid(
                "approve-server",
                group,
                "is not for files",
                "who waits is known to a running manager only: add servers with add-server",
            ));
        }
        Request::DeleteGroups(which) => {
            let deleted = configuration.delete_groups(&which)?;
            format!(
                "deleted {}",
                names(deleted.iter().map(|g| g.name.clone()).collect())
            )
        }
        Request::AddServers { group, servers } => {
            let added = configuration.add_servers(&group, &resolve(servers, lookup)?)?;
            format!(
                "server {}",
                names(added.into_iter().map(|s| s.id).collect())
            )
        }
        Request::RemoveServers { group, servers } => {
            let removed = configuration.remove_servers(&group, &servers)?;
            format!(
                "removed {}",
                names(removed.into_iter().map(|s| s.id).collect())
            )
        }
        Request::EnableServers { ids, enabled } => {
            let changed = configuration.enable_servers(&ids, enabled)?;
            let word = if enabled { "enabled" } else { "disabled" };
            format!(
                "{word} {}",
                names(changed.into_iter().map(|s| s.id).collect())
            )
        }
        Request::CreateCheck { name, settings } => {
            let check = configuration.create_check(&name, &settings)?;
            format!("health check {}", check.name)
        }
        Request::ModifyCheck { name, settings } => {
            configuration.modify_check(&name, &settings)?;
            format!("health check {name} is changed")
        }
        Request::CreateVrrp { name, settings } => {
            let instance = configuration.create_vrrp(&name, &settings)?;
            format!("VRRP instance {}", instance.name)
        }
        Request::ModifyVrrp { name, settings } => {
            configuration.modify_vrrp(&name, &settings)?;
            format!("VRRP instance {name} is changed")
        }
        Request::EnableVrrp {
            names: which,
            enabled,
        } => {
            let changed = configuration.enable_vrrp(&which, enabled)?;
            let word = if enabled { "enabled" } else { "disabled" };
            format!(
                "{word} {}",
                names(changed.iter().map(|v| v.name.clone()).collect())
            )
        }
        Request::DeleteVrrp(which) => {
            let deleted = configuration.delete_vrrp(&which)?;
            format!(
                "deleted {}",
                names(deleted.iter().map(|v| v.name.clone()).collect())
            )
        }
        Request::DeleteChecks(which) => {
            let deleted = configuration.delete_checks(&which)?;
            format!(
                "deleted {}",
                names(deleted.iter().map(|c| c.name.clone()).collect())
            )
        }
        Request::ModifyServers { ids, settings } => {
            let changed = configuration.modify_servers(&ids, &settings)?;
            format!(
                "changed {}",
                names(changed.into_iter().map(|s| s.id).collect())
            )
        }
    })
}

/// Replaces host names by `name=address`.
fn resolve(specs: Vec<String>, lookup: Lookup<'_>) -> Result<Vec<String>, ModelError> {
    specs
        .into_iter()
        .map(|text| {
            let mut parsed = ServerSpec::parse(&text)?;
            match parsed.pop() {
                Some(spec) if matches!(spec.target, Target::Host(_)) => {
                    Ok(spec.resolve_with(lookup)?.to_string())
                }
                _ => Ok(text),
            }
        })
        .collect()
}
