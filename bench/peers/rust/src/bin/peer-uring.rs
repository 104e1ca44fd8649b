//! The floor on completion: a TCP echo on one io_uring and one thread, with no protocol at all.
//!
//! One multishot accept, one multishot receive for each connection into a ring of provided buffers; what came is sent
//! from the buffer it came in, and all that a batch of completions asks for goes to the kernel in one system call.
//! A client that does not read may take all buffers: there is no bound for each. Needs Linux 6.1.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use slab::Slab;

const ENTRIES: u32 = 4096;
const BUFFERS: u16 = 4096;
const BUFFER: usize = 4096;
const GROUP: u16 = 0;

/// What a completion is of; the rest of its user data is the connection's key.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

struct Connection {
    socket: OwnedFd,
    receiving: bool,
    /// Filled buffers and how much of each; the first is being sent.
    echoes: VecDeque<(u16, u32)>,
}

struct Server {
    ring: IoUring,
    listener: TcpListener,
    buffers: Buffers,
    connections: Slab<Connection>,
    /// Those whose receive found no buffer.
    starved: Vec<usize>,
}

fn main() -> io::Result<()> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .setup_cqsize(4 * ENTRIES)
        .build(ENTRIES)?;
    let buffers = Buffers::new(&ring)?;
    let listener = duet_peers::listen()?;
    Server { ring, listener, buffers, connections: Slab::new(), starved: Vec::new() }.run()
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        self.accept();
        let mut completions = Vec::new();
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                let key = (completion.user_data() >> 8) as usize;
                match completion.user_data() & 0xff {
                    ACCEPT => self.accepted(&completion),
                    RECEIVE => self.received(key, &completion),
                    _ => self.sent(key, completion.result()),
                }
            }
            if self.buffers.publish() {
                for key in std::mem::take(&mut self.starved) {
                    self.receive(key);
                }
            }
        }
    }

    fn push(&mut self, entry: squeue::Entry, kind: u64, key: usize) {
        let entry = entry.user_data((key as u64) << 8 | kind);
        // SAFETY: sockets and buffers outlive what is asked of them: a connection stays until its last completion.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit().expect("the kernel takes a full queue");
        }
    }

    fn accept(&mut self) {
        self.push(opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build(), ACCEPT, 0);
    }

    fn accepted(&mut self, completion: &cqueue::Entry) {
        if completion.result() >= 0 {
            // SAFETY: the kernel has just given us this descriptor.
            let socket = unsafe { OwnedFd::from_raw_fd(completion.result()) };
            let key = self.connections.insert(Connection { socket, receiving: false, echoes: VecDeque::new() });
            self.receive(key);
        }
        if !cqueue::more(completion.flags()) {
            self.accept();
        }
    }

    fn receive(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        connection.receiving = true;
        let socket = Fd(connection.socket.as_raw_fd());
        self.push(opcode::RecvMulti::new(socket, GROUP).build(), RECEIVE, key);
    }

    fn received(&mut self, key: usize, completion: &cqueue::Entry) {
        let connection = &mut self.connections[key];
        let result = completion.result();
        if let (Some(buffer), 1..) = (cqueue::buffer_select(completion.flags()), result) {
            connection.echoes.push_back((buffer, result as u32));
            if connection.echoes.len() == 1 {
                self.send(key);
            }
        }
        if cqueue::more(completion.flags()) {
            return;
        }
        if result == -libc::ENOBUFS {
            self.starved.push(key);
        } else if result > 0 {
            self.receive(key);
        } else {
            self.connections[key].receiving = false;
            self.remove_if_done(key);
        }
    }

    fn send(&mut self, key: usize) {
        let connection = &self.connections[key];
        let (buffer, len) = connection.echoes[0];
        let socket = Fd(connection.socket.as_raw_fd());
        let entry = opcode::Send::new(socket, self.buffers.start_of(buffer), len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(entry, SEND, key);
    }

    fn sent(&mut self, key: usize, result: i32) {
        let connection = &mut self.connections[key];
        let (buffer, len) = connection.echoes.pop_front().expect("what is being sent is queued");
        self.buffers.give_back(buffer);
        if result != len as i32 {
            // The peer is gone: nothing more reaches it, and its receive ends by itself.
            connection.echoes.drain(..).for_each(|(buffer, _)| self.buffers.give_back(buffer));
        }
        if connection.echoes.is_empty() {
            self.remove_if_done(key);
        } else {
            self.send(key);
        }
    }

    fn remove_if_done(&mut self, key: usize) {
        let connection = &self.connections[key];
        if !connection.receiving && connection.echoes.is_empty() {
            self.connections.remove(key);
        }
    }
}

/// The provided buffers: one stretch of memory, and the ring in which the kernel finds the free ones.
struct Buffers {
    memory: *mut u8,
    ring: *mut BufRingEntry,
    tail: u16,
    published: u16,
}

impl Buffers {
    fn new(uring: &IoUring) -> io::Result<Self> {
        let ring = zeroed(BUFFERS as usize * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let memory = zeroed(BUFFERS as usize * BUFFER)?;
        // SAFETY: the memory is of that length, page-aligned, and never freed.
        unsafe { uring.submitter().register_buf_ring_with_flags(ring as u64, BUFFERS, GROUP, 0)? };
        let mut buffers = Self { memory, ring, tail: 0, published: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        // SAFETY: the kernel names only buffers that we gave it.
        unsafe { self.memory.add(buffer as usize * BUFFER) }
    }

    fn give_back(&mut self, buffer: u16) {
        let address = self.start_of(buffer) as u64;
        // SAFETY: the entry lies in the ring, and the kernel does not read it before it is published.
        let entry = unsafe { &mut *self.ring.add((self.tail % BUFFERS) as usize) };
        entry.set_addr(address);
        entry.set_len(BUFFER as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel have what was given back; says whether that was anything.
    fn publish(&mut self) -> bool {
        if self.tail == self.published {
            return false;
        }
        self.published = self.tail;
        // SAFETY: the first entry's reserved field is the tail, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        true
    }
}

/// Pages of zeroes, which take no memory before they are used.
fn zeroed(len: usize) -> io::Result<*mut u8> {
    // SAFETY: it is a new mapping, of no file.
    let pages = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
    Ok(pages.cast())
}
