//! What `ip -json` and `nft --json` say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use libilb::describe::Description;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Most servers whose way is looked at; more would take long and say little else.
const SERVERS: usize = 256;

/// The way to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It is an address of this node.
    Local,
    /// By an interface to a next hop.
    By {
        /// The interface.
        interface: String,
        /// Who is asked for the link-layer address: the gateway, or the server.
        next_hop: IpAddr,
    },
    /// There is none.
    None(String),
}

/// An interface as the kernel sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// What kind of virtual interface it is; empty for a real one.
    pub kind: String,
    /// The number of the XDP program on it.
    pub program: Option<u64>,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// By name; `None` if `ip` could not be asked.
    pub links: Option<BTreeMap<String, Link>>,
    /// By server address.
    pub ways: BTreeMap<IpAddr, Way>,
    /// Servers whose way was not looked at.
    pub more_servers: usize,
    /// State of each neighbour, such as `REACHABLE`.
    pub neighbours: BTreeMap<(String, IpAddr), String>,
    /// Destinations that nftables rewrites, as text; `None` if it could not be asked.
    pub rewrites: Option<Vec<String>>,
}

impl Network {
    /// Asks.
    pub fn ask(node: Option<&Description>) -> Network {
        let groups = node.map_or(&[][..], |node| &node.groups);
        let servers = groups.iter().flat_map(|group| &group.servers);
        let mut servers: Vec<IpAddr> = servers.map(|server| server.server.address).collect();
        servers.sort_unstable();
        servers.dedup();
        let more_servers = servers.len().saturating_sub(SERVERS);
        servers.truncate(SERVERS);
        Network {
            links: run("ip", &["-json", "-details", "link", "show"]).map(|all| links(&all)),
            ways: servers
                .into_iter()
                .map(|server| (server, way(server)))
                .collect(),
            more_servers,
            neighbours: run("ip", &["-json", "neigh", "show"])
                .map(|all| neighbours(&all))
                .unwrap_or_default(),
            rewrites: run("nft", &["--json", "list", "ruleset"]).map(|rules| rewrites(&rules)),
        }
    }
}

/// What a program says in JSON; nothing if it cannot be run or fails.
fn run<T: DeserializeOwned>(program: &str, words: &[&str]) -> Option<T> {
    let output = Command::new(program).args(words).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    serde_json::from_slice(&text).ok()
}

fn way(server: IpAddr) -> Way {
    let address = server.to_string();
    let output = Command::new("ip")
        .args(["-json", "route", "get", &address])
        .output();
    match output {
        Err(error) => Way::None(format!("ip cannot be run: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next().unwrap_or("no route");
            Way::None(line.trim_start_matches("RTNETLINK answers: ").to_string())
        }
        Ok(output) => serde_json::from_slice(&output.stdout)
            .ok()
            .and_then(|said: Value| route(server, &said))
            .unwrap_or_else(|| Way::None("ip was not understood".to_string())),
    }
}

/// Reads `ip -json route get`.
pub fn route(server: IpAddr, said: &Value) -> Option<Way> {
    let route = said.get(0)?;
    if route["type"] == "local" {
        return Some(Way::Local);
    }
    let gateway = route["gateway"].as_str().or(route["via"]["host"].as_str());
    Some(Way::By {
        interface: route["dev"].as_str()?.to_string(),
        next_hop: match gateway {
            Some(gateway) => gateway.parse().ok()?,
            None => server,
        },
    })
}

/// Reads `ip -json -details link show`.
pub fn links(said: &Value) -> BTreeMap<String, Link> {
    let all = said.as_array().into_iter().flatten();
    all.filter_map(|link| {
        Some((
            link["ifname"].as_str()?.to_string(),
            Link {
                kind: link["linkinfo"]["info_kind"]
                    .as_str()
                    .unwrap_or_default()
                    .to_string(),
                program: link["xdp"]["prog"]["id"].as_u64(),
            },
        ))
    })
    .collect()
}

/// Reads `ip -json neigh show`.
pub fn neighbours(said: &Value) -> BTreeMap<(String, IpAddr), String> {
    let all = said.as_array().into_iter().flatten();
    all.filter_map(|entry| {
        let interface = entry["dev"].as_str()?.to_string();
        let address = entry["dst"].as_str()?.parse().ok()?;
        let state = entry["state"].get(0)?.as_str()?.to_string();
        Some(((interface, address), state))
    })
    .collect()
}

/// Reads `nft --json list ruleset`: rules with dnat, redirect or tproxy, as their family, table and chain with what they hold.
pub fn rewrites(said: &Value) -> Vec<String> {
    let all = said["nftables"].as_array().into_iter().flatten();
    all.filter_map(|item| {
        let rule = item.get("rule")?;
        let expressions = rule["expr"].as_array()?;
        let rewriting = ["dnat", "redirect", "tproxy"];
        let kind = expressions
            .iter()
            .find_map(|e| rewriting.iter().find(|kind| e.get(**kind).is_some()))?;
        let word = |key: &str| rule[key].as_str().unwrap_or_default();
        Some(format!(
            "{} {} {}: {kind} {}",
            word("family"),
            word("table"),
            word("chain"),
            Value::from(expressions.clone())
        ))
    })
    .collect()
}
