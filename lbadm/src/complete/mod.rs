//! What a shell may offer for a command line that is being typed: commands, options, keys and their values, fields, and the
//! names of what is configured. It is read off the same description as help and man pages.
//!
//! The scripts of the shells (`lbadm.bash` and the others) know nothing but to ask `lbadm __complete LINE`, which writes a
//! candidate for the last word on each line, with its meaning behind a tab; `:files` asks for names of files.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use clap::{Arg, Command};
use libilb::connections::STATES;
use libilb::describe::Description;
use libilb::events::Kind;
use libilb::explain;
use libilb::healthcheck::{FIELDS, KINDS};
use libilb::history::Item;
use libilb::import::Source;
use libilb::notify::NOTIFY_EVENTS;
use libilb::source::{SOURCE_FIELDS, SourceField};
use libilb::{vocabulary, words};

use crate::cli::{self, Shell};
use crate::keys::{self, KeyList};
use crate::{
    candidate, connections, hcresult, healthcheck, history, pair, rule, server, servergroup,
    statistics, time, vrrp,
};

/// What a shell is asked to look for itself.
pub const FILES: &str = ":files";

/// The script for a shell.
pub fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("lbadm.bash"),
        Shell::Zsh => include_str!("lbadm.zsh"),
        Shell::Fish => include_str!("lbadm.fish"),
    }
}

/// What the last word of a line may become.
#[derive(Debug, Default)]
pub struct Answer {
    /// Candidates with their meaning, which may be empty.
    pub candidates: Vec<(String, String)>,
    /// What would have been needed for more.
    pub missed: Missed,
}

/// What there was to take candidates from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// What is configured.
    pub node: Option<&'a Description>,
    /// What was changed, newest first.
    pub history: Option<&'a [Item]>,
}

/// What would have had candidates, but was not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missed {
    /// See [`Known::node`].
    pub node: bool,
    /// See [`Known::history`].
    pub history: bool,
}

impl Answer {
    /// As the scripts read it.
    pub fn text(&self) -> String {
        let lines = self.candidates.iter();
        lines
            .map(|(word, about)| match about.is_empty() {
                true => format!("{word}\n"),
                false => format!("{word}\t{about}\n"),
            })
            .collect()
    }
}

/// Answers for a line up to the cursor.
pub fn answer(line: &str, known: Known<'_>) -> Answer {
    let mut words = split(line);
    let current = words.pop().unwrap_or_default();
    let names = Names {
        known,
        missed: Cell::default(),
    };
    let mut candidates = candidates(&words, &current, &names);
    let typed = current.to_ascii_lowercase();
    candidates.retain(|(word, _)| word == FILES || word.to_ascii_lowercase().starts_with(&typed));
    Answer {
        candidates,
        missed: names.missed.get(),
    }
}

/// Words as a shell splits them; the last one is being typed, and may be empty.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    for c in line.chars() {
        let word = words.len() - 1;
        match (quote, c) {
            _ if escaped => {
                words[word].push(c);
                escaped = false;
            }
            (None, '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, c) if c.is_whitespace() => {
                if !words[word].is_empty() {
                    words.push(String::new());
                }
            }
            (_, c) => words[word].push(c),
        }
    }
    words
}

/// Names of what is configured.
struct Names<'a> {
    known: Known<'a>,
    missed: Cell<Missed>,
}

impl Names<'_> {
    fn of(&self, list: impl Fn(&Description) -> Vec<String>) -> Vec<(String, String)> {
        match self.known.node {
            Some(node) => plain(list(node)),
            None => {
                let missed = self.missed.get();
                self.missed.set(Missed {
                    node: true,
                    ..missed
                });
                Vec::new()
            }
        }
    }

    /// Generations that one can go back to, with what was done and when. The first is in force.
    fn generations(&self) -> Vec<(String, String)> {
        let Some(history) = self.known.history else {
            let missed = self.missed.get();
            self.missed.set(Missed {
                history: true,
                ..missed
            });
            return Vec::new();
        };
        let kept = history.iter().skip(1).filter(|item| item.kept);
        kept.map(|item| {
            let time = item.time.map_or(String::new(), |seconds| {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                format!("{} ", time::rfc3339(time))
            });
            (item.generation.to_string(), format!("{time}{}", item.words))
        })
        .collect()
    }

    fn rules(&self) -> Vec<(String, String)> {
        self.of(|node| {
            let rules = node.rules.iter().filter(|rule| !rule.deleted);
            rules.map(|rule| rule.rule.name.clone()).collect()
        })
    }

    fn groups(&self) -> Vec<(String, String)> {
        self.of(|node| node.groups.iter().map(|g| g.name.clone()).collect())
    }

    fn checks(&self) -> Vec<(String, String)> {
        self.of(|node| node.checks.iter().map(|c| c.check.name.clone()).collect())
    }

    fn instances(&self) -> Vec<(String, String)> {
        self.of(|node| node.vrrp.iter().map(|v| v.instance.name.clone()).collect())
    }

    fn candidates(&self) -> Vec<(String, String)> {
        self.of(|node| {
            let sources = node.groups.iter().filter_map(|g| g.source.as_ref());
            let waiting = sources.flat_map(|source| &source.candidates);
            waiting.map(|one| one.found.to_string()).collect()
        })
    }

    fn servers(&self) -> Vec<(String, String)> {
        self.of(|node| {
            let servers = node.groups.iter().flat_map(|group| &group.servers);
            let there = servers.filter(|server| !server.removed);
            there.map(|server| server.server.id.clone()).collect()
        })
    }
}

