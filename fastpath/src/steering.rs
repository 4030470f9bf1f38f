//! What XDP has to do for this fast path: the program on its interfaces, its sockets in the map, the addresses of the
//! snapshot in force, and those that are closed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ilb_forwarder::hash::FoldBuild;
use ilb_forwarder::network::PortIndex;
use ilb_forwarder::spec::PortRange;
use ilb_forwarder::steering::Class;
use ilb_forwarder::{Side, Snapshot, SteeringEntry};
use ilb_node::control::XdpMode;
use ilb_node::settings;
use xdp_redirect::{Attached, Counters, LoadOptions, Lost, Mended, Mode, Redirect};

use crate::ports::Ports;

/// Addresses that can be steered, each counted once a protocol: enough for 100,000 servers behind HALF-NAT rules that
/// have TCP and UDP. The empty maps take 40 MiB.
const MAX_ADDRESSES: u32 = 1 << 18;

/// How an interface is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub name: String,
    /// The kernel's index of the interface.
    pub ifindex: u32,
    /// Where the program runs.
    pub mode: XdpMode,
    /// Why not in the driver; empty if it does.
    pub reason: String,
}

struct State {
    redirect: Redirect,
    attached: HashMap<PortIndex, Attachment>,
    /// What the maps steer by, if we know.
    followed: Option<Followed>,
    /// What the program had counted before this process, or when it was asked last.
    before: Counters,
    latest: Counters,
}

/// See the module's text. Shared by the control thread and the workers, which enter their sockets themselves.
pub struct Steering {
    state: Mutex<State>,
    mode: Mode,
}

impl Steering {
    /// Loads the program, with the maps that an earlier process left.
    ///
    /// # Errors
    /// See [`Redirect::load`].
    pub fn load(pin_dir: &Path, mode: settings::Mode) -> Result<Steering, xdp_redirect::Error> {
        let options = LoadOptions {
            pin_dir: pin_dir.into(),
            max_addresses: MAX_ADDRESSES,
        };
        let redirect = Redirect::load(&options)?;
        let before = redirect.counters()?;
        let state = State {
            redirect,
            attached: HashMap::new(),
            followed: None,
            before,
            latest: before,
        };
        Ok(Steering {
            state: Mutex::new(state),
            mode: match mode {
                settings::Mode::Auto => Mode::Auto,
                settings::Mode::Native => Mode::Native,
                settings::Mode::Generic => Mode::Generic,
            },
        })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steers by this snapshot. A packet sees the old entry of its address or the new one, never none between. After the
    /// first time, only what differs from the snapshot before is looked at in the maps.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn follow(&self, snapshot: &Snapshot) -> Result<(), xdp_redirect::Error> {
        let entries = snapshot.steering();
        let mut state = self.locked();
        let new = Followed::of(&entries);
        let changes = match state.followed.take() {
            Some(followed) => {
                let (old, new) = followed.difference(&new);
                let (old, new) = (in_words_of_xdp(&old)?, in_words_of_xdp(&new)?);
                state.redirect.replace(&old, &new)?
            }
            None => state.redirect.apply(&in_words_of_xdp(&entries)?)?,
        };
        state.followed = Some(new);
        tracing::debug!(?changes, "steering follows the snapshot");
        Ok(())
    }

