//! The express path: one more packet of a connection in full flow, which is what nearly all packets are.
//!
//! It does what the general path would do, for packets that need nothing special, straight from the frame's bytes: no
//! header view is built, no ids are looked up. Whatever is not plain (fragments, IP options, extension headers, SYN,
//! FIN and RST, an unresolved neighbour, a packet that does not fit, the last hop of its life) is left untouched for the
//! general path; a test holds both against each other.

use super::Path;
use crate::address::Addr;
use crate::checksum::Delta;
use crate::lane::{Exit, Lane};
use crate::network::PortIndex;
use crate::packet::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, field, get16, protocol, put16, tcp};
use crate::spec::Topology;
use crate::table::{Hot, prefetch};
use crate::view::View;

/// Bytes of a frame that the express path wants to see at least.
const V4_HEAD: usize = ETHERNET + field::IP4_HEADER + field::TCP_HEADER;
const V6_HEAD: usize = ETHERNET + field::IP6_HEADER + field::TCP_HEADER;
/// EtherType, version and header length of IPv4 without options, and of IPv6 (whose next four bits are traffic class).
const PLAIN_V4: u32 = (ETHERTYPE_IPV4 as u32) << 8 | 0x45;
const PLAIN_V6: u32 = (ETHERTYPE_IPV6 as u32) << 8 | 0x60;
const L4_V4: usize = ETHERNET + field::IP4_HEADER;
const L4_V6: usize = ETHERNET + field::IP6_HEADER;

/// What one look at a frame tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glance {
    /// Hash of its tuple.
    pub hash: u64,
    /// Entry that probably belongs to it.
    pub candidate: Option<u32>,
    /// Whether it may take the express path, and as what.
    pub shape: Shape,
}

/// Packets that the express path knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// TCP or UDP in IPv4 without options.
    V4,
    /// TCP or UDP right behind the IPv6 header.
    V6,
    /// None of these.
    Other,
}

impl Glance {
    /// Nothing known.
    pub const NOTHING: Glance = Glance {
        hash: 0,
        candidate: None,
        shape: Shape::Other,
    };
}

/// Addresses and ports of a packet, ports as they stand in the header: source above destination.
#[derive(Clone, Copy)]
struct Ends {
    src: Addr,
    dst: Addr,
    ports: u32,
}

#[inline(always)]
fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn get128(bytes: &[u8], at: usize) -> u128 {
    let mut value = [0; 16];
    value.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(value)
}

#[inline(always)]
fn ends4(head: &[u8; V4_HEAD]) -> Ends {
    let at = |at| Addr::v4(get32(head, ETHERNET + at).to_be_bytes());
    Ends {
        src: at(field::IP4_SRC),
        dst: at(field::IP4_DST),
        ports: get32(head, L4_V4),
    }
}

#[inline(always)]
fn ends6(head: &[u8; V6_HEAD]) -> Ends {
    Ends {
        src: Addr(get128(head, ETHERNET + field::IP6_SRC)),
        dst: Addr(get128(head, ETHERNET + field::IP6_DST)),
        ports: get32(head, L4_V6),
    }
}

/// Whether the transport header is whole and says nothing but "go on". `l4` is what lies behind the IP header.
#[inline(always)]
fn goes_on(head: &[u8], l4: usize, protocol: u8, room: usize) -> bool {
    match protocol {
        protocol::TCP => {
            let header = (head[l4 + field::TCP_OFFSET] >> 4) as usize * 4;
            let special = tcp::SYN | tcp::FIN | tcp::RST;
            header >= field::TCP_HEADER
                && header <= room
                && head[l4 + field::TCP_FLAGS] & special == 0
        }
        protocol::UDP => room >= field::UDP_HEADER,
        _ => false,
    }
}

impl Path {
    /// One look at a frame, and its hash if it is of a shape that the express path knows.
    #[inline(always)]
    pub(super) fn glance(&self, frame: &[u8], glance: &mut Glance) {
        glance.shape = Shape::Other;
        let Some(head) = frame.first_chunk::<V4_HEAD>() else {
            return;
        };
        // What was sent to a group or to all is not forwarded, whatever its IP header says (as in `packet::parse_into`).
        if head[0] & 1 != 0 {
            return;
        }
        // EtherType, version and header length in one comparison.
        let first = (get16(head, 12) as u32) << 8 | head[ETHERNET] as u32;
        if first == PLAIN_V4 {
            let total = get16(head, ETHERNET + field::IP4_TOTAL_LENGTH) as usize;
            let protocol = head[ETHERNET + field::IP4_PROTOCOL];
            let whole = get16(head, ETHERNET + field::IP4_FRAGMENT) & 0x3fff == 0;
            let room = total.wrapping_sub(field::IP4_HEADER);
            if whole
                && total >= field::IP4_HEADER
                && total + ETHERNET <= frame.len()
                && goes_on(head, L4_V4, protocol, room)
            {
                let ends = ends4(head);
                glance.hash = self.hash(ends, protocol);
                glance.shape = Shape::V4;
            }
        } else if first & !0xf == PLAIN_V6 {
            let Some(head) = frame.first_chunk::<V6_HEAD>() else {
                return;
            };
            let room = get16(head, ETHERNET + field::IP6_PAYLOAD_LENGTH) as usize;
            let protocol = head[ETHERNET + field::IP6_NEXT_HEADER];
            let ends = ends6(head);
            if room + L4_V6 <= frame.len()
                && goes_on(head, L4_V6, protocol, room)
                && !ends.src.is_v4()
                && !ends.dst.is_v4()
            {
                glance.hash = self.hash(ends, protocol);
                glance.shape = Shape::V6;
            }
        }
    }

