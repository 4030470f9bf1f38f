//! The words of ilb: what a rule, a server group and a server are, which of them fit together, and how the programs
//! speak about them over D-Bus.
//!
//! This crate owns the model ([`model::Configuration`]) with its complete validation, the syntax of every value that an
//! administrator types ([`rule`], [`server`], [`port`], [`address`], [`healthcheck`]), the document that describes
//! everything ([`document`]), the state that the manager reports ([`describe`], [`health`], [`stats`]), the D-Bus names
//! with their proxies ([`dbus`]) and a typed client ([`client`]). It refuses
//! to store anything, to touch the network's configuration, to know the daemon, or to know what a packet is: the
//! manager translates the model into what the fast path needs.

#![forbid(unsafe_code)]

pub mod address;
pub mod algorithm;
pub mod client;
pub mod connections;
pub mod dbus;
pub mod describe;
pub mod difference;
pub mod document;
pub mod error;
pub mod events;
pub mod explain;
pub mod export;
pub mod fastpath;
pub mod health;
pub mod healthcheck;
pub mod healthcheck_use;
pub mod history;
pub mod import;
pub mod map;
pub mod model;
pub mod port;
pub mod rule;
pub mod rules;
pub mod server;
pub mod servergroup;
pub mod settings;
pub mod stats;
pub mod timeout;
pub mod tunnel;
mod validate;
pub mod vip;
pub mod vocabulary;
pub mod words;

pub use error::{ErrorKind, ModelError};
