//! Symbolisation: from addresses to readable function names.

use std::{collections::HashMap, rc::Rc};

use crate::modules::{Module, Symbols};

/// Bytes of a name; nested generics say little.
const MAX_NAME_BYTES: usize = 160;

/// The frame at which the runtime's set-up of a thread ends and the thread's function begins.
const THREAD_ENTRY: &str = "std::sys::backtrace::__rust_begin_short_backtrace";

/// Symbolises addresses, each once.
pub(crate) struct Symbolizer {
    modules: Vec<(Module, Option<Symbols>)>,
    cache: HashMap<u64, Rc<[String]>>,
}

impl Symbolizer {
    pub(crate) fn new(modules: Vec<Module>) -> Self {
        Self { modules: modules.into_iter().map(|module| (module, None)).collect(), cache: HashMap::new() }
    }

    /// Names of a stack, outermost first; `addresses` are innermost first.
    pub(crate) fn symbolize_stack(&mut self, addresses: &[u64]) -> Vec<String> {
        let mut frames: Vec<String> = Vec::new();
        for address in addresses.iter().rev() {
            let names = self.names_of(*address);
            for name in names.iter().rev() {
                // Consecutive frames in a library without symbols are merged.
                let is_repeated = name.starts_with('[') && frames.last() == Some(name);
                if !is_repeated && !is_glue_frame(name) {
                    frames.push(name.clone());
                }
            }
        }
        let prepared = frames.iter().rposition(|name| name == THREAD_ENTRY);
        let from = match prepared {
            Some(at) => at + 1,
            // Threads that were not started by Rust begin in the C library.
            None => usize::from(frames.len() > 1 && frames[0] == "[libc.so]"),
        };
        frames.split_off(from)
    }

    fn names_of(&mut self, address: u64) -> Rc<[String]> {
        if let Some(names) = self.cache.get(&address) {
            return Rc::clone(names);
        }
        let names: Rc<[String]> = self.look_up(address).into();
        self.cache.insert(address, Rc::clone(&names));
        names
    }

    fn look_up(&mut self, address: u64) -> Vec<String> {
        let Some((module, symbols)) = self.modules.iter_mut().find(|(module, _)| module.code.contains(&address)) else {
            return vec!["[unknown]".to_owned()];
        };
        let symbols = symbols.get_or_insert_with(|| module.load_symbols());
        let names = symbols.names_at(address.wrapping_sub(module.bias));
        match names.is_empty() {
            true => vec![format!("[{}]", module.name)],
            false => names.iter().map(|name| readable_name(name)).collect(),
        }
    }
}

/// Returns true for a frame that only connects two functions, such as a closure call: its time belongs to its caller.
fn is_glue_frame(name: &str) -> bool {
    let step = matches!(name, "catch_unwind" | "do_call" | "call_once");
    let closure = name.starts_with("{closure#") && name.ends_with('}');
    step || closure || name.ends_with("::call_once") || name.ends_with("::call_once{{vtable.shim}}")
}

/// A demangled, shortened name.
fn readable_name(symbol: &str) -> String {
    let name = addr2line::demangle_auto(symbol.into(), None);
    // Collapsed stacks separate frames by semicolons.
    let mut name = without_traits(&without_generics(without_hash(&name))).replace(';', ",");
    if name.len() > MAX_NAME_BYTES {
        let end = (0..=MAX_NAME_BYTES).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(end);
        name.push('…');
    }
    name
}

/// Removes generic arguments: `map::<A, B>` becomes `map`, and `<Vec<T> as Drop>::drop` becomes `<Vec as Drop>::drop`.
fn without_generics(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    // For each open angle bracket: true if its content is omitted.
    let mut open: Vec<bool> = Vec::new();
    let mut before = ' ';
    for letter in name.chars() {
        let hidden = open.last() == Some(&true);
        match letter {
            '<' => {
                // After a name it encloses arguments; otherwise it is part of a path.
                let arguments = before.is_alphanumeric() || before == '_' || before == ':' || before == '}';
                if arguments && !hidden {
                    short.truncate(short.trim_end_matches("::").len());
                }
                open.push(hidden || arguments);
                if !hidden && !arguments {
                    short.push(letter);
                }
            }
            '>' if before != '-' && !open.is_empty() => {
                if open.pop() == Some(false) {
                    short.push(letter);
                }
            }
            _ if hidden => {}
            _ => short.push(letter),
        }
        before = letter;
    }
    short
}

