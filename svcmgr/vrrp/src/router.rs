//! One instance: its state machine with what belongs to it in the kernel. What it does with its addresses is in [`addresses`].

mod addresses;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ilb_node::journal::events::{VRRP_ACTIVE, VRRP_BACKUP, VRRP_FAULT};
use libilb::vrrp::{Checksum, Version, VrrpCounters, VrrpInstance, VrrpState, VrrpStatus};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vrrp_rs::{Action, ChecksumForm, DecodeError, Event, Interval, Machine, Refusal, State, Why};

use crate::holder::Holder;
use crate::interfaces::Interface;
use crate::schedule::Schedule;
use crate::socket::{Packet, VrrpSocket};
use crate::virtual_mac::Device;

/// How long addresses that were given up in order stay here at most, until another node has taken over.
const LINGER: Duration = Duration::from_secs(2);
/// What a node needs to take over, beyond what it waits.
const TAKING_OVER: Duration = Duration::from_millis(200);

/// What a router's reader task hands on: which router, by its name and how many times it was opened.
pub type Received = (Arc<str>, u64, Packet);

/// See the module.
pub struct Router {
    /// As configured.
    pub instance: Arc<VrrpInstance>,
    /// Where it stands, for others.
    pub status: VrrpStatus,
    /// What was counted.
    pub counters: VrrpCounters,
    /// A node that lives and has its addresses, or had them until this one has taken over.
    pub other: Option<IpAddr>,
    open: Option<Open>,
    /// How many times it was opened.
    opened: u64,
}

/// What there is while it takes part.
struct Open {
    machine: Machine,
    socket: Arc<VrrpSocket>,
    reader: AbortHandle,
    interface: Interface,
    /// The interface of its virtual MAC address, while it is active and has one, and who speaks from there.
    above: Option<(Device, VrrpSocket)>,
    /// The addresses that we put up.
    held: Vec<IpAddr>,
    announcements: Schedule,
    /// Until when addresses stay that were given up.
    lingers: Option<Duration>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// How an instance takes part: what its sync group makes of what it would do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// 1 to 255.
    pub priority: u8,
    /// Whether it takes over from a lower priority.
    pub preempt: bool,
    /// After how long.
    pub preempt_delay: Duration,
}

impl Router {
    /// One that takes no part yet.
    pub fn new(instance: Arc<VrrpInstance>) -> Router {
        Router {
            instance,
            status: VrrpStatus::default(),
            counters: VrrpCounters::default(),
            other: None,
            open: None,
            opened: 0,
        }
    }

    /// Whether what is configured anew needs another start.
    pub fn is_another(&self, instance: &VrrpInstance) -> bool {
        let wire = |it: &VrrpInstance| {
            (
                it.interface.clone(),
                it.vrid,
                it.addresses.clone(),
                it.version,
                it.interval,
                it.peers.clone(),
                (it.source, it.checksum, it.mac),
            )
        };
        wire(&self.instance) != wire(instance)
    }

    /// The state of the machine, if it takes part.
    pub fn state(&self) -> Option<State> {
        let state = self.open.as_ref().map(|open| open.machine.state());
        state.filter(|state| *state != State::Initialize)
    }

