//! The state machine of one virtual router: RFC 9568 section 6.4, and RFC 3768 section 6.4 where version 2 differs.
//!
//! ```text
//!                    Startup, priority < 255
//!  Initialize ───────────────────────────────────▶ Backup
//!   ▲  │  ▲                                         │  ▲
//!   │  │  └──────────────── Shutdown ───────────────┘  │ a higher one is heard, Resign,
//!   │  │ Startup, priority 255         nobody is heard │ slept through the down interval
//!   │  ▼                                            ▼  │
//!   └──────────────────── Shutdown ─────────────── Active
//! ```
//!
//! Beyond the RFCs, each by choice or harmless to others:
//!
//! - *Preemption with delay*, as keepalived has it: a Backup with the higher priority waits before it takes over.
//! - *Resign*: an Active gives up as if it shut down, but stays Backup.
//! - *Takeover*: a Backup becomes Active because another router of its sync group has.
//! - *Announced again*: an Active that hears another one tells the network once more whose the addresses are.
//! - *A last word*: an Active that gives way to a higher one advertises once more, so that this one hears that it has to.
//! - *A late sleeper*: an Active whose timer was not served for so long that others must have taken over (the process was
//!   stopped, the machine suspended) goes to Backup and listens before it says anything, so that it takes nothing
//!   away from those who stood in for it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::packet::{Advertisement, Authentication, ChecksumForm, Interval, Version};

/// The priority of the router that owns the addresses.
pub const OWNER: u8 = 255;

/// What an Active advertises that gives up.
pub const GIVES_UP: u8 = 0;

/// The priority of a Backup that nothing is said about (RFC 9568 section 6.1).
pub const DEFAULT_PRIORITY: u8 = 100;

/// What one virtual router is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Version that is spoken; advertisements of the other are refused.
    pub version: Version,
    /// Virtual router, 1..=255.
    pub vrid: u8,
    /// 1..=254, or 255 for the owner of the addresses.
    pub priority: u8,
    /// Time between our advertisements. Version 2 demands the same one of all.
    pub interval: Interval,
    /// Whether a higher priority takes over from a lower one that is Active. An owner always does.
    pub preempt: bool,
    /// How long a higher priority waits before it does so.
    pub preempt_delay: Duration,
    /// The address that advertisements come from: the interface's primary one, under IPv6 its link-local one. Of two
    /// equal priorities the higher address wins.
    pub source: IpAddr,
    /// The virtual addresses, all of the family of `source`, 1 to 255 of them.
    pub addresses: Vec<IpAddr>,
    /// Version 2 only.
    pub authentication: Authentication,
    /// Version 3 over IPv4 only.
    pub checksum: ChecksumForm,
}

impl Config {
    /// Priority 100, one second, with preemption, nothing else special.
    pub fn new(version: Version, vrid: u8, source: IpAddr, addresses: Vec<IpAddr>) -> Config {
        Config {
            version,
            vrid,
            priority: DEFAULT_PRIORITY,
            interval: Interval::SECOND,
            preempt: true,
            preempt_delay: Duration::ZERO,
            source,
            addresses,
            authentication: Authentication::None,
            checksum: ChecksumForm::default(),
        }
    }

    /// Whether a machine can be made of it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.priority == 0 {
            return Err(ConfigError::Priority);
        }
        self.advertisement(self.priority)
            .encode(self.source, crate::group_of(self.source))?;
        Ok(())
    }

    fn advertisement(&self, priority: u8) -> Advertisement {
        Advertisement {
            version: self.version,
            vrid: self.vrid,
            priority,
            interval: self.interval,
            addresses: self.addresses.clone(),
            authentication: self.authentication,
            checksum: self.checksum,
        }
    }
}

/// What is wrong with a [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// 0 is what a router says that gives up.
    #[error("priority 0 is not allowed: 1 to 254 are, and 255 for the owner of the addresses")]
    Priority,
    /// It could not be advertised.
    #[error(transparent)]
    Packet(#[from] crate::packet::EncodeError),
}

/// Where a virtual router stands (RFC 9568 section 6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It takes no part.
    Initialize,
    /// It listens to the Active one.
    Backup,
    /// It has the addresses.
    Active,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Initialize => "initialize",
            State::Backup => "backup",
            State::Active => "active",
        })
    }
}

