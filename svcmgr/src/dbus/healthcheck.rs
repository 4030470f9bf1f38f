//! `org.ilb.Ilb1.HealthCheck`, one object for each health check.

use std::collections::HashMap;
use std::sync::Arc;

use libilb::healthcheck::{HealthCheck, HealthCheckSettings, Time, settings_to_dbus};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedVariant, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct HealthCheckObject {
    handle: ManagerHandle,
    name: String,
}

impl HealthCheckObject {
    /// Speaks for the health check of this name.
    pub fn new(handle: ManagerHandle, name: String) -> HealthCheckObject {
        HealthCheckObject { handle, name }
    }

    fn check(&self) -> fdo::Result<Arc<HealthCheck>> {
        let view = self.handle.view();
        let check = view.state.configuration.check(&self.name).cloned();
        check.ok_or_else(|| {
            fdo::Error::UnknownObject(format!("health check {} is deleted", self.name))
        })
    }
}

#[interface(name = "org.ilb.Ilb1.HealthCheck")]
impl HealthCheckObject {
    /// Deletes the health check, if no rule uses it.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        let author = access::check(connection, &header).await?;
        let names = vec![self.name.clone()];
        self.handle
            .change(author, Change::DeleteChecks(names))
            .await?;
        Ok(())
    }

    /// The health check with the rules that use it as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        let check = description
            .check(&self.name)
            .ok_or(ManagerError::Stopping)?;
        serde_json::to_string(check)
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    /// Its name, as it was written when the check was created.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(&self) -> String {
        self.name.clone()
    }

    /// Kind of the test, or the path of a script.
    #[zbus(property)]
    async fn test(&self) -> fdo::Result<String> {
        Ok(self.check()?.test.to_string())
    }

    /// Seconds that a test may take.
    #[zbus(property)]
    async fn timeout(&self) -> fdo::Result<f64> {
        Ok(seconds(self.check()?.timing.timeout))
    }

    /// Seconds from one test to the next, on average.
    #[zbus(property)]
    async fn interval(&self) -> fdo::Result<f64> {
        Ok(seconds(self.check()?.timing.interval))
    }

    /// Failures in a row that make a server dead.
    #[zbus(property)]
    async fn count(&self) -> fdo::Result<u32> {
        Ok(self.check()?.timing.count)
    }

    /// Whether the server is pinged before each test.
    #[zbus(property)]
    async fn ping(&self) -> fdo::Result<bool> {
        Ok(self.check()?.ping)
    }

    /// Everything, as `CreateHealthCheck` takes it.
    #[zbus(property)]
    async fn settings(&self) -> fdo::Result<HashMap<String, OwnedVariant>> {
        let settings = HealthCheckSettings::from(self.check()?.as_ref());
        settings_to_dbus(&settings)
            .into_iter()
            .map(|(key, value)| Ok((key.to_owned(), OwnedVariant::try_from(value)?)))
            .collect::<Result<_, zbus::Error>>()
            .map_err(|error| fdo::Error::Failed(error.to_string()))
    }
}

fn seconds(time: Time) -> f64 {
    f64::from(time.millis()) / 1000.0
}

impl HealthCheckObject {
    /// Sends the signals for what is different between `before` and `after`.
    pub async fn announce(
        &self,
        emitter: &SignalEmitter<'_>,
        before: &HealthCheck,
        after: &HealthCheck,
    ) -> zbus::Result<()> {
        if before.test.to_string() != after.test.to_string() {
            self.test_changed(emitter).await?;
        }
        if before.timing.timeout != after.timing.timeout {
            self.timeout_changed(emitter).await?;
        }
        if before.timing.interval != after.timing.interval {
            self.interval_changed(emitter).await?;
        }
        if before.timing.count != after.timing.count {
            self.count_changed(emitter).await?;
        }
        if before.ping != after.ping {
            self.ping_changed(emitter).await?;
        }
        if before != after {
            self.settings_changed(emitter).await?;
        }
        Ok(())
    }
}