    /// Whether it still has addresses that it has given up, for another node to take over.
    pub fn lingers(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.lingers.is_some())
    }

    /// Whether its time has come to take over.
    pub fn takes_over(&self, now: Duration) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let due = open.machine.deadline().is_some_and(|it| it <= now);
            due && open.machine.state() == State::Backup
        })
    }

    /// When something has to be done.
    pub fn deadline(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        let others = [open.announcements.deadline(), open.lingers];
        let others = others.into_iter().flatten();
        open.machine.deadline().into_iter().chain(others).min()
    }

    /// Whether it stands on an interface as this one is, with this source.
    pub fn stands_on(&self, interface: &Interface, source: IpAddr) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.interface.index == interface.index
                && open.interface.link == interface.link
                && open.machine.config().source == source
        })
    }

    /// Opens its socket and takes part. Needs a running tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub async fn start(
        &mut self,
        now: Duration,
        interface: &Interface,
        source: IpAddr,
        part: Part,
        holder: &Holder,
        packets: &mpsc::Sender<Received>,
    ) -> io::Result<()> {
        self.close(holder).await;
        let instance = &self.instance;
        let machine = Machine::new(config(instance, source, part)).map_err(io::Error::other)?;
        let multicast = instance.peers.is_empty();
        let socket = VrrpSocket::open(&instance.interface, interface.index, source, multicast)?;
        let socket = Arc::new(socket);
        self.opened += 1;
        let reader = tokio::spawn(read(
            socket.clone(),
            (instance.name.as_str().into(), self.opened),
            packets.clone(),
        ));
        self.open = Some(Open {
            machine,
            socket,
            reader: reader.abort_handle(),
            interface: interface.clone(),
            above: None,
            held: Vec::new(),
            announcements: Schedule::default(),
            lingers: None,
        });
        self.handle(now, Event::Startup, holder).await;
        Ok(())
    }

    /// Gives up, says so to the network, and takes no part any more.
    pub async fn stop(&mut self, now: Duration, holder: &Holder) {
        self.handle(now, Event::Shutdown, holder).await;
        self.close(holder).await;
    }

    /// The same, but it has the addresses until another node has taken over, or had the time to: there is never none that has them.
    pub async fn hand_over(&mut self, now: Duration, holder: &Holder) {
        self.handle(now, Event::Shutdown, holder).await;
        if !self.lingers() {
            self.close(holder).await;
        }
    }

    async fn close(&mut self, holder: &Holder) {
        self.release(holder).await;
        self.open = None;
    }

    /// Takes part otherwise.
    pub fn adjust(&mut self, part: Part) {
        let Some(open) = &mut self.open else {
            return;
        };
        let config = open.machine.config();
        if config.priority != part.priority
            && let Err(error) = open.machine.set_priority(part.priority)
        {
            tracing::error!("VRRP instance {}: {error}", self.instance.name);
        }
        if open.machine.config().preempt != part.preempt {
            open.machine.set_preempt(part.preempt);
        }
        open.machine.set_preempt_delay(part.preempt_delay);
    }

    /// Says where it stands when it takes no part.
    pub fn rest(&mut self, state: VrrpState, why: &str) {
        self.enter(state, why.to_owned());
        self.status.priority = 0;
        self.status.active_node.clear();
    }

    /// Does what is due.
    pub async fn tick(&mut self, now: Duration, holder: &Holder) {
        let due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        let Some(open) = &mut self.open else {
            return;
        };
        let lingers = due(open.lingers);
        let announce = open.announcements.is_due(now);
        if due(open.machine.deadline()) {
            self.handle(now, Event::Timer, holder).await;
        }
        if announce {
            self.announce();
        }
        if lingers {
            self.leave(holder).await;
        }
    }

    /// Another node has what was given up, or does not want it.
    async fn leave(&mut self, holder: &Holder) {
        match self.state() {
            // It became active again meanwhile.
            Some(State::Active) => {}
            Some(State::Backup | State::Initialize) => self.release(holder).await,
            None => self.close(holder).await,
        }
    }

    /// A packet has come to its socket, the one that was opened as the `opened`-th.
    pub async fn receive(&mut self, now: Duration, opened: u64, packet: &Packet, holder: &Holder) {
        let instance = &self.instance;
        // Of another router on the same wire: nothing to us.
        if opened != self.opened
            || packet
                .bytes
                .get(1)
                .is_some_and(|vrid| *vrid != instance.vrid)
        {
            return;
        }
        let stranger = match instance.peers.is_empty() {
            true => packet.to != vrrp_rs::group_of(packet.to),
            false => !instance.peers.contains(&packet.from),
        };
        if stranger {
            return self.refuse(
                "stranger",
                packet,
                "it is sent by no peer, or not to the group",
            );
        }
        let Packet {
            from,
            to,
            hops,
            bytes,
        } = packet;
        // No router forwards what has a link-local source. keepalived sends unicasts under IPv6 with a hop limit of 64.
        let hops = match from {
            IpAddr::V6(address)
                if address.is_unicast_link_local() && !instance.peers.is_empty() =>
            {
                vrrp_rs::HOPS
            }
            _ => *hops,
        };
        match vrrp_rs::Advertisement::decode(bytes, *from, *to, hops) {
            Err(error) => self.refuse(decode_label(error), packet, &error.to_string()),
            Ok(advertisement) => {
                let event = Event::Received {
                    from: *from,
                    advertisement: &advertisement,
                };
                let refused = self.handle(now, event, holder).await;
                if let Some(refusal) = refused {
                    return self.refuse(refusal_label(refusal), packet, &refusal.to_string());
                }
                self.counters.received += 1;
                let taken = self.lingers() && advertisement.priority > 0;
                if taken || self.state() == Some(State::Backup) {
                    self.other = Some(*from);
                }
                if taken {
                    self.leave(holder).await;
                }
                if self.state().is_none() {
                    return;
                }
                self.status.active_node = match self.status.state {
                    VrrpState::Active => String::new(),
                    _ if advertisement.priority == 0 => String::new(),
                    _ => from.to_string(),
                };
            }
        }
    }

    fn refuse(&mut self, label: &str, packet: &Packet, why: &str) {
        let count = self.counters.refused.entry(label.to_owned()).or_default();
        *count += 1;
        // The counter says how many more.
        if *count == 1 {
            let (name, from) = (&self.instance.name, packet.from);
            tracing::warn!("VRRP instance {name}: a packet from {from} is not believed: {why}");
        }
    }

    /// Something happens to the machine. What it says is done. Returns why a packet was not believed.
    pub async fn handle(
        &mut self,
        now: Duration,
        event: Event<'_>,
        holder: &Holder,
    ) -> Option<Refusal> {
        // What is given up in order stays until somebody has it. Who is dead tells nobody, and who has heard another one knows.
        let in_order = matches!(event, Event::Resign | Event::Shutdown);
        let machine = &mut self.open.as_mut()?.machine;
        let silent = machine.reason() == Why::Silence;
        let actions = machine.handle(now, event);
        let mut refused = None;
        if actions.iter().any(|it| matches!(it, Action::Take)) {
            if silent {
                self.other = None;
            }
            // Whoever takes over speaks from the virtual address from the first word on, and has the addresses before: with that
            // word the other one lets go of them, and there shall be no moment at which nobody answers for them.
            self.rise(holder).await;
            self.put_up(holder).await;
        }
        for action in actions {
            match action {
                Action::Send { priority } => self.send(priority),
                Action::Take => self.take(now),
                Action::Announce => {
                    if let Some(open) = &mut self.open {
                        open.announcements.contest(now);
                    }
                }
                Action::Release if in_order => self.linger(now),
                Action::Release => self.release(holder).await,
                Action::Changed { to, why, .. } => self.changed(to, why),
                Action::Refused(refusal) => refused = Some(refusal),
                Action::OtherAddresses => {
                    self.counters.other_addresses += 1;
                    if self.counters.other_addresses == 1 {
                        tracing::warn!(
                            "VRRP instance {}: another node has other addresses in it: compare the configurations",
                            self.instance.name
                        );
                    }
                }
            }
        }
        refused
    }

    fn changed(&mut self, to: State, why: Why) {
        let state = match to {
            // Whoever stops it says where it stands then.
            State::Initialize => return,
            State::Backup => VrrpState::Backup,
            State::Active => VrrpState::Active,
        };
        self.enter(state, why.to_string());
        if let Why::Higher { from, .. } = why {
            self.status.active_node = from.to_string();
        }
        if state == VrrpState::Active {
            self.counters.became_active += 1;
            self.status.active_node.clear();
        }
    }

    fn enter(&mut self, state: VrrpState, why: String) {
        if self.status.state != state {
            self.counters.transitions += 1;
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            self.status.since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let name = &self.instance.name;
            match state {
                VrrpState::Fault => tracing::warn!(
                    message_id = VRRP_FAULT.id,
                    ilb_vrrp = name,
                    "VRRP instance {name} is in {state}: {why}"
                ),
                VrrpState::Active => tracing::info!(
                    message_id = VRRP_ACTIVE.id,
                    ilb_vrrp = name,
                    "VRRP instance {name} is {state}: {why}"
                ),
                VrrpState::Backup => tracing::info!(
                    message_id = VRRP_BACKUP.id,
                    ilb_vrrp = name,
                    "VRRP instance {name} is {state}: {why}"
                ),
                VrrpState::Disabled => {
                    tracing::info!("VRRP instance {name} is {state}: {why}");
                }
            }
            self.status.state = state;
            self.status.why = why;
        } else if state == VrrpState::Fault {
            self.status.why = why;
        }
    }

    fn send(&mut self, priority: u8) {
        let Some(open) = &self.open else {
            return;
        };
        let advertisement = open.machine.advertisement(priority);
        let source = open.machine.config().source;
        let group = [vrrp_rs::group_of(source)];
        let to = match self.instance.peers.is_empty() {
            true => &group[..],
            false => &self.instance.peers,
        };
        for to in to {
            let message = advertisement.encode(source, *to).map_err(io::Error::other);
            let socket = match &open.above {
                Some((_, socket)) => socket,
                None => &open.socket,
            };
            match message.and_then(|message| socket.send(*to, &message)) {
                Ok(()) => self.counters.sent += 1,
                Err(error) => {
                    self.counters.send_errors += 1;
                    if self.counters.send_errors == 1 {
                        let name = &self.instance.name;
                        tracing::warn!("VRRP instance {name} cannot advertise to {to}: {error}");
                    }
                }
            }
        }
    }
}

