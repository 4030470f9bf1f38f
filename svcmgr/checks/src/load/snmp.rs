//! Figures of an SNMP agent (version 2c, RFC 3416): how busy a server is.
//!
//! Processors and interfaces have counters, of which two readings make a figure. An answer is one datagram, so whatever an
//! agent sends is bounded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use libilb::healthcheck::Figure;
use snmp2::{AsyncSession, Oid, Value};

use crate::random::Random;

/// UCD-SNMP-MIB ssCpuRawUser, Nice, System, Idle, Wait, Kernel, Interrupt, SoftIRQ, Steal: ticks in which processors did that.
/// (Kernel is part of System where both are there; guests are part of User.)
const CPU_RAW: [u32; 8] = [50, 51, 52, 53, 54, 56, 61, 64];
/// Where the last number goes.
const UCD_CPU: [u64; 9] = [1, 3, 6, 1, 4, 1, 2021, 11, 0];
/// The idle one among [`CPU_RAW`].
const IDLE: u32 = 53;
/// Waiting for disks, during which a processor is free to work.
const WAIT: u32 = 54;
/// HOST-RESOURCES-MIB hrProcessorLoad: percent over the last minute, a row for each processor.
const PROCESSOR_LOAD: &[u64] = &[1, 3, 6, 1, 2, 1, 25, 3, 3, 1, 2];
/// UCD-SNMP-MIB memTotalReal, memAvailReal, memBuffer, memCached.
const MEMORY: [u64; 4] = [5, 6, 14, 15];
/// IF-MIB ifType, ifHCInOctets, ifHCOutOctets, ifHighSpeed (in Mbit/s).
const INTERFACES: [&[u64]; 4] = [
    &[1, 3, 6, 1, 2, 1, 2, 2, 1, 3],
    &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 6],
    &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 10],
    &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15],
];
/// IANAifType softwareLoopback.
const LOOPBACK: u64 = 24;
/// Rows that are asked for at once: processors, or interfaces.
const ROWS: u32 = 64;

/// What was read before, for figures that take two readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Past {
    /// Nothing.
    #[default]
    None,
    /// Ticks of processors that were busy, and all.
    Cpu(u64, u64),
    /// Octets of interfaces in and out, and when.
    Network(BTreeMap<u64, (u64, u64)>, Instant),
}

/// Asks an agent for a figure: 0 is idle and 1 is full. None if this was the first of two readings, or the agent's counters
/// stood still, which they do for some seconds. The caller bounds the time.
///
/// # Errors
/// What went wrong, in words.
pub async fn ask(
    place: SocketAddr,
    community: &str,
    figure: &Figure,
    past: &mut Past,
    random: u64,
) -> Result<Option<f64>, String> {
    // Nobody who does not see the question can answer it.
    let first = i32::try_from(Random::new(random).any() >> 34).unwrap_or(1);
    let session = AsyncSession::new_v2c(place, community.as_bytes(), first).await;
    let mut agent = Agent(session.map_err(|error| format!("cannot ask {place}: {error}"))?);
    match figure {
        Figure::Cpu => {
            let ticks = agent.cpu().await?;
            if ticks.contains_key(&IDLE) {
                return Ok(cpu(&ticks, past));
            }
            let loads: Vec<u64> = agent
                .rows(&[PROCESSOR_LOAD])
                .await?
                .into_iter()
                .map(|row| row.value)
                .collect();
            match loads.len() {
                0 => Err("the agent says nothing of its processors".to_string()),
                count => Ok(Some(
                    loads.iter().sum::<u64>() as f64 / count as f64 / 100.0,
                )),
            }
        }
        Figure::Memory => agent.memory().await.map(Some),
        Figure::Network => {
            let rows = agent.rows(&INTERFACES).await?;
            network(&rows, past, Instant::now())
        }
        Figure::Value { oid, full } => {
            let oid: Vec<u64> = oid.iter().map(|part| u64::from(*part)).collect();
            let value = agent.get(&[oid]).await?.into_iter().next().flatten();
            let value = value.ok_or("the agent has no number there")?;
            Ok(Some(value as f64 / *full as f64))
        }
    }
}

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    column: usize,
    index: u64,
    value: u64,
}