    /// Steers by a snapshot that was made of the one followed now. The work is that of the difference.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn follow_change(
        &self,
        before: &Snapshot,
        snapshot: &Snapshot,
    ) -> Result<(), xdp_redirect::Error> {
        let (gone, come) = snapshot.steering_since(before);
        let mut state = self.locked();
        let Some(mut followed) = state.followed.take() else {
            drop(state);
            return self.follow(snapshot);
        };
        let (old, new) = followed.replace(&gone, &come);
        let (old, new) = (in_words_of_xdp(&old)?, in_words_of_xdp(&new)?);
        let changes = state.redirect.replace(&old, &new)?;
        state.followed = Some(followed);
        tracing::debug!(?changes, "steering follows the change");
        Ok(())
    }

    /// Closes these addresses and no others: what is sent to them and is not steered is dropped.
    ///
    /// # Errors
    /// Then no more are closed than before.
    pub fn close(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), xdp_redirect::Error> {
        let changes = self.locked().redirect.close(addresses)?;
        tracing::debug!(?changes, "closed addresses");
        Ok(())
    }

    /// The addresses that are closed, by us or by whoever was here before.
    ///
    /// # Errors
    /// See [`Redirect::closed`].
    pub fn closed(&self) -> Result<BTreeSet<IpAddr>, xdp_redirect::Error> {
        self.locked().redirect.closed()
    }

    /// Packets that were dropped because they were sent to a closed address, and their bytes from the IP header on, since this
    /// process began; what was known last if the kernel does not say.
    pub fn dropped(&self) -> (u64, u64) {
        let mut state = self.locked();
        match state.redirect.counters() {
            Ok(counters) => state.latest = counters,
            Err(error) => tracing::warn!("{error}"),
        }
        let State { before, latest, .. } = &*state;
        (
            latest.closed.saturating_sub(before.closed),
            latest.closed_bytes.saturating_sub(before.closed_bytes),
        )
    }

    /// Puts the program on an interface; does nothing if it is there already.
    ///
    /// # Errors
    /// See [`Redirect::attach`].
    pub fn attach(
        &self,
        port: PortIndex,
        name: &str,
        ifindex: u32,
    ) -> Result<(), xdp_redirect::Error> {
        let mut state = self.locked();
        if state
            .attached
            .get(&port)
            .is_some_and(|a| a.ifindex == ifindex)
        {
            return Ok(());
        }
        let Attached {
            ifindex,
            mode_used,
            reason,
            ..
        } = state.redirect.attach(name, self.mode)?;
        let attachment = Attachment {
            name: name.to_owned(),
            ifindex,
            mode: match mode_used {
                Mode::Native => XdpMode::Native,
                Mode::Auto | Mode::Generic => XdpMode::Generic,
            },
            reason: reason.unwrap_or_default(),
        };
        state.attached.insert(port, attachment);
        Ok(())
    }

    /// Takes the program off interfaces that the node settings do not name any more.
    ///
    /// # Errors
    /// See [`Redirect::detach_except`].
    pub fn detach_others(&self) -> Result<(), xdp_redirect::Error> {
        let mut state = self.locked();
        let ours: Vec<u32> = state.attached.values().map(|a| a.ifindex).collect();
        state.redirect.detach_except(&ours)?;
        Ok(())
    }

    /// An interface is gone, and its link with it.
    pub fn forget(&self, port: PortIndex) {
        let mut state = self.locked();
        if let Some(gone) = state.attached.remove(&port) {
            state.redirect.forget(gone.ifindex);
        }
    }

    /// Looks whether the program and its pins are where they were put, and puts them there again. Its sockets are still in
    /// their map then, and packets arrive at once.
    pub fn mend(&self) -> Vec<Mended> {
        let lost: Vec<(PortIndex, Attachment)> = {
            let state = self.locked();
            let attached = state.attached.iter();
            attached
                .filter(|(_, attachment)| state.redirect.is_taken_off(attachment.ifindex))
                .map(|(port, attachment)| (*port, attachment.clone()))
                .collect()
        };
        let mut mended = Vec::new();
        for (port, attachment) in lost {
            self.locked().attached.remove(&port);
            let outcome = self.attach(port, &attachment.name, attachment.ifindex);
            if outcome.is_err() {
                // To be tried again.
                let mut state = self.locked();
                state.attached.insert(port, attachment.clone());
            }
            mended.push(Mended {
                what: Lost::Program,
                item: attachment.name,
                outcome,
            });
        }
        mended.extend(self.locked().redirect.mend_pins());
        mended
    }

    /// How an interface is attached, if it is.
    pub fn attachment(&self, port: PortIndex) -> Option<Attachment> {
        self.locked().attached.get(&port).cloned()
    }

    /// Steers to the sockets of a worker. `ifindex` gives the kernel's index of an interface.
    ///
    /// # Errors
    /// See [`Redirect::set_socket`].
    pub fn enter(
        &self,
        ports: &Ports,
        ifindex: impl Fn(PortIndex) -> u32,
    ) -> Result<(), xdp_redirect::Error> {
        let mut state = self.locked();
        for port in ports.iter() {
            let plan = port.plan();
            let ifindex = ifindex(plan.interface);
            state.redirect.set_socket(ifindex, plan.queue, port.fd())?;
        }
        Ok(())
    }
}

fn in_words_of_xdp<'a>(
    entries: impl IntoIterator<Item = &'a SteeringEntry>,
) -> Result<xdp_redirect::Steering, xdp_redirect::Error> {
    let mut steering = xdp_redirect::Steering::new();
    for entry in entries {
        let (first, last) = (entry.ports.first, entry.ports.last);
        let protocol = match entry.class {
            Class::Protocol(number) => number,
            Class::Others => xdp_redirect::OTHER_PROTOCOLS,
            Class::Errors => xdp_redirect::ERRORS_ONLY,
        };
        match entry.side {
            Side::Destination => steering.add_destination(entry.address, protocol, first, last)?,
            Side::Source => steering.add_source(entry.address, protocol, first, last)?,
        }
    }
    Ok(steering)
}

/// Side, address and packets of an entry: what one entry of a map is for.
type Place = (Side, IpAddr, Class);

/// What the maps steer by: the ports of each place, in order, with how often rules have them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Followed(HashMap<Place, Vec<(PortRange, u32)>, FoldBuild>);

fn place(entry: &SteeringEntry) -> Place {
    (entry.side, entry.address, entry.class)
}

impl Followed {
    fn of(entries: &[SteeringEntry]) -> Followed {
        let mut followed = Followed::default();
        entries.iter().for_each(|entry| followed.add(entry));
        followed
    }

    fn add(&mut self, entry: &SteeringEntry) {
        let ports = self.0.entry(place(entry)).or_default();
        match ports.binary_search_by_key(&entry.ports, |(ports, _)| *ports) {
            Ok(at) => ports[at].1 += 1,
            Err(at) => ports.insert(at, (entry.ports, 1)),
        }
    }

