//! `explain PROTOCOL SOURCE DESTINATION`: what the fast path would do with a packet, and why.

use libilb::connections::{Connection, OFFERED, protocol_word};
use libilb::explain::{self, Explanation, Origin, Outcome, Packet, Shared};
use libilb::vrrp::VrrpState;

use super::Lines;
use crate::cli::Explain;
use crate::error::Error;
use crate::table::{Style, Tone};

/// Reads a packet.
///
/// # Errors
/// Values that are wrong in themselves.
pub fn read(args: Explain) -> Result<Packet, Error> {
    let wrong = Error::from_command_line;
    let Some(destination) = &args.destination else {
        return Err(Error::Usage(
            "missing: <DESTINATION> ('lbadm help explain' explains it)".to_string(),
        ));
    };
    let packet = Packet::new(&args.protocol, &args.source, destination).map_err(wrong)?;
    let flags = args.flags.as_deref().map(explain::parse_flags).transpose();
    let word = protocol_word(packet.protocol);
    if args.flags.is_some() && word != "tcp" {
        return Err(Error::Usage(format!(
            "--flags is given, but packets of {word} have none: leave it out, or explain a tcp packet"
        )));
    }
    Ok(Packet {
        flags: flags.map_err(wrong)?,
        message: args.message,
        length: args.length,
        ttl: args.ttl,
        interface: args.interface,
        ..packet
    })
}

/// Writes `explain`: a line for each step on the packet's way.
pub fn render(packet: &Packet, said: &Explanation, style: Style) -> String {
    let mut lines = Lines::default();
    let protocol = protocol_word(packet.protocol);
    let flags = match protocol.as_str() {
        "tcp" => format!(" {}", explain::flags_text(packet.flags.unwrap_or(SYN))),
        _ => String::new(),
    };
    lines.add(
        "packet",
        format!(
            "{protocol}{flags} {} > {}, by generation {}",
            packet.source, packet.destination, said.generation
        ),
    );
    connection(&mut lines, said);
    rule(&mut lines, said);
    if let Some(claim) = &said.claim {
        lines.add("claim", kept(claim, said));
    }
    for server in &said.servers {
        let has = format!("{} open, {} in all", server.open, server.total);
        let text = match (&server.obstacle, server.weight) {
            (Some(obstacle), _) => format!("{} cannot: {obstacle}; {has}", server.server),
            (None, Some(weight)) => format!("{} can: weight {weight}; {has}", server.server),
            (None, None) => format!("{} can; {has}", server.server),
        };
        lines.add("candidate", text);
    }
    if let Some(server) = &said.server {
        let word = if said.from_server {
            "comes from"
        } else {
            "goes to"
        };
        lines.add(
            "server",
            format!("{word} {} at {}", server.server, server.end),
        );
    }
    if let Some(leaving) = &said.leaving {
        let neighbour = match &leaving.neighbour {
            Some(mac) => format!("to {mac}"),
            None => "to a neighbour that has to be asked for".to_string(),
        };
        lines.add(
            "leaves",
            format!(
                "{} {neighbour}, as {} {} > {}",
                leaving.interface, leaving.protocol, leaving.source, leaving.destination
            ),
        );
    }
    if let Some(shared) = &said.vrrp {
        let (tone, text) = whose(packet, shared);
        lines.add("vrrp", style.paint(tone, &text));
    }
    let (tone, outcome) = outcome(said);
    lines.add("outcome", style.paint(tone, &outcome));
    lines.text()
}

/// Who gets packets to an address that moves.
fn whose(packet: &Packet, shared: &Shared) -> (Tone, String) {
    let (address, name) = (packet.destination.address, &shared.name);
    let node = match shared.active_node.as_str() {
        "" => "another node",
        node => node,
    };
    match shared.state {
        VrrpState::Active => (
            Tone::Good,
            format!("{address} is with this node: instance {name} is active"),
        ),
        VrrpState::Backup => (
            Tone::Notice,
            format!(
                "{address} is with {node}, and so are such packets: instance {name} is a backup here"
            ),
        ),
        VrrpState::Disabled | VrrpState::Fault => (
            Tone::Notice,
            format!(
                "{address} is not with this node: instance {name} takes no part ({}); 'lbadm explain vrrp {name}'",
                shared.state
            ),
        ),
    }
}

/// What a TCP packet has when nothing else is said.
const SYN: u8 = 2;

fn connection(lines: &mut Lines, said: &Explanation) {
    let text = match (&said.connection, said.origin) {
        (Some(known), Origin::Known) => format!(
            "{} > {} is {}, idle for {} s",
            known.client,
            known.vip.map_or("?".to_string(), |vip| vip.to_string()),
            known.state,
            known.idle
        ),
        (Some(known), _) => format!(
            "{} is {}, but ends: the packet begins a new one",
            known.client, known.state
        ),
        (None, Origin::Begins) => "none: the packet begins one".to_string(),
        (None, Origin::Recovered) => {
            "none, but its rule remembers the server that it had".to_string()
        }
        (None, Origin::Known | Origin::None) => "none".to_string(),
    };
    lines.add("connection", text);
}

/// A client's claim, and what it is worth to this packet.
fn kept(claim: &Connection, said: &Explanation) -> String {
    let offered = match claim.state.as_str() {
        OFFERED => ", offered until a connection is past its first packets",
        _ => "",
    };
    let worth = match &said.server {
        Some(server) if server.server != claim.server => {
            "; it takes no new connections, so another is chosen"
        }
        _ => "",
    };
    format!(
        "{} is kept on {}{offered}, idle for {} s{worth}",
        claim.client, claim.server, claim.idle
    )
}

fn rule(lines: &mut Lines, said: &Explanation) {
    match &said.rule {
        Some(rule) => {
            let how = [&rule.topology, &rule.algorithm];
            let how: Vec<&str> = how.into_iter().map(String::as_str).collect();
            lines.add(
                "rule",
                format!("{} ({}; {})", rule.name, rule.vip, how.join(", ")),
            );
        }
        None => lines.add("rule", "none"),
    }
    for miss in &said.misses {
        if said
            .rule
            .as_ref()
            .is_some_and(|rule| rule.name == miss.rule && rule.vip == miss.vip)
        {
            continue;
        }
        let why = match &miss.obstacles[..] {
            [] => "another rule is more specific".to_string(),
            [one] => one.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        };
        lines.add("not", format!("{} ({}): {why}", miss.rule, miss.vip));
    }
}

fn outcome(said: &Explanation) -> (Tone, String) {
    match &said.outcome {
        Outcome::Transmit => (Tone::Good, "sent".to_string()),
        Outcome::Unresolved { next_hop } => (
            Tone::Notice,
            format!("waits until the neighbour {next_hop} has answered, then sent"),
        ),
        Outcome::Relay => (
            Tone::Notice,
            "sent on as it came to the other node, which may know its connection".to_string(),
        ),
        Outcome::Hold => (
            Tone::Notice,
            "waits for the first fragment of its packet".to_string(),
        ),
        Outcome::Kernel => (Tone::Notice, "left to the kernel, unchanged".to_string()),
        Outcome::Drop { reason, words } => (Tone::Bad, format!("dropped: {words} ({reason})")),
    }
}
