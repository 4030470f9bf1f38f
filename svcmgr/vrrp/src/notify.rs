//! Programs that are told of changes, one after the other, so that they hear of them in their order.

use std::time::Duration;

use libilb::vrrp::VrrpState;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls that may wait; more are left out.
const QUEUE: usize = 256;

/// A change that somebody is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The program.
    pub program: String,
    /// Name of the instance.
    pub name: String,
    /// Where it stands now.
    pub state: VrrpState,
    /// Its priority.
    pub priority: u8,
}

impl Notice {
    /// The arguments, which are those that keepalived gives.
    fn arguments(&self) -> [String; 4] {
        let state = match self.state {
            VrrpState::Active => "MASTER",
            VrrpState::Backup => "BACKUP",
            VrrpState::Fault => "FAULT",
            VrrpState::Disabled => "STOP",
        };
        [
            "INSTANCE".to_owned(),
            self.name.clone(),
            state.to_owned(),
            self.priority.to_string(),
        ]
    }
}

/// Tells programs.
#[derive(Debug)]
pub struct Notifier {
    queue: mpsc::Sender<Notice>,
}

impl Notifier {
    /// Needs a running tokio runtime.
    pub fn start() -> Notifier {
        let (queue, mut notices) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(notice) = notices.recv().await {
                tell(&notice).await;
            }
        });
        Notifier { queue }
    }

    /// Tells somebody soon.
    pub fn tell(&self, notice: Notice) {
        if let Err(error) = self.queue.try_send(notice) {
            tracing::warn!("too many programs wait to be told of changes: {error}");
        }
    }
}

async fn tell(notice: &Notice) {
    let (program, name) = (&notice.program, &notice.name);
    let arguments = notice.arguments();
    match timeout(PATIENCE, ilb_programs::run(program, &arguments, &[])).await {
        Ok(Ok(ended)) if ended.status.success() => {}
        Ok(Ok(ended)) => {
            tracing::warn!("{program}, told of VRRP instance {name}: {}", ended.status);
        }
        Ok(Err(error)) => tracing::warn!("cannot run {program} for VRRP instance {name}: {error}"),
        Err(_) => tracing::warn!(
            "{program}, told of VRRP instance {name}, took more than {} s and was ended",
            PATIENCE.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_keepalived_understand_the_arguments() {
        let notice = |state| Notice {
            program: "/bin/true".into(),
            name: "outer".into(),
            state,
            priority: 150,
        };
        let words = VrrpState::ALL.map(|state| notice(state).arguments().join(" "));
        let expected = [
            "INSTANCE outer STOP 150",
            "INSTANCE outer FAULT 150",
            "INSTANCE outer BACKUP 150",
            "INSTANCE outer MASTER 150",
        ];
        assert_eq!(words, expected);
    }
}