    #[inline(always)]
    fn hash(&self, ends: Ends, protocol: u8) -> u64 {
        let Ends { src, dst, ports } = ends;
        self.hasher
            .flow(src, dst, (ports >> 16) as u16, ports as u16, protocol)
    }

    /// With many servers their lanes, and the counters behind them, are further misses: asks for these, too.
    #[inline(always)]
    pub(super) fn look_further(&self, view: &View, glances: &[Glance]) {
        let lane = |glance: &Glance| Some(self.table.hot(glance.candidate?)?.word().lane());
        for lane in glances.iter().filter_map(lane) {
            view.lanes().prefetch(lane);
        }
        for lane in glances.iter().filter_map(lane) {
            if let Some(traffic) = view
                .lane(lane)
                .and_then(|lane| lane.traffic.get(self.worker))
            {
                prefetch(traffic);
            }
        }
    }

    /// Forwards a packet, if it is one of a connection in full flow and needs nothing special; then it gives the
    /// interface. Otherwise the frame is as it was.
    #[inline(always)]
    pub(super) fn express(
        &mut self,
        view: &View,
        frame: &mut [u8],
        glance: &Glance,
        now: u32,
    ) -> Option<PortIndex> {
        let hot_at = glance.candidate?;
        match glance.shape {
            Shape::V4 => {
                let head = frame.first_chunk_mut::<V4_HEAD>()?;
                self.express4(view, head, hot_at, now)
            }
            Shape::V6 => {
                let head = frame.first_chunk_mut::<V6_HEAD>()?;
                self.express6(view, head, hot_at, now)
            }
            Shape::Other => None,
        }
    }

    #[inline(always)]
    fn express4(
        &mut self,
        view: &View,
        head: &mut [u8; V4_HEAD],
        index: u32,
        now: u32,
    ) -> Option<PortIndex> {
        let old = ends4(head);
        let protocol = head[ETHERNET + field::IP4_PROTOCOL];
        let worker = self.worker;
        let way = self.way(view, index, old, protocol)?;
        let length = get16(head, ETHERNET + field::IP4_TOTAL_LENGTH);
        if length > way.exit.mtu {
            return None;
        }
        if let Some(new) = way.new {
            let life = get16(head, ETHERNET + field::IP4_TTL);
            if life < 0x200 {
                return None;
            }
            let mut delta = Delta::NONE;
            delta.words(old.src.0 as u32, new.src.0 as u32);
            delta.words(old.dst.0 as u32, new.dst.0 as u32);
            let mut header = delta;
            header.word(life, life - 0x100);
            put16(head, ETHERNET + field::IP4_TTL, life - 0x100);
            let sum = get16(head, ETHERNET + field::IP4_CHECKSUM);
            put16(head, ETHERNET + field::IP4_CHECKSUM, header.apply(sum));
            let addresses = (new.src.0 as u32 as u64) << 32 | new.dst.0 as u32 as u64;
            head[ETHERNET + field::IP4_SRC..][..8].copy_from_slice(&addresses.to_be_bytes());
            head[L4_V4..][..4].copy_from_slice(&new.ports.to_be_bytes());
            delta.words(old.ports, new.ports);
            fix_transport_checksum(head, L4_V4, protocol, delta);
        }
        Some(way.leave(head, worker, length as usize, now))
    }

    #[inline(always)]
    fn express6(
        &mut self,
        view: &View,
        head: &mut [u8; V6_HEAD],
        index: u32,
        now: u32,
    ) -> Option<PortIndex> {
        let old = ends6(head);
        let protocol = head[ETHERNET + field::IP6_NEXT_HEADER];
        let worker = self.worker;
        let way = self.way(view, index, old, protocol)?;
        let payload = get16(head, ETHERNET + field::IP6_PAYLOAD_LENGTH) as usize;
        let length = payload + field::IP6_HEADER;
        if length > way.exit.mtu as usize {
            return None;
        }
        if let Some(new) = way.new {
            let life = head[ETHERNET + field::IP6_HOP_LIMIT];
            if life <= 1 {
                return None;
            }
            head[ETHERNET + field::IP6_HOP_LIMIT] = life - 1;
            let mut delta = Delta::NONE;
            delta.address(old.src, new.src);
            delta.address(old.dst, new.dst);
            delta.words(old.ports, new.ports);
            head[ETHERNET + field::IP6_SRC..][..16].copy_from_slice(&new.src.v6_bytes());
            head[ETHERNET + field::IP6_DST..][..16].copy_from_slice(&new.dst.v6_bytes());
            head[L4_V6..][..4].copy_from_slice(&new.ports.to_be_bytes());
            fix_transport_checksum(head, L4_V6, protocol, delta);
        }
        Some(way.leave(head, worker, length, now))
    }

