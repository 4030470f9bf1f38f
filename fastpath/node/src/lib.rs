//! What both daemons of ilb must agree on: the node's settings file ([`settings`]) and the language that they speak
//! with each other over the control socket ([`control`]); and how they speak to who watches them ([`journal`]).
//!
//! This crate owns names, types, limits and their encoding. It opens nothing but the settings file that it is told to
//! read and the way to the journal, holds no state, spawns nothing, and decides nothing about rules, servers or packets.

#![forbid(unsafe_code)]

pub mod control;
pub mod journal;
pub mod settings;