struct Agent(AsyncSession);

impl Agent {
    /// Numbers at these places; none where there is no number.
    async fn get(&mut self, places: &[Vec<u64>]) -> Result<Vec<Option<u64>>, String> {
        let oids = places
            .iter()
            .map(|place| oid(place))
            .collect::<Result<Vec<_>, _>>()?;
        let oids: Vec<&Oid> = oids.iter().collect();
        let answer = self.0.get_many(&oids).await.map_err(words)?;
        let mut values = vec![None; places.len()];
        for (name, value) in answer.varbinds {
            if let Some(at) = oids.iter().position(|oid| **oid == name) {
                values[at] = number(&value);
            }
        }
        Ok(values)
    }

    /// Rows of columns, as many as fit into an answer.
    async fn rows(&mut self, columns: &[&[u64]]) -> Result<Vec<Row>, String> {
        let oids = columns
            .iter()
            .map(|column| oid(column))
            .collect::<Result<Vec<_>, _>>()?;
        let oids: Vec<&Oid> = oids.iter().collect();
        let answer = self.0.getbulk(&oids, 0, ROWS).await.map_err(words)?;
        let mut rows = Vec::new();
        for (name, value) in answer.varbinds {
            let Some(name) = name.iter().map(Iterator::collect::<Vec<u64>>) else {
                continue;
            };
            let Some((&index, place)) = name.split_last() else {
                continue;
            };
            let column = columns.iter().position(|column| *column == place);
            if let (Some(column), Some(value)) = (column, number(&value)) {
                rows.push(Row {
                    column,
                    index,
                    value,
                });
            }
        }
        Ok(rows)
    }

    /// Ticks of processors, by the last but one number of their places.
    async fn cpu(&mut self) -> Result<BTreeMap<u32, u64>, String> {
        let place = |last: &u32| {
            let mut place = UCD_CPU.to_vec();
            place.insert(8, u64::from(*last));
            place
        };
        let places: Vec<Vec<u64>> = CPU_RAW.iter().map(place).collect();
        let values = self.get(&places).await?;
        let both = CPU_RAW.into_iter().zip(values);
        Ok(both
            .filter_map(|(last, value)| Some((last, value?)))
            .collect())
    }

    /// The part of the memory that is neither free nor cache.
    async fn memory(&mut self) -> Result<f64, String> {
        let places: Vec<Vec<u64>> = MEMORY
            .iter()
            .map(|last| vec![1, 3, 6, 1, 4, 1, 2021, 4, *last, 0])
            .collect();
        match self.get(&places).await?[..] {
            [Some(total), Some(free), buffers, cached] if total > 0 => {
                let free = free + buffers.unwrap_or(0) + cached.unwrap_or(0);
                Ok(total.saturating_sub(free) as f64 / total as f64)
            }
            _ => Err("the agent says nothing of its memory".to_string()),
        }
    }
}

/// How busy processors were between two readings.
fn cpu(ticks: &BTreeMap<u32, u64>, past: &mut Past) -> Option<f64> {
    let all: u64 = ticks.values().sum();
    let free = [IDLE, WAIT]
        .iter()
        .filter_map(|kind| ticks.get(kind))
        .sum::<u64>();
    let now = (all - free, all);
    let Past::Cpu(busy, before) = std::mem::replace(past, Past::Cpu(now.0, now.1)) else {
        return None;
    };
    // An agent that was started anew counts from the beginning, or its 32 bits have overflowed.
    if now.1 <= before || now.0 < busy {
        return None;
    }
    Some((now.0 - busy) as f64 / (now.1 - before) as f64)
}

