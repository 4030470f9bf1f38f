//! What can be wrong with a request, in words that a person can act on.

use std::fmt;

use crate::words;

/// The class of an error. It decides the D-Bus error name and, in `lbadm`, the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A value is malformed or not allowed, whatever else is configured.
    InvalidArgument,
    /// A rule, server group or server of this name does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// It is needed by something else.
    InUse,
    /// It is fine in itself but contradicts something that is configured.
    Conflict,
    /// ilb will be able to do it, but this version is not.
    NotSupported,
    /// The caller may not change things.
    NotAuthorized,
    /// The manager cannot store changes at the moment.
    Degraded,
    /// The fast path did not take the configuration.
    FastpathRejected,
    /// Anything else.
    Failed,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 10] = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::InUse,
        ErrorKind::Conflict,
        ErrorKind::NotSupported,
        ErrorKind::NotAuthorized,
        ErrorKind::Degraded,
        ErrorKind::FastpathRejected,
        ErrorKind::Failed,
    ];

    /// The last part of the D-Bus error name, such as `InUse`.
    pub const fn word(self) -> &'static str {
        match self {
            ErrorKind::InvalidArgument => "InvalidArgument",
            ErrorKind::NotFound => "NotFound",
            ErrorKind::AlreadyExists => "AlreadyExists",
            ErrorKind::InUse => "InUse",
            ErrorKind::Conflict => "Conflict",
            ErrorKind::NotSupported => "NotSupported",
            ErrorKind::NotAuthorized => "NotAuthorized",
            ErrorKind::Degraded => "Degraded",
            ErrorKind::FastpathRejected => "FastpathRejected",
            ErrorKind::Failed => "Failed",
        }
    }
}

/// What an item is called in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A rule.
    Rule,
    /// A server group.
    ServerGroup,
    /// A server.
    Server,
    /// A health check.
    HealthCheck,
    /// A VRRP instance.
    Vrrp,
    /// Several VRRP instances.
    SyncGroup,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Item::Rule => "rule",
            Item::ServerGroup => "server group",
            Item::Server => "server",
            Item::HealthCheck => "health check",
            Item::Vrrp => "VRRP instance",
            Item::SyncGroup => "sync group",
        })
    }
}

