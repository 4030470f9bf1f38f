//! Two ends that keep each other informed: who is there, what the other one may not know yet, what was lost.
//!
//! **What has to be told** is a set of entry numbers, not a list of messages: an entry that changes ten times before its
//! turn comes is told of once, as it is then. There are two sets, one of what changed, one of everything that the peer has
//! asked for; the first goes first. What is told is read from the table at that moment. A datagram that was lost marks its
//! entries again, so that what is told twice is told as it is the second time. Only ends have no entry any more and wait in
//! a list of their own, which is bounded: what finds no room there leaves the peer's table by its own timers. Traces
//! ([`crate::traces`]) have no entry at the other end, and go in turn with the rest.
//!
//! **Order.** Numbers of datagrams that count only grow. One that was overtaken on its way is not taken any more, for it may
//! say what is not true any longer; to its sender it is lost.
//!
//! **Who asks.** An end that has not been told everything by this incarnation of its peer asks for it, as long as it gets no
//! answer: after its start, after the peer's, and whenever [`Session::want`] says so (when its configuration has changed, and
//! records that it could not use before may be of use now). Between two sessions of the same two processes nothing is asked:
//! marks were kept meanwhile.

use std::collections::VecDeque;

pub use crate::counters::Counters;
use crate::error::Refused;
use crate::frame::{self, Frame, Gap, MOST_GAPS, Payload};
use crate::host::{Event, Settings, Table};
use crate::link::{Flight, Link};
use crate::marks::Marks;
use crate::pace::Pace;
use crate::record::{End, LONGEST, Record};
use crate::seal::{self, Greeter, Greeting, Opened, Token};
use crate::traces::{Parcel, Teller};

/// Milliseconds between two greetings while nobody answers.
pub const GREET: u64 = 500;
/// Milliseconds between two greetings that confirm a session of which nothing has come yet.
const CONFIRM: u64 = 100;
/// Milliseconds after which something is said when there is nothing to say.
pub const ALIVE: u64 = 1_000;
/// Milliseconds without a word after which the peer is gone.
pub const GONE: u64 = 5_000;
/// Milliseconds after which a peer that does not acknowledge is asked to.
const PROBE: u64 = 200;
/// Milliseconds that an acknowledgement may wait for others.
const ACK_WAIT: u64 = 20;
/// Datagrams that are acknowledged at once.
const ACK_EVERY: u32 = 16;
/// Datagrams that may be on their way: one and a half megabytes.
const WINDOW: usize = 1024;
/// Entries that are looked at for one datagram.
const MOST_LOOKS: u32 = 65_536;
/// Ends that may wait.
const MOST_ENDS: usize = 65_536;
/// Octets of a datagram if nothing else is said: 1,500 without IPv6's and UDP's headers.
pub const DATAGRAM: usize = 1452;
/// What a datagram costs on its way beside its own octets: headers of IPv6 and UDP.
const ON_THE_WAY: usize = 48;

/// See the module's text.
pub struct Session {
    settings: Settings,
    greeter: Greeter,
    draw: Box<dyn FnMut() -> Token + Send>,
    incarnation: u64,
    /// Our nonce for the next session.
    fresh: Token,
    greeted: Option<u64>,
    answer: Option<Token>,
    link: Option<Link>,
    /// Incarnation of the peer that we last heard.
    peer: Option<u64>,
    /// Incarnation of the peer that has told us everything.
    told_by: Option<u64>,
    /// Our question for everything: its number, and whether it is open.
    want: u32,
    wanting: bool,
    /// The peer's question that is being answered, and the one that has been.
    serving: Option<u32>,
    served: Option<u32>,
    /// The question for which everything has been marked.
    marked: Option<u32>,
    /// Number of the datagram with the last of what was marked for it.
    barrier: Option<u64>,
    say_done: bool,
    changes: Marks,
    everything: Marks,
    ends: VecDeque<End>,
    traces: Teller,
    /// Whether traces go before records in the next datagram.
    turn: bool,
    /// Since when there is something to be told of.
    waiting: Option<u64>,
    pace: Pace,
    counters: Counters,
    refused: [u64; Refused::ALL.len()],
}

