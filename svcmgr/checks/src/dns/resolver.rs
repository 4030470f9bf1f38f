//! Asks name servers what a name stands for (RFC 1034, RFC 1035): over UDP, and over TCP what does not fit. The name servers
//! do the rest; we remember nothing, and who asks is told how long the answer holds.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use libilb::healthcheck::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Answer, Entry, Record, Service};
use super::random_id;

/// Where the system says which name servers it has.
pub const SYSTEM: &str = "/etc/resolv.conf";
/// Name servers of the system that count, as for the C library.
const MOST_SERVERS: usize = 3;
/// How often each is asked.
const ROUNDS: usize = 2;
/// How long one may take over UDP, and over TCP.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_TCP: Duration = Duration::from_secs(4);
/// Longest answer over UDP: without EDNS it is 512 octets.
const MAX_DATAGRAM: usize = 4096;
/// Datagrams that are looked at until the answer is among them.
const MAX_STRANGERS: usize = 64;
/// Most records that are looked at: more than fit into 64 KiB.
const MAX_RECORDS: u16 = 4096;
/// Most hosts of a service that are looked up.
pub const MAX_HOSTS: usize = 64;
/// Longest chain of aliases.
const MAX_ALIASES: usize = 16;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Each once, in order.
    pub addresses: BTreeSet<IpAddr>,
    /// Seconds for which that holds.
    pub ttl: u32,
}

/// A host of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where.
    pub service: Service,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// What could not be learned, and why, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(String);

/// The name servers of the system. Without any it is one on this machine, as for the C library. Blocks.
pub fn system_servers(file: &Path) -> Vec<SocketAddr> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!("cannot read {}: {error}", file.display());
            String::new()
        }
    };
    let servers = read_servers(&text);
    match servers.is_empty() {
        true => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
        false => servers,
    }
}

/// The first lines `nameserver ADDRESS` of resolv.conf(5).
fn read_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver");
        let text = address.and_then(|_| words.next())?;
        match text.split_once('%') {
            None => Some(SocketAddr::new(text.parse().ok()?, 53)),
            Some((address, link)) => {
                let scope = link.parse().ok();
                let scope = scope.or_else(|| nix::net::if_::if_nametoindex(link).ok())?;
                let address: Ipv6Addr = address.parse().ok()?;
                Some(SocketAddrV6::new(address, 53, 0, scope).into())
            }
        }
    };
    text.lines()
        .filter_map(address)
        .take(MOST_SERVERS)
        .collect()
}

/// The addresses of a name, of the families that are wanted. Where the answer for one of them cannot be had, nothing is known.
///
/// # Errors
/// [`Unknown`], also for a name that does not exist or has no such addresses.
pub async fn addresses(
    servers: &[SocketAddr],
    name: &str,
    types: &[RecordType],
) -> Result<Addresses, Unknown> {
    let mut all = Addresses {
        addresses: BTreeSet::new(),
        ttl: u32::MAX,
    };
    for kind in types {
        let answer = ask(servers, name, *kind).await?;
        let found = chain(&answer.records, name);
        let new = found.iter().filter_map(|entry| entry.record.address());
        let before = all.addresses.len();
        all.addresses.extend(new);
        if all.addresses.len() > before {
            let least = found.iter().map(|entry| entry.ttl).min();
            all.ttl = all.ttl.min(least.unwrap_or(0));
        }
    }
    match all.addresses.is_empty() {
        true => Err(Unknown(format!("{name} has no addresses"))),
        false => Ok(all),
    }
}

/// The hosts of a service, of which those of the lowest priority count (RFC 2782), and for how long that holds.
///
/// # Errors
/// As [`addresses`]; a service that is expressly not offered counts as one that does not exist.
pub async fn services(
    servers: &[SocketAddr],
    name: &str,
    types: &[RecordType],
) -> Result<(Vec<Host>, u32), Unknown> {
    let answer = ask(servers, name, RecordType::Srv).await?;
    let found = chain(&answer.records, name);
    let mut ttl = found.iter().map(|entry| entry.ttl).min().unwrap_or(0);
    let all: BTreeSet<Service> = found
        .into_iter()
        .filter_map(|entry| match &entry.record {
            Record::Service(service) if service.target != "." && service.port != 0 => {
                Some(service.clone())
            }
            _ => None,
        })
        .collect();
    let first = all.first().map(|service| service.priority);
    let mut hosts = Vec::new();
    let mut unknown = None;
    let best = all.into_iter().filter(|s| Some(s.priority) == first);
    for service in best.take(MAX_HOSTS) {
        match addresses(servers, &service.target, types).await {
            Ok(found) => {
                ttl = ttl.min(found.ttl);
                let addresses = found.addresses;
                hosts.push(Host { service, addresses });
            }
            Err(error) => unknown = Some(error),
        }
    }
    match (hosts.is_empty(), unknown) {
        // As long as one of them cannot be asked for, who is gone is not known.
        (_, Some(error)) => Err(error),
        (true, None) => Err(Unknown(format!("{name} has no SRV records"))),
        (false, None) => Ok((hosts, ttl)),
    }
}

