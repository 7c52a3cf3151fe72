//! Who holds which memory, as jemalloc has sampled it.

use crate::{error::ProfileError, profile::Profile};

/// What the process holds now, by who allocated it. jemalloc notes one allocation in 512 KiB and we count up from that:
/// what is small and rare may be missing.
///
/// # Errors
/// Where the process allocates by something else than jemalloc, or jemalloc's profiling is off.
#[cfg(not(feature = "jemalloc"))]
pub fn heap() -> Result<Profile, ProfileError> {
    Err(ProfileError::NoAllocator)
}

/// What the process holds now, by who allocated it. jemalloc notes one allocation in 512 KiB and we count up from that:
/// what is small and rare may be missing.
///
/// # Errors
/// Where the process allocates by something else than jemalloc, or jemalloc's profiling is off.
#[cfg(feature = "jemalloc")]
pub fn heap() -> Result<Profile, ProfileError> {
    use crate::{
        jemalloc,
        modules::modules,
        names::Namer,
        profile::{Kind, Stack},
    };

    let dump = jemalloc::dump()?;
    let (period, records) =
        dump::parse(&dump).ok_or_else(|| ProfileError::Unreadable("jemalloc's dump is not as expected".to_owned()))?;
    let mut namer = Namer::new(modules());
    let stacks = records.into_iter().map(|record| {
        let mut frames = namer.stack(&record.addresses);
        cut_allocator(&mut frames);
        Stack { frames, count: record.count, amount: record.bytes }
    });
    let stacks = stacks.collect();
    Ok(Profile { period, ..Profile::new(Kind::Heap, stacks) })
}

/// Removes the innermost frames that are the allocator's, jemalloc's profiler's or those of Rust's way to it: they are the
/// same for all who want memory. What is left ends with who asked for it.
#[cfg(any(test, feature = "jemalloc"))]
fn cut_allocator(frames: &mut Vec<String>) {
    while frames.len() > 1 && frames.last().is_some_and(|name| is_allocator(name)) {
        frames.pop();
    }
}

/// How names within jemalloc, and between it and Rust's callers, begin or what they are.
#[cfg(any(test, feature = "jemalloc"))]
fn is_allocator(name: &str) -> bool {
    const BEGINNINGS: [&str; 21] = [
        "_rjem_",
        "je_",
        "prof_",
        "imalloc",
        "ialloc",
        "iralloc",
        "isalloc",
        "ipalloc",
        "arena_",
        "tcache_",
        "large_",
        "malloc_default",
        "do_rallocx",
        "fallback_impl",
        "tikv_jemallocator::",
        "__rust_",
        "__rustc",
        "__rdl_",
        "__rg_",
        "alloc::alloc::",
        "alloc::raw_vec::",
    ];
    const NAMES: [&str; 10] = [
        "malloc",
        "calloc",
        "realloc",
        "posix_memalign",
        "aligned_alloc",
        "memalign",
        "operator new",
        "alloc",
        "alloc_zeroed",
        "exchange_malloc",
    ];
    let plain = name.split(['(', '{']).next().unwrap_or(name).trim_end();
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || NAMES.contains(&plain)
        || name.starts_with("operator new")
}

