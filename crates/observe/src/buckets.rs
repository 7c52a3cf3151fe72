//! Log-linear buckets: 16 equal steps within each power of two, so that values are known within 6.25 %, as in
//! HdrHistogram (Tene, 2012) with one significant hexadecimal digit.

const STEP_BITS: u32 = 4;
const STEPS_PER_OCTAVE: usize = 1 << STEP_BITS;
/// Values at or above 2^43 (2.4 hours in nanoseconds, 8 TiB in bytes) share the last bucket.
const TOP_BIT: u32 = 43;

/// Number of buckets.
pub(crate) const BUCKET_COUNT: usize = (TOP_BIT - STEP_BITS + 1) as usize * STEPS_PER_OCTAVE;

/// The bucket that contains `value`.
pub(crate) fn bucket_index(value: u64) -> usize {
    if value < STEPS_PER_OCTAVE as u64 {
        return value as usize;
    }
    let magnitude = 63 - value.leading_zeros();
    let step = (value >> (magnitude - STEP_BITS)) as usize & (STEPS_PER_OCTAVE - 1);
    ((magnitude - STEP_BITS + 1) as usize * STEPS_PER_OCTAVE + step).min(BUCKET_COUNT - 1)
}

/// The largest value that falls into bucket `index`.
pub(crate) fn upper_bound(index: usize) -> u64 {
    if index < STEPS_PER_OCTAVE {
        return index as u64;
    }
    let magnitude = (index / STEPS_PER_OCTAVE) as u32 + STEP_BITS - 1;
    let step = (index % STEPS_PER_OCTAVE) as u64;
    ((STEPS_PER_OCTAVE as u64 + step + 1) << (magnitude - STEP_BITS)) - 1
}

/// The value below which the share `q` of all counted values is, rounded up to the end of its bucket.
pub(crate) fn quantile(counts: impl Iterator<Item = u64>, total: u64, q: f64) -> Option<u64> {
    let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    counts
        .enumerate()
        .find(|(_, count)| {
            seen += count;
            seen >= rank
        })
        .map(|(i, _)| upper_bound(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_bounds_are_within_a_sixteenth_of_the_value() {
        for shift in 0..42 {
            for offset in 0..40u64 {
                let value = (1u64 << shift) + offset * (1u64 << shift) / 40;
                let end = upper_bound(bucket_index(value));
                assert!(end >= value, "{value} > {end}");
                assert!((end - value) as f64 <= value as f64 / 16.0, "{value} {end}");
            }
        }
    }

    #[test]
    fn buckets_are_contiguous() {
        for i in 1..BUCKET_COUNT {
            assert_eq!(bucket_index(upper_bound(i - 1) + 1), i);
        }
        assert_eq!(bucket_index(u64::MAX), BUCKET_COUNT - 1);
    }
}
