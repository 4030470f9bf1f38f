//! Sets of transport ports.

use std::fmt;

use crate::abi::{self, Range};

/// A set of ports as sorted ranges that neither overlap nor touch.
///
/// In the kernel, up to four ranges stand in the entry of the address itself, and larger sets become a bitmap, so that
/// the cost of a packet does not grow with the number of ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// The empty set.
    pub const fn new() -> PortSet {
        PortSet { ranges: Vec::new() }
    }

    /// All ports, 0 to 65535.
    pub fn any() -> PortSet {
        PortSet {
            ranges: vec![(0, u16::MAX)],
        }
    }

    /// Adds the ports `first` to `last`, both included; none if `first > last`.
    pub fn insert(&mut self, first: u16, last: u16) {
        if first > last {
            return;
        }
        // Ranges that overlap or touch the new one are neighbours of each other and merge with it.
        let begin = self
            .ranges
            .partition_point(|&(_, end)| u32::from(end) + 1 < u32::from(first));
        let end = self
            .ranges
            .partition_point(|&(start, _)| u32::from(start) <= u32::from(last) + 1);
        let merged = match self.ranges.get(begin..end) {
            Some([]) | None => (first, last),
            Some(touched) => (
                first.min(touched[0].0),
                last.max(touched[touched.len() - 1].1),
            ),
        };
        self.ranges.splice(begin..end, [merged]);
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        let next = self.ranges.partition_point(|&(_, end)| end < port);
        self.ranges
            .get(next)
            .is_some_and(|&(start, _)| start <= port)
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether every port is in the set.
    pub fn is_any(&self) -> bool {
        self.ranges == [(0, u16::MAX)]
    }

    /// The ranges (first, last), both included, in ascending order.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.ranges
    }

    /// The ranges as they stand in a map entry; `None` if they are too many.
    pub(crate) fn inline(&self) -> Option<[Range; abi::INLINE_RANGES as usize]> {
        let mut inline = [Range::NONE; abi::INLINE_RANGES as usize];
        if self.ranges.len() > inline.len() {
            return None;
        }
        for (slot, &(first, last)) in inline.iter_mut().zip(&self.ranges) {
            *slot = Range { first, last };
        }
        Some(inline)
    }

    /// The set as the value of the map of bitmaps.
    pub(crate) fn to_bitmap(&self) -> Vec<u8> {
        let mut words = vec![0u64; abi::BITMAP_WORDS as usize];
        for &(first, last) in &self.ranges {
            for port in first..=last {
                words[usize::from(port >> 6)] |= 1 << (port & 63);
            }
        }
        words.into_iter().flat_map(u64::to_ne_bytes).collect()
    }

    /// The set that a value of the map of bitmaps holds.
    pub(crate) fn from_bitmap(bitmap: &[u8]) -> PortSet {
        let mut set = PortSet::new();
        let mut start = None;
        for port in 0..=u16::MAX {
            let word = abi::read_u64(bitmap, usize::from(port >> 6) * 8);
            let present = word >> (port & 63) & 1 == 1;
            match (present, start) {
                (true, None) => start = Some(port),
                (false, Some(first)) => {
                    set.ranges.push((first, port - 1));
                    start = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
        if let Some(first) = start {
            set.ranges.push((first, u16::MAX));
        }
        set
    }
}

impl FromIterator<(u16, u16)> for PortSet {
    fn from_iter<T: IntoIterator<Item = (u16, u16)>>(ranges: T) -> PortSet {
        let mut set = PortSet::new();
        for (first, last) in ranges {
            set.insert(first, last);
        }
        set
    }
}

/// `80,443,8000-8999`, or `any`, or `none`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("any");
        }
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u16, u16)]) -> PortSet {
        ranges.iter().copied().collect()
    }

    #[test]
    fn ranges_merge_when_they_overlap_or_touch() {
        let table: &[(&[(u16, u16)], &str)] = &[
            (&[], "none"),
            (&[(5, 4)], "none"),
            (&[(80, 80)], "80"),
            (&[(80, 80), (81, 90)], "80-90"),
            (&[(81, 90), (80, 80)], "80-90"),
            (&[(80, 80), (82, 90)], "80,82-90"),
            (&[(1, 10), (20, 30), (40, 50), (5, 45)], "1-50"),
            (&[(1, 10), (20, 30), (40, 50), (11, 19)], "1-30,40-50"),
            (&[(10, 20), (12, 15)], "10-20"),
            (&[(0, 0), (65535, 65535)], "0,65535"),
            (&[(0, 32767), (32768, 65535)], "any"),
        ];
        for (ranges, words) in table {
            assert_eq!(set(ranges).to_string(), *words, "{ranges:?}");
        }
        assert_eq!(set(&[(0, 65535)]), PortSet::any());
    }

    #[test]
    fn contains_agrees_with_the_bitmap() {
        for ranges in [
            &[][..],
            &[(0, 0)],
            &[(63, 64), (127, 127), (65535, 65535)],
            &[(0, 65535)],
            &[(1024, 65535)],
        ] {
            let set = set(ranges);
            let bitmap = set.to_bitmap();
            assert_eq!(bitmap.len(), abi::BITMAP_SIZE as usize);
            assert_eq!(PortSet::from_bitmap(&bitmap), set);
            for port in 0..=u16::MAX {
                let expected = ranges
                    .iter()
                    .any(|&(first, last)| (first..=last).contains(&port));
                assert_eq!(set.contains(port), expected, "{port} in {ranges:?}");
            }
        }
    }
}
