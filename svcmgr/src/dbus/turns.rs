//! In which order calls are served: every user in turn, each with so many calls at a time, so much waiting, and no more.
//!
//! However much one user sends, another user's call waits for at most one turn of each user before it, and what is kept in
//! memory is bounded. Users count, not connections: anybody can open hundreds of those.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// What the calls of one user may weigh that run at the same time. Calls weigh 1, those that look at everything all of it.
pub const SLOTS: u32 = 16;
/// Calls of one user that may wait.
pub const WAITING: usize = 1_000;
/// Bytes of one user's calls that wait or run: as much as the system bus lets one call have.
pub const BYTES: usize = 32 << 20;
/// Bytes of all calls that wait or run.
pub const ALL_BYTES: usize = 128 << 20;
/// Largest call of a user whom the manager knows nothing about but his number.
const LARGEST_CALL: usize = 1 << 20;
/// The same with a document in it.
const LARGEST_DOCUMENT: usize = BYTES;
/// How long a call can occupy its place. Whatever runs longer has lost its answer, by a fault of ours.
const LONGEST: Duration = Duration::from_secs(600);

/// Why a call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The user has too many.
    #[error(
        "too many calls at a time: {WAITING} of this user wait already; wait for their answers, or change many things with \
         one call"
    )]
    Calls,
    /// It is too large by itself.
    #[error(
        "the call has {bytes} bytes, and may have {most}: change fewer things with one call, or all of them with Apply"
    )]
    Large {
        /// Its length.
        bytes: usize,
        /// The most that it may have.
        most: usize,
    },
    /// The user's are too large.
    #[error("the calls of this user that wait or run are larger than {} MiB: wait for their answers", BYTES >> 20)]
    Bytes,
    /// Everybody's are too large.
    #[error("the calls of all users that wait or run are larger than {} MiB: try again", ALL_BYTES >> 20)]
    AllBytes,
}

/// Most bytes of a call of this method, if its caller is neither root nor ourselves. What is larger is not looked at.
pub fn largest_call(method: &str) -> usize {
    match method {
        "Apply" => LARGEST_DOCUMENT,
        _ => LARGEST_CALL,
    }
}

/// A call's sender and serial number, which its answer has, too.
pub type Id = (String, u32);

/// A call, and what it takes to serve it.
#[derive(Debug)]
pub struct Call<T> {
    /// See [`Id`].
    pub id: Id,
    /// Part of the [`SLOTS`].
    pub weight: u32,
    /// Its length.
    pub bytes: usize,
    /// The call itself.
    pub item: T,
}

/// Calls of all users.
#[derive(Debug)]
pub struct Turns<T> {
    lines: HashMap<u32, Line<T>>,
    /// Users whose next call can run, each once, in order of their turns.
    ready: VecDeque<u32>,
    bytes: usize,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<Call<T>>,
    running: Vec<Running>,
    bytes: usize,
    ready: bool,
}

#[derive(Debug)]
struct Running {
    id: Id,
    weight: u32,
    bytes: usize,
    since: Instant,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns {
            lines: HashMap::new(),
            ready: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line {
            waiting: VecDeque::new(),
            running: Vec::new(),
            bytes: 0,
            ready: false,
        }
    }
}

impl<T> Line<T> {
    fn can_go_on(&self) -> bool {
        let busy: u32 = self.running.iter().map(|call| call.weight).sum();
        self.waiting
            .front()
            .is_some_and(|next| busy == 0 || busy + next.weight <= SLOTS)
    }
}

impl<T> Turns<T> {
    /// Lets a call of this user wait for its turn.
    ///
    /// # Errors
    /// [`Refused`]; it is gone.
    pub fn admit(&mut self, user: u32, call: Call<T>, now: Instant) -> Result<(), Refused> {
        if self.bytes + call.bytes > ALL_BYTES {
            return Err(Refused::AllBytes);
        }
        let line = self.lines.entry(user).or_default();
        if line.waiting.len() >= WAITING {
            return Err(Refused::Calls);
        }
        if line.bytes + call.bytes > BYTES {
            return Err(Refused::Bytes);
        }
        line.bytes += call.bytes;
        self.bytes += call.bytes;
        line.waiting.push_back(call);
        let old = |running: &Running| now.duration_since(running.since) > LONGEST;
        let lost: Vec<Id> = line
            .running
            .iter()
            .filter(|r| old(r))
            .map(|r| r.id.clone())
            .collect();
        self.queue(user);
        for id in lost {
            self.finished(&id);
        }
        Ok(())
    }

    /// The call whose turn it is.
    pub fn next(&mut self, now: Instant) -> Option<T> {
        let user = self.ready.pop_front()?;
        let line = self.lines.get_mut(&user)?;
        line.ready = false;
        let call = line.waiting.pop_front()?;
        line.running.push(Running {
            id: call.id,
            weight: call.weight,
            bytes: call.bytes,
            since: now,
        });
        self.queue(user);
        Some(call.item)
    }

    /// A call has its answer. True if another can go on now.
    pub fn finished(&mut self, id: &Id) -> bool {
        let found = self.lines.iter_mut().find_map(|(user, line)| {
            let at = line.running.iter().position(|call| call.id == *id)?;
            Some((*user, line.running.swap_remove(at), line))
        });
        let Some((user, call, line)) = found else {
            return false;
        };
        line.bytes -= call.bytes;
        self.bytes -= call.bytes;
        if line.running.is_empty() && line.waiting.is_empty() {
            self.lines.remove(&user);
        }
        self.queue(user);
        !self.ready.is_empty()
    }

