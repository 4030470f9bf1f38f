//! What rules have commands run for: servers that come and go, and the quorum.

use libilb::health::HealthState;
use libilb::model::{Rule, Server};
use libilb::rule::NotifyEvent;

use super::Manager;
use super::view::View;
use crate::addresses::Addresses;
use crate::checks::News;
use crate::dataplane::DataPlane;
use crate::notify::{Notice, Object};

/// What news of a server are for whoever wants to be told, if anything: it was believed `known` before, and taken for dead
/// or not. One that nothing was known of is told of when it is found dead, or was taken for dead until then.
pub(super) fn event(
    known: Option<HealthState>,
    was_dead: bool,
    news: &News,
) -> Option<NotifyEvent> {
    match (news.state.is_down(), news.up) {
        (true, _) => (!known.is_some_and(HealthState::is_down)).then_some(NotifyEvent::Down),
        (false, true) => was_dead.then_some(NotifyEvent::Up),
        // Nothing is known yet, or nobody tests it.
        (false, false) => None,
    }
}

/// The notice of a server, if its rule has a command for that.
pub(super) fn of_server(
    rule: &Rule,
    server: &Server,
    event: NotifyEvent,
    news: &News,
) -> Option<Notice> {
    // They begin with layer and code, such as L4/refused. What a server says itself is nothing to act on.
    let code = news.why.split(' ').next().unwrap_or_default();
    let mut notice = of_rule(rule, event)?;
    notice.object.server.clone_from(&server.id);
    notice.environment.extend([
        ("ILB_SERVER", server.id.clone()),
        ("ILB_ADDRESS", server.address.to_string()),
        (
            "ILB_PORT",
            server
                .ports
                .map(|ports| ports.to_string())
                .unwrap_or_default(),
        ),
        ("ILB_STATE", news.state.name().to_owned()),
        ("ILB_CODE", code.to_owned()),
    ]);
    Some(notice)
}

/// The notice of a rule, if it has a command for that.
fn of_rule(rule: &Rule, event: NotifyEvent) -> Option<Notice> {
    Some(Notice {
        object: Object {
            rule: rule.name.clone(),
            server: String::new(),
        },
        event,
        command: rule.notify.get(&event)?.clone(),
        environment: vec![
            ("ILB_EVENT", event.name().to_owned()),
            ("ILB_RULE", rule.name.clone()),
            ("ILB_GROUP", rule.servergroup.clone()),
        ],
    })
}

/// The notices of quorums that are otherwise than `before`. A rule that is new or enabled is told of, as it is; one that is
/// deleted or disabled has lost its quorum, if it had it.
pub(super) fn of_quorums(before: &View, after: &View) -> Vec<Notice> {
    let numbers = after.standings.since(&before.standings);
    let mut all: Vec<Notice> = numbers
        .filter_map(|number| {
            let of = |view: &View| view.standings.of(number).map(|standing| standing.quorum);
            let event = match (of(before), of(after)) {
                (Some(true), Some(false) | None) | (None, Some(false)) => NotifyEvent::QuorumDown,
                (Some(false) | None, Some(true)) => NotifyEvent::QuorumUp,
                _ => return None,
            };
            let rule = |view: &View| view.state.configuration.rules.by_number(number).cloned();
            of_rule(rule(after).or_else(|| rule(before))?.as_ref(), event)
        })
        .collect();
    // Of a rule that took the place of another one of its name, what ends comes before what begins.
    all.sort_by_key(|notice| notice.event == NotifyEvent::QuorumUp);
    all
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Has commands run. They are carried out without us.
    pub(super) fn notify(&self, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            // At the end of the program there may be nobody any more.
            drop(self.notifier.send(notice));
        }
    }
}

#[cfg(test)]
mod tests {
    use ilb_checks::Id;

    use super::*;

    #[test]
    fn what_is_told_of_a_server() {
        use HealthState::{Alive, Dead, Disabled, UnInit, Unreach};
        use NotifyEvent::{Down, Up};
        let (alive, dead) = (false, true);
        // What was believed, whether it was taken for dead, what is believed and whether it is used; what is told.
        for (known, was, state, up, told) in [
            (None, alive, UnInit, true, None),
            (None, alive, Alive, true, None),
            (None, alive, Dead, false, Some(Down)),
            (Some(UnInit), alive, Alive, true, None),
            (Some(Alive), alive, Dead, false, Some(Down)),
            (Some(Alive), alive, Unreach, false, Some(Down)),
            (Some(Unreach), dead, Dead, false, None),
            (Some(Dead), dead, Unreach, false, None),
            (Some(Dead), dead, Alive, true, Some(Up)),
            // Down until proven: the first finding is told, whatever it is.
            (None, dead, UnInit, false, None),
            (Some(UnInit), dead, Dead, false, Some(Down)),
            (Some(UnInit), dead, Alive, true, Some(Up)),
            // An administrator did it.
            (Some(Alive), alive, Disabled, false, None),
            (Some(Disabled), alive, UnInit, true, None),
            (Some(Disabled), alive, Alive, true, None),
        ] {
            let news = News {
                id: Id { rule: 1, server: 1 },
                state,
                up,
                weight: None,
                why: String::new(),
                since: 0,
                changes: 0,
            };
            assert_eq!(
                event(known, was, &news),
                told,
                "{known:?} {was} {state} {up}"
            );
        }
    }
}