/// How busy the busiest interface was between two readings: of its speed, in its busier direction.
fn network(rows: &[Row], past: &mut Past, now: Instant) -> Result<Option<f64>, String> {
    let column = |column| -> BTreeMap<u64, u64> {
        let rows = rows.iter().filter(|row: &&Row| row.column == column);
        rows.map(|row| (row.index, row.value)).collect()
    };
    let [kinds, ins, outs, speeds] = [column(0), column(1), column(2), column(3)];
    let counters: BTreeMap<u64, (u64, u64)> = ins
        .iter()
        .filter(|(index, _)| kinds.get(index) != Some(&LOOPBACK))
        .filter_map(|(index, octets)| Some((*index, (*octets, *outs.get(index)?))))
        .collect();
    let with_speed = |index: &u64| speeds.get(index).copied().filter(|speed| *speed > 0);
    if !counters.keys().any(|index| with_speed(index).is_some()) {
        return Err("the agent knows no interface with a speed".to_string());
    }
    let Past::Network(before, then) = std::mem::replace(past, Past::Network(counters.clone(), now))
    else {
        return Ok(None);
    };
    let seconds = now.saturating_duration_since(then).as_secs_f64();
    let busy = |(index, (into, out)): (&u64, &(u64, u64))| {
        let (old_in, old_out) = before.get(index)?;
        let octets = into.checked_sub(*old_in)?.max(out.checked_sub(*old_out)?);
        Some(octets as f64 * 8.0 / (with_speed(index)? as f64 * 1e6 * seconds))
    };
    let busiest = counters.iter().filter_map(busy).reduce(f64::max);
    Ok(busiest.filter(|busy| busy.is_finite()))
}

fn oid(parts: &[u64]) -> Result<Oid<'static>, String> {
    Oid::from(parts).map_err(|_| "this is no object identifier".to_string())
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Counter32(number) | Value::Unsigned32(number) | Value::Timeticks(number) => {
            Some(u64::from(*number))
        }
        Value::Counter64(number) => Some(*number),
        // Load averages are texts.
        Value::OctetString(text) => std::str::from_utf8(text)
            .ok()?
            .trim()
            .parse::<f64>()
            .ok()
            .map(|n| n.max(0.0) as u64),
        _ => None,
    }
}

fn words(error: snmp2::Error) -> String {
    match error {
        snmp2::Error::CommunityMismatch => "the agent answered with another community".to_string(),
        snmp2::Error::Receive | snmp2::Error::Send => "no agent answers".to_string(),
        other => format!("the agent's answer makes no sense: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn two_readings_make_a_figure() {
        let ticks = |busy, idle, wait| BTreeMap::from([(50, busy), (IDLE, idle), (WAIT, wait)]);
        let mut past = Past::None;
        for (given, then) in [
            (ticks(100, 100, 0), None),
            (ticks(175, 120, 5), Some(0.75)),
            // They stand still.
            (ticks(175, 120, 5), None),
            (ticks(175, 220, 5), Some(0.0)),
            // The agent was started anew.
            (ticks(1, 1, 0), None),
            (ticks(2, 1, 0), Some(1.0)),
        ] {
            assert_eq!(cpu(&given, &mut past), then, "{given:?}");
        }
    }

    #[test]
    fn the_busiest_interface_counts() {
        let rows = |one: u64, two: u64| -> Vec<Row> {
            let row = |column, index, value| Row {
                column,
                index,
                value,
            };
            vec![
                row(0, 1, LOOPBACK),
                row(1, 1, 1 << 40),
                row(2, 1, one),
                row(3, 1, 10),
                row(0, 2, 6),
                row(1, 2, one),
                row(2, 2, two),
                row(3, 2, 100),
                // Without a speed.
                row(0, 3, 6),
                row(1, 3, two),
                row(2, 3, two),
                row(3, 3, 0),
            ]
        };
        let (mut past, now) = (Past::None, Instant::now());
        assert_eq!(network(&rows(0, 0), &mut past, now), Ok(None));
        // 10 and 50 Mbit/s of 100.
        let then = network(
            &rows(1_250_000, 6_250_000),
            &mut past,
            now + Duration::from_secs(1),
        );
        assert_eq!(then, Ok(Some(0.5)));
        assert_eq!(
            network(&rows(0, 0), &mut past, now + Duration::from_secs(2)),
            Ok(None)
        );
        assert!(network(&[], &mut past, now).unwrap_err().contains("speed"));
    }
}