/// Why a request was refused. The text says what is wrong, with which value, what is allowed and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A word that belongs to no list, or not to this one.
    #[error(
        "{field} '{value}' is not known: use {allowed}{}",
        did_you_mean(suggestion)
    )]
    UnknownWord {
        /// What the word was given for.
        field: &'static str,
        /// The word.
        value: String,
        /// All words that are allowed, readable.
        allowed: String,
        /// The allowed word that is most like it.
        suggestion: Option<String>,
    },
    /// A value that is malformed or out of range.
    #[error("{field} '{value}' {problem}: {allowed}")]
    Invalid {
        /// What the value was given for.
        field: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it, beginning with a verb.
        problem: String,
        /// What is allowed, or what to do.
        allowed: String,
    },
    /// Something that has to be given is not.
    #[error("{field} is missing: {allowed}")]
    Missing {
        /// What is missing.
        field: &'static str,
        /// What is allowed, or what to do.
        allowed: String,
    },
    /// No such rule, server group or server.
    #[error("no {item} is named {}{}", words::one_of(&quote(names)), did_you_mean(suggestion))]
    NotFound {
        /// What was looked for.
        item: Item,
        /// All names that do not exist.
        names: Vec<String>,
        /// The existing name that is most like the first of them.
        suggestion: Option<String>,
    },
    /// A server group has no such servers.
    #[error(
        "server group '{group}' has no server {}; 'lbadm show-servergroup {group}' lists those that it has{}",
        words::one_of(&quote(servers)),
        did_you_mean(suggestion)
    )]
    NotInGroup {
        /// The group.
        group: String,
        /// All ids and specifications that it does not have.
        servers: Vec<String>,
        /// The id that is most like the first of them.
        suggestion: Option<String>,
    },
    /// The name is taken.
    #[error("a {item} named '{name}' exists already: choose another name, or delete it first")]
    AlreadyExists {
        /// What it is.
        item: Item,
        /// Its name, as it was spelled when it was created.
        name: String,
    },
    /// A server group that rules use cannot be deleted.
    #[error(
        "server group '{group}' is used by {} {}: delete {} first",
        if rules.len() == 1 { "rule" } else { "rules" },
        quote(rules).join(", "),
        if rules.len() == 1 { "it" } else { "them" }
    )]
    GroupInUse {
        /// The group.
        group: String,
        /// The rules that use it.
        rules: Vec<String>,
    },
    /// A health check that rules use cannot be deleted.
    #[error(
        "health check '{check}' is used by {} {}: take it off with 'lbadm modify-rule -h none {}' first",
        if rules.len() == 1 { "rule" } else { "rules" },
        quote(rules).join(", "),
        if rules.len() == 1 { &rules[0] } else { "RULE" }
    )]
    CheckInUse {
        /// The health check.
        check: String,
        /// The rules that use it.
        rules: Vec<String>,
    },
    /// A rule and its health check do not fit together.
    #[error("health check '{check}' does not fit rule '{rule}': {problem}")]
    CheckMismatch {
        /// The rule.
        rule: String,
        /// The health check.
        check: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Two VRRP instances claim the same.
    #[error("VRRP instance '{instance}' does not go together with '{other}': {problem}")]
    VrrpConflict {
        /// The instance that was to be created or changed.
        instance: String,
        /// The one that is there.
        other: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Two rules claim the same traffic.
    #[error(
        "rule '{rule}' would claim {claim}, which rule '{other}' has: use another vip, protocol, port or client, or delete \
         rule '{other}' first"
    )]
    Overlap {
        /// The rule that was to be created.
        rule: String,
        /// The rule that has it.
        other: String,
        /// What both want, such as `192.0.2.1 tcp port 80-90`.
        claim: String,
    },
    /// The same server twice in a group.
    #[error(
        "server {server} is in server group '{group}' already, as {id}: each address and port can be there once"
    )]
    DuplicateServer {
        /// The group.
        group: String,
        /// The server as given.
        server: String,
        /// The id of the one that is there.
        id: String,
    },
    /// A rule and a server of its group do not fit together.
    #[error("server {server} of server group '{group}' does not fit rule '{rule}': {problem}")]
    Mismatch {
        /// The rule.
        rule: String,
        /// The group.
        group: String,
        /// The server: id and address.
        server: String,
        /// Why, what is allowed, what to do.
        problem: String,
    },
    /// Part of ilb's plan, but not of this version.
    #[error("not supported yet: {what}{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    NotSupported {
        /// What was asked for.
        what: String,
        /// What can be used instead.
        hint: Option<String>,
    },
}

impl ModelError {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ModelError::UnknownWord { .. }
            | ModelError::Invalid { .. }
            | ModelError::Missing { .. } => ErrorKind::InvalidArgument,
            ModelError::NotFound { .. } | ModelError::NotInGroup { .. } => ErrorKind::NotFound,
            ModelError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            ModelError::GroupInUse { .. } | ModelError::CheckInUse { .. } => ErrorKind::InUse,
            ModelError::Overlap { .. }
            | ModelError::DuplicateServer { .. }
            | ModelError::Mismatch { .. }
            | ModelError::VrrpConflict { .. }
            | ModelError::CheckMismatch { .. } => ErrorKind::Conflict,
            ModelError::NotSupported { .. } => ErrorKind::NotSupported,
        }
    }

    /// Shorthand for [`ModelError::Invalid`].
    pub fn invalid(
        field: &'static str,
        value: impl Into<String>,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ModelError {
        ModelError::Invalid {
            field,
            value: value.into(),
            problem: problem.into(),
            allowed: allowed.into(),
        }
    }
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(word) => format!("; did you mean '{word}'?"),
        None => String::new(),
    }
}

fn quote(names: &[String]) -> Vec<String> {
    names.iter().map(|n| format!("'{n}'")).collect()
}