    /// Where a packet goes and what it becomes, if its entry is in full flow and really its own.
    #[inline(always)]
    fn way<'p>(
        &'p mut self,
        view: &'p View,
        index: u32,
        old: Ends,
        protocol: u8,
    ) -> Option<Way<'p>> {
        let hot = self.table.hot(index)?;
        let word = hot.word();
        if !word.is_flowing() || hot.protocol() != protocol {
            return None;
        }
        let lane = view.lane(word.lane())?;
        let ports = hot.ports();
        let vip = lane.vip(ports.vip_index())?;
        let both = |source: u16, destination: u16| (source as u32) << 16 | destination as u32;
        let server_port = lane.port(vip, ports.vip());
        if ports.vip_and_client() == old.ports.rotate_left(16)
            && hot.client() == old.src
            && vip.address == old.dst
        {
            let new = match lane.topology {
                Topology::Dsr => None,
                Topology::HalfNat => Some(Ends {
                    src: old.src,
                    dst: lane.server,
                    ports: both(ports.client(), server_port),
                }),
                Topology::Nat => Some(Ends {
                    src: *lane.sources.get(ports.nat_index() as usize)?,
                    dst: lane.server,
                    ports: both(ports.nat(), server_port),
                }),
                Topology::Tun => return None,
            };
            let exit = &lane.exit;
            return Some(Way {
                hot,
                lane,
                exit,
                new,
            });
        }
        let (client, client_port) = match lane.topology {
            Topology::HalfNat => (hot.client(), ports.client()),
            Topology::Nat => (*lane.sources.get(ports.nat_index() as usize)?, ports.nat()),
            Topology::Dsr | Topology::Tun => return None,
        };
        if old.src != lane.server
            || old.dst != client
            || old.ports != both(server_port, client_port)
        {
            return None;
        }
        let new = Ends {
            src: vip.address,
            dst: hot.client(),
            ports: both(ports.vip(), ports.client()),
        };
        let exit = self.exits.towards(view, new.dst)?;
        let new = Some(new);
        Some(Way {
            hot,
            lane,
            exit,
            new,
        })
    }
}

/// Everything about a packet's way.
struct Way<'p> {
    hot: &'p Hot,
    lane: &'p Lane,
    exit: &'p Exit,
    /// What its addresses and ports become; None if they stay, and the packet's life with them.
    new: Option<Ends>,
}

impl Way<'_> {
    /// Addresses the frame, counts it, and notes that the connection lives.
    #[inline(always)]
    fn leave(&self, head: &mut [u8], worker: usize, length: usize, now: u32) -> PortIndex {
        head[..12].copy_from_slice(&self.exit.ethernet);
        self.hot.see(now);
        let Some(traffic) = self.lane.traffic.get(worker) else {
            return self.exit.port;
        };
        traffic.packets.add(1);
        traffic.bytes.add(length as u64);
        self.exit.port
    }
}

/// Both protocols' headers lie within the bytes that were asked for.
#[inline(always)]
fn fix_transport_checksum(head: &mut [u8], l4: usize, protocol: u8, delta: Delta) {
    if protocol == protocol::TCP {
        let sum = get16(head, l4 + field::TCP_CHECKSUM);
        put16(head, l4 + field::TCP_CHECKSUM, delta.apply(sum));
    } else {
        let sum = get16(head, l4 + field::UDP_CHECKSUM);
        put16(head, l4 + field::UDP_CHECKSUM, delta.apply_udp(sum));
    }
}

const EXITS: usize = 1024;

/// Ways to clients that were looked up lately, one memory a worker. What a route with several ways of equal cost leads
/// to depends on the flow and is not remembered.
pub(super) struct Exits {
    /// [`View::serial`] that the entries are true for.
    places: Box<[(u64, Addr, Exit); EXITS]>,
}

impl Default for Exits {
    fn default() -> Exits {
        Exits {
            places: Box::new([(0, Addr(0), Exit::default()); EXITS]),
        }
    }
}

impl Exits {
    #[inline(always)]
    fn towards(&mut self, view: &View, client: Addr) -> Option<&Exit> {
        let spread = (client.low() ^ client.high()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = &mut self.places[(spread >> 54) as usize % EXITS];
        if place.0 != view.serial() || place.1 != client {
            let hop = view.network.only_hop(client)?;
            *place = (view.serial(), client, Exit::new(&view.network, hop));
        }
        Some(&place.2)
    }
}
