//! What the kernel knows of its wall clock. Not here: reading it, which is the shard's clock's.

/// Whether something keeps the wall clock synchronised (`adjtimex(2)`); `None` where the kernel does not tell.
#[allow(unsafe_code)]
pub fn is_clock_synchronised() -> Option<bool> {
    const TIME_ERROR: libc::c_int = 5;
    // SAFETY: a timex is plain numbers, valid when zeroed; without modes the call only fills it in, and it outlives that.
    let state = unsafe {
        let mut times: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut times)
    };
    (state >= 0).then_some(state != TIME_ERROR)
}
