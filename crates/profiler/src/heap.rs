//! Heap profiles: live allocations by call stack, sampled by jemalloc.

use crate::{error::ProfileError, profile::Profile};

/// The live allocations of the process by call stack. jemalloc samples once per 512 KiB, and the samples are scaled:
/// small and rare allocations may be missing.
///
/// # Errors
/// If the process does not use jemalloc, or jemalloc's profiling is off.
#[cfg(not(feature = "jemalloc"))]
pub fn heap_profile() -> Result<Profile, ProfileError> {
    Err(ProfileError::NoAllocator)
}

/// The live allocations of the process by call stack. jemalloc samples once per 512 KiB, and the samples are scaled:
/// small and rare allocations may be missing.
///
/// # Errors
/// If the process does not use jemalloc, or jemalloc's profiling is off.
#[cfg(feature = "jemalloc")]
pub fn heap_profile() -> Result<Profile, ProfileError> {
    use crate::{
        jemalloc,
        modules::loaded_modules,
        profile::{Kind, Stack},
        symbolize::Symbolizer,
    };

    let dump = jemalloc::dump_heap()?;
    let (period, records) = dump::parse_dump(&dump)
        .ok_or_else(|| ProfileError::Unreadable("unexpected format of jemalloc's dump".to_owned()))?;
    let mut symbolizer = Symbolizer::new(loaded_modules());
    let stacks = records.into_iter().map(|record| {
        let mut frames = symbolizer.symbolize_stack(&record.addresses);
        cut_allocator(&mut frames);
        Stack { frames, count: record.count, amount: record.bytes }
    });
    let stacks = stacks.collect();
    Ok(Profile { period, ..Profile::new(Kind::Heap, stacks) })
}

/// Removes the innermost frames of the allocator, of jemalloc's profiler and of Rust's allocation functions, which are
/// the same in every stack. The innermost frame left is the function that allocated.
#[cfg(any(test, feature = "jemalloc"))]
fn cut_allocator(frames: &mut Vec<String>) {
    while frames.len() > 1 && frames.last().is_some_and(|name| is_allocator(name)) {
        frames.pop();
    }
}

/// Returns true for a function of jemalloc, or one between it and the Rust code that allocates.
#[cfg(any(test, feature = "jemalloc"))]
fn is_allocator(name: &str) -> bool {
    const ALLOCATOR_PREFIXES: [&str; 21] = [
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
    const ALLOCATOR_NAMES: [&str; 10] = [
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
    ALLOCATOR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || ALLOCATOR_NAMES.contains(&plain)
        || name.starts_with("operator new")
}

/// Parser of jemalloc's heap dumps.
#[cfg(any(test, feature = "jemalloc"))]
mod dump {
    /// Live allocations with the same stack.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Record {
        /// Innermost address first.
        pub(super) addresses: Vec<u64>,
        pub(super) count: u64,
        pub(super) bytes: u64,
    }

    /// Parses a dump: its sampling period in bytes, and its records, scaled to all allocations.
    ///
    /// The format is `heap_v2/PERIOD`, then for each stack `@ ADDRESSES` and lines with counts, of which `t*:` is the
    /// sum of all threads: `t*: OBJECTS: BYTES [...]`.
    pub(super) fn parse_dump(text: &str) -> Option<(u64, Vec<Record>)> {
        let period: u64 = text.lines().next()?.strip_prefix("heap_v2/")?.trim().parse().ok()?;
        let mut records = Vec::new();
        let mut stack: Option<Vec<u64>> = None;
        for line in text.lines().take_while(|line| *line != "MAPPED_LIBRARIES:") {
            if let Some(addresses) = line.strip_prefix("@ ") {
                let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
                // A return address is the address after its call.
                stack = Some(addresses.split_whitespace().filter_map(number).map(|at| at.saturating_sub(1)).collect());
            } else if let Some(counts) = line.trim_start().strip_prefix("t*: ") {
                // Counts before the first stack are of the whole process.
                let Some(addresses) = stack.take() else { continue };
                let (count, rest) = counts.split_once(": ")?;
                let (count, bytes) = (count.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?);
                if let Some((count, bytes)) = scale_sample(count, bytes, period) {
                    records.push(Record { addresses, count, bytes });
                }
            }
        }
        Some((period, records))
    }

    /// Scales a sampled record: the chance of sampling grows with the size of an allocation (1 - e^(-size/period)).
    fn scale_sample(count: u64, bytes: u64, period: u64) -> Option<(u64, u64)> {
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
        fn parse_dump_scales_samples() {
            let (period, records) = parse_dump(DUMP).unwrap();
            assert_eq!(period, 524_288);
            assert_eq!(records.len(), 2, "freed memory is omitted: {records:?}");
            assert_eq!(records[0].addresses, [0x10, 0x20]);
            let large = records[0].bytes as f64 / 1_048_576.0;
            assert!((1.1..1.2).contains(&large), "a megabyte is nearly always sampled: {large}");
            assert!(
                (8000..9000).contains(&(records[1].count / 2)),
                "64 bytes are sampled once in 8192 times: {records:?}"
            );
        }

        #[test]
        fn parse_dump_rejects_invalid_dumps() {
            for text in ["", "heap_v1/3", "heap_v2/x", "heap_v2/1\n@ 0x1\n  t*: x: 1 [0: 0]"] {
                assert_eq!(parse_dump(text), None, "{text:?}");
            }
        }
    }
}

#[cfg(all(test, not(feature = "jemalloc")))]
mod tests {
    #[test]
    fn heap_profile_without_jemalloc_is_not_built_in() {
        let error = super::heap_profile().unwrap_err();
        assert_eq!(caudal_types::Explain::kind(&error), caudal_types::ErrorKind::NotBuiltIn);
    }
}

#[cfg(test)]
mod cut_allocator_tests {
    use super::*;

    #[test]
    fn cut_allocator_ends_with_the_allocating_function() {
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