    /// Gives a user a turn, if there is something to do for it and it has none yet.
    fn queue(&mut self, user: u32) {
        if let Some(line) = self.lines.get_mut(&user)
            && !line.ready
            && line.can_go_on()
        {
            line.ready = true;
            self.ready.push_back(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(user: u32, number: u32, weight: u32, bytes: usize) -> Call<(u32, u32)> {
        Call {
            id: (format!(":1.{user}"), number),
            weight,
            bytes,
            item: (user, number),
        }
    }

    fn drain(turns: &mut Turns<(u32, u32)>) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| turns.next(Instant::now())).collect()
    }

    #[test]
    fn users_take_turns_whatever_one_of_them_sends() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        for number in 0..5 {
            turns.admit(1, call(1, number, 1, 10), now).unwrap();
        }
        turns.admit(2, call(2, 0, 1, 10), now).unwrap();
        let order = drain(&mut turns);
        assert_eq!(order, [(1, 0), (2, 0), (1, 1), (1, 2), (1, 3), (1, 4)]);
    }

    #[test]
    fn a_user_has_so_many_at_a_time_and_goes_on_as_they_end() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        for number in 0..SLOTS + 2 {
            turns.admit(1, call(1, number, 1, 10), now).unwrap();
        }
        turns.admit(1, call(1, 99, SLOTS, 10), now).unwrap();
        assert_eq!(drain(&mut turns).len(), SLOTS as usize);
        assert!(turns.finished(&(":1.1".into(), 3)));
        assert_eq!(drain(&mut turns), [(1, SLOTS)]);
        // An answer that nobody waits for, such as a second one.
        assert!(!turns.finished(&(":1.1".into(), 3)));
        // What is heavy runs alone.
        for number in (0..SLOTS).filter(|n| *n != 3) {
            turns.finished(&(":1.1".into(), number));
        }
        assert_eq!(drain(&mut turns), [(1, SLOTS + 1)]);
        turns.finished(&(":1.1".into(), SLOTS));
        assert_eq!(drain(&mut turns), []);
        turns.finished(&(":1.1".into(), SLOTS + 1));
        assert_eq!(drain(&mut turns), [(1, 99)]);
        turns.finished(&(":1.1".into(), 99));
        assert!(turns.lines.is_empty() && turns.bytes == 0);
    }

    #[test]
    fn too_much_is_refused_and_others_are_not_concerned() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let full = SLOTS as usize + WAITING;
        for number in 0..full as u32 {
            turns.admit(1, call(1, number, 1, 10), now).unwrap();
            turns.next(now);
        }
        let more = turns.admit(1, call(1, 5000, 1, 10), now);
        assert_eq!(more, Err(Refused::Calls));
        assert_eq!(
            turns.admit(2, call(2, 0, 1, BYTES + 1), now),
            Err(Refused::Bytes)
        );
        for user in 2..=4 {
            assert_eq!(turns.admit(user, call(user, 1, 1, BYTES - 1), now), Ok(()));
            assert_eq!(
                turns.admit(user, call(user, 2, 1, 2), now),
                Err(Refused::Bytes)
            );
        }
        assert_eq!(
            turns.admit(5, call(5, 1, 1, BYTES), now),
            Err(Refused::AllBytes)
        );
    }

    #[test]
    fn a_place_without_an_answer_is_free_again_some_time() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        turns.admit(1, call(1, 0, SLOTS, 10), start).unwrap();
        turns.next(start);
        turns.admit(1, call(1, 1, 1, 10), start).unwrap();
        assert_eq!(turns.next(start), None);
        let later = start + LONGEST + Duration::from_secs(1);
        turns.admit(1, call(1, 2, 1, 10), later).unwrap();
        assert_eq!(turns.next(later), Some((1, 1)));
    }

    proptest! {
        /// Whatever comes and ends in whatever order: what was let in runs once, nobody's calls overtake each other, and
        /// nothing is left.
        #[test]
        fn everything_is_served_once_and_in_order(
            steps in prop::collection::vec((0..4_u32, 1..=SLOTS, 0..3_u8), 1..200)
        ) {
            let (mut turns, now) = (Turns::default(), Instant::now());
            let mut admitted = Vec::new();
            let mut running = Vec::new();
            let mut served = Vec::new();
            for (number, (user, weight, step)) in (0..).zip(steps) {
                if step < 2 {
                    turns.admit(user, call(user, number, weight, 1), now).unwrap();
                    admitted.push((user, number));
                }
                if step > 0 && let Some(next) = turns.next(now) {
                    running.push(next);
                    served.push(next);
                }
                if step == 2 && !running.is_empty() {
                    let (user, number) = running.swap_remove(number as usize % running.len());
                    turns.finished(&(format!(":1.{user}"), number));
                }
            }
            loop {
                while let Some(next) = turns.next(now) {
                    running.push(next);
                    served.push(next);
                }
                let Some((user, number)) = running.pop() else { break };
                turns.finished(&(format!(":1.{user}"), number));
            }
            for user in 0..4 {
                let of = |calls: &[(u32, u32)]| -> Vec<_> {
                    calls.iter().filter(|(who, _)| *who == user).copied().collect()
                };
                prop_assert_eq!(of(&served), of(&admitted));
            }
            prop_assert!(turns.lines.is_empty() && turns.bytes == 0);
        }
    }
}
