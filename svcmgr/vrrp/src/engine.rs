//! The loop that drives all instances, on a thread of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libilb::vrrp::{Probe, VrrpInstance, VrrpState, VrrpStatus};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use vrrp_rs::{Event, State};

use crate::holder::Holder;
use crate::interfaces::{self, Interface};
use crate::notify::{Notice, Notifier};
use crate::router::{Received, Router, parts};
use crate::track::{Finding, Probes, Verdict, World};
use crate::{News, Order, Report, Server, urgent};

/// Packets that may wait; more wait in the kernel, which drops what is too much.
const PACKETS: usize = 64;
/// When to try again what could not be done, as opening a socket with an address that is not usable yet.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the engine.
///
/// # Errors
/// If the system gives no thread, no runtime or no netlink socket.
pub fn spawn(server: Server) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let engine = {
        let _runtime = runtime.enter();
        Engine::new(server.news)?
    };
    let thread = std::thread::Builder::new().name("vrrp".to_owned());
    thread.spawn(move || {
        if let Err(error) = urgent::make_urgent() {
            tracing::info!(
                "VRRP runs with ordinary priority, no real-time priority is allowed: {error}"
            );
        }
        runtime.block_on(engine.run(server.orders));
    })?;
    Ok(())
}

struct Engine {
    news: mpsc::UnboundedSender<News>,
    holder: Holder,
    notifier: Notifier,
    probes: Probes,
    findings: mpsc::Receiver<(Probe, Finding)>,
    changes: mpsc::Receiver<()>,
    packets: mpsc::Receiver<Received>,
    packet_sender: mpsc::Sender<Received>,
    began: Instant,
    world: World,
    /// By key of their names.
    routers: BTreeMap<String, Router>,
    /// What others were told last.
    told: BTreeMap<String, (VrrpStatus, Option<IpAddr>)>,
    /// Instances with addresses that clients ask, by key of their names.
    outer: BTreeSet<String>,
    /// When to look at everything again.
    retry: Option<Duration>,
}

impl Engine {
    fn new(news: mpsc::UnboundedSender<News>) -> io::Result<Engine> {
        let (packet_sender, packets) = mpsc::channel(PACKETS);
        let (probes, findings) = Probes::new();
        Ok(Engine {
            news,
            holder: Holder::open()?,
            notifier: Notifier::start(),
            probes,
            findings,
            changes: interfaces::watch()?,
            packets,
            packet_sender,
            began: Instant::now(),
            world: World::default(),
            routers: BTreeMap::new(),
            told: BTreeMap::new(),
            outer: BTreeSet::new(),
            retry: None,
        })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.scan();
        let mut swept = false;
        loop {
            let deadlines = self.routers.values().filter_map(Router::deadline);
            let deadline = deadlines.chain(self.retry).min();
            let sleep = sleep_until((self.began + deadline.unwrap_or(Duration::MAX / 4)).into());
            tokio::select! {
                // What is due comes first: who slept must know it before it hears what happened meanwhile.
                biased;
                () = sleep, if deadline.is_some() => {}
                order = orders.recv() => match order {
                    Some(Order::Configure(instances)) => {
                        if !swept {
                            swept = true;
                            self.sweep(&instances).await;
                        }
                        self.configure(instances).await;
                    }
                    Some(Order::Fastpath(forwards)) => {
                        self.world.fastpath = forwards;
                        self.settle().await;
                    }
                    Some(Order::Pulse(answers)) => {
                        self.world.hangs = !answers;
                        self.settle().await;
                    }
                    Some(Order::Rules(rules)) => {
                        self.world.rules = rules;
                        self.settle().await;
                    }
                    Some(Order::Outer(names)) => self.outer = names,
                    Some(Order::Report(reply)) => {
                        // Who asked may have gone away.
                        let _ = reply.send(self.report());
                    }
                    Some(Order::Stop(reply)) => {
                        self.leave().await;
                        let _ = reply.send(());
                        return;
                    }
                    None => {
                        self.configure(Vec::new()).await;
                        return;
                    }
                },
                Some(()) = self.changes.recv() => {
                    self.scan();
                    self.settle().await;
                }
                Some((probe, finding)) = self.findings.recv() => {
                    self.world.findings.insert(probe, finding);
                    self.settle().await;
                }
                Some(received) = self.packets.recv() => {
                    self.tick().await;
                    self.receive(received).await;
                }
            }
            self.tick().await;
            self.synchronise().await;
            self.tell();
        }
    }

