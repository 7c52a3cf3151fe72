//! LZF, the small codec that h5py brings: runs of literals, and copies of what stood up to 8 KiB before.
//!
//! A control byte below 32 begins a run of that many literals and one; else its upper three bits are the length of a copy
//! less two (7: a byte of more length follows), its lower five the upper bits of the distance less one.

const LONGEST_COPY: usize = 264;
const FARTHEST: usize = 1 << 13;
const LONGEST_RUN: usize = 32;
const TABLE_BITS: u32 = 14;

/// Compresses; `None` where the bytes would not become fewer.
pub(super) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(plain.len());
    let mut last_seen = vec![usize::MAX; 1 << TABLE_BITS];
    let (mut at, mut run) = (0, 0);
    while at + 2 < plain.len() && out.len() < plain.len() {
        let slot = slot(&plain[at..at + 3]);
        let before = std::mem::replace(&mut last_seen[slot], at);
        let near = before < at && at - before <= FARTHEST;
        if near && plain[before..before + 3] == plain[at..at + 3] {
            literals(&mut out, &plain[run..at]);
            let most = (plain.len() - at).min(LONGEST_COPY);
            let length = (3..most).find(|more| plain[before + more] != plain[at + more]).unwrap_or(most);
            copy(&mut out, at - before - 1, length);
            at += length;
            run = at;
        } else {
            at += 1;
        }
    }
    literals(&mut out, &plain[run..]);
    (out.len() < plain.len()).then_some(out)
}

fn slot(bytes: &[u8]) -> usize {
    let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
    (value.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize
}

fn literals(out: &mut Vec<u8>, bytes: &[u8]) {
    for run in bytes.chunks(LONGEST_RUN) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn copy(out: &mut Vec<u8>, distance: usize, length: usize) {
    let (far, near, length) = ((distance >> 8) as u8, distance as u8, length - 2);
    match length {
        ..7 => out.extend_from_slice(&[(length as u8) << 5 | far, near]),
        _ => out.extend_from_slice(&[7 << 5 | far, (length - 7) as u8, near]),
    }
}

/// Decompresses to at most `most` bytes; `None` where they are more, or nothing that was compressed.
pub(super) fn decompress(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(most.min(packed.len().saturating_mul(4)));
    let mut rest = packed.iter();
    while let Some(control) = rest.next().map(|byte| usize::from(*byte)) {
        if control < LONGEST_RUN {
            let run = rest.as_slice().get(..=control)?;
            out.extend_from_slice(run);
            rest = rest.as_slice()[run.len()..].iter();
        } else {
            let more = if control >> 5 == 7 { usize::from(*rest.next()?) } else { 0 };
            let distance = ((control & 31) << 8 | usize::from(*rest.next()?)) + 1;
            let from = out.len().checked_sub(distance)?;
            // What is copied may be written by the same copy.
            for at in from..from + (control >> 5) + more + 2 {
                out.push(out[at]);
            }
        }
        if out.len() > most {
            return None;
        }
    }
    Some(out)
}
