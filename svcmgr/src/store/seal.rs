//! How many records a database has, and a checksum over all of them: a record that is lost, or is there as it was some time
//! ago, does not go unnoticed. Each change brings both up to date by the work of the change.

use super::codec::{Key, META_CHECKSUM, META_RECORDS, Records, Tree};

/// See the module. The two records in which the seal itself is stored are no part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seal {
    /// Records outside of `meta`.
    pub records: u64,
    /// Sum of the checksums of all records, in any order.
    pub checksum: u64,
}

impl Seal {
    /// The seal of these records.
    pub fn of(records: &Records) -> Seal {
        let mut seal = Seal::default();
        for (key, value) in records {
            seal.replace(key, None, Some(value));
        }
        seal
    }

    /// One record is another now, or is new, or gone.
    pub fn replace(&mut self, key: &Key, old: Option<&[u8]>, new: Option<&[u8]>) {
        if is_seal(key) {
            return;
        }
        let sum = |value: Option<&[u8]>| value.map_or(0, |value| checksum(key, value));
        self.checksum = self.checksum.wrapping_sub(sum(old)).wrapping_add(sum(new));
        if key.0 != Tree::Meta {
            self.records = self.records.wrapping_sub(u64::from(old.is_some()));
            self.records = self.records.wrapping_add(u64::from(new.is_some()));
        }
    }

    /// The records in which it is stored.
    pub fn stored(&self) -> [(Key, Vec<u8>); 2] {
        [(META_RECORDS, self.records), (META_CHECKSUM, self.checksum)].map(|(name, value)| {
            let key = (Tree::Meta, name.as_bytes().to_vec());
            (key, value.to_be_bytes().to_vec())
        })
    }
}

fn is_seal((tree, key): &Key) -> bool {
    *tree == Tree::Meta
        && [META_RECORDS, META_CHECKSUM]
            .iter()
            .any(|name| name.as_bytes() == key)
}

/// FNV-1a with 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>) over tree, key and value, each ended by its length.
fn checksum((tree, key): &Key, value: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut sum = OFFSET;
    for part in [tree.name().as_bytes(), key, value] {
        let length = (part.len() as u64).to_be_bytes();
        for byte in part.iter().chain(&length) {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (Tree::Rules, name.as_bytes().to_vec())
    }

    #[test]
    fn replacing_leads_to_the_same_seal_as_counting_anew() {
        let mut records = Records::from([
            (key("a"), b"1".to_vec()),
            (key("b"), b"2".to_vec()),
            ((Tree::Meta, b"generation".to_vec()), b"7".to_vec()),
        ]);
        let mut seal = Seal::of(&records);
        assert_eq!(seal.records, 2);
        for (name, value) in [("a", Some("x")), ("b", None), ("c", Some("2")), ("c", None)] {
            let new = value.map(|value| value.as_bytes().to_vec());
            let old = match new.clone() {
                Some(new) => records.insert(key(name), new),
                None => records.remove(&key(name)),
            };
            seal.replace(&key(name), old.as_deref(), new.as_deref());
            assert_eq!(seal, Seal::of(&records));
        }
        for (key, value) in seal.stored() {
            records.insert(key, value);
        }
        assert_eq!(seal, Seal::of(&records), "the seal is no part of itself");
    }

    #[test]
    fn two_records_that_swap_their_values_are_another_whole() {
        let of = |a: &str, b: &str| {
            Seal::of(&Records::from([(key("a"), a.into()), (key("b"), b.into())]))
        };
        assert_ne!(of("1", "2"), of("2", "1"));
        assert_ne!(of("1", "2"), of("1", "3"));
    }
}
