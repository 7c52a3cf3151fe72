//! What the process is made of: the program and its libraries, where they lie, and what they say of their stacks and
//! names.

use std::{collections::BTreeMap, fs, ops::Range, path::PathBuf};

use addr2line::Loader;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SegmentFlags, SymbolKind};

use crate::tables::{Part, Tables};

/// A file whose code the process may run.
pub(crate) struct Module {
    /// Its name without folder and without what follows `.so`.
    pub(crate) name: String,
    /// Where its code lies.
    pub(crate) code: Range<u64>,
    /// What addresses in the file are less than addresses in memory.
    pub(crate) bias: u64,
    path: PathBuf,
}

/// All modules, by where they lie.
pub(crate) fn modules() -> Vec<Module> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.to_string_lossy();
    let mut code: BTreeMap<&str, (Range<u64>, u64)> = BTreeMap::new();
    for (range, offset, path) in maps.lines().filter_map(code_map) {
        let known = code.entry(path).or_insert((range.clone(), offset));
        known.0.end = range.end;
    }
    let mut found: Vec<Module> = code
        .into_iter()
        .map(|(path, (code, offset))| {
            // The program's own file is there even when its name is not any more.
            let file = PathBuf::from(if path == program { "/proc/self/exe" } else { path });
            let (name, bias) = (short(path), bias(&file, code.start, offset).unwrap_or(0));
            Module { name, code, bias, path: file }
        })
        .collect();
    found.sort_by_key(|module| module.code.start);
    found
}

/// Range, offset in the file and name of a map that holds code.
fn code_map(line: &str) -> Option<(Range<u64>, u64, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (range, access, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let name = fields.nth(2)?.trim();
    if !access.contains('x') || name.is_empty() {
        return None;
    }
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = range.split_once('-')?;
    Some((number(start)?..number(end)?, number(offset)?, name))
}

/// A module's name: its file's, without folder and release.
pub(crate) fn short(path: &str) -> String {
    let name = path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or(path).trim_matches(['[', ']']);
    name.split_once(".so.").map_or_else(|| name.to_owned(), |(name, _)| format!("{name}.so"))
}

fn bias(file: &PathBuf, start: u64, offset: u64) -> Option<u64> {
    let cache = ReadCache::new(fs::File::open(file).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let holds = |at: u64, length: u64| offset >= at / 4096 * 4096 && offset < at + length;
    // Two parts of a file may share a page of it: the one that holds code is meant.
    let is_code = |flags| matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0);
    elf.segments().filter(|segment| is_code(segment.flags())).find_map(|segment| {
        let (at, length) = segment.file_range();
        holds(at, length).then(|| start.wrapping_sub(offset).wrapping_add(at).wrapping_sub(segment.address()))
    })
}

impl Module {
    /// What unwinding through its code takes.
    pub(crate) fn tables(&self) -> Option<Tables> {
        let cache = ReadCache::new(fs::File::open(&self.path).ok()?);
        let elf = object::File::parse(&cache).ok()?;
        let start = |name: &str| elf.section_by_name(name).map(|found| found.address());
        let part = |name: &str| {
            let found = elf.section_by_name(name)?;
            Some(Part { at: found.address()..found.address() + found.size(), bytes: found.data().ok()?.into() })
        };
        Some(Tables {
            frames: part(".eh_frame")?,
            index: part(".eh_frame_hdr")?,
            text: start(".text").unwrap_or(0),
            got: start(".got").unwrap_or(0),
        })
    }

    /// What gives its addresses names.
    pub(crate) fn symbols(&self) -> Symbols {
        Symbols { sized: self.sized().unwrap_or_default(), lines: Loader::new(&self.path).ok() }
    }

    /// Functions of the tables of symbols, by where they begin.
    fn sized(&self) -> Option<Vec<(Range<u64>, String)>> {
        let cache = ReadCache::new(fs::File::open(&self.path).ok()?);
        let elf = object::File::parse(&cache).ok()?;
        let mut sized: Vec<(Range<u64>, String)> = elf
            .symbols()
            .chain(elf.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .filter_map(|symbol| {
                Some((symbol.address()..symbol.address() + symbol.size(), symbol.name().ok()?.to_owned()))
            })
            .collect();
        sized.sort_by(|a, b| a.0.start.cmp(&b.0.start).then_with(|| a.1.cmp(&b.1)));
        Some(sized)
    }
}

/// Names of addresses in one module.
pub(crate) struct Symbols {
    sized: Vec<(Range<u64>, String)>,
    lines: Option<Loader>,
}

impl Symbols {
    /// Names of the function at `address` of the file and of those that are inlined there, the innermost first; none
    /// where nobody knows. The nearest symbol before it would be a guess where a library has lost its own.
    pub(crate) fn names(&self, address: u64) -> Vec<String> {
        let outermost = self.function(address);
        let mut names = Vec::new();
        if let Some(mut frames) = self.lines.as_ref().and_then(|lines| lines.find_frames(address).ok()) {
            while let Ok(Some(frame)) = frames.next() {
                let raw = frame.function.as_ref().and_then(|function| function.raw_name().ok());
                names.extend(raw.map(|name| name.into_owned()));
            }
        }
        // The symbol has the whole path, which lines alone may lack.
        if let Some(symbol) = outermost {
            names.pop();
            names.push(symbol.to_owned());
        }
        names
    }

    fn function(&self, address: u64) -> Option<&str> {
        let after = self.sized.partition_point(|(range, _)| range.start <= address);
        let (range, name) = self.sized[..after].last()?;
        range.contains(&address).then_some(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_function_is_found_by_its_address() {
        let all = modules();
        let here = modules as *const () as u64;
        let own = all.iter().find(|module| module.code.contains(&here)).unwrap();
        let names = own.symbols().names(here - own.bias);
        assert!(names.last().unwrap().contains("modules"), "{names:?}");
        assert!(own.tables().is_some());
        assert!(all.iter().any(|module| module.name == "libc.so"), "libraries are modules");
    }

    #[test]
    fn names_are_short() {
        assert_eq!(short("/a/b/libonnxruntime.so.1.31.1"), "libonnxruntime.so");
        assert_eq!(short("/a/caudal (deleted)"), "caudal");
        assert_eq!(short("[vdso]"), "vdso");
        let line = "7f00-8f00 r-xp 00001000 fe:00 1234                       /a b/lib.so";
        assert_eq!(code_map(line), Some((0x7f00..0x8f00, 0x1000, "/a b/lib.so")));
        assert_eq!(code_map("7f00-8f00 rw-p 00001000 fe:00 1234 /a"), None);
    }
}