fn plain<S: ToString>(words: impl IntoIterator<Item = S>) -> Vec<(String, String)> {
    let words = words.into_iter();
    words
        .map(|word| (word.to_string(), String::new()))
        .collect()
}

fn candidates(words: &[String], current: &str, names: &Names<'_>) -> Vec<(String, String)> {
    let root = cli::command();
    let typed = words.iter().skip(1);
    let mut rest = typed.skip_while(|word| word.starts_with('-'));
    let Some(command) = rest.next() else {
        return match current.starts_with('-') {
            true => options(&root, &[]),
            false => commands(&root),
        };
    };
    let command = command.to_ascii_lowercase();
    if command == "help" {
        return commands(&root);
    }
    let Some(sub) = root.find_subcommand(&command) else {
        return Vec::new();
    };
    let mut given: Vec<&String> = rest.collect();
    let mut sub = sub;
    if sub.has_subcommands() {
        // One that has commands of its own, such as `pair`.
        let at = given.iter().position(|word| !word.starts_with('-'));
        let Some(at) = at else {
            return match current.starts_with('-') {
                true => options(sub, &[]),
                false => subcommands(sub),
            };
        };
        let Some(found) = sub.find_subcommand(given[at].to_ascii_lowercase()) else {
            return Vec::new();
        };
        (sub, given) = (found, given.split_off(at + 1));
    }
    let place = place(sub, &given);
    match place.option {
        Some(arg) => values(sub, arg, current, &given, names),
        None if current.starts_with('-') => options(sub, &place.used),
        None => {
            let positionals = sub.get_positionals().filter(|arg| !arg.is_hide_set());
            let positionals: Vec<&Arg> = positionals.collect();
            let several = |arg: &&&Arg| matches!(arg.get_action(), clap::ArgAction::Append);
            let last = positionals.last().filter(several);
            match positionals.get(place.positionals).or(last).copied() {
                Some(arg) => values(sub, arg, current, &given, names),
                None => Vec::new(),
            }
        }
    }
}

/// Where in a command's arguments the word stands that is being typed.
struct Place<'a> {
    /// The option whose value it is.
    option: Option<&'a Arg>,
    /// How many words before it are no options and no values of them.
    positionals: usize,
    /// Options before it.
    used: Vec<&'a str>,
}

fn place<'a>(sub: &'a Command, given: &[&String]) -> Place<'a> {
    let mut place = Place {
        option: None,
        positionals: 0,
        used: Vec::new(),
    };
    for word in given {
        if place.option.take().is_some() {
            continue;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, has_value) = match long.split_once('=') {
                Some((name, _)) => (name, true),
                None => (long, false),
            };
            let arg = sub.get_arguments().find(|arg| arg.get_long() == Some(name));
            if let Some(arg) = arg {
                place.used.push(arg.get_id().as_str());
                place.option = Some(arg).filter(|arg| takes_value(arg) && !has_value);
            }
        } else if let Some(shorts) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            for (at, short) in shorts.char_indices() {
                let arg = sub
                    .get_arguments()
                    .find(|arg| arg.get_short() == Some(short));
                let Some(arg) = arg else { break };
                place.used.push(arg.get_id().as_str());
                if takes_value(arg) {
                    let last = at + short.len_utf8() == shorts.len();
                    place.option = Some(arg).filter(|_| last);
                    break;
                }
            }
        } else {
            place.positionals += 1;
        }
    }
    place
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn subcommands(of: &Command) -> Vec<(String, String)> {
    let shown = of.get_subcommands().filter(|sub| !sub.is_hide_set());
    let about = |sub: &Command| sub.get_about().map(ToString::to_string).unwrap_or_default();
    shown
        .map(|sub| (sub.get_name().to_string(), about(sub)))
        .collect()
}

fn commands(root: &Command) -> Vec<(String, String)> {
    let mut all = subcommands(root);
    all.push(("help".to_string(), "Explain a command".to_string()));
    all
}