/// jemalloc's own form of a heap profile.
#[cfg(any(test, feature = "jemalloc"))]
mod dump {
    /// Allocations of one stack that are held.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Record {
        /// The innermost first.
        pub(super) addresses: Vec<u64>,
        pub(super) count: u64,
        pub(super) bytes: u64,
    }

    /// Bytes between two samples, and what was sampled, counted up to what it stands for.
    ///
    /// The form is `heap_v2/PERIOD`, then for each stack `@ ADDRESSES` and lines of counts, of which `t*:` sums up all
    /// threads: `t*: OBJECTS: BYTES [...]`.
    pub(super) fn parse(text: &str) -> Option<(u64, Vec<Record>)> {
        let period: u64 = text.lines().next()?.strip_prefix("heap_v2/")?.trim().parse().ok()?;
        let mut records = Vec::new();
        let mut stack: Option<Vec<u64>> = None;
        for line in text.lines().take_while(|line| *line != "MAPPED_LIBRARIES:") {
            if let Some(addresses) = line.strip_prefix("@ ") {
                let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
                // A return address is behind its call.
                stack = Some(addresses.split_whitespace().filter_map(number).map(|at| at.saturating_sub(1)).collect());
            } else if let Some(counts) = line.trim_start().strip_prefix("t*: ") {
                // Those before the first stack are of the whole process.
                let Some(addresses) = stack.take() else { continue };
                let (count, rest) = counts.split_once(": ")?;
                let (count, bytes) = (count.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?);
                if let Some((count, bytes)) = count_up(count, bytes, period) {
                    records.push(Record { addresses, count, bytes });
                }
            }
        }
        Some((period, records))
    }

    /// An allocation is noted with a chance that grows with its size (1 - e^(-size/period)); so many stand for one.
    fn count_up(count: u64, bytes: u64, period: u64) -> Option<(u64, u64)> {
        if count == 0 {
            return None;
        }
        let size = bytes as f64 / count as f64;
        let chance = -f64::exp_m1(-size / period.max(1) as f64);
        Some(((count as f64 / chance).round() as u64, (bytes as f64 / chance).round() as u64))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const DUMP: &str = "heap_v2/524288\n  t*: 3: 1048704 [0: 0]\n  t0: 3: 1048704 [0: 0]\n\
            @ 0x11 0x21\n  t*: 1: 1048576 [0: 0]\n  t0: 1: 1048576 [0: 0]\n\
            @ 0x31\n  t*: 2: 128 [0: 0]\n  t3: 2: 128 [0: 0]\n\
            @ 0x41\n  t*: 0: 0 [0: 0]\n\nMAPPED_LIBRARIES:\n00-01 r-xp 0 0 0 /bin/x\n";

        #[test]
        fn what_was_sampled_stands_for_what_was_not() {
            let (period, records) = parse(DUMP).unwrap();
            assert_eq!(period, 524_288);
            assert_eq!(records.len(), 2, "what is held no more is left out: {records:?}");
            assert_eq!(records[0].addresses, [0x10, 0x20]);
            let large = records[0].bytes as f64 / 1_048_576.0;
            assert!((1.1..1.2).contains(&large), "a megabyte is nearly always noted: {large}");
            assert!((8000..9000).contains(&(records[1].count / 2)), "64 bytes once in 8192 times: {records:?}");
        }

        #[test]
        fn what_is_no_dump_is_none() {
            for text in ["", "heap_v1/3", "heap_v2/x", "heap_v2/1\n@ 0x1\n  t*: x: 1 [0: 0]"] {
                assert_eq!(parse(text), None, "{text:?}");
            }
        }
    }
}

#[cfg(all(test, not(feature = "jemalloc")))]
mod tests {
    #[test]
    fn without_jemalloc_nobody_knows_who_holds_what() {
        let error = super::heap().unwrap_err();
        assert_eq!(caudal_types::Explain::kind(&error), caudal_types::ErrorKind::NotBuiltIn);
    }
}

#[cfg(test)]
mod cutting {
    use super::*;

    #[test]
    fn leaf_is_who_asked_for_the_memory() {
        let check = |stack: &str, left: &str| {
            let mut frames: Vec<String> = stack.split(' ').map(str::to_owned).collect();
            cut_allocator(&mut frames);
            assert_eq!(frames.join(" "), left);
        };
        let jemalloc = "_rjem_je_malloc_default imalloc_body _rjem_je_prof_tctx_create _rjem_je_prof_backtrace";
        let rust = "alloc::raw_vec::RawVecInner::try_allocate_in alloc::alloc::alloc __rust_alloc";
        check(&format!("main keep {rust} tikv_jemallocator::Jemalloc::alloc {jemalloc}"), "main keep");
        check(&format!("main [libonnxruntime.so] malloc {jemalloc}"), "main [libonnxruntime.so]");
        check("main alloc::vec::Vec::from_iter", "main alloc::vec::Vec::from_iter");
        check("main caudal::prof_shown caudal::arena_keeper", "main caudal::prof_shown caudal::arena_keeper");
        check(jemalloc, "_rjem_je_malloc_default");
    }
}
