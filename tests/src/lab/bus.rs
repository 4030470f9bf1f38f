//! A private D-Bus daemon: the "system bus" of one lab.

use std::path::Path;
use std::time::Duration;

use super::namespace::Namespace;
use super::process::Daemon;
use crate::shell;

/// The address for `DBUS_SYSTEM_BUS_ADDRESS`.
pub fn address(directory: &Path) -> String {
    format!("unix:path={}/bus", directory.display())
}

/// Starts it and waits until its socket is there.
#[track_caller]
pub(crate) fn start(namespace: &Namespace, directory: &Path) -> Daemon {
    let configuration = directory.join("bus.conf");
    let text = format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{}</listen>
  <auth>EXTERNAL</auth>
  <!-- Whoever may talk to ilb is decided by ilb-svcmgr, so the bus lets everybody through. -->
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="false"/>
    <allow receive_sender="*"/>
  </policy>
  <policy user="root">
    <allow own="*"/>
  </policy>
  <limit name="max_message_size">134217728</limit>
</busconfig>
"#,
        address(directory)
    );
    std::fs::write(&configuration, text).expect("cannot write into the lab's directory");
    let mut command = namespace.command("dbus-daemon");
    command
        .arg(format!("--config-file={}", configuration.display()))
        .args(["--nofork", "--nopidfile", "--nosyslog"]);
    let mut daemon = Daemon::spawn("dbus-daemon", command, &directory.join("bus.log"));
    let socket = directory.join("bus");
    let up = shell::wait_for(Duration::from_secs(5), || {
        std::os::unix::net::UnixStream::connect(&socket).ok()
    });
    assert!(
        up.is_some() && daemon.ended().is_none(),
        "dbus-daemon did not come up:\n{}",
        super::process::tail(daemon.log(), 20)
    );
    daemon
}
