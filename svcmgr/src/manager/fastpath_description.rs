//! The answer to `DescribeFastpath()`.

use ilb_node::control::{Request, Response, Status};
use libilb::fastpath::{FastpathDescription, InterfaceDescription};

use super::ManagerHandle;
use super::error::ManagerError;

impl ManagerHandle {
    /// How the fast path does its work, as it says itself.
    ///
    /// # Errors
    /// [`ManagerError::Fastpath`] when it does not answer.
    pub async fn describe_fastpath(&self) -> Result<FastpathDescription, ManagerError> {
        match self.ask_fastpath(Request::Status).await? {
            Response::Status(status) => Ok(description(status)),
            Response::Error { message } => Err(ManagerError::Fastpath(message)),
            other => Err(ManagerError::Fastpath(
                crate::dataplane::unexpected(&other).to_string(),
            )),
        }
    }
}

fn description(status: Status) -> FastpathDescription {
    let interfaces = status.interfaces.into_iter();
    FastpathDescription {
        version: status.version,
        generation: status.generation,
        workers: status.workers,
        uptime: status.uptime_seconds,
        interfaces: interfaces
            .map(|interface| InterfaceDescription {
                name: interface.name,
                mode: interface.mode.label().to_owned(),
                mode_reason: interface.mode_reason,
                zero_copy: interface.zero_copy,
                copy_reason: interface.copy_reason,
                queues: interface.queues,
                rx_packets: interface.rx_packets,
                tx_packets: interface.tx_packets,
            })
            .collect(),
        table_capacity: status.table.capacity,
        table_used: status.table.used,
    }
}