    fn remove(&mut self, entry: &SteeringEntry) {
        let Some(ports) = self.0.get_mut(&place(entry)) else {
            return;
        };
        if let Ok(at) = ports.binary_search_by_key(&entry.ports, |(ports, _)| *ports) {
            ports[at].1 -= 1;
            ports.retain(|(_, times)| *times > 0);
        }
        if ports.is_empty() {
            self.0.remove(&place(entry));
        }
    }

    /// The entries of a place.
    fn at(&self, place: Place) -> impl Iterator<Item = SteeringEntry> {
        let (side, address, class) = place;
        let ports = self.0.get(&place).into_iter().flatten();
        ports.map(move |&(ports, _)| SteeringEntry {
            side,
            address,
            class,
            ports,
        })
    }

    /// Takes entries out and others in. Gives all entries, before and after, of the places that they are at: rules that
    /// stay may have other ports there.
    fn replace(
        &mut self,
        gone: &[SteeringEntry],
        come: &[SteeringEntry],
    ) -> (Vec<SteeringEntry>, Vec<SteeringEntry>) {
        let touched: HashSet<Place, FoldBuild> = gone.iter().chain(come).map(place).collect();
        let all = |of: &Followed| touched.iter().flat_map(|&place| of.at(place)).collect();
        let old = all(self);
        gone.iter().for_each(|entry| self.remove(entry));
        come.iter().for_each(|entry| self.add(entry));
        (old, all(self))
    }

    /// All entries, here and there, of the places where they are not the same.
    fn difference(&self, new: &Followed) -> (Vec<SteeringEntry>, Vec<SteeringEntry>) {
        let gone = self
            .0
            .iter()
            .filter(|(place, ports)| new.0.get(*place) != Some(*ports));
        let come = new
            .0
            .iter()
            .filter(|(place, ports)| self.0.get(*place) != Some(*ports));
        (
            gone.flat_map(|(&place, _)| self.at(place)).collect(),
            come.flat_map(|(&place, _)| new.at(place)).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Words = HashMap<(bool, IpAddr, u8), String>;

    /// Entries of the maps by key.
    fn words(steering: &xdp_redirect::Steering) -> Words {
        let destinations = steering
            .destinations()
            .map(|(a, p, set)| ((true, a, p), set));
        let sources = steering.sources().map(|(a, p, set)| ((false, a, p), set));
        let all = destinations.chain(sources);
        all.map(|(key, set)| (key, set.to_string())).collect()
    }

    prop_compose! {
        fn entry()(source in any::<bool>(), host in 0u8..6, class in 0usize..5, first in 0u16..50, width in 0u16..9) -> SteeringEntry {
            let classes = [Class::Protocol(6), Class::Protocol(17), Class::Protocol(1), Class::Others, Class::Errors];
            SteeringEntry {
                side: if source && class < 4 { Side::Source } else { Side::Destination },
                address: [192, 0, 2, host].into(),
                class: classes[class],
                ports: PortRange { first, last: first + width },
            }
        }
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_the_old_to_the_new(
            mut list in proptest::collection::vec(entry(), 0..40), cut in any::<prop::sample::Index>(),
            out in 0usize..4, other in proptest::collection::vec(entry(), 0..4),
        ) {
            let old = list.clone();
            let at = cut.index(list.len() + 1);
            let end = (at + out).min(list.len());
            let removed: Vec<_> = list.splice(at..end, other.clone()).collect();
            let new = Followed::of(&list);
            let mut followed = Followed::of(&old);
            let whole = followed.difference(&new);
            let part = followed.replace(&removed, &other);
            prop_assert_eq!(followed, new);

            for (gone, come) in [whole, part] {
                let mut maps = words(&in_words_of_xdp(&old).unwrap());
                let gone = words(&in_words_of_xdp(&gone).unwrap());
                let come = words(&in_words_of_xdp(&come).unwrap());
                for (key, set) in &gone {
                    prop_assert_eq!(maps.get(key), Some(set), "the old part is as it was");
                }
                maps.retain(|key, _| !gone.contains_key(key));
                maps.extend(come);
                prop_assert_eq!(maps, words(&in_words_of_xdp(&list).unwrap()));
            }
        }
    }

    #[test]
    fn one_more_server_touches_one_entry() {
        let server = |n: u32| SteeringEntry {
            side: Side::Source,
            address: (0x0a00_0000 + n).to_be_bytes().into(),
            class: Class::Protocol(6),
            ports: PortRange::single(80),
        };
        let old: Vec<_> = (0..1000).map(server).collect();
        let mut followed = Followed::of(&old);
        let (gone, come) = followed.replace(&[], &[server(5000)]);
        assert_eq!((gone.len(), come.len()), (0, 1));
        let (gone, come) = followed.replace(&[server(5000)], &[]);
        assert_eq!((gone.len(), come.len()), (1, 0));
        assert_eq!(followed, Followed::of(&old));
    }
}
