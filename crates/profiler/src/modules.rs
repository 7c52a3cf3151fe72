//! The loaded modules: the program and its libraries, their addresses, unwind tables and symbols.

use std::{collections::BTreeMap, fs, ops::Range, path::PathBuf};

use addr2line::Loader;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SegmentFlags, SymbolKind};

use crate::unwind_tables::{Section, UnwindTables};

/// A file with executable code that is mapped into the process.
pub(crate) struct Module {
    /// File name without folder and without the version after `.so`.
    pub(crate) name: String,
    /// Addresses of its code.
    pub(crate) code: Range<u64>,
    /// Difference between an address in memory and in the file.
    pub(crate) bias: u64,
    path: PathBuf,
}

/// All loaded modules, by address.
pub(crate) fn loaded_modules() -> Vec<Module> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.to_string_lossy();
    let mut code: BTreeMap<&str, (Range<u64>, u64)> = BTreeMap::new();
    for (range, offset, path) in maps.lines().filter_map(parse_code_mapping) {
        let known = code.entry(path).or_insert((range.clone(), offset));
        known.0.end = range.end;
    }
    let mut found: Vec<Module> = code
        .into_iter()
        .map(|(path, (code, offset))| {
            // The program's own file is available here even if it was deleted.
            let file = PathBuf::from(if path == program { "/proc/self/exe" } else { path });
            let (name, bias) = (short_name(path), load_bias(&file, code.start, offset).unwrap_or(0));
            Module { name, code, bias, path: file }
        })
        .collect();
    found.sort_by_key(|module| module.code.start);
    found
}

/// Address range, file offset and path of an executable mapping; `line` is from /proc/self/maps.
fn parse_code_mapping(line: &str) -> Option<(Range<u64>, u64, &str)> {
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

/// File name of a module, without folder and version.
pub(crate) fn short_name(path: &str) -> String {
    let name = path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or(path).trim_matches(['[', ']']);
    name.split_once(".so.").map_or_else(|| name.to_owned(), |(name, _)| format!("{name}.so"))
}

/// Difference between the addresses in memory and in `file`.
fn load_bias(file: &PathBuf, start: u64, offset: u64) -> Option<u64> {
    let cache = ReadCache::new(fs::File::open(file).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let contains = |at: u64, length: u64| offset >= at / 4096 * 4096 && offset < at + length;
    // Two segments may share a page of the file: the executable one is meant.
    let is_code = |flags| matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0);
    elf.segments().filter(|segment| is_code(segment.flags())).find_map(|segment| {
        let (at, length) = segment.file_range();
        contains(at, length).then(|| start.wrapping_sub(offset).wrapping_add(at).wrapping_sub(segment.address()))
    })
}

impl Module {
    /// Loads the tables for unwinding through its code.
    pub(crate) fn unwind_tables(&self) -> Option<UnwindTables> {
        let cache = ReadCache::new(fs::File::open(&self.path).ok()?);
        let elf = object::File::parse(&cache).ok()?;
        let start = |name: &str| elf.section_by_name(name).map(|found| found.address());
        let part = |name: &str| {
            let found = elf.section_by_name(name)?;
            Some(Section { at: found.address()..found.address() + found.size(), bytes: found.data().ok()?.into() })
        };
        Some(UnwindTables {
            frames: part(".eh_frame")?,
            index: part(".eh_frame_hdr")?,
            text: start(".text").unwrap_or(0),
            got: start(".got").unwrap_or(0),
        })
    }

    /// Loads its symbols.
    pub(crate) fn load_symbols(&self) -> Symbols {
        Symbols { functions: self.function_symbols().unwrap_or_default(), lines: Loader::new(&self.path).ok() }
    }

    /// Functions of its symbol tables, by address.
    fn function_symbols(&self) -> Option<Vec<(Range<u64>, String)>> {
        let cache = ReadCache::new(fs::File::open(&self.path).ok()?);
        let elf = object::File::parse(&cache).ok()?;
        let mut functions: Vec<(Range<u64>, String)> = elf
            .symbols()
            .chain(elf.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .filter_map(|symbol| {
                Some((symbol.address()..symbol.address() + symbol.size(), symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort_by(|a, b| a.0.start.cmp(&b.0.start).then_with(|| a.1.cmp(&b.1)));
        Some(functions)
    }
}

/// Symbols of one module.
pub(crate) struct Symbols {
    functions: Vec<(Range<u64>, String)>,
    lines: Option<Loader>,
}

impl Symbols {
    /// Names of the function at `address` of the file and of those inlined there, innermost first; empty if unknown.
    /// The nearest symbol before the address would be a wrong guess in a stripped library.
    pub(crate) fn names_at(&self, address: u64) -> Vec<String> {
        let outermost = self.function_at(address);
        let mut names = Vec::new();
        if let Some(mut frames) = self.lines.as_ref().and_then(|lines| lines.find_frames(address).ok()) {
            while let Ok(Some(frame)) = frames.next() {
                let raw = frame.function.as_ref().and_then(|function| function.raw_name().ok());
                names.extend(raw.map(|name| name.into_owned()));
            }
        }
        // The symbol has the whole path, which debug information alone may lack.
        if let Some(symbol) = outermost {
            names.pop();
            names.push(symbol.to_owned());
        }
        names
    }

    fn function_at(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(range, _)| range.start <= address);
        let (range, name) = self.functions[..after].last()?;
        range.contains(&address).then_some(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_modules_contain_this_function() {
        let all = loaded_modules();
        let here = loaded_modules as *const () as u64;
        let own = all.iter().find(|module| module.code.contains(&here)).unwrap();
        let names = own.load_symbols().names_at(here - own.bias);
        assert!(names.last().unwrap().contains("loaded_modules"), "{names:?}");
        assert!(own.unwind_tables().is_some());
        assert!(all.iter().any(|module| module.name == "libc.so"), "libraries are modules");
    }

    #[test]
    fn short_name_omits_folder_and_version() {
        assert_eq!(short_name("/a/b/libonnxruntime.so.1.31.1"), "libonnxruntime.so");
        assert_eq!(short_name("/a/caudal (deleted)"), "caudal");
        assert_eq!(short_name("[vdso]"), "vdso");
        let line = "7f00-8f00 r-xp 00001000 fe:00 1234                       /a b/lib.so";
        assert_eq!(parse_code_mapping(line), Some((0x7f00..0x8f00, 0x1000, "/a b/lib.so")));
        assert_eq!(parse_code_mapping("7f00-8f00 rw-p 00001000 fe:00 1234 /a"), None);
    }
}
