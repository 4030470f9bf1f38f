//! The memory that packets live in: one UMEM per worker, shared by all its sockets, cut into frames of one size.

use std::num::NonZeroU32;
use std::ptr::NonNull;

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::umem::Umem;
use xsk_rs::umem::frame::FrameDesc;

use crate::error::OpenError;

/// Bytes of one frame: a page, which every driver takes, and enough for an MTU of 3,800 bytes.
pub const FRAME_SIZE: usize = 4096;

/// Bytes of a huge page; memory of this granularity is tried as huge pages first.
const HUGE_PAGE: usize = 2 << 20;

/// One worker's packet memory.
pub struct Area {
    umem: Umem,
    base: NonNull<u8>,
    frames: usize,
}

// SAFETY: `base` points into the mapping that `umem` owns; `Umem` itself is `Send`, and the mapping is not bound to a
// thread.
unsafe impl Send for Area {}

impl Area {
    /// Maps `frames` frames and registers them with the kernel. Gives one descriptor per frame.
    ///
    /// # Errors
    /// When memory is short or RLIMIT_MEMLOCK does not allow that much.
    pub fn new(frames: NonZeroU32, ring_size: u32) -> Result<(Area, Vec<FrameDesc>), OpenError> {
        let bytes = frames.get() as usize * FRAME_SIZE;
        let config = Self::config(ring_size)?;
        let huge = bytes.is_multiple_of(HUGE_PAGE);
        let created = huge
            .then(|| Umem::new(config, frames, true).ok())
            .flatten()
            .map_or_else(|| Umem::new(config, frames, false), Ok);
        let (umem, descriptors) =
            created.map_err(|error| OpenError::umem(bytes, crate::error::os_error(&error)))?;
        let first = descriptors
            .first()
            .copied()
            .ok_or_else(|| OpenError::Setting("frames must not be 0".into()))?;
        // SAFETY: `first` describes a frame of this UMEM, and nobody else uses it yet. Its address lies within the
        // mapping, so that going back by its offset leads to the mapping's beginning.
        let base = unsafe {
            umem.data(&first)
                .contents()
                .as_ptr()
                .cast_mut()
                .sub(first.addr())
        };
        let base = NonNull::new(base)
            .ok_or_else(|| OpenError::Setting("the packet memory has no address".into()))?;
        let area = Area {
            umem,
            base,
            frames: frames.get() as usize,
        };
        Ok((area, descriptors))
    }

    fn config(ring_size: u32) -> Result<UmemConfig, OpenError> {
        let setting = |e: &dyn std::error::Error| OpenError::Setting(format!("ring-size: {e}"));
        let size = QueueSize::new(ring_size).map_err(|e| setting(&e))?;
        let frame = FrameSize::new(FRAME_SIZE as u32).map_err(|e| setting(&e))?;
        UmemConfig::builder()
            .frame_size(frame)
            .fill_queue_size(size)
            .comp_queue_size(size)
            .build()
            .map_err(|e| setting(&e))
    }

    /// What sockets are created from.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Number of the frame that `descriptor` describes, below the number of frames for every descriptor of this UMEM.
    #[inline]
    pub fn index(descriptor: &FrameDesc) -> usize {
        descriptor.addr() / FRAME_SIZE
    }

    /// The whole frame, headroom included, and where in it the packet begins.
    ///
    /// # Safety
    /// The frame must be owned by the caller (in no ring), and no other slice of it may be alive while the result is.
    /// The result must not outlive this area.
    #[inline]
    pub unsafe fn frame<'a>(&self, descriptor: &FrameDesc) -> (&'a mut [u8], usize) {
        let index = Self::index(descriptor);
        debug_assert!(index < self.frames);
        // SAFETY: the kernel gives back only addresses within the UMEM (`xp_check_aligned`, net/xdp/xsk_queue.h), so
        // that the frame lies in the mapping; the caller promises that nobody else uses it.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(self.base.as_ptr().add(index * FRAME_SIZE), FRAME_SIZE)
        };
        (bytes, descriptor.addr() % FRAME_SIZE)
    }

    /// Says how long the packet in a frame is, for transmission.
    #[inline]
    pub fn set_length(&self, descriptor: &mut FrameDesc, length: usize) {
        // SAFETY: the descriptor is one of this UMEM's. The slice that is made on the way is not read or written.
        unsafe { self.umem.data_mut(descriptor) }
            .cursor()
            .set_pos(length);
    }
}