/// Options, but those that were given and may not be given again.
fn options(command: &Command, used: &[&str]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for arg in command.get_arguments() {
        let once = !matches!(arg.get_action(), clap::ArgAction::Append);
        if arg.is_positional()
            || arg.is_hide_set()
            || (once && used.contains(&arg.get_id().as_str()))
        {
            continue;
        }
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => all.push((format!("--{long}"), about)),
            (None, Some(short)) => all.push((format!("-{short}"), about)),
            (None, None) => {}
        }
    }
    all
}

/// What an argument may be.
fn values(
    sub: &Command,
    arg: &Arg,
    current: &str,
    given: &[&String],
    names: &Names<'_>,
) -> Vec<(String, String)> {
    let what = arg.get_value_names().and_then(|names| names.first());
    let what = what.map_or("", |name| name.as_str());
    match (sub.get_name(), arg.get_id().as_str(), what) {
        ("explain", "protocol", _) => {
            plain(["rule", "server", "vrrp", "tcp", "udp", "sctp", "icmp"])
        }
        ("explain", "source", _) => match given.last().map(|word| word.to_ascii_lowercase()) {
            Some(word) if word == "rule" => names.rules(),
            Some(word) if word == "server" => names.servers(),
            Some(word) if word == "vrrp" => names.instances(),
            _ => Vec::new(),
        },
        ("monitor", "names", _) => {
            let mut all = names.rules();
            all.extend(names.groups());
            all.extend(names.servers());
            all.extend(names.instances());
            all
        }
        ("monitor", "only", _) => listed(current, plain(Kind::all())),
        ("create-healthcheck" | "modify-healthcheck", "health", _) => check_pairs(current),
        ("create-servergroup" | "modify-servergroup", "discover", _) => source_pairs(current),
        ("create-rule" | "modify-rule", "notify", _) => {
            let events = NOTIFY_EVENTS.iter();
            plain(events.map(|(_, name, _)| format!("{name}=")))
        }
        ("modify-healthcheck", "name", _) | (_, _, "CHECK") => names.checks(),
        ("rollback", "generation", _) => names.generations(),
        ("import-config", "from", _) => plain(Source::names()),
        ("explain", "flags", _) => listed(current, plain(explain::flag_words())),
        ("top", "filter", _) => names.rules(),
        ("apply", "confirm", _) => plain(["60s", "5m"]),
        ("create-vrrp" | "modify-vrrp", "settings", _) => vrrp_pairs(current),
        ("create-vrrp", "name", _) => Vec::new(),
        (_, _, "INSTANCE") => names.instances(),
        (_, _, "RULE") => names.rules(),
        (_, _, "GROUP") => names.groups(),
        (_, _, "SERVER_ID") => names.servers(),
        (_, _, "STATE") => plain(STATES),
        (_, _, "PROTOCOL") => plain(["tcp", "udp", "sctp", "icmp"]),
        (_, _, "FILE" | "DIRECTORY") => plain([FILES]),
        (command, _, "FIELD,...") => {
            let fields = fields(command).into_iter().map(str::to_ascii_lowercase);
            let known = fields.chain(["all".to_string()]);
            listed(current, plain(known))
        }
        (command, id, _) => match list(command, id) {
            Some(list) => pairs(command, list, current, names),
            None => {
                let possible = arg.get_possible_values();
                plain(possible.iter().map(|value| value.get_name()))
            }
        },
    }
}

/// The columns of a command.
fn fields(command: &str) -> Vec<&'static str> {
    match command {
        "show-rule" => rule::fields(),
        "show-servergroup" => servergroup::fields(),
        "show-candidate" => candidate::fields(),
        "show-server" => server::fields(),
        "show-healthcheck" => healthcheck::fields(),
        "show-vrrp" => vrrp::fields(),
        "show-pair" => pair::fields(),
        "history" => history::fields(false),
        "rollback" => history::fields(true),
        "show-statistics" => statistics::fields(),
        "show-connections" | "show-nat" => connections::fields(false),
        "show-persist" => connections::fields(true),
        "show-hc-result" => hcresult::fields(),
        _ => Vec::new(),
    }
}

/// The keys behind an option.
fn list(command: &str, option: &str) -> Option<&'static KeyList> {
    Some(match (command, option) {
        ("create-rule" | "modify-rule", "incoming") => &keys::INCOMING,
        ("create-rule" | "modify-rule", "method") => &keys::METHOD,
        ("create-rule" | "modify-rule", "health") => &keys::HEALTH,
        ("create-rule" | "modify-rule", "timers") => &keys::TIMERS,
        ("create-rule" | "modify-rule", "outgoing") => &keys::OUTGOING,
        ("create-servergroup" | "add-server", "servers") => &keys::SERVERS,
        ("remove-server" | "approve-server", "servers") => &keys::NAMED_SERVERS,
        ("modify-server", "settings") => &keys::LIMITS,
        _ => return None,
    })
}

