//! The buffers a shard's ring receives into: registered with the kernel, which picks one when bytes have arrived.
//!
//! Owned by: the shard's thread. Bound: [`BUFFERS`] of [`BUFFER_BYTES`], 512 KiB. A buffer is with the kernel but for the
//! time between a completion and the read that takes its bytes out. Not here: who the bytes are for.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Number of buffers, a power of two.
pub(super) const BUFFERS: u16 = 256;

/// Size of one, bytes: a signalling message fits.
pub(super) const BUFFER_BYTES: usize = 2048;

/// The number by which requests name these buffers.
pub(super) const GROUP: u16 = 0;

const _: () = assert!(BUFFERS.is_power_of_two());

/// The buffers, and the ring of entries by which they are given to the kernel.
pub(super) struct Pool {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    /// Entries ever written; the kernel sees it when published.
    tail: u16,
}

fn layouts() -> (Layout, Layout) {
    let entries = Layout::array::<BufRingEntry>(usize::from(BUFFERS)).and_then(|layout| layout.align_to(4096));
    let bytes = Layout::from_size_align(usize::from(BUFFERS) * BUFFER_BYTES, 4096);
    (entries.expect("a constant layout"), bytes.expect("a constant layout"))
}

#[allow(unsafe_code)]
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Pool {
    /// All buffers, given to the kernel behind `ring`.
    ///
    /// # Errors
    /// The kernel has no rings of buffers (before 5.19).
    #[allow(unsafe_code)]
    pub fn register(ring: &IoUring) -> io::Result<Pool> {
        let (entries, bytes) = layouts();
        let mut pool = Pool { entries: allocate(entries).cast(), bytes: allocate(bytes), tail: 0 };
        let address = pool.entries.as_ptr() as u64;
        // SAFETY: the entries live as long as the pool, which is dropped after the ring that knows them.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        (0..BUFFERS).for_each(|id| pool.give(id));
        pool.publish();
        Ok(pool)
    }

    /// The bytes a completion has put into a buffer that has not been given back yet.
    #[allow(unsafe_code)]
    pub fn received(&self, id: u16, length: usize) -> &[u8] {
        assert!(id < BUFFERS && length <= BUFFER_BYTES, "the kernel names our buffers");
        // SAFETY: within the allocation, which was zeroed; a buffer that was completed is not the kernel's until it is given.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().add(usize::from(id) * BUFFER_BYTES), length) }
    }

    /// Gives a buffer to the kernel, which sees it after [`Pool::publish`].
    #[allow(unsafe_code)]
    pub fn give(&mut self, id: u16) {
        assert!(id < BUFFERS, "one of ours");
        // SAFETY: both within their allocations; the kernel does not read entries from the published tail on.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(self.tail & (BUFFERS - 1)));
            entry.set_addr(self.bytes.as_ptr().add(usize::from(id) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given.
    #[allow(unsafe_code)]
    pub fn publish(&self) {
        // SAFETY: the tail is a field of the first entry, aligned as a u16, which only we write.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Pool {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let (entries, bytes) = layouts();
        // SAFETY: allocated with these layouts; the ring is gone, and no request was under way when it went.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries);
            dealloc(self.bytes.as_ptr(), bytes);
        }
    }
}
