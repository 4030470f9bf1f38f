//! What the forwarder would do with a frame, found out by having it do so with a table that changes nothing, with turns
//! that are only looked at and with counters that nobody reads.

use std::sync::Arc;

use super::express::Exits;
use super::{Path, Verdict, View};
use crate::changes::Changes;
use crate::counters::NOBODY;
use crate::network::PortIndex;
use crate::packet::Packet;
use crate::pool::Budget;
use crate::select::Mode;
use crate::table::{Direction, Identity, Limbo, Table};

/// Room in front of a frame for whatever may be put there.
const HEADROOM: usize = 128;

/// What a frame would become.
pub(crate) struct Rehearsed {
    pub verdict: Verdict,
    /// The frame as it leaves.
    pub frame: Vec<u8>,
    /// The connection that it belongs to, or would begin, and its direction in it.
    pub connection: Option<(Identity, Direction)>,
    /// Whether it begins with this frame, as far as the table knows.
    pub begins: bool,
    /// Whether a version of the pool knew its server.
    pub recovered: bool,
    /// Whether another node may know more of it.
    pub relayed: bool,
}

/// Notes that a rehearsal takes on the way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Notes {
    pub connection: Option<(Identity, Direction)>,
    pub begins: bool,
    pub recovered: bool,
    pub relayed: bool,
}

/// Takes a frame through the general path.
pub(crate) fn rehearse(
    view: &View,
    table: &Arc<Table>,
    frame: &[u8],
    ingress: PortIndex,
    now: u32,
) -> Rehearsed {
    let mut path = Path {
        worker: NOBODY,
        hasher: table.hasher(),
        table: Arc::new(Table::rehearsal(table)),
        limbo: Limbo::default(),
        exits: Exits::default(),
        counters: Arc::default(),
        changes: Arc::new(Changes::new(0)),
        budget: Budget::default(),
        now,
        mode: Mode::Preview,
        notes: Notes::default(),
    };
    let mut buf = vec![0; HEADROOM + frame.len() + HEADROOM];
    buf[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
    let mut packet = Packet::new(&mut buf, HEADROOM, frame.len(), ingress);
    path.general(view, &mut packet, now);
    Rehearsed {
        verdict: packet.verdict,
        frame: packet.frame().to_vec(),
        connection: path.notes.connection,
        begins: path.notes.begins,
        recovered: path.notes.recovered,
        relayed: path.notes.relayed,
    }
}
