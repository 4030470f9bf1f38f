//! Words of virtual and real servers: numbers, ports, addresses, and how packets are forwarded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::service::Method;
use super::tree::Statement;
use crate::address::Family;
use crate::port::PortRange;
use crate::rule::{Protocol, Tunnel, TunnelChecksum};
use crate::tunnel::GUE_PORT;
use crate::vip::MAX_VIPS;

/// What is wrong with a directive that has one value, if it has more. keepalived would not look at them.
pub(super) fn too_many(statement: &Statement) -> Option<String> {
    const SEVERAL: [&str; 13] = [
        "lb_kind",
        "lvs_method",
        "quorum_up",
        "quorum_down",
        "notify_up",
        "notify_down",
        "sorry_server",
        "sorry_server_lvs_method",
        "misc_path",
        "user",
        "payload",
        "require_reply",
        "weight",
    ];
    match statement.values() {
        [_, more, ..] if statement.block.is_none() && !SEVERAL.contains(&statement.key()) => Some(
            format!("'{more}' is too much: each directive has a line of its own"),
        ),
        _ => None,
    }
}

/// Reads the number behind a word.
pub(super) fn number(statement: &Statement, most: u32) -> Result<u32, String> {
    let value = statement.value().and_then(|text| text.parse().ok());
    value
        .filter(|&n| n <= most)
        .ok_or_else(|| format!("it is not a number from 0 to {most}"))
}

/// Reads a port: a number, or the name of a service; 0 stands for none.
pub(super) fn port_of(text: &str) -> Result<u16, String> {
    if let Ok(port) = text.parse() {
        return Ok(port);
    }
    let port = PortRange::parse("port", text, Protocol::Tcp).map_err(|e| e.to_string())?;
    match port.size() {
        1 => Ok(port.first),
        _ => Err(format!("'{text}' is not one port")),
    }
}

/// Reads `NAT`, `DR` or `TUN [type …]`.
pub(super) fn method(words: &[String]) -> Result<Method, String> {
    let mut words = words.iter().map(String::as_str);
    match words.next().map(str::to_ascii_uppercase).as_deref() {
        Some("NAT") => Ok(Method::Masquerade),
        Some("DR") => Ok(Method::Direct),
        Some("TUN") => {
            let (mut kind, mut port, mut checksum) = ("ipip", GUE_PORT, TunnelChecksum::None);
            while let Some(word) = words.next() {
                match word {
                    "type" => kind = words.next().ok_or("a type is missing: ipip, gue or gre")?,
                    "port" => {
                        let number = words.next().and_then(|text| text.parse().ok());
                        port = number.filter(|&p| p > 0).ok_or("it is not a port")?;
                    }
                    "nocsum" => checksum = TunnelChecksum::None,
                    "csum" => checksum = TunnelChecksum::Full,
                    "remcsum" => checksum = TunnelChecksum::Remote,
                    other => {
                        return Err(format!(
                            "'{other}' is not known for tunnels: type, port, nocsum, csum, remcsum"
                        ));
                    }
                }
            }
            match (kind, checksum) {
                ("ipip", _) => Ok(Method::Tunnel(Tunnel::Ipip)),
                ("gre", TunnelChecksum::Remote) => {
                    Err("gre has no remote checksum offload".to_string())
                }
                ("gre", sum) => Ok(Method::Tunnel(Tunnel::Gre {
                    checksum: sum == TunnelChecksum::Full,
                })),
                ("gue", checksum) => Ok(Method::Tunnel(Tunnel::Gue { port, checksum })),
                (other, _) => Err(format!(
                    "there is no tunnel type '{other}': ipip, gue or gre"
                )),
            }
        }
        _ => Err("packets are forwarded by NAT, DR or TUN".to_string()),
    }
}

/// Reads an address, `a.b.c.d-e`, `first-last` or `network/length`; at most as many as a rule may have.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let bad = || format!("'{text}' is not an address or a range of addresses");
    let (first, last): (IpAddr, IpAddr) = if let Some((base, len)) = text.split_once('/') {
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let bits = Family::of(base).bits();
        let len = len
            .parse::<u8>()
            .ok()
            .filter(|&len| len <= bits)
            .ok_or_else(bad)?;
        let host = u128::MAX
            .checked_shr(128 - u32::from(bits - len))
            .unwrap_or(0);
        let number = to_number(base) & !host;
        (from_number(number, base), from_number(number | host, base))
    } else if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().map_err(|_| bad())?;
        let last = match (last.parse::<IpAddr>(), first) {
            (Ok(last), _) => last,
            (Err(_), IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                let end = last.parse::<u8>().map_err(|_| bad())?;
                IpAddr::V4(Ipv4Addr::new(a, b, c, end))
            }
            (Err(_), IpAddr::V6(v6)) => {
                let end = u16::from_str_radix(last, 16).map_err(|_| bad())?;
                let mut groups = v6.segments();
                groups[7] = end;
                IpAddr::V6(Ipv6Addr::from(groups))
            }
        };
        (first, last)
    } else {
        let one: IpAddr = text.parse().map_err(|_| bad())?;
        (one, one)
    };
    let (from, to) = (to_number(first), to_number(last));
    if Family::of(first) != Family::of(last) || from > to {
        return Err(format!("'{text}' ends before it begins"));
    }
    if to - from >= MAX_VIPS as u128 {
        return Err(format!(
            "'{text}' has more addresses than a rule may have: {MAX_VIPS}"
        ));
    }
    Ok((from..=to).map(|n| from_number(n, first)).collect())
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of this number in the family of another.
fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_addresses() {
        for (text, count, first, last) in [
            ("192.0.2.1", 1, "192.0.2.1", "192.0.2.1"),
            ("192.0.2.3-10", 8, "192.0.2.3", "192.0.2.10"),
            ("192.0.2.250-192.0.3.5", 12, "192.0.2.250", "192.0.3.5"),
            ("192.0.2.9/29", 8, "192.0.2.8", "192.0.2.15"),
            ("192.0.2.9/32", 1, "192.0.2.9", "192.0.2.9"),
            ("2001:db8::2-9", 8, "2001:db8::2", "2001:db8::9"),
            ("2001:db8::2/127", 2, "2001:db8::2", "2001:db8::3"),
        ] {
            let all = addresses(text).unwrap();
            let ends = (all[0].to_string(), all[all.len() - 1].to_string());
            assert_eq!(
                (all.len(), ends),
                (count, (first.to_string(), last.to_string())),
                "{text}"
            );
        }
        for text in [
            "",
            "192.0.2.5-1",
            "192.0.2.1-300",
            "0.0.0.0/0",
            "::/0",
            "a",
            "192.0.2.1-2001:db8::1",
            "192.0.2.0/33",
        ] {
            assert!(addresses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn methods_have_their_options() {
        let read = |text: &str| {
            let words: Vec<String> = text.split(' ').map(String::from).collect();
            method(&words).map(|m| m.to_string())
        };
        for (text, expected) in [
            ("NAT", "type=HALF-NAT"),
            ("DR", "type=DSR"),
            ("TUN", "type=TUN,tunnel=ipip"),
            (
                "TUN type gue port 6081 remcsum",
                "type=TUN,tunnel=gue,gue-port=6081,tunnel-checksum=remote",
            ),
            (
                "TUN type gre csum",
                "type=TUN,tunnel=gre,tunnel-checksum=full",
            ),
        ] {
            assert_eq!(read(text).unwrap(), expected);
        }
        for text in [
            "",
            "FOO",
            "TUN type",
            "TUN type x",
            "TUN port 0",
            "TUN type gre remcsum",
            "TUN what",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
