//! Whether a file is there to its end, by the lengths that its own container promises. What streams lose at their end
//! (MPEG, AAC, a Matroska that was never closed) nothing tells.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use crate::{sniff::Container, source::Source};

/// The most boxes, chunks or pages that are followed.
const MOST_STEPS: usize = 100_000;
/// The largest page of Ogg.
const OGG_PAGE: u64 = 27 + 255 + 255 * 255;

/// What is missing of `source`, in words.
pub(crate) fn missing(source: &Source) -> io::Result<Option<String>> {
    let mut file = File::open(&source.path)?;
    let there = source.bytes;
    let promised = match source.container {
        Container::Mov => boxes(&mut file, there)?,
        Container::Matroska => segment(&mut file)?,
        Container::Avi | Container::Wav => riff(&mut file)?,
        Container::Flv => return Ok(flv(&mut file, there)?.then(|| "its last tag is not whole".to_owned())),
        Container::Ogg => return Ok(ogg(&mut file, there)?.then(|| "its last page is not whole".to_owned())),
        Container::MpegTs => return Ok(transport(&mut file, there)?.then(|| "its last packet is not whole".to_owned())),
        Container::Mp3 => mp3(&mut file)?,
        Container::MpegPs | Container::Flac | Container::Aac => None,
    };
    let words = |promised| format!("it has {there} of {promised} bytes");
    Ok(promised.filter(|promised| *promised > there).map(words))
}

