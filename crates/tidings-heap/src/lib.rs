//! Returns freed memory to the operating system.
//!
//! The allocator of the C library keeps freed memory below any block that is still in use. After
//! thousands of clients have connected at once, the few hundred bytes that each connection keeps
//! are scattered over the memory that parsing its request headers needed for a moment, and the
//! process would keep all of it: some 4 MiB for 15,000 subscribers, a third of all their memory.
//! The C library returns it on request.
//!
//! This is the only unsafe code of Tidings, in its own crate so that every other crate can forbid
//! unsafe code.

/// Returns all pages that contain only freed memory to the operating system. Takes about a
/// millisecond for ten megabytes, during which other threads that allocate may wait. Does nothing
/// if the C library has no such call.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim(3) may be called at any time from any thread ("MT-Safe"); it takes
        // the allocator's own locks, moves no allocation and touches no allocated memory. Its
        // argument is the number of bytes to leave at the top of the heap; zero means the minimum.
        // The return value, whether any memory was released, is not needed.
        #[expect(unsafe_code, reason = "a call of the C library that the standard library does not offer")]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::fs;

    /// The resident anonymous memory of the process, in bytes.
    fn resident_bytes() -> usize {
        let status = fs::read_to_string("/proc/self/status").expect("Linux reports it");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux reports it");
        let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    #[test]
    fn memory_freed_between_live_blocks_is_returned() {
        const BLOCK_BYTES: usize = 16 * 1024;
        const BLOCKS: usize = 2_000;
        // Blocks with a small one after each, so that no freed range reaches the end of the heap.
        let blocks: Vec<_> = (0..BLOCKS).map(|_| (vec![1_u8; BLOCK_BYTES], Box::new(1_u8))).collect();
        let full = resident_bytes();
        let kept: Vec<_> = blocks.into_iter().map(|(_, kept)| kept).collect();
        super::give_back();
        let left = resident_bytes();
        assert!(left + BLOCKS * BLOCK_BYTES / 2 < full, "{full} bytes before, {left} after");
        drop(kept);
    }
}
