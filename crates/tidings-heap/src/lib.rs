//! Gives memory that the program has freed back to the system.
//!
//! The allocator of the system's C library keeps what was freed behind anything that is still in use. After thousands of clients have come at once,
//! the few hundred bytes that each of them goes on to need lie scattered over what their heads needed for a moment, and the
//! process would keep all of it: some 4 MiB for 15,000 subscribers, a third of all their memory. The C library gives it back when asked.
//!
//! This is the only unsafe code of Tidings, in a crate of its own so that every other crate can forbid it.

/// Gives all whole pages that hold nothing but freed memory back to the system. Takes about a millisecond for ten megabytes, during which other
/// threads that allocate may wait. Does nothing where the C library has no such call.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim(3) may be called at any time from any thread ("MT-Safe"); it takes the allocator's own locks, moves nothing
        // that is allocated and touches no memory of ours. Its argument is the number of bytes to leave at the top of the heap; zero
        // means the least. The answer says whether anything was given back, which nobody needs to know.
        #[expect(unsafe_code, reason = "a call of the C library that the standard library does not offer")]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::fs;

    /// What of the program's memory is in use by the system's account, in bytes.
    fn resident_bytes() -> usize {
        let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells");
        let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    #[test]
    fn memory_that_was_freed_between_what_is_kept_goes_back() {
        const BLOCK_BYTES: usize = 16 * 1024;
        const BLOCKS: usize = 2_000;
        // Blocks with a small one behind each, so that no freed stretch reaches the end of the heap.
        let blocks: Vec<_> = (0..BLOCKS).map(|_| (vec![1_u8; BLOCK_BYTES], Box::new(1_u8))).collect();
        let full = resident_bytes();
        let kept: Vec<_> = blocks.into_iter().map(|(_, kept)| kept).collect();
        super::give_back();
        let left = resident_bytes();
        assert!(left + BLOCKS * BLOCK_BYTES / 2 < full, "{full} bytes before, {left} after");
        drop(kept);
    }
}
