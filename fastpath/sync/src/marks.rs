//! A set of entry numbers: what has to be told. One bit an entry, and one for each 64 words, so that a large set in which
//! little is marked is searched quickly. Marking twice is marking once, so that no burst of changes overflows it.

/// See the module's text.
#[derive(Debug, Default)]
pub struct Marks {
    words: Vec<u64>,
    /// A bit for each word that is not zero.
    summary: Vec<u64>,
    count: u32,
    /// Word that is looked at next: every mark has its turn.
    at: usize,
}

impl Marks {
    /// For numbers below `size`.
    pub fn new(size: u32) -> Marks {
        let words = (size as usize).div_ceil(64);
        Marks {
            words: vec![0; words],
            summary: vec![0; words.div_ceil(64)],
            count: 0,
            at: 0,
        }
    }

    /// Numbers that are marked.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Marks a number; one that there is not is left out.
    pub fn set(&mut self, number: u32) {
        let (word, bit) = (number as usize / 64, 1u64 << (number % 64));
        let Some(bits) = self.words.get_mut(word) else {
            return;
        };
        self.count += u32::from(*bits & bit == 0);
        *bits |= bit;
        self.summary[word / 64] |= 1 << (word % 64);
    }

    /// Marks all numbers below `end`.
    pub fn set_below(&mut self, end: u32) {
        let size = self.words.len() as u32 * 64;
        let end = end.min(size);
        for word in 0..end as usize / 64 {
            self.count += self.words[word].count_zeros();
            self.words[word] = u64::MAX;
            self.summary[word / 64] |= 1 << (word % 64);
        }
        (end - end % 64..end).for_each(|number| self.set(number));
        self.at = 0;
    }

    /// Takes one mark away, of the numbers behind the one before; None if there is none.
    pub fn take(&mut self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        loop {
            let group = self.at / 64;
            let rest = self
                .summary
                .get(group)
                .map_or(0, |bits| bits & (u64::MAX << (self.at % 64)));
            if rest == 0 {
                self.at = (group + 1) * 64;
                if self.at >= self.words.len() {
                    self.at = 0;
                }
                continue;
            }
            let word = group * 64 + rest.trailing_zeros() as usize;
            self.at = word;
            let bits = &mut self.words[word];
            let bit = bits.trailing_zeros();
            *bits &= *bits - 1;
            if *bits == 0 {
                self.summary[group] &= !(1 << (word % 64));
                self.at += 1;
                if self.at >= self.words.len() {
                    self.at = 0;
                }
            }
            self.count -= 1;
            return Some(word as u32 * 64 + bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_empty_set_and_numbers_that_there_are_not() {
        let mut none = Marks::new(0);
        none.set(0);
        assert_eq!((none.count(), none.take()), (0, None));
        let mut marks = Marks::new(100);
        marks.set(4096);
        assert_eq!(marks.take(), None);
        marks.set_below(100);
        assert_eq!(marks.count(), 100);
        let taken: Vec<u32> = std::iter::from_fn(|| marks.take()).collect();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn it_is_a_set_in_which_every_mark_has_its_turn(
            size in 1u32..20_000,
            steps in prop::collection::vec(prop_oneof![3 => (0u32..20_000).prop_map(Some), 2 => Just(None)], 0..300),
        ) {
            let (mut marks, mut model) = (Marks::new(size), BTreeSet::new());
            for step in steps {
                match step {
                    Some(number) if number < size => {
                        marks.set(number);
                        model.insert(number);
                    }
                    Some(_) => {}
                    None => match marks.take() {
                        Some(number) => prop_assert!(model.remove(&number)),
                        None => prop_assert!(model.is_empty()),
                    },
                }
                prop_assert_eq!(marks.count() as usize, model.len());
            }
            let rest: BTreeSet<u32> = std::iter::from_fn(|| marks.take()).collect();
            prop_assert_eq!(rest, model);
        }
    }
}
