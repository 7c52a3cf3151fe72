//! The checksum that HDF5 itself looks at when it reads a chunk (its filter 3), for readers who know no other of ours.

/// The number of the filter.
pub(super) const FILTER: i32 = 3;

/// Fletcher's sum of 32 bits over words of 16, big-endian, as HDF5 forms it.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (0_u32, 0_u32);
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    // After 360 words the sums could overflow.
    for part in bytes.chunks(720) {
        let (words, odd) = part.as_chunks::<2>();
        for word in words {
            low += u32::from(u16::from_be_bytes(*word));
            high += low;
        }
        if let [last] = odd {
            low += u32::from(*last) << 8;
            high += low;
        }
        (low, high) = (fold(low), fold(high));
    }
    fold(high) << 16 | fold(low)
}
