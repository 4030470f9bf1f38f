//! The three hash algorithms of ilbadm, over the whole address, consistent when a server comes or goes (Maglev).
//! Two nodes with the same servers choose alike.

use std::sync::Arc;

use super::maglev::Maglev;
use super::{HASHER, Mode, NoChoice, Request, Select};

/// By the client's address.
#[derive(Debug)]
pub struct HashIp(pub Arc<Maglev>);

/// By the client's address and port.
#[derive(Debug)]
pub struct HashIpPort(pub Arc<Maglev>);

/// By the client's address and the VIP.
#[derive(Debug)]
pub struct HashIpVip(pub Arc<Maglev>);

impl Select for HashIp {
    fn select(&self, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        Ok(self.0.lookup(HASHER.address(request.client, 0)))
    }
}

impl Select for HashIpPort {
    fn select(&self, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        Ok(self
            .0
            .lookup(HASHER.address(request.client, 1 << 16 | request.client_port as u64)))
    }
}

impl Select for HashIpVip {
    fn select(&self, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        Ok(self
            .0
            .lookup(HASHER.flow(request.client, request.vip, 0, 0, 0)))
    }
}
