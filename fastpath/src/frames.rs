//! Who owns which frame (invariant 1 of the design: frames are conserved).
//!
//! Every frame is in exactly one place. The ledger writes each move down and notices at once when a frame turns up
//! where it cannot be; [`Ledger::audit`] compares its books with what the rings and lists themselves count.

/// Where a frame is. Sockets are numbered within their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u16);

impl Place {
    /// In the free list.
    pub const FREE: Place = Place(0);
    /// Received, and not yet disposed of.
    pub const BATCH: Place = Place(1);
    /// Waiting for a neighbour.
    pub const PENDING: Place = Place(2);
    /// A later fragment that waits for its first one.
    pub const HELD: Place = Place(3);

    /// With the kernel, to receive into by socket `socket`: its fill ring, the driver, or its receive ring.
    pub const fn fill(socket: usize) -> Place {
        Place(4 + 2 * socket as u16)
    }

    /// With the kernel, to be sent by socket `socket`: its transmit ring, the driver, or its completion ring.
    pub const fn transmit(socket: usize) -> Place {
        Place(5 + 2 * socket as u16)
    }

    fn words(self) -> String {
        match self.0 {
            0 => "the free list".into(),
            1 => "the batch".into(),
            2 => "the list that waits for neighbours".into(),
            3 => "the list that waits for first fragments".into(),
            n if n % 2 == 0 => format!("the fill ring of socket {}", (n - 4) / 2),
            n => format!("the transmit ring of socket {}", (n - 5) / 2),
        }
    }
}

/// Numbers of violations that are written out; all are counted.
const TOLD: u64 = 10;

/// The books of one worker.
pub struct Ledger {
    places: Box<[Place]>,
    violations: u64,
}

impl Ledger {
    /// Books for `frames` frames, all of them free.
    pub fn new(frames: usize) -> Ledger {
        Ledger {
            places: vec![Place::FREE; frames].into_boxed_slice(),
            violations: 0,
        }
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.places.len()
    }

    /// Moves a frame. False if it was not where it should have been: then the caller must not pass it on, because
    /// somebody else has it.
    #[inline]
    #[must_use]
    pub fn move_frame(&mut self, frame: usize, from: Place, to: Place) -> bool {
        match self.places.get_mut(frame) {
            Some(place) if *place == from => {
                *place = to;
                true
            }
            _ => {
                self.violated(frame, from, to);
                false
            }
        }
    }

    #[cold]
    fn violated(&mut self, frame: usize, from: Place, to: Place) {
        self.violations += 1;
        if self.violations <= TOLD {
            let actual = self
                .places
                .get(frame)
                .map_or("nowhere".into(), |place| place.words());
            tracing::error!(
                "frame {frame} was to go from {} to {} but is in {actual}: a fault in ilb or in the driver",
                from.words(),
                to.words(),
            );
        }
    }

    /// Compares the books with what the owners count themselves: frames in each place. A difference is logged and
    /// counted as one violation per place.
    pub fn audit(&mut self, counted: impl Iterator<Item = (Place, usize)>) -> bool {
        let mut sum = 0;
        let mut sound = true;
        for (place, count) in counted {
            let booked = self.places.iter().filter(|p| **p == place).count();
            sum += count;
            if booked != count {
                sound = false;
                self.violations += 1;
                tracing::error!(
                    "{} should hold {booked} frames and holds {count}: a fault in ilb or in the driver",
                    place.words()
                );
            }
        }
        if sum != self.places.len() {
            sound = false;
            self.violations += 1;
            tracing::error!(
                "{sum} of {} frames are accounted for: a fault in ilb or in the driver",
                self.places.len()
            );
        }
        sound
    }

    /// Frames that were found where they could not be, since the start. 0 as long as nothing is broken.
    pub fn violations(&self) -> u64 {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_round() {
        let mut ledger = Ledger::new(4);
        for (from, to) in [
            (Place::FREE, Place::fill(0)),
            (Place::fill(0), Place::BATCH),
            (Place::BATCH, Place::PENDING),
            (Place::PENDING, Place::transmit(1)),
            (Place::transmit(1), Place::FREE),
        ] {
            assert!(ledger.move_frame(2, from, to));
        }
        assert_eq!(ledger.violations(), 0);
    }

    #[test]
    fn a_frame_that_comes_back_twice_is_noticed() {
        let mut ledger = Ledger::new(4);
        assert!(ledger.move_frame(1, Place::FREE, Place::transmit(0)));
        assert!(ledger.move_frame(1, Place::transmit(0), Place::FREE));
        assert!(!ledger.move_frame(1, Place::transmit(0), Place::FREE));
        assert_eq!(ledger.violations(), 1);
    }

    #[test]
    fn a_frame_that_does_not_exist_is_noticed() {
        let mut ledger = Ledger::new(4);
        assert!(!ledger.move_frame(4, Place::FREE, Place::fill(0)));
        assert_eq!(ledger.violations(), 1);
    }

    #[test]
    fn sockets_and_directions_are_not_mixed_up() {
        let places: Vec<Place> = (0..64)
            .flat_map(|s| [Place::fill(s), Place::transmit(s)])
            .chain([Place::FREE, Place::BATCH, Place::PENDING, Place::HELD])
            .collect();
        for (i, a) in places.iter().enumerate() {
            assert!(places[i + 1..].iter().all(|b| a != b), "{}", a.words());
        }
    }

    #[test]
    fn the_audit_finds_a_lost_frame() {
        let mut ledger = Ledger::new(3);
        assert!(ledger.move_frame(0, Place::FREE, Place::fill(0)));
        let right = [(Place::FREE, 2), (Place::fill(0), 1)];
        assert!(ledger.audit(right.into_iter()));
        let lost = [(Place::FREE, 1), (Place::fill(0), 1)];
        assert!(!ledger.audit(lost.into_iter()));
        assert!(ledger.violations() > 0);
    }

    #[test]
    fn the_audit_finds_frames_that_changed_places_unseen() {
        let mut ledger = Ledger::new(3);
        assert!(ledger.move_frame(0, Place::FREE, Place::fill(0)));
        let swapped = [(Place::FREE, 1), (Place::fill(0), 2)];
        assert!(!ledger.audit(swapped.into_iter()));
    }
}
