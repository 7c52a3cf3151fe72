//! From addresses to names that people read.

use std::{collections::HashMap, rc::Rc};

use crate::modules::{Module, Symbols};

/// Most bytes of a name: generics of generics say little.
const LONGEST: usize = 160;

/// Functions at which Rust's own preparations end and what a thread is for begins.
const BEGINNING: [&str; 2] =
    ["std::sys::backtrace::__rust_begin_short_backtrace", "core::ops::function::FnOnce::call_once{{vtable.shim}}"];

/// Names addresses, each once.
pub(crate) struct Namer {
    modules: Vec<(Module, Option<Symbols>)>,
    known: HashMap<u64, Rc<[String]>>,
}

impl Namer {
    pub(crate) fn new(modules: Vec<Module>) -> Self {
        Self { modules: modules.into_iter().map(|module| (module, None)).collect(), known: HashMap::new() }
    }

    /// Names of a stack whose innermost address comes first; the outermost name comes first.
    pub(crate) fn stack(&mut self, addresses: &[u64]) -> Vec<String> {
        let mut frames: Vec<String> = Vec::new();
        for address in addresses.iter().rev() {
            let names = self.names(*address);
            for name in names.iter().rev() {
                // A library without names is one thing, however many of its functions call each other.
                let again = name.starts_with('[') && frames.last() == Some(name);
                if !again {
                    frames.push(name.clone());
                }
            }
        }
        let prepared = frames.iter().rposition(|name| BEGINNING.contains(&name.as_str()));
        frames.split_off(prepared.map_or(0, |at| at + 1))
    }

    fn names(&mut self, address: u64) -> Rc<[String]> {
        if let Some(known) = self.known.get(&address) {
            return Rc::clone(known);
        }
        let names: Rc<[String]> = self.look_up(address).into();
        self.known.insert(address, Rc::clone(&names));
        names
    }

    fn look_up(&mut self, address: u64) -> Vec<String> {
        let Some((module, symbols)) = self.modules.iter_mut().find(|(module, _)| module.code.contains(&address)) else {
            return vec!["[unknown]".to_owned()];
        };
        let symbols = symbols.get_or_insert_with(|| module.symbols());
        let names = symbols.names(address.wrapping_sub(module.bias));
        match names.is_empty() {
            true => vec![format!("[{}]", module.name)],
            false => names.iter().map(|name| readable(name)).collect(),
        }
    }
}

/// A symbol as people write it.
fn readable(symbol: &str) -> String {
    let name = match addr2line::demangle_auto(symbol.into(), None) {
        name if name == symbol => name.into_owned(),
        name => without_hash(&name).to_owned(),
    };
    // Lines of collapsed stacks divide frames by semicolons.
    let mut name = name.replace(';', ",");
    if name.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(end);
        name.push('…');
    }
    name
}

/// What tells equal functions of different crates apart tells readers nothing: `::h` and 16 digits.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable() {
        assert_eq!(readable("_ZN4core3ptr13drop_in_place17h0123456789abcdefE"), "core::ptr::drop_in_place");
        assert_eq!(readable("memcpy"), "memcpy");
        assert_eq!(readable("f<[u8; 4]>"), "f<[u8, 4]>");
        assert!(readable(&"é".repeat(200)).len() <= LONGEST + "…".len());
    }

    #[test]
    fn what_has_no_name_is_named_by_its_module_once() {
        let mut namer = Namer::new(Vec::new());
        assert_eq!(namer.stack(&[1, 2, 3]), ["[unknown]"]);
    }
}
