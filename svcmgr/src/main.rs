//! The service manager of the ilb load balancer.
#![forbid(unsafe_code)]
#![allow(dead_code)]

mod addresses;
mod compile;
mod dataplane;
mod retired;
mod state;
mod store;
#[cfg(test)]
mod test_folder;

fn main() {}
