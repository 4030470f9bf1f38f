//! Turns what the command-line parser objects to into one message: what is wrong, and what to do.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use libilb::words;

use crate::cli;

/// A message for the user. `args` are the words after the program's name.
pub fn message(error: &clap::Error, args: &[String]) -> String {
    let names = command_names();
    let command = args
        .iter()
        .map(|a| a.to_ascii_lowercase())
        .find(|a| names.contains(a));
    let see = match &command {
        Some(command) => format!("'lbadm help {command}' explains it"),
        None => "'lbadm help' lists the commands".to_string(),
    };
    if let (ErrorKind::InvalidSubcommand, Some(word)) =
        (error.kind(), context(error, ContextKind::InvalidSubcommand))
    {
        return format!(
            "there is no command '{word}'{} ({see})",
            suggestion(&word, args, &names)
        );
    }
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(missing) = context(error, ContextKind::InvalidArg)
    {
        return format!("missing: {missing} ({see})");
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        && let Some(command) = &command
    {
        let root = cli::command();
        let of = root.find_subcommand(command).into_iter();
        let verbs: Vec<&str> = of
            .flat_map(|sub| sub.get_subcommands().map(clap::Command::get_name))
            .collect();
        return format!("what shall be done? Say {} ({see})", words::one_of(&verbs));
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph says what is wrong; the rest is a reminder of the syntax.
    let first: Vec<&str> = text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    let tip = match (error.kind(), context(error, ContextKind::SuggestedArg)) {
        (ErrorKind::UnknownArgument, Some(arg)) => format!("; did you mean '{arg}'?"),
        _ => String::new(),
    };
    format!("{}{tip} ({see})", first.join(" "))
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(s) => Some(s.clone()),
        ContextValue::Strings(all) => Some(all.join(" ")),
        other => Some(other.to_string()),
    }
}

fn command_names() -> Vec<String> {
    cli::command()
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .flat_map(|sub| {
            std::iter::once(sub.get_name())
                .chain(sub.get_all_aliases())
                .map(str::to_string)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The command that was meant: a misspelled one, or one written as two words (`create rule`).
fn suggestion(word: &str, args: &[String], names: &[String]) -> String {
    let next = args
        .iter()
        .skip_while(|a| !a.eq_ignore_ascii_case(word))
        .nth(1);
    let joined = next.map(|next| format!("{word}-{next}").to_ascii_lowercase());
    let known = || names.iter().map(String::as_str);
    let hit = joined
        .filter(|joined| names.contains(joined))
        .or_else(|| words::nearest(word, known()));
    match hit {
        Some(name) => format!("; did you mean '{name}'?"),
        None => String::new(),
    }
}