/// `N` bytes at `at`, if the file has them.
fn bytes<const N: usize>(file: &mut File, at: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the outermost boxes of an MP4 end.
fn boxes(file: &mut File, there: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    for _ in 0..MOST_STEPS {
        let Some(head) = bytes::<8>(file, at)? else { break };
        let (size, kind) = head.split_at(4);
        if !kind.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
            break;
        }
        let size = match big_endian(size) {
            // It reaches to the end, wherever that is.
            0 => break,
            1 => bytes::<8>(file, at + 8)?.map_or(0, u64::from_be_bytes),
            size => size,
        };
        if size < 8 {
            break;
        }
        at = at.saturating_add(size);
        if at >= there {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Where the segment of a Matroska ends, if it was closed.
fn segment(file: &mut File) -> io::Result<Option<u64>> {
    const SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];
    let mut at = 4;
    let Some((length, bytes_of_length)) = variable(file, at)? else { return Ok(None) };
    at += bytes_of_length + length;
    if bytes::<4>(file, at)? != Some(SEGMENT) {
        return Ok(None);
    }
    let Some((length, bytes_of_length)) = variable(file, at + 4)? else { return Ok(None) };
    let unknown = length == (1 << (7 * bytes_of_length)) - 1;
    Ok((!unknown).then(|| (at + 4 + bytes_of_length).saturating_add(length)))
}

/// A number of EBML, and how many bytes it takes.
fn variable(file: &mut File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let Some([first]) = bytes::<1>(file, at)? else { return Ok(None) };
    let length = u64::from(first.leading_zeros()) + 1;
    if length > 8 {
        return Ok(None);
    }
    let mut value = u64::from(first) & ((1 << (8 - length)) - 1);
    for place in 1..length {
        let Some([byte]) = bytes::<1>(file, at + place)? else { return Ok(None) };
        value = (value << 8) | u64::from(byte);
    }
    Ok(Some((value, length)))
}

/// Where the first chunk of a RIFF ends; writers of streams leave 0 or all ones.
fn riff(file: &mut File) -> io::Result<Option<u64>> {
    let Some(head) = bytes::<8>(file, 0)? else { return Ok(None) };
    let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    Ok((&head[..4] == b"RIFF" && size != 0 && size != u32::MAX).then(|| u64::from(size) + 8))
}

/// Whether the last tag of an FLV is not what its length, behind it, says.
fn flv(file: &mut File, there: u64) -> io::Result<bool> {
    let Some(last) = there.checked_sub(4) else { return Ok(true) };
    let length = bytes::<4>(file, last)?.map_or(0, |bytes| big_endian(&bytes));
    let Some(tag) = last.checked_sub(length).filter(|_| length > 11) else { return Ok(true) };
    let head = bytes::<4>(file, tag)?.unwrap_or_default();
    Ok(big_endian(&head[1..]) + 11 != length)
}

/// Whether an Ogg does not end where its last page does.
fn ogg(file: &mut File, there: u64) -> io::Result<bool> {
    let from = there.saturating_sub(OGG_PAGE);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(OGG_PAGE).read_to_end(&mut tail)?;
    let is_last = |at: &usize| {
        let page = &tail[*at..];
        let Some(count) = page.get(26).map(|count| usize::from(*count)) else { return false };
        let table = page.get(27..27 + count).unwrap_or_default();
        table.len() == count && 27 + count + table.iter().map(|size| usize::from(*size)).sum::<usize>() == page.len()
    };
    let mut pages = tail.windows(4).enumerate().filter(|(_, window)| *window == b"OggS").map(|(at, _)| at);
    Ok(!pages.any(|at| is_last(&at)))
}

/// Whether a transport stream ends within a packet.
fn transport(file: &mut File, there: u64) -> io::Result<bool> {
    let packet = if bytes::<1>(file, 0)? == Some([0x47]) { 188 } else { 192 };
    Ok(!there.is_multiple_of(packet))
}

/// Where an MP3 ends whose first frame is a head (Xing, Info) that says so.
fn mp3(file: &mut File) -> io::Result<Option<u64>> {
    let tag = bytes::<10>(file, 0)?.filter(|tag| tag.starts_with(b"ID3"));
    let size = tag.map_or(0, |tag| tag[6..].iter().fold(0, |size, byte| (size << 7) | u64::from(byte & 0x7f)) + 10);
    let Some(frame) = bytes::<64>(file, size)? else { return Ok(None) };
    let Some(at) = frame.windows(4).position(|window| window == b"Xing" || window == b"Info") else { return Ok(None) };
    let Some(head) = frame.get(at..at + 16) else { return Ok(None) };
    let flags = head[7];
    let field = if flags & 1 == 0 { 8 } else { 12 };
    Ok((flags & 2 != 0).then(|| size + big_endian(&head[field..field + 4])))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(container: Container, whole: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film");
        let look = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let source = Source { path: path.clone(), file: "film".into(), container, bytes: content.len() as u64 };
            missing(&source).unwrap()
        };
        assert_eq!(look(whole), None, "{container:?}");
        assert!(look(&whole[..whole.len() - 1]).is_some(), "{container:?}");
        for length in 0..whole.len() {
            look(&whole[..length]);
        }
    }

    #[test]
    fn a_file_without_its_last_byte_is_not_whole() {
        check(Container::Mov, b"\0\0\0\x0cftypisom\0\0\0\x01mdat\0\0\0\0\0\0\0\x14film");
        check(Container::Matroska, b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x84film");
        check(Container::Wav, b"RIFF\x08\0\0\0WAVEdata");
        check(Container::Flv, b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x09\0\0\x01\0\0\0\0\0\0\0f\0\0\0\x0c");
        check(Container::Ogg, b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x04film");
        check(Container::MpegTs, &[0x47; 376]);
        let mut mp3 = [&b"ID3\x04\0\0\0\0\0\x01t\xff\xfb\x90\x44"[..], &[0; 32], b"Xing\0\0\0\x02\0\0\0\x80"].concat();
        mp3.resize(11 + 128, 0);
        check(Container::Mp3, &mp3);
    }

    #[test]
    fn lengths_that_are_not_known_promise_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film");
        for (container, content) in [
            (Container::Matroska, &b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xfffilm"[..]),
            (Container::Mov, b"\0\0\0\x0cftypisom\0\0\0\0mdatfilm"),
            (Container::Wav, b"RIFF\xff\xff\xff\xffWAVE"),
        ] {
            fs::write(&path, content).unwrap();
            let source = Source { path: path.clone(), file: "film".into(), container, bytes: content.len() as u64 };
            assert_eq!(missing(&source).unwrap(), None, "{container:?}");
        }
    }
}
