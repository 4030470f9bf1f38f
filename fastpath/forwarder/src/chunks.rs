//! Lists whose copies share what they have in common: of two snapshots that differ in one rule, nearly everything is there
//! once, and making the second one does not touch what is the same.
//!
//! A [`Chunks`] is read only. It is made of a [`Draft`], which begins empty or as a copy of another list.

use std::collections::HashSet;
use std::ops::Index;
use std::sync::Arc;

/// Elements of a chunk, as a power of two.
const BITS: u32 = 6;
/// Elements of a chunk.
const SIZE: usize = 1 << BITS;

/// See the module's text.
#[derive(Debug)]
pub struct Chunks<T> {
    /// All but the last are full.
    chunks: Box<[Arc<[T]>]>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks {
            chunks: Box::default(),
            len: 0,
        }
    }
}

impl<T> Chunks<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at this place.
    #[inline(always)]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at >> BITS)?.get(at % SIZE)
    }

    /// All elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The first place and the elements of each chunk that differs, or may differ, from the one that `other` has there.
    pub fn changed<'a>(&'a self, other: &'a Chunks<T>) -> impl Iterator<Item = (usize, &'a [T])> {
        let places = self.chunks.iter().enumerate();
        let changed = places.filter(|(n, chunk)| match other.chunks.get(*n) {
            Some(other) => !Arc::ptr_eq(chunk, other),
            None => true,
        });
        changed.map(|(n, chunk)| (n * SIZE, &chunk[..]))
    }

    /// The elements of all chunks that `other` has nowhere.
    pub fn own<'a>(&'a self, other: &Chunks<T>) -> impl Iterator<Item = &'a T> {
        let address = |chunk: &Arc<[T]>| Arc::as_ptr(chunk).addr();
        let shared: HashSet<usize> = other.chunks.iter().map(address).collect();
        let own = self.chunks.iter();
        let own = own.filter(move |chunk| !shared.contains(&address(chunk)));
        own.flat_map(|chunk| chunk.iter())
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, at: usize) -> &T {
        &self.chunks[at >> BITS][at % SIZE]
    }
}

impl<'a, T> IntoIterator for &'a Chunks<T> {
    type Item = &'a T;
    type IntoIter = Box<dyn Iterator<Item = &'a T> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<T: Clone> FromIterator<T> for Chunks<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Chunks<T> {
        let mut draft = Draft::default();
        elements.into_iter().for_each(|element| draft.push(element));
        draft.finish()
    }
}

/// A chunk in the making: that of another list, or elements of its own.
#[derive(Debug)]
struct Part<T> {
    shared: Option<Arc<[T]>>,
    own: Vec<T>,
}

impl<T> Part<T> {
    fn elements(&self) -> &[T] {
        self.shared.as_deref().unwrap_or(&self.own)
    }
}

/// A list in the making.
#[derive(Debug)]
pub(crate) struct Draft<T> {
    /// All but the last are full.
    parts: Vec<Part<T>>,
    len: usize,
}

impl<T> Default for Draft<T> {
    fn default() -> Draft<T> {
        Draft {
            parts: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Draft<T> {
    /// A copy of a list.
    pub fn of(list: &Chunks<T>) -> Draft<T> {
        Draft {
            parts: list
                .chunks
                .iter()
                .map(|chunk| Part {
                    shared: Some(Arc::clone(chunk)),
                    own: Vec::new(),
                })
                .collect(),
            len: list.len,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The list.
    pub fn finish(self) -> Chunks<T> {
        let chunk = |part: Part<T>| part.shared.unwrap_or_else(|| Arc::from(part.own));
        Chunks {
            chunks: self.parts.into_iter().map(chunk).collect(),
            len: self.len,
        }
    }
}

impl<T: Clone> Draft<T> {
    fn own(&mut self, part: usize) -> &mut Vec<T> {
        let part = &mut self.parts[part];
        if let Some(chunk) = part.shared.take() {
            part.own.reserve_exact(SIZE);
            part.own.extend_from_slice(&chunk);
        }
        &mut part.own
    }

    /// The element at this place, to be changed.
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        &mut self.own(at >> BITS)[at % SIZE]
    }

    /// Appends an element.
    pub fn push(&mut self, element: T) {
        if self.len.is_multiple_of(SIZE) {
            self.parts.push(Part {
                shared: None,
                own: Vec::with_capacity(SIZE),
            });
        }
        let last = self.parts.len() - 1;
        self.own(last).push(element);
        self.len += 1;
    }

    /// Takes an element out; the last one takes its place.
    pub fn swap_remove(&mut self, at: usize) {
        let last = self.parts.len() - 1;
        self.len -= 1;
        if let Some(element) = self.own(last).pop()
            && at != self.len
        {
            *self.get_mut(at) = element;
        }
        if self.len.is_multiple_of(SIZE) {
            self.parts.pop();
        }
    }
}

impl<T> Index<usize> for Draft<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.parts[at >> BITS].elements()[at % SIZE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Set(prop::sample::Index, u8),
        Remove(prop::sample::Index),
    }

    fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
        let place = any::<prop::sample::Index>;
        let step = prop_oneof![
            3 => any::<u8>().prop_map(Step::Push),
            1 => (place(), any::<u8>()).prop_map(|(at, n)| Step::Set(at, n)),
            1 => place().prop_map(Step::Remove),
        ];
        prop::collection::vec(step, 0..most)
    }

    fn carry_out(steps: &[Step], draft: &mut Draft<u8>, model: &mut Vec<u8>) {
        for step in steps {
            match step {
                Step::Push(n) => {
                    draft.push(*n);
                    model.push(*n);
                }
                Step::Set(at, n) if !model.is_empty() => {
                    let at = at.index(model.len());
                    *draft.get_mut(at) = *n;
                    model[at] = *n;
                }
                Step::Remove(at) if !model.is_empty() => {
                    let at = at.index(model.len());
                    draft.swap_remove(at);
                    model.swap_remove(at);
                }
                Step::Set(..) | Step::Remove(_) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn a_copy_goes_its_own_way(first in steps(400), second in steps(12)) {
            let (mut draft, mut model) = (Draft::default(), Vec::new());
            carry_out(&first, &mut draft, &mut model);
            let before = draft.finish();
            let old = model.clone();
            let mut draft = Draft::of(&before);
            carry_out(&second, &mut draft, &mut model);
            prop_assert_eq!(draft.len(), model.len());
            let after = draft.finish();

            for (list, model) in [(&before, &old), (&after, &model)] {
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.iter().eq(model.iter()));
                for (at, element) in model.iter().enumerate() {
                    prop_assert_eq!(list[at], *element);
                }
                prop_assert_eq!(list.get(model.len()), None);
            }
            // Whatever differs is in a changed chunk.
            let changed: HashSet<usize> = after
                .changed(&before)
                .flat_map(|(first, elements)| first..first + elements.len())
                .collect();
            for at in 0..model.len() {
                prop_assert!(old.get(at) == model.get(at) || changed.contains(&at));
            }
            prop_assert!(after.own(&before).count() <= 64 * (second.len() + 2));
        }
    }
}
