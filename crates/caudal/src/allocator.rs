//! The program's allocator: what it tells, and what it gives back.
#![expect(unsafe_code, reason = "only C functions purge an allocator; the binary owns it, so nobody else could ask")]

/// Gives memory back, and does not fragment under many threads.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Lets sections count the bytes that are allocated within them, where the allocator tells.
pub(crate) fn let_sections_count() {
    #[cfg(feature = "jemalloc")]
    caudal_observe::count_allocations(allocated);
}

/// Bytes that this thread has allocated so far.
#[cfg(feature = "jemalloc")]
fn allocated() -> u64 {
    use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp};

    thread_local! {
        static COUNTER: Option<ThreadLocal<u64>> = allocatedp::read().ok();
    }
    COUNTER.try_with(|counter| counter.as_ref().map_or(0, |counter| counter.get())).unwrap_or(0)
}

/// Gives the system back what the allocators keep for later: ours, and that of the C library, from which libraries such
/// as ONNX Runtime take theirs where ours is not built in. Asks both, and says so.
pub(crate) fn purge() -> String {
    let purged: Vec<&str> = [purge_jemalloc(), trim_libc()].into_iter().flatten().collect();
    match purged.is_empty() {
        true => "the allocator gives nothing back".to_owned(),
        false => format!("what {} kept for later went back to the system", purged.join(" and ")),
    }
}

#[cfg(feature = "jemalloc")]
fn purge_jemalloc() -> Option<&'static str> {
    // 4096 is MALLCTL_ARENAS_ALL.
    let name = c"arena.4096.purge";
    // SAFETY: the name ends with a zero; this command neither reads nor writes anything, so all else is null.
    let failed = unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut(), 0)
    };
    (failed == 0).then_some("jemalloc")
}

#[cfg(not(feature = "jemalloc"))]
fn purge_jemalloc() -> Option<&'static str> {
    None
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_libc() -> Option<&'static str> {
    // SAFETY: it may be called at any time from any thread; 0 bytes are to be kept at the top.
    (unsafe { libc::malloc_trim(0) } == 1).then_some("the C library")
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_libc() -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_can_be_asked_at_any_time() {
        let words = super::purge();
        #[cfg(feature = "jemalloc")]
        assert!(words.contains("jemalloc"), "{words}");
        assert!(!words.is_empty());
    }
}
