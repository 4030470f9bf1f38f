//! What files leave open and the user has to say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{self, Purpose};
use crate::error::ModelError;
use crate::vip::{Vip, VipSettings};

/// What the user says about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Source addresses of tunnels, which other balancers take from the route.
    pub proxy_src: Vec<IpAddr>,
    /// What the firewall marks stand for; the file has only their numbers.
    pub marks: BTreeMap<u32, Vec<Vip>>,
    /// The node whose lines of a keepalived.conf count, as `keepalived -i` takes it.
    pub config_id: Option<String>,
}

/// A firewall mark with the traffic that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The mark.
    pub number: u32,
    /// What the firewall gives it to.
    pub vips: Vec<Vip>,
}

const MARK: &str =
    "write MARK=PROTOCOL:ADDRESS:PORT, such as 1=tcp:192.0.2.80:80,tcp:192.0.2.80:443";

impl Mark {
    /// Reads `MARK=PROTOCOL:ADDRESS[:PORT],…`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] or [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<Mark, ModelError> {
        let refuse = |problem: &str| ModelError::invalid("fwmark", text, problem, MARK);
        let (number, rest) = text
            .split_once('=')
            .ok_or_else(|| refuse("names no traffic"))?;
        let number = super::ipvsadm::mark(number).ok_or_else(|| refuse("has no such mark"))?;
        let vips: Result<Vec<Vip>, ModelError> = rest
            .split(',')
            .map(|one| {
                let (protocol, place) = one
                    .split_once(':')
                    .ok_or_else(|| refuse("has no address"))?;
                let end = place.rfind(']').unwrap_or(0);
                let (vip, port) = match place[end..].find(':') {
                    Some(at) => (&place[..end + at], &place[end + at + 1..]),
                    None => (place, ""),
                };
                VipSettings {
                    vip: vip.to_string(),
                    port: port.to_string(),
                    protocol: Some(protocol.to_string()),
                }
                .check()
            })
            .collect();
        Ok(Mark {
            number,
            vips: vips?,
        })
    }
}

impl Options {
    /// Adds source addresses: one, a range, or several separated by commas.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn add_proxy_src(&mut self, text: &str) -> Result<(), ModelError> {
        for one in text.split(',') {
            self.proxy_src
                .extend(address::parse_range(Purpose::ProxySrc, one)?);
        }
        Ok(())
    }

    /// Adds what a mark stands for; several times for further traffic.
    pub fn add_mark(&mut self, mark: Mark) {
        self.marks.entry(mark.number).or_default().extend(mark.vips);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_for_traffic() {
        let shown = |text| {
            Mark::parse(text).map(|mark| {
                let vips: Vec<String> = mark.vips.iter().map(ToString::to_string).collect();
                (mark.number, vips.join("; "))
            })
        };
        for (text, number, vips) in [
            ("1=tcp:192.0.2.80:80", 1, "192.0.2.80 tcp port 80"),
            (
                "0x10=tcp:192.0.2.80:80,udp:[2001:db8::1]:any",
                16,
                "192.0.2.80 tcp port 80; 2001:db8::1 udp port any",
            ),
            ("7=any:192.0.2.80", 7, "192.0.2.80 any"),
        ] {
            assert_eq!(shown(text).unwrap(), (number, vips.to_string()), "{text}");
        }
        for text in [
            "1",
            "0=tcp:192.0.2.80:80",
            "x=tcp:192.0.2.80:80",
            "1=tcp",
            "1=tcp:a:80",
            "1=tcp:192.0.2.80",
        ] {
            let error = shown(text).unwrap_err().to_string();
            assert!(
                error.contains("write") || error.contains("use") || error.contains("port"),
                "{error}"
            );
        }
    }
}