/// What happens to a virtual router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// It shall take part.
    Startup,
    /// It shall not, any more.
    Shutdown,
    /// [`Machine::deadline`] has come. Too early is harmless.
    Timer,
    /// An advertisement has come that [`Advertisement::decode`] found good.
    Received {
        /// Its source address.
        from: IpAddr,
        /// The advertisement.
        advertisement: &'a Advertisement,
    },
    /// Give up being Active, stay Backup. Who has the higher priority and preempts will come back: lower one or the
    /// other first.
    Resign,
    /// Become Active at once, whoever is: another one of its sync group has.
    Takeover,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send an advertisement with this priority, which is 0 when it gives up: [`Machine::advertisement`].
    Send {
        /// The priority.
        priority: u8,
    },
    /// Take the addresses, then tell the network: gratuitous ARP (RFC 9568 section 6.4.1) or unsolicited neighbour
    /// advertisements (section 6.4.2).
    Take,
    /// Tell the network again whose the addresses are: another router was Active with them, too, and whoever it has told may
    /// believe it. It may come with each of that router's advertisements.
    Announce,
    /// Give the addresses back.
    Release,
    /// The state is another one.
    Changed {
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// The reason.
        why: Why,
    },
    /// A packet was not believed. It has changed nothing.
    Refused(Refusal),
    /// A packet was believed whose address list is not ours: somebody should compare the configurations.
    OtherAddresses,
}

/// Why a state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// [`Event::Startup`].
    Started,
    /// [`Event::Shutdown`].
    Stopped,
    /// It owns the addresses.
    Owner,
    /// Nobody was heard for the down interval.
    Silence,
    /// The Active one gave up.
    GivenUp,
    /// Its priority is higher than that of the one which is Active.
    Preempts,
    /// One with a higher priority, or an equal one and a higher address, is Active.
    Higher {
        /// Who.
        from: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// [`Event::Resign`].
    Resigned,
    /// [`Event::Takeover`].
    Group,
    /// Its timer was not served for longer than others wait.
    Slept(Duration),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Started => f.write_str("it was started"),
            Why::Stopped => f.write_str("it was stopped"),
            Why::Owner => f.write_str("it owns the addresses"),
            Why::Silence => f.write_str("no active router was heard"),
            Why::GivenUp => f.write_str("the active router gave up"),
            Why::Preempts => f.write_str("its priority is higher than the active router's"),
            Why::Higher { from, priority } => {
                write!(f, "{from} is active with priority {priority}")
            }
            Why::Resigned => f.write_str("it resigned"),
            Why::Group => f.write_str("its sync group became active"),
            Why::Slept(time) => write!(f, "it did not run for {:.3} s", time.as_secs_f64()),
        }
    }
}

/// Why an advertisement was not believed, after it was found well formed (RFC 9568 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Another version.
    #[error("it speaks the other version")]
    Version,
    /// Another virtual router.
    #[error("it is about another virtual router")]
    Vrid,
    /// It came from ourselves.
    #[error("it has our own address")]
    Own,
    /// We own the addresses, so nobody else can be Active with them.
    #[error("the addresses are our own")]
    Owner,
    /// Version 2: the password is another one.
    #[error("its authentication is another one")]
    Authentication,
    /// Version 2: the interval is another one.
    #[error("its interval is another one")]
    Interval,
    /// Version 2: the addresses are others, and the sender does not own them.
    #[error("its addresses are others")]
    Addresses,
}

/// One virtual router. See the module.
#[derive(Debug, Clone)]
pub struct Machine {
    config: Config,
    state: State,
    /// When the Active timer or the down timer fires.
    deadline: Option<Duration>,
    /// The interval of the one that is Active, which a Backup adopts.
    active_interval: Interval,
    /// When a lower priority was first heard that is to be preempted.
    lower_since: Option<Duration>,
    /// What a takeover will be for.
    reason: Why,
}