/// The records of a name, by way of its aliases; these among them.
fn chain<'a>(records: &'a [Entry], name: &str) -> Vec<&'a Entry> {
    let mut owners: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in records {
        owners.entry(&entry.owner).or_default().push(entry);
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let mut here = format!("{}.", bare.to_ascii_lowercase());
    let mut found = Vec::new();
    for _ in 0..MAX_ALIASES {
        let Some(own) = owners.remove(here.as_str()) else {
            break;
        };
        let alias = own.iter().find_map(|entry| match &entry.record {
            Record::Alias(target) => Some(target.to_ascii_lowercase()),
            _ => None,
        });
        found.extend(own);
        match alias {
            Some(target) => here = target,
            None => break,
        }
    }
    found
}

/// Asks one name server after the other until one says something of use.
async fn ask(servers: &[SocketAddr], name: &str, kind: RecordType) -> Result<Answer, Unknown> {
    let mut why = format!("{name}: there is no name server to ask");
    for _ in 0..ROUNDS {
        for server in servers {
            match ask_one(*server, name, kind).await {
                Ok(answer) if answer.code == 0 => return Ok(answer),
                Ok(answer) => {
                    let words = message::response_code(answer.code);
                    why = format!("{name}: {words} ({})", server.ip());
                    // That there is no such name all would say.
                    if answer.code == NXDOMAIN {
                        return Err(Unknown(why));
                    }
                }
                Err(error) => why = format!("{name}: name server {}: {error}", server.ip()),
            }
        }
    }
    Err(Unknown(why))
}

/// There is no such name.
const NXDOMAIN: u8 = 3;

async fn ask_one(server: SocketAddr, name: &str, kind: RecordType) -> Result<Answer, String> {
    let late = |_| "no answer in time".to_string();
    let question = message::question(random_id(), name, kind);
    let answer = timeout(PATIENCE, by_udp(server, &question)).await;
    let answer = answer.map_err(late)?.map_err(|error| error.to_string())?;
    if !answer.truncated {
        return Ok(answer);
    }
    let question = message::question(random_id(), name, kind);
    let answer = timeout(PATIENCE_TCP, by_tcp(server, &question)).await;
    answer.map_err(late)?.map_err(|error| error.to_string())
}

async fn by_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own for each question, which the system chooses at random.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    for _ in 0..MAX_STRANGERS {
        let length = socket.recv(&mut buffer).await?;
        // Who guesses does not count; the answer may still come.
        if let Ok(answer) = message::answer(&buffer[..length], question, MAX_RECORDS) {
            return answer.map_err(malformed);
        }
    }
    Err(std::io::Error::other("it answers what was not asked"))
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes()[..], question].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    match message::answer(&buffer, question, MAX_RECORDS) {
        Ok(answer) => answer.map_err(malformed),
        Err(message::NotOurs) => Err(std::io::Error::other("it answers what was not asked")),
    }
}

fn malformed(failure: crate::outcome::Failure) -> std::io::Error {
    std::io::Error::other(failure.words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_name_servers_are_read_as_resolv_conf_5_says() {
        for (text, expected) in [
            ("", &[][..]),
            ("# nameserver 192.0.2.1\nsearch example.com\n", &[]),
            ("nameserver 192.0.2.1\n", &["192.0.2.1:53"]),
            (
                "nameserver\t2001:db8::1\nnameserver 192.0.2.2 # two\n",
                &["[2001:db8::1]:53", "192.0.2.2:53"],
            ),
            ("nameserver fe80::1%7\n", &["[fe80::1%7]:53"]),
            ("nameserver fe80::1%no-such-link\nnameserver x\n", &[]),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
                &["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"],
            ),
        ] {
            let expected: Vec<SocketAddr> = expected.iter().map(|s| s.parse().unwrap()).collect();
            assert_eq!(read_servers(text), expected, "{text}");
        }
        let nobody = Path::new("/no/such/file");
        assert_eq!(system_servers(nobody), ["127.0.0.1:53".parse().unwrap()]);
    }

    fn entry(owner: &str, record: Record) -> Entry {
        let owner = owner.to_string();
        Entry {
            owner,
            ttl: 60,
            record,
        }
    }

    #[test]
    fn addresses_count_that_belong_to_the_name_by_its_aliases() {
        let address = |owner: &str, n: u8| entry(owner, Record::Address([192, 0, 2, n].into()));
        let alias = |owner: &str, target: &str| entry(owner, Record::Alias(target.to_string()));
        // (given, then): records in any order; the last octets of the addresses of www.example.com.
        for (records, expected) in [
            (vec![], &[][..]),
            (vec![address("www.example.com.", 1)], &[1]),
            // What was not asked for.
            (
                vec![
                    address("evil.example.com.", 9),
                    address("www.example.com.", 1),
                ],
                &[1],
            ),
            (
                vec![
                    address("b.example.com.", 2),
                    alias("a.example.com.", "B.example.com."),
                    alias("www.example.com.", "a.example.com."),
                    address("b.example.com.", 3),
                ],
                &[2, 3],
            ),
            // In a circle, and to nowhere.
            (
                vec![
                    alias("www.example.com.", "a.example.com."),
                    alias("a.example.com.", "www.example.com."),
                ],
                &[],
            ),
            (vec![alias("www.example.com.", "a.example.com.")], &[]),
        ] {
            let found = chain(&records, "WWW.example.com");
            let found: Vec<u8> = found
                .iter()
                .filter_map(|entry| match entry.record.address()? {
                    IpAddr::V4(v4) => Some(v4.octets()[3]),
                    IpAddr::V6(_) => None,
                })
                .collect();
            assert_eq!(found, expected, "{records:?}");
        }
    }
}