impl Session {
    /// An end that greets as soon as it is asked what to send. `capacity` is that of the table, `draw` gives numbers that
    /// nobody can guess, `now` is in milliseconds of a clock that only goes forward.
    pub fn new(
        settings: Settings,
        capacity: u32,
        mut draw: impl FnMut() -> Token + Send + 'static,
        now: u64,
    ) -> Session {
        let [incarnation, fresh] = [draw(), draw()];
        let mut first = [0; 8];
        first.copy_from_slice(&incarnation[..8]);
        Session {
            greeter: Greeter::new(&settings.secret, settings.node),
            pace: Pace::new(settings.bandwidth, now),
            draw: Box::new(draw),
            incarnation: u64::from_be_bytes(first),
            fresh,
            greeted: None,
            answer: None,
            link: None,
            peer: None,
            told_by: None,
            want: 0,
            wanting: false,
            serving: None,
            served: None,
            marked: None,
            barrier: None,
            say_done: false,
            changes: Marks::new(capacity),
            everything: Marks::new(capacity),
            ends: VecDeque::new(),
            traces: Teller::new(room(settings.datagram) - frame::FRAME_HEAD),
            turn: false,
            waiting: None,
            counters: Counters::default(),
            refused: [0; Refused::ALL.len()],
            settings,
        }
    }

