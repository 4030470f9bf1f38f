//! Frames that no honest sender would send, put on a wire byte by byte.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, send,
    socket,
};

use crate::lab::namespace::Namespace;

/// A socket that sends whole Ethernet frames out of one device.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    /// Hardware address of the device.
    pub address: [u8; 6],
}

impl Wire {
    /// Opens `device` of a namespace.
    #[track_caller]
    pub fn open(namespace: &Namespace, device: &str) -> Wire {
        namespace.enter(|| {
            let link = link(device);
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .expect("cannot open a packet socket");
            bind(socket.as_raw_fd(), &link).expect("cannot bind a packet socket");
            Wire {
                socket,
                address: link.addr().expect("an Ethernet device has an address"),
            }
        })
    }

    /// Sends one frame of 14 to 1514 bytes.
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).map(|_| ())
    }
}

/// The hardware address of a device in a namespace.
#[track_caller]
pub fn hardware_address(namespace: &Namespace, device: &str) -> [u8; 6] {
    namespace.enter(|| {
        link(device)
            .addr()
            .expect("an Ethernet device has an address")
    })
}

#[track_caller]
fn link(device: &str) -> LinkAddr {
    nix::ifaddrs::getifaddrs()
        .expect("cannot list interfaces")
        .filter(|interface| interface.interface_name == device)
        .filter_map(|interface| interface.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .and_then(|address| address.as_link_addr().copied())
        .unwrap_or_else(|| panic!("there is no interface {device}"))
}

/// A small pseudo random generator (xorshift64*), so that a failing run can be repeated from its seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 is taken for 1.
    pub fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }
}

/// Makes noise aimed at services of the balancer.
#[derive(Debug)]
pub struct Noise {
    random: Random,
    from: [u8; 6],
    to: [u8; 6],
    client: IpAddr,
    vips: Vec<(IpAddr, u16)>,
}

impl Noise {
    /// Frames from `from` to `to` (hardware addresses), from the IP address `client` to these VIPs and ports.
    pub fn new(
        seed: u64,
        from: [u8; 6],
        to: [u8; 6],
        client: IpAddr,
        vips: Vec<(IpAddr, u16)>,
    ) -> Noise {
        Noise {
            random: Random::new(seed),
            from,
            to,
            client,
            vips,
        }
    }

    /// The next frame: a sound packet for a VIP that is then truncated, cut, lied in, or has bytes flipped; or just
    /// random bytes.
    pub fn frame(&mut self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(1514);
        frame.extend_from_slice(&self.to);
        frame.extend_from_slice(&self.from);
        let kind = self.random.below(10);
        if kind == 0 {
            // Any EtherType, any bytes.
            let length = 2 + self.random.below(1400);
            for _ in 0..length {
                frame.push(self.random.number() as u8);
            }
            return frame;
        }
        let pick = self.random.below(self.vips.len());
        let (vip, port) = self.vips[pick];
        self.packet(&mut frame, vip, port);
        match kind {
            // Truncated anywhere behind the Ethernet header.
            1 | 2 => {
                let keep = 14 + self.random.below(frame.len() - 13);
                frame.truncate(keep);
            }
            // Bytes flipped anywhere behind the EtherType, mostly in the headers.
            3..=6 => {
                for _ in 0..1 + self.random.below(4) {
                    let reach = (frame.len() - 14).min(60);
                    let at = 14 + self.random.below(reach);
                    frame[at] ^= 1 << self.random.below(8);
                }
            }
            // A header of the network layer that lies about its lengths.
            7 => {
                let value = self.random.number();
                match vip {
                    IpAddr::V4(_) => {
                        frame[14] = 0x40 | (value as u8 & 0x0f);
                        frame[16..18].copy_from_slice(&(value as u16).to_be_bytes());
                    }
                    IpAddr::V6(_) => frame[18..20].copy_from_slice(&(value as u16).to_be_bytes()),
                }
            }
            // As it is: a lone segment in the middle of nothing, or a datagram.
            _ => {}
        }
        frame
    }

    fn packet(&mut self, frame: &mut Vec<u8>, vip: IpAddr, port: u16) {
        // TCP, UDP, ICMP of the family, SCTP, or what nobody has heard of.
        let v6 = vip.is_ipv6();
        let protocol =
            [6, 6, 6, 17, 17, if v6 { 58 } else { 1 }, 132, 0, 44, 253][self.random.below(10)];
        let payload = self.random.below(1200);
        let transport = 8 + self.random.below(40) + payload;
        match (vip, self.client) {
            (IpAddr::V4(vip), IpAddr::V4(client)) => {
                frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
                frame.extend_from_slice(&((20 + transport) as u16).to_be_bytes());
                frame.extend_from_slice(&(self.random.number() as u16).to_be_bytes());
                // Mostly whole, sometimes fragments of every kind.
                let fragment = if self.random.below(4) == 0 {
                    self.random.number() as u16
                } else {
                    0x4000
                };
                frame.extend_from_slice(&fragment.to_be_bytes());
                frame.extend_from_slice(&[64, protocol, 0, 0]);
                frame.extend_from_slice(&client.octets());
                frame.extend_from_slice(&vip.octets());
                let sum = checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(vip), _) => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend_from_slice(&(transport as u16).to_be_bytes());
                frame.extend_from_slice(&[protocol, 64]);
                let mut source = vip.octets();
                source[14] = self.random.number() as u8;
                frame.extend_from_slice(&source);
                frame.extend_from_slice(&vip.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => panic!("noise for an IPv4 VIP needs an IPv4 client"),
        }
        // Ports, sequence numbers, a plausible data offset, flags of every kind.
        frame.extend_from_slice(&(self.random.number() as u16).to_be_bytes());
        frame.extend_from_slice(&port.to_be_bytes());
        for _ in 4..transport {
            frame.push(self.random.number() as u8);
        }
    }
}

/// The Internet checksum (RFC 1071) over whole 16-bit words.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> Noise {
        let vips = vec![
            ("10.1.0.100".parse().expect("an address"), 80),
            ("fd01::100".parse().expect("an address"), 80),
        ];
        Noise::new(
            seed,
            [2; 6],
            [4; 6],
            "10.1.0.10".parse().expect("an address"),
            vips,
        )
    }

    #[test]
    fn noise_fits_the_wire_and_repeats_from_its_seed() {
        let (mut one, mut other) = (noise(7), noise(7));
        for number in 0..100_000 {
            let frame = one.frame();
            assert!(
                (14..=1514).contains(&frame.len()),
                "given seed 7, when frame {number} is made, then it has 14 to 1514 bytes, not {}",
                frame.len()
            );
            assert_eq!(
                frame,
                other.frame(),
                "given the same seed, then frame {number} is the same"
            );
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }
}