    /// Gives up everything, in order, and returns when nothing is here any more.
    async fn leave(&mut self) {
        let now = self.now();
        for router in self.routers.values_mut() {
            router.hand_over(now, &self.holder).await;
            router.rest(VrrpState::Disabled, "the manager stops");
        }
        self.tell();
        while self.routers.values().any(Router::lingers) {
            let deadline = self.routers.values().filter_map(Router::deadline).min();
            let sleep = sleep_until((self.began + deadline.unwrap_or_default()).into());
            tokio::select! {
                () = sleep => {}
                Some(received) = self.packets.recv() => self.receive(received).await,
            }
            let now = self.now();
            for router in self.routers.values_mut() {
                router.tick(now, &self.holder).await;
            }
        }
    }

    async fn receive(&mut self, (name, opened, packet): Received) {
        let now = self.now();
        if let Some(router) = self.routers.get_mut(&key(&name)) {
            router.receive(now, opened, &packet, &self.holder).await;
        }
    }

    /// Takes away what an earlier run has left behind: whoever is active now may have it.
    async fn sweep(&self, instances: &[Arc<VrrpInstance>]) {
        let index = |name: &str| self.world.interfaces.get(name).map(|it| it.index);
        let known: Vec<(u32, IpAddr)> = instances
            .iter()
            .filter_map(|instance| Some((index(&instance.interface)?, instance)))
            .flat_map(|(index, instance)| instance.addresses.iter().map(move |it| (index, *it)))
            .collect();
        match self.holder.devices.sweep().await {
            Ok(swept) => {
                for name in swept {
                    tracing::info!("interface {name} of an earlier run is taken away");
                }
            }
            Err(error) => tracing::error!("cannot take away interfaces of an earlier run: {error}"),
        }
        match self.holder.sweep(&known).await {
            Ok(swept) => {
                for address in swept {
                    tracing::info!("address {address} of an earlier run is taken away");
                }
            }
            Err(error) => tracing::error!("cannot take away addresses of an earlier run: {error}"),
        }
    }

    fn scan(&mut self) {
        match interfaces::scan() {
            Ok(interfaces) => self.world.interfaces = interfaces,
            Err(error) => tracing::error!("cannot read the interfaces: {error}"),
        }
    }

    async fn configure(&mut self, instances: Vec<Arc<VrrpInstance>>) {
        let wanted: BTreeMap<String, Arc<VrrpInstance>> = instances
            .into_iter()
            .map(|instance| (key(&instance.name), instance))
            .collect();
        let now = self.now();
        for (name, router) in &mut self.routers {
            match wanted.get(name) {
                Some(instance) if !router.is_another(instance) => {}
                Some(_) | None => router.stop(now, &self.holder).await,
            }
        }
        self.routers.retain(|name, _| wanted.contains_key(name));
        self.told.retain(|name, _| wanted.contains_key(name));
        for (name, instance) in wanted {
            match self.routers.get_mut(&name) {
                Some(router) => router.instance = instance,
                None => {
                    self.routers.insert(name, Router::new(instance));
                }
            }
        }
        let instances = self.routers.values().map(|router| &*router.instance);
        self.probes.follow(instances, &mut self.world.findings);
        self.settle().await;
    }

    /// Brings every instance to where it belongs as things are.
    async fn settle(&mut self) {
        let now = self.now();
        self.retry = None;
        let verdicts = self.judge();
        let fit = self
            .routers
            .iter()
            .filter_map(|(name, router)| match verdicts.get(name)? {
                Verdict::Fit(priority) => Some((&*router.instance, *priority)),
                Verdict::Unfit(_) => None,
            });
        let parts = parts(fit);
        let routers = self.routers.values();
        let shared: HashSet<IpAddr> = routers
            .flat_map(|router| router.instance.addresses.iter().copied())
            .collect();
        for (name, router) in &mut self.routers {
            let Some(verdict) = verdicts.get(name) else {
                router.hand_over(now, &self.holder).await;
                router.rest(VrrpState::Disabled, "enabled = no");
                continue;
            };
            let instance = router.instance.clone();
            let interface = self.world.interfaces.get(&instance.interface);
            let place = match (verdict, interface, parts.get(&instance.name)) {
                (Verdict::Unfit(why), ..) => Err(why.clone()),
                (Verdict::Fit(_), Some(interface), Some(part)) => {
                    source(&instance, interface, &shared).map(|source| (interface, source, *part))
                }
                (Verdict::Fit(_), ..) => Err("it has no interface".to_owned()),
            };
            let (interface, source, part) = match place {
                Ok(place) => place,
                Err(why) => {
                    router.stop(now, &self.holder).await;
                    router.rest(VrrpState::Fault, &why);
                    continue;
                }
            };
            if router.state().is_some() && !router.stands_on(interface, source) {
                router.stop(now, &self.holder).await;
            }
            if router.state().is_some() {
                router.adjust(part);
            } else {
                let packets = &self.packet_sender;
                let started = router.start(now, interface, source, part, &self.holder, packets);
                if let Err(error) = started.await {
                    let why = format!("cannot speak on {}: {error}", instance.interface);
                    router.rest(VrrpState::Fault, &why);
                    self.retry = Some(now + RETRY);
                    continue;
                }
            }
            router.status.priority = part.priority;
        }
    }