    /// What it goes by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the peer is there.
    pub fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.unconfirmed)
    }

    /// The peer's incarnation: another process of it has another one. None if it was never there.
    pub fn peer(&self) -> Option<u64> {
        self.peer
    }

    /// Whether the peer, as it is now, has told us everything.
    pub fn has_everything(&self) -> bool {
        self.peer.is_some() && self.told_by == self.peer && !self.wanting
    }

    /// Whether the peer waits for something of ours: [`Session::poll`] should be called before more is heard.
    pub fn owes_answer(&self) -> bool {
        let acks = self.link.as_ref().map_or(0, |link| link.unacknowledged);
        self.answer.is_some() || acks >= ACK_EVERY
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Datagrams refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        Refused::ALL
            .iter()
            .copied()
            .zip(self.refused.iter().copied())
    }

    /// Entries of which the peer may not know all yet, those on their way not counted.
    pub fn pending(&self) -> u64 {
        self.untold() + self.traces.gathered()
    }

    /// The same without what waits for others to go with it.
    fn untold(&self) -> u64 {
        u64::from(self.changes.count())
            + u64::from(self.everything.count())
            + self.ends.len() as u64
            + self.traces.waiting()
    }

    /// For how many milliseconds something has been waiting to be told of.
    pub fn lag(&self, now: u64) -> u64 {
        self.waiting.map_or(0, |since| now.saturating_sub(since))
    }

    /// An entry has changed.
    pub fn changed(&mut self, entry: u32, now: u64) {
        self.changes.set(entry);
        self.waiting.get_or_insert(now);
    }

    /// A connection has ended before its time.
    pub fn ended(&mut self, end: End, now: u64) {
        if self.ends.len() < MOST_ENDS {
            self.ends.push_back(end);
            self.waiting.get_or_insert(now);
        } else {
            self.counters.forgotten_ends += 1;
        }
    }

    /// A connection has begun that is told of by its trace.
    pub fn traced(&mut self, trace: u32, now: u64) {
        if self.is_up() {
            self.traces.add(trace, now);
        }
    }

    /// Other connections than before are told of by their traces: all of those are told anew.
    pub fn traces_changed(&mut self) {
        self.traces.again();
    }

    /// Something was missed: all entries below `size` may have changed.
    pub fn everything_changed(&mut self, size: u32, now: u64) {
        self.everything.set_below(size);
        self.traces.again();
        self.waiting.get_or_insert(now);
    }

    /// Asks the peer for everything, once it is there.
    pub fn want(&mut self) {
        self.want = self.want.wrapping_add(1);
        self.wanting = true;
    }

    /// Takes a datagram. What it leads to is appended to `events`.
    ///
    /// # Errors
    /// When it is refused, which is counted and changes nothing else.
    pub fn handle(
        &mut self,
        datagram: &mut [u8],
        now: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), Refused> {
        let length = datagram.len();
        let outcome = self.take(datagram, now, events);
        match outcome {
            Ok(true) => {
                self.counters.received_datagrams += 1;
                self.counters.received_octets += length as u64;
            }
            Ok(false) => {}
            Err(refused) => self.refused[refused as usize] += 1,
        }
        outcome.map(drop)
    }

    /// True if the datagram belongs to the session.
    fn take(
        &mut self,
        datagram: &mut [u8],
        now: u64,
        events: &mut Vec<Event>,
    ) -> Result<bool, Refused> {
        let keys = self.link.as_ref().map(|link| &link.keys);
        let above = self.link.as_ref().map_or(0, |link| link.highest);
        match seal::open(&self.greeter, keys, above, datagram)? {
            Opened::Greeting(greeting) => self.greeted_by(&greeting, now, events).map(|()| false),
            Opened::Payload(number, bytes) => {
                let payload = Payload::decode(bytes).ok_or(Refused::Malformed)?;
                self.hear(number, payload, now, events);
                Ok(true)
            }
        }
    }

    fn greeted_by(
        &mut self,
        greeting: &Greeting,
        now: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), Refused> {
        let Greeting {
            nonce,
            echo,
            incarnation,
        } = *greeting;
        if echo == self.fresh {
            self.begin(nonce, incarnation, now, events);
            return Ok(());
        }
        if let Some(link) = &mut self.link
            && link.theirs == nonce
        {
            // One more of those that began this session. If our answer was lost, it needs it again; if it has that, it has
            // not heard anything of the session yet.
            match echo == link.ours {
                true => link.said = 0,
                false => self.answer = Some(nonce),
            }
            return Ok(());
        }
        if echo != [0; 16] {
            return Err(Refused::Stale);
        }
        // Who has just started knows no nonce of ours: it gets the latest, and nothing else happens. A first greeting that
        // somebody repeats leads to no more than such an answer.
        self.answer = Some(nonce);
        Ok(())
    }

    /// The peer has answered our latest nonce: a session begins.
    fn begin(&mut self, theirs: Token, incarnation: u64, now: u64, events: &mut Vec<Event>) {
        self.end(events);
        let ours = std::mem::replace(&mut self.fresh, (self.draw)());
        let keys = self.greeter.session(&ours, &theirs);
        self.link = Some(Link::new(keys, ours, theirs, now));
        self.counters.sessions += 1;
        if self.peer != Some(incarnation) {
            // Another process: it knows nothing of what was asked and answered before.
            (self.serving, self.served, self.marked) = (None, None, None);
            self.say_done = false;
        }
        self.peer = Some(incarnation);
        if self.told_by != Some(incarnation) && !self.wanting {
            self.want();
        }
    }

    /// The session is over. What was on its way may not have arrived.
    fn end(&mut self, events: &mut Vec<Event>) {
        let Some(link) = self.link.take() else {
            return;
        };
        self.barrier = None;
        self.traces.nobody();
        if !link.unconfirmed {
            events.push(Event::Down);
        }
        for flight in link.flights {
            self.lost(flight);
        }
    }

    fn lost(&mut self, flight: Flight) {
        if let Some(parcel) = flight.parcel {
            self.traces.lost(parcel);
        }
        let marks = match self.is_serving() {
            // The answer to the peer's question is not whole without them.
            true => &mut self.everything,
            false => &mut self.changes,
        };
        flight.entries.iter().for_each(|&it| marks.set(it));
        for end in flight.ends {
            if self.ends.len() < MOST_ENDS {
                self.ends.push_back(end);
            } else {
                self.counters.forgotten_ends += 1;
            }
        }
    }

    fn hear(&mut self, number: u64, payload: Payload, now: u64, events: &mut Vec<Event>) {
        let Some(link) = &mut self.link else {
            return;
        };
        if std::mem::take(&mut link.unconfirmed) {
            self.traces.again();
            events.push(Event::Up);
        }
        link.came(number, payload.floor, now);
        if payload.wants_ack {
            if link.unacknowledged == 0 {
                link.unacknowledged_since = now;
            }
            link.unacknowledged += 1;
        }
        for frame in payload.frames {
            match frame {
                Frame::Ack { upto, gaps } => self.acknowledged(upto, &gaps),
                Frame::Records(records) => {
                    self.counters.received_records += records.len() as u64;
                    events.extend(records.into_iter().map(Event::Record));
                }
                Frame::Want(id) => self.asked_for(id, events),
                Frame::Done(id) => {
                    if self.wanting && id == self.want {
                        self.wanting = false;
                        self.told_by = self.peer;
                        events.push(Event::Everything);
                    }
                }
                Frame::Traces(traces) => {
                    self.counters.received_traces += traces.traces.len() as u64;
                    events.push(Event::Traces(traces));
                }
            }
        }
    }

    fn acknowledged(&mut self, upto: u64, gaps: &[Gap]) {
        let Some(link) = &mut self.link else {
            return;
        };
        let lost = link.acknowledged(upto, gaps);
        self.counters.lost_datagrams += lost.len() as u64;
        lost.into_iter().for_each(|flight| self.lost(flight));
    }

    fn asked_for(&mut self, id: u32, events: &mut Vec<Event>) {
        if self.served == Some(id) {
            self.say_done = true;
        } else if self.serving != Some(id) {
            self.serving = Some(id);
            events.push(Event::Asked);
        }
    }

    /// The next datagram to be sent now, if there is any. To be called until there is none, about every ten milliseconds
    /// and after each [`Session::handle`].
    pub fn poll(
        &mut self,
        table: &mut dyn Table,
        now: u64,
        events: &mut Vec<Event>,
    ) -> Option<Vec<u8>> {
        if let Some(link) = &self.link
            && now.saturating_sub(link.heard) >= GONE
        {
            self.end(events);
        }
        let datagram = match self.greeting_due(now) {
            Some(greeting) => self.greeter.greet(&greeting),
            None => self.say(table, now)?,
        };
        self.counters.sent_datagrams += 1;
        self.counters.sent_octets += datagram.len() as u64;
        self.pace.sent(datagram.len() + ON_THE_WAY);
        Some(datagram)
    }

    fn greeting_due(&mut self, now: u64) -> Option<Greeting> {
        let ours = self.fresh;
        let greeting = |nonce, echo| Greeting {
            nonce,
            echo,
            incarnation: self.incarnation,
        };
        if let Some(theirs) = self.answer.take() {
            let nonce = match &self.link {
                Some(link) if link.theirs == theirs => link.ours,
                _ => ours,
            };
            return Some(greeting(nonce, theirs));
        }
        match &mut self.link {
            Some(link) if link.unconfirmed => {
                let due = now.saturating_sub(link.confirmed_at) >= CONFIRM;
                if link.confirmed_at == 0 || due {
                    link.confirmed_at = now.max(1);
                    return Some(greeting(link.ours, link.theirs));
                }
            }
            Some(_) => {}
            None => {
                let due = |then| now.saturating_sub(then) >= GREET;
                if self.greeted.is_none_or(due) {
                    self.greeted = Some(now);
                    return Some(greeting(ours, [0; 16]));
                }
            }
        }
        None
    }

    /// Whether the peer has asked for everything and not got it all yet.
    fn is_serving(&self) -> bool {
        self.serving.is_some() && self.served != self.serving
    }

    fn say(&mut self, table: &mut dyn Table, now: u64) -> Option<Vec<u8>> {
        let may_send = self.pace.is_open(now);
        if self.is_serving() && self.marked != self.serving {
            self.marked = self.serving;
            self.everything.set_below(table.size());
            if let Some((traces, age)) = table.inherited() {
                self.traces.inherit(traces, age);
            }
            self.traces.again();
        }
        let link = self.link.as_ref()?;
        if !link.unconfirmed {
            let size = table.size();
            self.traces.step(now, size, |entry| table.trace(entry));
            let first = link.flights.front().map(|it| it.number);
            self.traces.end_round(link.next, first);
        }
        // Until it has confirmed the session, the peer could not read any of this.
        let told = match may_send && !link.unconfirmed && link.flights.len() < WINDOW {
            true => self.tell(table),
            false => Told::default(),
        };
        match self.untold() {
            0 => self.waiting = None,
            _ => drop(self.waiting.get_or_insert(now)),
        }
        self.see_whether_all_is_told();
        let link = self.link.as_mut()?;
        let since = |then: u64| now.saturating_sub(then);
        let telling = told.count > 0 || told.parcel.is_some();
        let probing = !link.flights.is_empty() && since(link.asked) >= PROBE;
        let waited = since(link.unacknowledged_since) >= ACK_WAIT;
        let acking = link.unacknowledged >= ACK_EVERY || link.unacknowledged > 0 && waited;
        let patience = if link.unconfirmed { CONFIRM } else { ALIVE };
        let silent = link.said == 0 || since(link.said) >= patience;
        let asking = self.wanting && since(link.asked) >= PROBE;
        if !(telling || probing || acking || silent || asking || self.say_done) {
            return None;
        }
        let number = link.next;
        link.next += 1;
        let floor = link.flights.front().map_or(number, |first| first.number);
        let mut payload = Vec::with_capacity(self.settings.datagram);
        frame::begin(&mut payload, floor);
        if link.highest > 0 {
            link.acknowledgement().encode(&mut payload);
            link.unacknowledged = 0;
        }
        if self.wanting {
            Frame::Want(self.want).encode(&mut payload);
        }
        if std::mem::take(&mut self.say_done)
            && let Some(id) = self.served
        {
            Frame::Done(id).encode(&mut payload);
        }
        if telling || probing || asking {
            frame::want_ack(&mut payload);
            link.asked = now;
        }
        link.said = now.max(1);
        if told.count > 0 {
            frame::append_records(&mut payload, &told.records);
            self.counters.sent_records += told.count;
        }
        if let Some(parcel) = &told.parcel {
            frame::append_parcel(&mut payload, parcel, self.traces.round());
            self.counters.sent_traces += parcel.count();
        }
        if telling {
            link.flights.push_back(Flight {
                number,
                entries: told.entries,
                ends: told.ends,
                parcel: told.parcel,
            });
        }
        Some(link.keys.seal(number, &payload))
    }

    /// As much of what has to be told as fits a datagram.
    fn tell(&mut self, table: &mut dyn Table) -> Told {
        let room = room(self.settings.datagram);
        let mut told = Told::default();
        self.turn = !self.turn && self.traces.has_any();
        if self.turn {
            told.parcel = self.traces.take();
            return told;
        }
        while told.records.len() + LONGEST <= room
            && let Some(end) = self.ends.pop_front()
        {
            // What is there again is told of as it is now.
            if !table.has(&end) {
                Record::End(end).encode(&mut told.records);
                told.ends.push(end);
                told.count += 1;
            }
        }
        for _ in 0..MOST_LOOKS {
            if told.records.len() + LONGEST > room {
                break;
            }
            let Some(entry) = self.changes.take().or_else(|| self.everything.take()) else {
                break;
            };
            if let Some(record) = table.read(entry) {
                record.encode(&mut told.records);
                told.entries.push(entry);
                told.count += 1;
            }
        }
        if told.count == 0 {
            told.parcel = self.traces.take();
        }
        told
    }

    /// The peer's question is answered when nothing is marked for it any more and everything that was sent until then has
    /// arrived.
    fn see_whether_all_is_told(&mut self) {
        if !self.is_serving() || self.marked != self.serving {
            return;
        }
        let Some(link) = &self.link else {
            return;
        };
        if self.everything.count() > 0 {
            self.barrier = None;
            return;
        }
        let barrier = *self.barrier.get_or_insert(link.next);
        if link
            .flights
            .front()
            .is_none_or(|first| first.number > barrier)
        {
            self.served = self.serving;
            self.say_done = true;
            self.barrier = None;
        }
    }
}

/// Octets of frames that a datagram has room for, a short acknowledgement and the questions aside.
fn room(datagram: usize) -> usize {
    let heads = seal::HEAD + seal::TAG + frame::HEAD;
    let acks = frame::FRAME_HEAD * 3 + 16 + MOST_GAPS * 12;
    datagram.max(heads + acks + 256) - heads - acks
}

/// What one datagram tells.
#[derive(Default)]
struct Told {
    records: Vec<u8>,
    entries: Vec<u32>,
    ends: Vec<End>,
    count: u64,
    parcel: Option<Parcel>,
}
