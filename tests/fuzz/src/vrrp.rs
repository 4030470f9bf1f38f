//! VRRP: any bytes as a packet, and a virtual router to which anything happens in any order.

use std::net::IpAddr;
use std::time::Duration;

use vrrp_rs::machine::GIVES_UP;
use vrrp_rs::{
    Action, Advertisement, Authentication, ChecksumForm, Config, Event, Interval, Machine, State,
    Version,
};

use crate::bytes::Bytes;

/// The first byte chooses: a packet as it is, one whose checksum is made right, or a virtual router's life.
pub fn vrrp(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    match choice % 3 {
        0 => read(rest, choice & 0x80 != 0),
        1 => {
            let v6 = choice & 0x80 != 0;
            let mut bytes = rest.to_vec();
            if let Some(field) = bytes.get_mut(6..8) {
                field.fill(0);
                let sum = bytes.chunks(2).fold(0u32, |sum, pair| {
                    sum + u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0))
                });
                let folded = (sum & 0xffff) + (sum >> 16);
                let folded = (folded & 0xffff) + (folded >> 16);
                bytes[6..8].copy_from_slice(&(!(folded as u16)).to_be_bytes());
            }
            read(&bytes, v6);
        }
        _ => live(&mut Bytes(rest)),
    }
}

fn ends(v6: bool) -> (IpAddr, IpAddr) {
    let source = match v6 {
        true => "fe80::2".parse(),
        false => "192.0.2.2".parse(),
    };
    let source = source.expect("an address");
    (source, vrrp_rs::group_of(source))
}

/// What is read can be written and is read again as the same.
fn read(bytes: &[u8], v6: bool) {
    let (from, to) = ends(v6);
    let Ok(it) = Advertisement::decode(bytes, from, to, 255) else {
        return;
    };
    assert!(it.vrid > 0 && it.addresses.len() == bytes[3] as usize);
    let written = it.encode(from, to).expect("what was read can be said");
    assert_eq!(Advertisement::decode(&written, from, to, 255), Ok(it));
    assert!(Advertisement::decode(bytes, from, to, 254).is_err());
}

fn live(bytes: &mut Bytes) {
    let v6 = bytes.once_in(2);
    let version = match !v6 && bytes.once_in(2) {
        true => Version::V2,
        false => Version::V3,
    };
    let (source, _) = ends(v6);
    let mut config = Config::new(version, 1, source, vec![source]);
    config.priority = bytes.byte().max(1);
    config.preempt = bytes.once_in(2);
    config.preempt_delay = Duration::from_millis(u64::from(bytes.byte()) * 10);
    if bytes.once_in(2) {
        config.interval = Interval::seconds(bytes.byte().clamp(1, 40)).expect("in range");
    }
    let mut machine = Machine::new(config).expect("a good configuration");
    let (mut now, mut holds) = (Duration::from_secs(1), false);
    while !bytes.is_over() {
        now += Duration::from_millis(u64::from(bytes.byte()) * 20);
        let heard = Advertisement {
            version: bytes.pick(&[version, version, version, Version::V2, Version::V3]),
            vrid: bytes.pick(&[1, 1, 1, 2]),
            priority: bytes.byte(),
            interval: Interval::centiseconds(u16::from(bytes.byte()).max(1)).expect("in range"),
            addresses: vec![source],
            authentication: Authentication::None,
            checksum: ChecksumForm::default(),
        };
        let from = match (v6, bytes.byte()) {
            (false, last) => IpAddr::from([192, 0, 2, last]),
            (true, last) => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(last)]),
        };
        let before = machine.state();
        let actions = match bytes.below(9) {
            0 => machine.handle(now, Event::Startup),
            1 if bytes.once_in(4) => machine.handle(now, Event::Shutdown),
            2 => machine.handle(now, Event::Resign),
            3 => {
                let set = machine.set_priority(heard.priority);
                assert_eq!(set.is_err(), heard.priority == 0);
                Vec::new()
            }
            4 | 5 => machine.handle(now, Event::Timer),
            6 => machine.handle(now, Event::Takeover),
            _ => machine.handle(
                now,
                Event::Received {
                    from,
                    advertisement: &heard,
                },
            ),
        };
        let mut changes = 0;
        for action in actions {
            match action {
                Action::Take => assert!(!std::mem::replace(&mut holds, true)),
                Action::Release => assert!(std::mem::replace(&mut holds, false)),
                Action::Announce => assert!(holds),
                Action::Send { priority } => {
                    // Only who has the addresses speaks, or who has just given them up.
                    let active = before == State::Active || machine.state() == State::Active;
                    assert!(active && (priority != GIVES_UP || !holds));
                }
                Action::Changed { from, to, .. } => {
                    assert_eq!((from, to), (before, machine.state()));
                    changes += 1;
                }
                Action::Refused(_) => assert_eq!(before, machine.state()),
                Action::OtherAddresses => {}
            }
        }
        assert_eq!(changes, usize::from(before != machine.state()));
        assert_eq!(holds, machine.state() == State::Active);
        assert_eq!(
            machine.deadline().is_none(),
            machine.state() == State::Initialize
        );
        // Whoever takes part has something to do within the time that the longest interval allows.
        let longest = Duration::from_secs(4 * 256);
        assert!(machine.deadline().is_none_or(|due| due <= now + longest));
    }
}
