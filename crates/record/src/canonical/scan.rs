//! The insides of strings: how far nothing needs attention.

const ONES: u64 = u64::MAX / 255;
const TOPS: u64 = ONES << 7;

/// How many bytes from the start need neither an escape nor a second look: up to the first quote, backslash or
/// control character.
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Keys and words end within two words; long texts are looked at in blocks that compilers turn into vectors.
    while at < 16
        && let Some(word) = bytes[at..].first_chunk()
    {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(block) = bytes[at..].first_chunk::<32>() {
        if block.iter().fold(false, |found, byte| found | special(*byte)) {
            break;
        }
        at += 32;
    }
    while let Some(word) = bytes[at..].first_chunk() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| special(*byte)).map_or(bytes.len(), |found| at + found)
}

fn special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// The top bit of each special byte. A borrow may mark a byte above a special one as well, never one below: the
/// lowest mark is right.
fn marks(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    (control | zero(quote) | zero(backslash)) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_words_and_blocks_find_is_what_bytes_say(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let slow = bytes.iter().position(|byte| special(*byte)).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), slow);
        }

        #[test]
        fn the_first_special_byte_is_found_wherever_it_stands(at in 0usize..150, byte in 0u8..=255, fill in 0x5du8..) {
            let mut bytes = vec![fill; 150];
            bytes[at] = byte;
            prop_assert_eq!(plain(&bytes), if special(byte) { at } else { 150 });
        }
    }
}