/// Hands packets on until nobody wants them, or the interface is gone.
async fn read(
    socket: Arc<VrrpSocket>,
    (name, opened): (Arc<str>, u64),
    to: mpsc::Sender<Received>,
) {
    loop {
        match socket.receive().await {
            Ok(packet) => {
                if to.send((name.clone(), opened, packet)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // As when the interface goes down: what follows is told by the interface's state.
                tracing::debug!("VRRP instance {name} cannot read: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn config(instance: &VrrpInstance, source: IpAddr, part: Part) -> vrrp_rs::Config {
    let version = match instance.version {
        Version::V2 => vrrp_rs::Version::V2,
        Version::V3 => vrrp_rs::Version::V3,
    };
    vrrp_rs::Config {
        priority: part.priority,
        interval: Interval::centiseconds(instance.interval).unwrap_or(Interval::SECOND),
        preempt: part.preempt,
        preempt_delay: part.preempt_delay,
        checksum: match instance.checksum {
            Checksum::PseudoHeader => ChecksumForm::PseudoHeader,
            Checksum::Message => ChecksumForm::MessageOnly,
        },
        ..vrrp_rs::Config::new(version, instance.vrid, source, instance.addresses.clone())
    }
}

fn decode_label(error: DecodeError) -> &'static str {
    match error {
        DecodeError::Hops(_) => "ttl",
        DecodeError::Version(_) => "version",
        DecodeError::Type(_) => "type",
        DecodeError::Length { .. } => "length",
        DecodeError::Checksum => "checksum",
        DecodeError::Vrid => "vrid",
        DecodeError::NoAddresses => "no-addresses",
        DecodeError::Interval => "interval",
        DecodeError::Authentication(_) => "authentication",
    }
}

fn refusal_label(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Version => "version",
        Refusal::Vrid => "vrid",
        Refusal::Own => "own",
        Refusal::Owner => "owner",
        Refusal::Authentication => "authentication",
        Refusal::Interval => "interval",
        Refusal::Addresses => "addresses",
    }
}

/// The parts of several instances, by the names of their sync groups: they take part alike, with the lowest priority of them.
pub fn parts<'a>(
    fit: impl Iterator<Item = (&'a VrrpInstance, u8)> + Clone,
) -> BTreeMap<String, Part> {
    let own = |instance: &VrrpInstance, priority| Part {
        priority,
        preempt: instance.preempt,
        preempt_delay: instance.preempt_delay.duration(),
    };
    let mut groups: BTreeMap<String, Part> = BTreeMap::new();
    for (instance, priority) in fit.clone() {
        let Some(group) = &instance.sync_group else {
            continue;
        };
        let mine = own(instance, priority);
        groups
            .entry(group.to_ascii_lowercase())
            .and_modify(|part| {
                part.priority = part.priority.min(mine.priority);
                part.preempt &= mine.preempt;
                part.preempt_delay = part.preempt_delay.max(mine.preempt_delay);
            })
            .or_insert(mine);
    }
    fit.map(|(instance, priority)| {
        let group = instance.sync_group.as_ref();
        let part = group.and_then(|group| groups.get(&group.to_ascii_lowercase()));
        let part = part.copied().unwrap_or_else(|| own(instance, priority));
        (instance.name.clone(), part)
    })
    .collect()
}
