//! What polkit says about a caller (<https://www.freedesktop.org/software/polkit/docs/latest/>, the interface
//! `org.freedesktop.PolicyKit1.Authority`).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use zbus::fdo::{self, DBusProxy};
use zbus::names::{BusName, UniqueName};
use zbus::{Connection, Variant};

/// How long polkit may take where nobody is asked.
const PROMPT: Duration = Duration::from_secs(20);
/// How long a person may take to find and type a password.
const PATIENT: Duration = Duration::from_secs(120);
/// How often we look whether the caller still waits for the answer.
const GLANCE: Duration = Duration::from_secs(1);
/// Questions of one user at a time. A person has one prompt; scripts have a few calls; more is a flood.
const MOST: u32 = 8;

/// `AllowUserInteraction` of `CheckAuthorizationFlags`.
const ALLOW_USER_INTERACTION: u32 = 1;

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// The caller's name on the bus.
    pub sender: &'a UniqueName<'a>,
    /// Its user.
    pub uid: u32,
    /// The action.
    pub action: &'static str,
    /// The method that was called; rules see it as `action.lookup("method")`.
    pub method: &'a str,
    /// The caller is ready to wait while its user is asked for a password.
    pub interactive: bool,
}

/// Why the answer is no: what a person can do about it comes after it, in the text of the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no polkit.
    #[error("without polkit on the bus only root may")]
    Absent,
    /// The rules say no.
    #[error("polkit's rules do not allow it")]
    Rules,
    /// The rules want a password, and there is nobody to ask for it.
    #[error(
        "polkit wants authentication, which needs a call that allows it and an agent such as pkttyagent(1)"
    )]
    Challenge,
    /// The user was asked and did not prove to be an administrator.
    #[error("the authentication was not given")]
    Dismissed,
    /// Nobody answered.
    #[error("no answer from polkit within {} seconds", .0.as_secs())]
    Late(Duration),
    /// The caller did not wait.
    #[error("the caller is gone")]
    Gone,
    /// One user asks too much at a time.
    #[error("{MOST} of its calls wait for polkit already")]
    Flood,
    /// Something else.
    #[error("polkit cannot be asked: {0}")]
    Failed(String),
}

/// Kind and details of who asks.
type Subject<'a> = (&'a str, HashMap<&'a str, Variant<'a>>);

/// Whether it is allowed, whether it would be after authentication, and details.
type Answer = (bool, bool, HashMap<String, String>);

#[zbus::proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority"
)]
trait Authority {
    fn check_authorization(
        &self,
        subject: &Subject<'_>,
        action: &str,
        details: HashMap<&str, &str>,
        flags: u32,
        cancellation: &str,
    ) -> zbus::Result<Answer>;

    fn cancel_check_authorization(&self, cancellation: &str) -> zbus::Result<()>;
}

/// Asks polkit, and its user if need be.
///
/// # Errors
/// [`Refusal`].
pub async fn ask(
    connection: &Connection,
    bus: &DBusProxy<'_>,
    question: &Question<'_>,
) -> Result<(), Refusal> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let _turn = Turn::take(question.uid).ok_or(Refusal::Flood)?;
    let cancellation = format!("ilb-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let authority = AuthorityProxy::builder(connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .map_err(|error| Refusal::Failed(error.to_string()))?;
    let subject = (
        "system-bus-name",
        HashMap::from([("name", Variant::from(question.sender.as_str()))]),
    );
    let (flags, limit) = match question.interactive {
        true => (ALLOW_USER_INTERACTION, PATIENT),
        false => (0, PROMPT),
    };
    let details = HashMap::from([("method", question.method)]);
    let answer =
        authority.check_authorization(&subject, question.action, details, flags, &cancellation);
    let refusal = tokio::select! {
        answer = answer => return judge(answer),
        () = tokio::time::sleep(limit) => Refusal::Late(limit),
        () = gone(bus, question.sender) => Refusal::Gone,
    };
    // The prompt goes away. If it cannot be called off, polkit's answer finds nobody.
    if let Err(error) = authority.cancel_check_authorization(&cancellation).await {
        tracing::debug!("a question to polkit is not called off: {error}");
    }
    Err(refusal)
}

fn judge(answer: zbus::Result<Answer>) -> Result<(), Refusal> {
    match answer {
        Ok((true, _, _)) => Ok(()),
        Ok((_, _, details)) if details.contains_key("polkit.dismissed") => Err(Refusal::Dismissed),
        Ok((_, true, _)) => Err(Refusal::Challenge),
        Ok(_) => Err(Refusal::Rules),
        Err(zbus::Error::FDO(error)) => Err(match *error {
            fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => Refusal::Absent,
            other => Refusal::Failed(other.to_string()),
        }),
        Err(error) => Err(Refusal::Failed(error.to_string())),
    }
}

/// Resolves when this name has left the bus. Asking now and then is enough, and takes no match rule for each caller.
async fn gone(bus: &DBusProxy<'_>, name: &UniqueName<'_>) {
    loop {
        tokio::time::sleep(GLANCE).await;
        if let Ok(false) = bus.name_has_owner(BusName::Unique(name.to_owned())).await {
            return;
        }
    }
}

/// One of the questions that a user may have at a time.
struct Turn(u32);

impl Turn {
    fn take(uid: u32) -> Option<Turn> {
        let mut waiting = Turn::waiting();
        let count = waiting.entry(uid).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Turn(uid))
    }

    /// How many each user has. This program serves one bus, so that there is one such table.
    fn waiting() -> MutexGuard<'static, BTreeMap<u32, u32>> {
        static WAITING: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());
        WAITING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = Turn::waiting();
        if let Some(count) = waiting.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number_of_questions_at_a_time() {
        let mut turns: Vec<Turn> = (0..MOST).map(|_| Turn::take(7).unwrap()).collect();
        assert!(Turn::take(7).is_none());
        assert!(Turn::take(8).is_some(), "another user is not concerned");
        turns.pop();
        assert!(Turn::take(7).is_some());
        turns.clear();
        assert!(Turn::waiting().is_empty());
    }

    #[test]
    fn what_polkit_answers_is_understood() {
        let answer = |authorized, challenge, details: &[&str]| {
            let details = details
                .iter()
                .map(|key| ((*key).to_owned(), "true".to_owned()));
            Ok((authorized, challenge, details.collect()))
        };
        let cases = [
            (answer(true, false, &[]), Ok(())),
            (answer(false, true, &[]), Err(Refusal::Challenge)),
            (
                answer(false, true, &["polkit.dismissed"]),
                Err(Refusal::Dismissed),
            ),
            (answer(false, false, &[]), Err(Refusal::Rules)),
            // What a later polkit may add changes nothing.
            (answer(true, true, &["polkit.something-new"]), Ok(())),
        ];
        for (given, then) in cases {
            assert_eq!(judge(given), then);
        }
    }
}
