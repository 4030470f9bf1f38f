//! Benchmarks: what the logic of a packet costs, and how many packets go through real rings, next to what users run
//! today. Nothing here decides whether a test passes; these machines are shared, so that ratios within one run count.

pub mod failover;
pub mod follow;
pub mod follow_rings;
pub mod generator;
pub mod health;
pub mod logic;
pub mod manager;
pub mod rings;
pub mod scale;

use std::io::Write as _;
use std::path::Path;

/// One figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Name in `target/bench.json`.
    pub name: String,
    /// The figure; the median where it was measured several times.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// All figures of a run, printed as they come.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Takes a figure down and prints it with what it means.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, meaning: &str) {
        println!("  {name:<28} {value:>10.3} {unit:<6} {meaning}");
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
        });
    }

    /// Writes the figures as a JSON list.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        writeln!(file, "[")?;
        for (n, Figure { name, value, unit }) in self.figures.iter().enumerate() {
            let comma = if n + 1 < self.figures.len() { "," } else { "" };
            writeln!(
                file,
                "  {{\"name\": \"{name}\", \"value\": {value:.4}, \"unit\": \"{unit}\"}}{comma}"
            )?;
        }
        writeln!(file, "]")
    }
}

/// The middle of some measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    assert!(
        !values.is_empty(),
        "a median needs at least one measurement"
    );
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
