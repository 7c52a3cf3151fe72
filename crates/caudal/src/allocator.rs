//! The program's allocator, and what it tells.

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