/// Replaces `<Queue as Drop>::drop` by `Queue::drop`, because profile viewers treat angle brackets as arguments and
/// hide their content.
fn without_traits(name: &str) -> String {
    let mut short = name.to_owned();
    while let Some(open) = short.find('<') {
        match closing_bracket(&short[open..]) {
            Some(close) => {
                let inner = &short[open + 1..open + close];
                let of = own_type(inner).to_owned();
                short.replace_range(open..=open + close, &of);
            }
            // An unclosed bracket is the name of an operator.
            None => short.replace_range(open..=open, "less"),
        }
    }
    short
}

/// Index of the bracket that closes the one at the start of `text`; arrows are not brackets.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut depth, mut before) = (0, ' ');
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        before = letter;
    }
    None
}

/// The text before ` as Trait`, outside of nested brackets.
fn own_type(inner: &str) -> &str {
    let (mut depth, mut before) = (0, ' ');
    for (at, letter) in inner.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            ' ' if depth == 0 && inner[at..].starts_with(" as ") => return &inner[..at],
            _ => {}
        }
        before = letter;
    }
    inner
}

/// Removes the hash of a symbol: `::h` and 16 digits.
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
    fn readable_name_demangles_and_shortens() {
        assert_eq!(readable_name("_ZN4core3ptr13drop_in_place17h0123456789abcdefE"), "core::ptr::drop_in_place");
        assert_eq!(readable_name("memcpy"), "memcpy");
        assert_eq!(readable_name("<[u8; 4] as A>::f"), "[u8, 4]::f");
        assert!(readable_name(&"é".repeat(200)).len() <= MAX_NAME_BYTES + "…".len());
    }

    #[test]
    fn without_generics_removes_arguments() {
        let check = |long: &str, short: &str| assert_eq!(without_generics(long), short);
        check("catch_unwind<core::result::Result<(), Error>, {closure#0}>", "catch_unwind");
        check("alloc::vec::Vec::from_iter::<u8, F<u8>>", "alloc::vec::Vec::from_iter");
        check("<alloc::vec::Vec<T, A> as Drop<X>>::drop", "<alloc::vec::Vec as Drop>::drop");
        check("<caudal::Queue<fn(u8) -> u8>>::run::{closure#0}", "<caudal::Queue>::run::{closure#0}");
        check("main", "main");
        check("a -> b > c", "a -> b > c");
    }

    #[test]
    fn without_traits_removes_angle_brackets() {
        let check = |long: &str, short: &str| assert_eq!(without_traits(long), short);
        check("<caudal::OnnxInstance as caudal::Instance>::run", "caudal::OnnxInstance::run");
        check("<caudal::Queue>::run::{closure#0}", "caudal::Queue::run::{closure#0}");
        check("<<A as B>::C as D>::e", "A::C::e");
        check("<&fn(u8) -> u8 as Debug>::fmt", "&fn(u8) -> u8::fmt");
        check("operator<", "operatorless");
        check("a -> b > c", "a -> b > c");
        check("main", "main");
    }

    #[test]
    fn is_glue_frame_matches_closures_and_call_once() {
        for step in ["{closure#2}", "call_once", "<alloc::boxed::Box as core::ops::function::FnOnce>::call_once"] {
            assert!(is_glue_frame(step), "{step}");
        }
        for name in ["caudal::main", "caudal::run::{closure#0}", "call", "[libc.so]"] {
            assert!(!is_glue_frame(name), "{name}");
        }
    }

    #[test]
    fn symbolize_stack_merges_unknown_frames() {
        let mut symbolizer = Symbolizer::new(Vec::new());
        assert_eq!(symbolizer.symbolize_stack(&[1, 2, 3]), ["[unknown]"]);
    }
}
