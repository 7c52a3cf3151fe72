//! What a power cut can leave of what a process wrote, worked out from the log that `shim.c` makes.

use std::{collections::HashMap, fs, path::Path};

/// A sector is written whole or not at all.
const SECTOR: usize = 512;

/// What a process did.
pub(crate) enum Event {
    Write { file: String, offset: usize, bytes: Vec<u8> },
    Cut { file: String, length: usize },
    Flush { file: String },
    FailedFlush { file: String },
    Remove { file: String },
}

/// Reads the log.
pub(crate) fn events(log: &[u8]) -> Vec<Event> {
    let (mut events, mut rest) = (Vec::new(), log);
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes")) as usize;
    while rest.len() >= 18 {
        let (what, name, offset, length) = (rest[0], usize::from(rest[1]), number(&rest[2..10]), number(&rest[10..18]));
        rest = &rest[18..];
        let file = String::from_utf8_lossy(&rest[..name]).into_owned();
        rest = &rest[name..];
        let bytes = rest[..length].to_vec();
        rest = &rest[length..];
        events.push(match what {
            b'w' => Event::Write { file, offset, bytes },
            b't' => Event::Cut { file, length: offset },
            b's' => Event::Flush { file },
            b'f' => Event::FailedFlush { file },
            b'u' => Event::Remove { file },
            what => panic!("{}?", char::from(what)),
        });
    }
    events
}

#[derive(Clone)]
enum Pending {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// A file: what is on the disk for certain, and what may be there or not, in the order in which it was done.
#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

/// A disk in the middle of its life.
#[derive(Default)]
pub(crate) struct Disk {
    files: HashMap<String, File>,
    /// What the process had acknowledged.
    pub(crate) acks: Vec<u8>,
}

impl Disk {
    pub(crate) fn follow(&mut self, event: &Event, chance: &mut fastrand::Rng) {
        match event {
            Event::Write { file, bytes, .. } if file == "acks" => self.acks.extend(bytes),
            Event::Write { file, offset, bytes } => {
                self.file(file).pending.push(Pending::Write(*offset, bytes.clone()));
            }
            Event::Cut { file, length } => self.file(file).pending.push(Pending::Cut(*length)),
            Event::Flush { file } => {
                let file = self.file(file);
                for pending in std::mem::take(&mut file.pending) {
                    apply(&mut file.durable, &pending, |_| true);
                }
            }
            // The kernel may have written any of it, and will not write the rest any more: whoever flushes again is told
            // that all is well.
            Event::FailedFlush { file } => {
                let file = self.file(file);
                for pending in std::mem::take(&mut file.pending) {
                    apply(&mut file.durable, &pending, |_| chance.bool());
                }
            }
            Event::Remove { file } => drop(self.files.remove(file)),
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        self.files.entry(name.to_owned()).or_default()
    }

    /// Leaves in `folder` what a power cut now could leave.
    pub(crate) fn cut(&self, folder: &Path, chance: &mut fastrand::Rng) {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).expect("a folder");
        // Often, nothing is there that was not flushed: what was acknowledged must need nothing else.
        let bare = chance.u8(..3) == 0;
        for (name, file) in &self.files {
            let mut bytes = file.durable.clone();
            let style = if bare { 0 } else { chance.u8(..6) };
            let prefix = chance.usize(..=file.pending.len());
            let odds = [0.1, 0.5, 0.9][chance.usize(..3)];
            for (place, pending) in file.pending.iter().enumerate() {
                match style {
                    0 => {}
                    1 => apply(&mut bytes, pending, |_| true),
                    2 if place < prefix => apply(&mut bytes, pending, |_| true),
                    // The last of them torn.
                    3 if place < prefix => {
                        let torn = place + 1 == prefix;
                        apply(&mut bytes, pending, |_| !torn || chance.bool());
                    }
                    4 if chance.f64() < odds => apply(&mut bytes, pending, |_| true),
                    5 => apply(&mut bytes, pending, |_| chance.f64() < odds),
                    _ => {}
                }
            }
            fs::write(folder.join(name), bytes).expect("an image");
        }
    }
}

/// Does what was pending, as far as `sector` says of each of its sectors.
fn apply(bytes: &mut Vec<u8>, pending: &Pending, mut sector: impl FnMut(usize) -> bool) {
    match pending {
        Pending::Cut(length) if sector(0) => bytes.resize(*length, 0),
        Pending::Cut(_) => {}
        Pending::Write(offset, written) => {
            let mut place = 0;
            while place < written.len() {
                let end = (((offset + place) / SECTOR + 1) * SECTOR - offset).min(written.len());
                if sector(place) {
                    if bytes.len() < offset + end {
                        bytes.resize(offset + end, 0);
                    }
                    bytes[offset + place..offset + end].copy_from_slice(&written[place..end]);
                }
                place = end;
            }
        }
    }
}
