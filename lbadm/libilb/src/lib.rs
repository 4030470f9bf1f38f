//! The words of ilb: what a rule, a server group and a server are, which of them fit together, and how the programs
//! speak about them over D-Bus.
//!
//! This crate owns the model ([`model::Configuration`]) with its complete validation, the syntax of every value that an
//! administrator types ([`rule`], [`server`], [`port`], [`address`], [`healthcheck`]), the document that describes
//! everything ([`document`]), the state that the manager reports ([`describe`], [`health`], [`stats`], [`events`]), the
//! D-Bus names with their proxies ([`dbus`]) and a typed client ([`client`], and [`blocking`] for programs without an async
//! runtime). It refuses to store anything, to touch the network's configuration, to know the daemon, or to know what a
//! packet is: the manager translates the model into what the fast path needs.
//!
//! # A load balancer, from a program
//!
//! `lbadm` does everything with this crate, and so can another program. Errors are typed: [`ErrorKind`] for a program, the
//! text for a person.
//!
//! ```no_run
//! use libilb::ErrorKind;
//! use libilb::client::{Client, ClientError};
//! use libilb::rule::RuleSettings;
//!
//! # async fn example() -> Result<(), ClientError> {
//! let client = Client::connect().await?;
//! client.create_group("web", &["192.0.2.10:8080", "192.0.2.11:8080,weight=2"]).await?;
//! let rule = RuleSettings {
//!     enabled: true,
//!     vip: "198.51.100.1".into(),
//!     port: "80".into(),
//!     algorithm: "maglev".into(),
//!     topology: "HALF-NAT".into(),
//!     servergroup: "web".into(),
//!     ..RuleSettings::default()
//! };
//! match client.create_rule("shop", &rule).await {
//!     Ok(path) => println!("the rule is in force, at {path}"),
//!     Err(ClientError::Refused { kind: ErrorKind::AlreadyExists, .. }) => {
//!         client.modify_rule("shop", &RuleSettings { algorithm: "maglev".into(), ..Default::default() }).await?;
//!     }
//!     Err(ClientError::NotAuthorized(why)) => println!("root, or whom polkit allows it: {why}"),
//!     Err(other) => return Err(other),
//! }
//! // Takes a server out; its connections live on.
//! let servers = client.describe().await?.groups.swap_remove(0).servers;
//! client.enable_servers(&[&servers[0].server.id], false).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The model, without a manager
//!
//! What the manager would refuse is found out beforehand, with the same words.
//!
//! ```
//! use libilb::model::Configuration;
//! use libilb::rule::RuleSettings;
//! use libilb::ErrorKind;
//!
//! let mut configuration = Configuration::default();
//! configuration.create_group("web", &["192.0.2.10-192.0.2.12:8080"])?;
//! let mut rule = RuleSettings {
//!     vip: "198.51.100.1".into(),
//!     port: "http".into(),
//!     algorithm: "roundrobbin".into(),
//!     topology: "n".into(),
//!     proxy_src: vec!["198.51.100.2".into()],
//!     servergroup: "web".into(),
//!     ..RuleSettings::default()
//! };
//! let error = configuration.create_rule("shop", &rule).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::InvalidArgument);
//! assert!(error.to_string().contains("did you mean 'roundrobin'?"));
//!
//! rule.algorithm = "roundrobin".into();
//! let rule = configuration.create_rule("shop", &rule)?;
//! assert_eq!(rule.vips[0].ports.to_string(), "80");
//! # Ok::<(), libilb::ModelError>(())
//! ```

#![forbid(unsafe_code)]

pub mod address;
pub mod algorithm;
pub mod apply;
pub mod blocking;
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
pub mod healthfilter;
pub mod history;
pub mod import;
pub mod map;
pub mod model;
pub mod notify;
pub mod pair;
pub mod panicmode;
pub mod port;
pub mod rule;
pub mod rules;
pub mod server;
pub mod servergroup;
pub mod settings;
pub mod source;
pub mod stats;
pub mod timeout;
pub mod tunnel;
mod validate;
pub mod vip;
pub mod vocabulary;
pub mod vrrp;
pub mod words;

pub use error::{ErrorKind, ModelError};
