//! Finding a candidate by a number below the sum of the weights: O(1) expected, O(log n) at worst, in memory that grows
//! with the number of candidates and not with the sum.
//!
//! The candidates stand in a row, each as wide as its weight. A guide table says for every power-of-two stretch of the
//! row which candidate it begins in; with at least as many stretches as candidates, a stretch has on average less than
//! two, and these are searched by halving.

/// See the module's text.
#[derive(Debug)]
pub struct Row {
    /// Where each candidate ends.
    ends: Box<[u64]>,
    /// Candidate at the beginning of each stretch, and the last candidate behind them.
    guide: Box<[u32]>,
    /// Log2 of a stretch.
    shift: u32,
}

impl Row {
    /// For these weights, at least one of which is not 0. Common factors are taken out.
    pub fn new(weights: impl Iterator<Item = u64> + Clone) -> Row {
        let factor = weights.clone().fold(0, gcd).max(1);
        let ends: Box<[u64]> = weights
            .scan(0, |sum, weight| {
                *sum += weight / factor;
                Some(*sum)
            })
            .collect();
        let total = ends.last().copied().unwrap_or(0).max(1);
        // Stretches as long as possible, but at least as many as candidates.
        let shift = (total / ends.len().max(1) as u64).max(1).ilog2();
        let stretches = ((total - 1) >> shift) + 1;
        let last = ends.len().saturating_sub(1) as u32;
        let mut at = 0;
        let guide = (0..stretches)
            .map(|stretch| {
                while ends[at as usize] <= stretch << shift {
                    at += 1;
                }
                at
            })
            .chain([last])
            .collect();
        Row { ends, guide, shift }
    }

    /// Sum of the weights, without their common factor.
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The candidate at this place, below [`Row::total`].
    #[inline]
    pub fn at(&self, place: u64) -> u32 {
        let stretch = (place >> self.shift) as usize;
        let (first, last) = (
            self.guide[stretch] as usize,
            self.guide[stretch + 1] as usize,
        );
        (first + self.ends[first..last].partition_point(|&end| end <= place)) as u32
    }

    /// The candidate for a hash.
    #[inline]
    pub fn draw(&self, hash: u64) -> u32 {
        self.at(((hash as u128 * self.total() as u128) >> 64) as u64)
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.ends) + size_of_val(&*self.guide)
    }
}

/// Greatest common divisor.
pub fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_walk_along_the_row_finds(
            weights in proptest::collection::vec(prop_oneof![0u64..4, 0u64..65536], 1..80),
            places in proptest::collection::vec(any::<u64>(), 50)
        ) {
            prop_assume!(weights.iter().sum::<u64>() > 0);
            let row = Row::new(weights.iter().copied());
            let factor = weights.iter().copied().fold(0, gcd);
            prop_assert_eq!(row.total() * factor, weights.iter().sum::<u64>());
            for place in places.into_iter().map(|p| p % row.total()).chain([0, row.total() - 1]) {
                let mut left = place * factor;
                let walked = weights.iter().position(|&weight| {
                    let here = left < weight;
                    left = left.saturating_sub(weight);
                    here
                });
                prop_assert_eq!(row.at(place) as usize, walked.unwrap());
            }
        }
    }

    #[test]
    fn memory_grows_with_servers_not_with_weights() {
        for n in [1, 10, 1000, 100_000] {
            let light = Row::new((0..n).map(|i| 1 + i % 2));
            let heavy = Row::new((0..n).map(|i| 65_535 - i % 2));
            for row in [light, heavy] {
                assert!(
                    row.bytes() as u64 <= 16 * n + 32,
                    "{} bytes for {n}",
                    row.bytes()
                );
            }
        }
    }
}
