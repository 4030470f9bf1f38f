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

/// Bytes before a received packet that we may write: what the kernel keeps free for XDP programs in every frame
/// (`XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h). A frame that was received is ours from its first byte to its last
/// (net/xdp/xsk_buff_pool.c puts packets at `headroom + XDP_PACKET_HEADROOM`), and one that is to be sent may begin
/// anywhere in it (`xp_aligned_validate_desc`, net/xdp/xsk_queue.h): enough for any outer header that we put before a
/// packet.
pub const HEADROOM: usize = 256;

/// One worker's packet memory.
pub struct Area {
    umem: Umem,
    base: NonNull<u8>,
    frames: usize,
    mover: Mover,
}

/// Gives a descriptor another address within its frame, for a packet that grew at its front.
///
/// A descriptor of xsk-rs 0.11 gets its address from a ring or from `Umem::new` and has no method to change it, although
/// everything else there takes any address within a frame (an XDP program may have moved the packet). So we write the
/// field ourselves. Where it lies is up to the compiler, and found out by trying.
#[derive(Debug, Clone, Copy)]
struct Mover {
    /// Bytes from the beginning of a descriptor to its address.
    at: usize,
}

impl Mover {
    /// Tries every place where an address can be, on copies.
    fn find(sample: &FrameDesc) -> Option<Mover> {
        let last = size_of::<FrameDesc>() - size_of::<usize>();
        (0..=last)
            .step_by(align_of::<usize>())
            .map(|at| Mover { at })
            .find(|mover| {
                [0, usize::MAX].iter().all(|&address| {
                    let mut probe = *sample;
                    mover.set(&mut probe, address);
                    probe.addr() == address
                        && probe.options() == sample.options()
                        && probe.lengths().data() == sample.lengths().data()
                        && probe.lengths().headroom() == sample.lengths().headroom()
                })
            })
    }

    #[inline]
    fn set(self, descriptor: &mut FrameDesc, address: usize) {
        const { assert!(align_of::<FrameDesc>() == align_of::<usize>()) };
        // SAFETY: the place lies within the descriptor and is aligned (see `find`), and a descriptor consists of
        // integers and padding only (xsk-rs 0.11 src/umem/frame/mod.rs), for which any bytes are valid.
        unsafe {
            (&raw mut *descriptor)
                .byte_add(self.at)
                .cast::<usize>()
                .write(address);
        }
    }
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
        let mover = Mover::find(&first)
            .ok_or_else(|| OpenError::Setting("descriptors have no address".into()))?;
        let area = Area {
            umem,
            base,
            frames: frames.get() as usize,
            mover,
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

    /// Says where in its frame a packet begins.
    #[inline]
    pub fn set_start(&self, descriptor: &mut FrameDesc, start: usize) {
        debug_assert!(start < FRAME_SIZE);
        let address = Self::index(descriptor) * FRAME_SIZE + start % FRAME_SIZE;
        self.mover.set(descriptor, address);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_can_be_moved_within_its_frame_and_nothing_else_of_it_changes() {
        let mut descriptor = FrameDesc::default();
        descriptor.set_options(7);
        let mover = Mover::find(&descriptor).expect("a descriptor has an address");
        for address in [0, HEADROOM, 5 * FRAME_SIZE + HEADROOM - 60, usize::MAX] {
            mover.set(&mut descriptor, address);
            assert_eq!(descriptor.addr(), address);
            assert_eq!(descriptor.options(), 7);
            assert_eq!(descriptor.lengths().data(), 0);
        }
    }
}