    /// What follows from what is tracked, for those that are enabled. One that is unfit makes its sync group so.
    fn judge(&self) -> BTreeMap<String, Verdict> {
        let enabled = self
            .routers
            .iter()
            .filter(|(_, router)| router.instance.enabled);
        let mut verdicts: BTreeMap<String, Verdict> = enabled
            .map(|(name, router)| (name.clone(), self.world.judge(&router.instance)))
            .collect();
        let mut unfit: BTreeMap<String, String> = BTreeMap::new();
        for (name, verdict) in &verdicts {
            if let (Verdict::Unfit(why), Some(group)) = (verdict, self.group_of(name)) {
                unfit
                    .entry(group)
                    .or_insert_with(|| format!("{name} of its sync group: {why}"));
            }
        }
        for (name, verdict) in &mut verdicts {
            if let (Verdict::Fit(_), Some(group)) = (&verdict, self.group_of(name))
                && let Some(why) = unfit.get(&group)
            {
                *verdict = Verdict::Unfit(why.clone());
            }
        }
        verdicts
    }

    fn group_of(&self, name: &str) -> Option<String> {
        let router = self.routers.get(name)?;
        let group = router.instance.sync_group.as_ref()?;
        Some(group.to_ascii_lowercase())
    }

    /// Does what is due, and looks again at what could not be done.
    async fn tick(&mut self) {
        let now = self.now();
        if self.retry.is_some_and(|retry| retry <= now) {
            self.scan();
            self.settle().await;
        }
        self.lead(now).await;
        for router in self.routers.values_mut() {
            router.tick(now, &self.holder).await;
        }
    }

    /// Sync groups: before one takes over that clients ask, those do that servers answer to.
    async fn lead(&mut self, now: Duration) {
        let due = self
            .routers
            .iter()
            .filter(|(_, router)| router.takes_over(now));
        let groups: BTreeSet<String> = due.filter_map(|(name, _)| self.group_of(name)).collect();
        if groups.is_empty() {
            return;
        }
        let members = self.routers.keys().filter(|name| {
            let group = self.group_of(name);
            !self.outer.contains(*name) && group.is_some_and(|group| groups.contains(&group))
        });
        let inner: Vec<String> = members.cloned().collect();
        for name in inner {
            if let Some(router) = self.routers.get_mut(&name) {
                router.handle(now, Event::Takeover, &self.holder).await;
            }
        }
    }

    /// Sync groups: who became active takes the others along, who ceased to be so does, too.
    async fn synchronise(&mut self) {
        let now = self.now();
        let mut orders: BTreeMap<String, State> = BTreeMap::new();
        for (name, router) in &self.routers {
            let Some(group) = self.group_of(name) else {
                continue;
            };
            let was = self.told.get(name).map(|(status, _)| status.state);
            let is = router.status.state;
            if was == Some(VrrpState::Active) && is != VrrpState::Active {
                // Giving up goes before taking over.
                orders.insert(group, State::Backup);
            } else if was != Some(VrrpState::Active) && is == VrrpState::Active {
                orders.entry(group).or_insert(State::Active);
            }
        }
        if orders.is_empty() {
            return;
        }
        let groups: BTreeMap<String, Option<String>> = self
            .routers
            .keys()
            .map(|name| (name.clone(), self.group_of(name)))
            .collect();
        for (name, router) in &mut self.routers {
            let group = groups.get(name).and_then(Option::as_ref);
            let event = match group.and_then(|group| orders.get(group)) {
                Some(State::Active) => Event::Takeover,
                Some(State::Backup) => Event::Resign,
                Some(State::Initialize) | None => continue,
            };
            router.handle(now, event, &self.holder).await;
        }
    }