impl Machine {
    /// A virtual router that takes no part yet.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: Config) -> Result<Machine, ConfigError> {
        config.check()?;
        Ok(Machine {
            active_interval: config.interval,
            config,
            state: State::Initialize,
            deadline: None,
            lower_since: None,
            reason: Why::Silence,
        })
    }

    /// What it was made of; the priority may have been changed since.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When to call with [`Event::Timer`].
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// What a Backup will become Active for when its time comes, as things are.
    pub fn reason(&self) -> Why {
        self.reason
    }

    /// What to send for [`Action::Send`].
    pub fn advertisement(&self, priority: u8) -> Advertisement {
        self.config.advertisement(priority)
    }

    /// How long a lower priority waits longer than a higher one (RFC 9568 section 6.1).
    pub fn skew_time(&self) -> Duration {
        let unit = match self.config.version {
            // RFC 3768 section 6.1: a second, whatever the interval.
            Version::V2 => Interval::SECOND,
            Version::V3 => self.active_interval,
        };
        unit.duration() * (256 - u32::from(self.config.priority)) / 256
    }

    /// How long a Backup hears nothing before it takes over (RFC 9568 section 6.1).
    pub fn down_interval(&self) -> Duration {
        self.active_interval.duration() * 3 + self.skew_time()
    }

    /// Changes the priority, as tracking does. An Active stays so until it hears a higher one; a Backup waits by the new
    /// skew time from its next packet on.
    ///
    /// # Errors
    /// [`ConfigError::Priority`] for 0.
    pub fn set_priority(&mut self, priority: u8) -> Result<(), ConfigError> {
        if priority == 0 {
            return Err(ConfigError::Priority);
        }
        self.config.priority = priority;
        Ok(())
    }

    /// Changes whether it preempts, as for maintenance.
    pub fn set_preempt(&mut self, preempt: bool) {
        self.config.preempt = preempt;
        self.lower_since = None;
    }

    /// Changes how long a higher priority waits before it takes over.
    pub fn set_preempt_delay(&mut self, delay: Duration) {
        self.config.preempt_delay = delay;
    }

    /// Something happens at `now`, a time that never goes back. What is returned is to be done in its order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match (event, self.state) {
            (Event::Startup, State::Initialize) => self.start(now, &mut actions),
            (Event::Startup, State::Backup | State::Active) => {}
            (Event::Shutdown, State::Initialize) => {}
            (Event::Shutdown, State::Backup | State::Active) => {
                self.leave_active(&mut actions, true);
                self.deadline = None;
                self.enter(State::Initialize, Why::Stopped, &mut actions);
            }
            (Event::Resign, State::Active) => {
                self.leave_active(&mut actions, true);
                self.become_backup(now, self.config.interval, Why::Resigned, &mut actions);
            }
            (Event::Resign, State::Initialize | State::Backup) => {}
            (Event::Takeover, State::Backup) => self.become_active(now, Why::Group, &mut actions),
            (Event::Takeover, State::Initialize | State::Active) => {}
            (Event::Timer, _) => self.timer(now, &mut actions),
            (
                Event::Received {
                    from,
                    advertisement,
                },
                _,
            ) => self.received(now, from, advertisement, &mut actions),
        }
        actions
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.config.priority == OWNER {
            self.become_active(now, Why::Owner, actions);
        } else {
            self.become_backup(now, self.config.interval, Why::Started, actions);
        }
    }

    fn timer(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(late) = self.deadline.and_then(|due| now.checked_sub(due)) else {
            return;
        };
        match self.state {
            State::Initialize => {}
            State::Backup => self.become_active(now, self.reason, actions),
            State::Active => {
                // Others wait three intervals and up to one more.
                let patience = self.config.interval.duration() * 3;
                if late > patience && self.config.priority != OWNER {
                    self.leave_active(actions, false);
                    self.become_backup(now, self.config.interval, Why::Slept(late), actions);
                } else {
                    self.advertise(now, actions);
                }
            }
        }
    }

    fn received(
        &mut self,
        now: Duration,
        from: IpAddr,
        heard: &Advertisement,
        actions: &mut Vec<Action>,
    ) {
        if let Err(refusal) = self.believe(from, heard) {
            actions.push(Action::Refused(refusal));
            return;
        }
        if !self.has_our_addresses(heard) {
            actions.push(Action::OtherAddresses);
        }
        match self.state {
            State::Initialize => {}
            State::Backup if heard.priority == GIVES_UP => {
                self.lower_since = None;
                self.reason = Why::GivenUp;
                self.deadline = Some(now + self.skew_time());
            }
            State::Backup => {
                if heard.priority >= self.config.priority {
                    self.lower_since = None;
                    self.follow(now, heard);
                } else if !self.may_preempt(now) {
                    self.follow(now, heard);
                } else {
                    // It is not listened to: the down timer runs out.
                    self.reason = Why::Preempts;
                }
            }
            State::Active if heard.priority == GIVES_UP => {
                self.advertise(now, actions);
                actions.push(Action::Announce);
            }
            State::Active => {
                let higher = (heard.priority, from) > (self.config.priority, self.config.source);
                if higher {
                    let why = Why::Higher {
                        from,
                        priority: heard.priority,
                    };
                    // Whoever believes that the addresses are here would do so until he is told otherwise.
                    self.advertise(now, actions);
                    self.leave_active(actions, false);
                    self.become_backup(now, heard.interval, why, actions);
                } else {
                    // RFC 9568 section 6.4.3: so that the other one learns at once.
                    self.advertise(now, actions);
                    actions.push(Action::Announce);
                }
            }
        }
    }

    /// Whether a lower priority that is Active may be pushed aside by now.
    fn may_preempt(&mut self, now: Duration) -> bool {
        if !self.config.preempt {
            return false;
        }
        let since = *self.lower_since.get_or_insert(now);
        now - since >= self.config.preempt_delay
    }

    /// A Backup has heard the Active one.
    fn follow(&mut self, now: Duration, heard: &Advertisement) {
        self.active_interval = heard.interval;
        self.reason = Why::Silence;
        self.deadline = Some(now + self.down_interval());
    }

    fn believe(&self, from: IpAddr, heard: &Advertisement) -> Result<(), Refusal> {
        let config = &self.config;
        if heard.version != config.version {
            return Err(Refusal::Version);
        }
        if heard.vrid != config.vrid {
            return Err(Refusal::Vrid);
        }
        if from == config.source {
            return Err(Refusal::Own);
        }
        if config.priority == OWNER {
            return Err(Refusal::Owner);
        }
        if config.version == Version::V2 {
            if heard.authentication != config.authentication {
                return Err(Refusal::Authentication);
            }
            if heard.interval != config.interval {
                return Err(Refusal::Interval);
            }
            if heard.priority != OWNER && !self.has_our_addresses(heard) {
                return Err(Refusal::Addresses);
            }
        }
        Ok(())
    }

    /// In any order.
    fn has_our_addresses(&self, heard: &Advertisement) -> bool {
        let ours = &self.config.addresses;
        heard.addresses.len() == ours.len() && heard.addresses.iter().all(|it| ours.contains(it))
    }

    fn become_active(&mut self, now: Duration, why: Why, actions: &mut Vec<Action>) {
        self.lower_since = None;
        self.active_interval = self.config.interval;
        self.advertise(now, actions);
        actions.push(Action::Take);
        self.enter(State::Active, why, actions);
    }

    fn become_backup(
        &mut self,
        now: Duration,
        interval: Interval,
        why: Why,
        actions: &mut Vec<Action>,
    ) {
        self.lower_since = None;
        self.active_interval = interval;
        self.reason = Why::Silence;
        self.deadline = Some(now + self.down_interval());
        self.enter(State::Backup, why, actions);
    }

    fn leave_active(&mut self, actions: &mut Vec<Action>, gives_up: bool) {
        if self.state == State::Active {
            // First the addresses, so that nobody takes them while they are still here.
            actions.push(Action::Release);
            if gives_up {
                actions.push(Action::Send { priority: GIVES_UP });
            }
        }
    }

    fn advertise(&mut self, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::Send {
            priority: self.config.priority,
        });
        self.deadline = Some(now + self.config.interval.duration());
    }

    fn enter(&mut self, to: State, why: Why, actions: &mut Vec<Action>) {
        let from = std::mem::replace(&mut self.state, to);
        actions.push(Action::Changed { from, to, why });
    }
}

#[cfg(test)]
mod tests;
