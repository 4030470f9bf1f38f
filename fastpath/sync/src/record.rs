//! What one end tells the other of one entry of its table.
//!
//! ```text
//!   connection  head(1) state(1) protocol(1) vip-index(1) place(8) client(4|16) client-port(2) vip-port(2)
//!               [nat-port(2) nat-index(1)] idle(2)
//!   claim       head(1) nat-index(1) place(8) client(4|16) idle(2)
//!   end         head(1) protocol(1) vip-index(1) place(8) client(4|16) client-port(2) vip-port(2)
//!   head        kind(4 bits: 1 connection, 2 claim, 3 end) | 0x10 IPv6 | 0x20 NAT
//! ```
//!
//! 22 octets for a connection of IPv4, 25 under NAT; 12 more for IPv6. Numbers of rules and servers are those of one node
//! only, so a *place* stands for both: a 64-bit hash of what a rule's and a server's meaning is, made by whoever has the
//! configuration. Times are the receiver's: a record says for how long there was no packet.

use std::net::IpAddr;

use crate::bytes::Reader;

/// Where in its life a connection is. Those of which only the first packets have been seen are not told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// TCP, SCTP: open.
    Established = 1,
    /// The client has closed.
    FinWait = 2,
    /// The server has closed.
    CloseWait = 3,
    /// Both have closed, the server first.
    LastAck = 4,
    /// Both have closed, the client first.
    TimeWait = 5,
    /// Reset by either end.
    Close = 6,
    /// Any other protocol.
    Flowing = 8,
}

impl State {
    /// All of them.
    pub const ALL: [State; 7] = [
        State::Established,
        State::FinWait,
        State::CloseWait,
        State::LastAck,
        State::TimeWait,
        State::Close,
        State::Flowing,
    ];

    fn from_number(number: u8) -> Option<State> {
        State::ALL.into_iter().find(|it| *it as u8 == number)
    }
}

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Where in its life it is.
    pub state: State,
    /// Protocol number.
    pub protocol: u8,
    /// Which of the rule's VIPs.
    pub vip_index: u8,
    /// Rule and server.
    pub place: u64,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port, or identifier.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// Under NAT, our port towards the server, and which of the rule's source addresses.
    pub nat: Option<(u16, u8)>,
    /// Seconds since its last packet; 65,535 for more.
    pub idle: u16,
}

/// A client's claim to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Rule and server.
    pub place: u64,
    /// The client's address, masked.
    pub client: IpAddr,
    /// Under NAT, which of the rule's source addresses.
    pub nat_index: u8,
    /// Seconds since it was renewed; 65,535 for more.
    pub idle: u16,
}

/// A connection that is over before its time: what it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// Protocol number.
    pub protocol: u8,
    /// Which of the rule's VIPs.
    pub vip_index: u8,
    /// Rule and server.
    pub place: u64,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port, or identifier.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
}

/// What is told of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// It is a connection.
    Connection(Connection),
    /// It is a claim.
    Claim(Claim),
    /// It was a connection.
    End(End),
}

/// Octets of the longest record.
pub const LONGEST: usize = 37;

const CONNECTION: u8 = 1;
const CLAIM: u8 = 2;
const END: u8 = 3;
const IPV6: u8 = 0x10;
const NAT: u8 = 0x20;

fn family(client: IpAddr) -> u8 {
    if client.is_ipv6() { IPV6 } else { 0 }
}

fn put_client(out: &mut Vec<u8>, client: IpAddr) {
    match client {
        IpAddr::V4(v4) => out.extend(v4.octets()),
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
}

impl Record {
    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Connection(it) => {
                let nat = if it.nat.is_some() { NAT } else { 0 };
                let head = CONNECTION | family(it.client) | nat;
                out.extend([head, it.state as u8, it.protocol, it.vip_index]);
                out.extend(it.place.to_be_bytes());
                put_client(out, it.client);
                out.extend(it.client_port.to_be_bytes());
                out.extend(it.vip_port.to_be_bytes());
                if let Some((port, index)) = it.nat {
                    out.extend(port.to_be_bytes());
                    out.push(index);
                }
                out.extend(it.idle.to_be_bytes());
            }
            Record::Claim(it) => {
                out.extend([CLAIM | family(it.client), it.nat_index]);
                out.extend(it.place.to_be_bytes());
                put_client(out, it.client);
                out.extend(it.idle.to_be_bytes());
            }
            Record::End(it) => {
                out.extend([END | family(it.client), it.protocol, it.vip_index]);
                out.extend(it.place.to_be_bytes());
                put_client(out, it.client);
                out.extend(it.client_port.to_be_bytes());
                out.extend(it.vip_port.to_be_bytes());
            }
        }
    }

    /// Takes one from the front of `reader`; None if there is none that we know.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Record> {
        let head = reader.u8()?;
        let (kind, flags) = (head & 0x0f, head & 0xf0);
        let allowed = if kind == CONNECTION { IPV6 | NAT } else { IPV6 };
        if flags & !allowed != 0 {
            return None;
        }
        let client = |reader: &mut Reader<'_>| -> Option<IpAddr> {
            Some(match flags & IPV6 {
                0 => reader.array::<4>()?.into(),
                _ => reader.array::<16>()?.into(),
            })
        };
        Some(match kind {
            CONNECTION => Record::Connection(Connection {
                state: State::from_number(reader.u8()?)?,
                protocol: reader.u8()?,
                vip_index: reader.u8()?,
                place: reader.u64()?,
                client: client(reader)?,
                client_port: reader.u16()?,
                vip_port: reader.u16()?,
                nat: match flags & NAT {
                    0 => None,
                    _ => Some((reader.u16()?, reader.u8()?)),
                },
                idle: reader.u16()?,
            }),
            CLAIM => Record::Claim(Claim {
                nat_index: reader.u8()?,
                place: reader.u64()?,
                client: client(reader)?,
                idle: reader.u16()?,
            }),
            END => Record::End(End {
                protocol: reader.u8()?,
                vip_index: reader.u8()?,
                place: reader.u64()?,
                client: client(reader)?,
                client_port: reader.u16()?,
                vip_port: reader.u16()?,
            }),
            _ => return None,
        })
    }
}

impl Connection {
    /// What its end is told by.
    pub fn end(&self) -> End {
        End {
            protocol: self.protocol,
            vip_index: self.vip_index,
            place: self.place,
            client: self.client,
            client_port: self.client_port,
            vip_port: self.vip_port,
        }
    }
}
