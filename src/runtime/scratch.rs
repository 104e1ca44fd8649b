//! The read buffers of one shard: lent for the time it takes to look at what arrived, then given back.
//!
//! Owned by: the shard's thread.
//! Bound: [`SCRATCH_IDLE_MAX`] idle buffers of [`SCRATCH_BYTES`]; a buffer is out only while somebody holds its [`Lease`], so an idle
//! connection owns none.
//! Not here: reassembly of messages; what must outlive the lease is copied out by the protocol that needs it.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Size of one read buffer, in bytes: the most one read returns.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// Idle buffers a shard keeps; one is enough unless a lease is held across an await.
pub const SCRATCH_IDLE_MAX: usize = 4;

const _: () = assert!(SCRATCH_IDLE_MAX >= 1, "the shard's own buffer is always kept");

type Buffer = Box<[u8]>;

/// A shard's read buffers; clones are handles to the same ones.
#[derive(Clone, Default)]
pub struct Scratch {
    idle: Rc<RefCell<Vec<Buffer>>>,
}

impl Scratch {
    /// A pool without buffers: the first read allocates the first.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Buffers that are here and not on loan.
    pub fn idle_len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Gives up the idle buffers but one.
    pub fn shrink(&self) {
        self.idle.borrow_mut().truncate(1);
    }

    /// Takes a buffer with these bytes.
    pub(super) fn lend_copy(&self, bytes: &[u8]) -> Lease {
        let mut lease = self.lend();
        lease.space()[..bytes.len()].copy_from_slice(bytes);
        lease.filled(bytes.len())
    }

    /// Takes a whole buffer, of which nothing is filled yet.
    pub(super) fn lend(&self) -> Lease {
        let buffer = self.idle.borrow_mut().pop();
        Lease {
            buffer: buffer.unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice()),
            filled: 0,
            home: self.clone(),
        }
    }
}

/// Bytes read from a connection, on loan from the shard's [`Scratch`]; empty means the peer has ended its stream.
///
/// May be changed in place (unmasking). Dropping it gives the buffer back.
pub struct Lease {
    buffer: Buffer,
    filled: usize,
    home: Scratch,
}

impl Lease {
    /// The whole buffer, for the read that fills it.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Says how many bytes of the space a read has filled.
    pub(super) fn filled(mut self, length: usize) -> Lease {
        assert!(length <= self.buffer.len(), "a read cannot fill more than its buffer");
        self.filled = length;
        self
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.filled]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut idle = self.home.idle.borrow_mut();
        if idle.len() < SCRATCH_IDLE_MAX {
            idle.push(buffer);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lease({} bytes)", self.filled)
    }
}
