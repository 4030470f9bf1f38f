//! Memory for large tables, in huge pages where the kernel gives them, as the fast path's own table has it.

use std::ptr::NonNull;

use ilb_forwarder::Table;
use ilb_forwarder::table::Region;

/// Pages of this size are asked for.
const HUGE: usize = 2 << 20;

struct Mapping {
    address: usize,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `region` with this length, unmapped once.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.len) };
    }
}

/// A table for `capacity` connections.
///
/// # Panics
/// When there is no memory.
pub fn table(capacity: u32, keys: [u64; 4]) -> Table {
    let len = Table::bytes(capacity).next_multiple_of(HUGE) + HUGE;
    // SAFETY: a new private mapping.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(
        address,
        libc::MAP_FAILED,
        "memory for {capacity} connections"
    );
    // SAFETY: advice about our own mapping; without huge pages the table is only slower.
    unsafe { libc::madvise(address, len, libc::MADV_HUGEPAGE) };
    let owner = Mapping {
        address: address as usize,
        len,
    };
    let begin = owner.address.next_multiple_of(HUGE);
    let memory = NonNull::new(begin as *mut u8).expect("mmap gives no null");
    // SAFETY: from `begin` on there are `len - HUGE` bytes of the mapping, which the owner keeps.
    let region = unsafe { Region::new(memory, len - HUGE, Box::new(owner)) };
    Table::attach(region, capacity, keys).expect("table")
}