    /// Tells the manager and programs what is different.
    fn tell(&mut self) {
        for (name, router) in &self.routers {
            let (status, other) = (&router.status, router.other);
            let told = self.told.get(name);
            if told.is_some_and(|(told, before)| told == status && *before == other) {
                continue;
            }
            if told.map(|(told, _)| told.state) != Some(status.state)
                && let Some(program) = &router.instance.notify
            {
                self.notifier.tell(Notice {
                    program: program.clone(),
                    name: router.instance.name.clone(),
                    state: status.state,
                    priority: status.priority,
                });
            }
            // At the end of the program there may be nobody any more.
            drop(self.news.send(News {
                name: router.instance.name.clone(),
                status: status.clone(),
                other,
            }));
            self.told.insert(name.clone(), (status.clone(), other));
        }
    }

    fn report(&self) -> Vec<Report> {
        self.routers
            .values()
            .map(|router| Report {
                name: router.instance.name.clone(),
                status: router.status.clone(),
                counters: router.counters.clone(),
            })
            .collect()
    }
}

/// Names are the same in any case.
fn key(name: &str) -> String {
    libilb::model::key(name)
}

/// Where an instance speaks from, or why it cannot. What any instance has is nobody's to speak from, unless he says so.
fn source(
    instance: &VrrpInstance,
    interface: &Interface,
    shared: &HashSet<IpAddr>,
) -> Result<IpAddr, String> {
    let name = &instance.interface;
    if let Some(source) = instance.source {
        return match interface.addresses.contains(&source) {
            true => Ok(source),
            false => Err(format!("source {source} is not an address of {name}")),
        };
    }
    let fits = |address: &&IpAddr| match address {
        IpAddr::V4(_) => !instance.is_v6(),
        IpAddr::V6(address) => instance.is_v6() && address.is_unicast_link_local(),
    };
    let mut own = interface.addresses.iter().filter(fits);
    own.find(|address| !shared.contains(address))
        .copied()
        .ok_or_else(|| match instance.is_v6() {
            true => format!("{name} has no link-local address to speak from"),
            false => format!("{name} has no IPv4 address to speak from; give one as source"),
        })
}

#[cfg(test)]
mod tests {
    use libilb::vrrp::VrrpSettings;

    use super::*;
    use crate::router::Part;

    fn instance(text: &str) -> VrrpInstance {
        let mut settings = VrrpSettings::default();
        settings.parse(text).unwrap();
        settings.check("x").unwrap()
    }

    #[test]
    fn an_instance_speaks_from_an_address_that_is_not_its_own_to_give() {
        let interface = Interface {
            addresses: [
                "192.0.2.80",
                "192.0.2.1",
                "2001:db8::1",
                "fe80::80",
                "fe80::1",
            ]
            .map(|it| it.parse().unwrap())
            .to_vec(),
            ..Interface::default()
        };
        for (text, expected) in [
            ("addresses=192.0.2.80", Ok("192.0.2.1")),
            ("addresses=192.0.2.80,source=192.0.2.80", Ok("192.0.2.80")),
            (
                "addresses=192.0.2.80,source=192.0.2.9",
                Err("source 192.0.2.9 is not an address of eth0"),
            ),
            ("addresses=fe80::80,2001:db8::80", Ok("fe80::1")),
            (
                "addresses=fe80::80,fe80::1",
                Err("eth0 has no link-local address to speak from"),
            ),
        ] {
            let instance = instance(&format!("interface=eth0,vrid=1,{text}"));
            let shared = instance.addresses.iter().copied().collect();
            let found = source(&instance, &interface, &shared);
            let expected = expected
                .map(|it| it.parse().unwrap())
                .map_err(str::to_owned);
            assert_eq!(found, expected, "given {text}");
        }
    }

    #[test]
    fn a_sync_group_takes_part_with_its_lowest_priority() {
        let a = VrrpInstance {
            name: "a".into(),
            ..instance("interface=e,vrid=1,addresses=192.0.2.1,sync-group=G,preempt-delay=2")
        };
        let b = VrrpInstance {
            name: "b".into(),
            ..instance("interface=e,vrid=2,addresses=192.0.2.2,sync-group=g,preempt=no")
        };
        let c = VrrpInstance {
            name: "c".into(),
            ..instance("interface=e,vrid=3,addresses=192.0.2.3")
        };
        let all = [(&a, 150), (&b, 90), (&c, 100)];
        let part = |priority, preempt, seconds| Part {
            priority,
            preempt,
            preempt_delay: Duration::from_secs(seconds),
        };
        let expected = [
            ("a".to_owned(), part(90, false, 2)),
            ("b".to_owned(), part(90, false, 2)),
            ("c".to_owned(), part(100, true, 0)),
        ];
        assert_eq!(parts(all.into_iter()), expected.into());
    }
}
