//! Addresses for `--sim`: a list in memory, and nothing ever changes by itself.

use std::future::pending;
use std::net::IpAddr;

use super::{AddressError, Addresses, Mark, Present, full_prefix};

/// See the module.
#[derive(Debug, Default)]
pub struct SimulatedAddresses {
    present: Vec<Present>,
}

impl Addresses for SimulatedAddresses {
    async fn present(&mut self) -> Result<Vec<Present>, AddressError> {
        Ok(self.present.clone())
    }

    async fn add(&mut self, address: IpAddr, interface: &str) -> Result<(), AddressError> {
        self.remove(address, interface).await?;
        self.present.push(Present {
            interface: interface.to_owned(),
            address,
            prefix: full_prefix(address),
            mark: Mark::Ours,
        });
        Ok(())
    }

    async fn remove(&mut self, address: IpAddr, interface: &str) -> Result<(), AddressError> {
        self.present
            .retain(|item| item.address != address || item.interface != interface);
        Ok(())
    }

    async fn changed(&mut self) {
        pending().await
    }
}