/// Words of a list `a,b,c` of which the last is being typed.
fn listed(current: &str, words: Vec<(String, String)>) -> Vec<(String, String)> {
    let (before, _) = current
        .rsplit_once(',')
        .map_or(("", current), |found| found);
    let head = match before {
        "" => String::new(),
        _ => format!("{before},"),
    };
    let there = |word: &str| before.split(',').any(|one| one.eq_ignore_ascii_case(word));
    words
        .into_iter()
        .filter(|(word, _)| !there(word))
        .map(|(word, about)| (format!("{head}{word}"), about))
        .collect()
}

/// `key=value,…` of which the last is being typed.
fn pairs(command: &str, list: &KeyList, current: &str, names: &Names<'_>) -> Vec<(String, String)> {
    let (before, last) = current
        .rsplit_once(',')
        .map_or(("", current), |found| found);
    let head = match before {
        "" => String::new(),
        _ => format!("{before},"),
    };
    if let Some((key, _)) = last.split_once('=') {
        let usual = list.name(key).unwrap_or(key);
        let values = match (command, usual) {
            (_, "servergroup") => names.groups(),
            (_, "hc-name") => names.checks(),
            ("remove-server", "server") => names.servers(),
            ("approve-server", "server") => names.candidates(),
            (_, key) => plain(vocabulary::values(key)),
        };
        let values = values.into_iter();
        return values
            .map(|(value, about)| (format!("{head}{key}={value}"), about))
            .collect();
    }
    let used: Vec<&str> = before
        .split(',')
        .filter_map(|pair| list.name(pair.split_once('=')?.0))
        .collect();
    let keys = list
        .names()
        .filter(|(name, again)| *again || !used.contains(name));
    plain(keys.map(|(name, _)| format!("{head}{name}=")))
}

/// The same for the keys of a health check.
fn check_pairs(current: &str) -> Vec<(String, String)> {
    let (before, last) = current
        .rsplit_once(',')
        .map_or(("", current), |found| found);
    let head = match before {
        "" => String::new(),
        _ => format!("{before},"),
    };
    let test = last
        .split_once('=')
        .filter(|(key, _)| bare(key).eq_ignore_ascii_case("test"));
    if let Some((key, _)) = test {
        let kinds = KINDS.iter().map(|(_, name, _)| *name);
        return plain(kinds.map(|kind| format!("{head}{key}={kind}")));
    }
    if last.contains('=') {
        return Vec::new();
    }
    let there = |name: &str| {
        let mut keys = before.split(',').filter_map(|pair| pair.split_once('='));
        keys.any(|(key, _)| bare(key).eq_ignore_ascii_case(name))
    };
    let keys = FIELDS.iter().map(|(_, name, _)| *name);
    let keys = keys.filter(|name| !there(name));
    let prefix = if last == bare(last) { "" } else { "hc-" };
    plain(keys.map(|name| format!("{head}{prefix}{name}=")))
}

/// The same for the keys of a VRRP instance.
fn vrrp_pairs(current: &str) -> Vec<(String, String)> {
    let keys = libilb::vrrp::FIELDS.iter().map(|(_, name, _)| *name);
    keyed(current, keys, |_| &[])
}

/// The same for the keys of a source.
fn source_pairs(current: &str) -> Vec<(String, String)> {
    let keys = SOURCE_FIELDS.iter().map(|(_, name, _)| *name);
    keyed(current, keys, |key| match words::find(SOURCE_FIELDS, key) {
        Some(SourceField::Approve) => &["auto", "ask"],
        Some(SourceField::Family) => &["auto", "ipv4", "ipv6"],
        Some(SourceField::Dns | SourceField::Subnet) => &["none"],
        _ => &[],
    })
}

/// Keys that were not given yet, or the values that one may have.
fn keyed<'a>(
    current: &str,
    keys: impl Iterator<Item = &'a str>,
    values: impl Fn(&str) -> &'static [&'static str],
) -> Vec<(String, String)> {
    let (before, last) = current
        .rsplit_once(',')
        .map_or(("", current), |found| found);
    let head = match before {
        "" => String::new(),
        _ => format!("{before},"),
    };
    if let Some((key, _)) = last.split_once('=') {
        let values = values(key).iter();
        return plain(values.map(|value| format!("{head}{key}={value}")));
    }
    let there = |name: &str| {
        let mut keys = before.split(',').filter_map(|pair| pair.split_once('='));
        keys.any(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let keys = keys.filter(|name| !there(name));
    plain(keys.map(|name| format!("{head}{name}=")))
}

/// A key without what may stand before it.
fn bare(key: &str) -> &str {
    match key.get(..3) {
        Some(prefix) if prefix.eq_ignore_ascii_case("hc-") => &key[3..],
        _ => key,
    }
}

#[cfg(test)]
mod tests;
