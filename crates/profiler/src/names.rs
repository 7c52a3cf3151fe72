//! From addresses to names that people read.

use std::{collections::HashMap, rc::Rc};

use crate::modules::{Module, Symbols};

/// Most bytes of a name: generics of generics say little.
const LONGEST: usize = 160;

/// Where Rust's own preparations end and what a thread is for begins.
const BEGINNING: &str = "std::sys::backtrace::__rust_begin_short_backtrace";

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
                if !again && !says_nothing(name) {
                    frames.push(name.clone());
                }
            }
        }
        let prepared = frames.iter().rposition(|name| name == BEGINNING);
        let from = match prepared {
            Some(at) => at + 1,
            // Threads that others start begin in the C library.
            None => usize::from(frames.len() > 1 && frames[0] == "[libc.so]"),
        };
        frames.split_off(from)
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

/// Whether a frame is but a step between two that have names of their own: its time is its caller's.
fn says_nothing(name: &str) -> bool {
    let step = matches!(name, "catch_unwind" | "do_call" | "call_once");
    let closure = name.starts_with("{closure#") && name.ends_with('}');
    step || closure || name.ends_with("::call_once") || name.ends_with("::call_once{{vtable.shim}}")
}

/// A symbol as people write it.
fn readable(symbol: &str) -> String {
    let name = addr2line::demangle_auto(symbol.into(), None);
    // Lines of collapsed stacks divide frames by semicolons.
    let mut name = without_traits(&without_generics(without_hash(&name))).replace(';', ",");
    if name.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(end);
        name.push('…');
    }
    name
}

/// `map::<A, B>` is `map`, and `<Vec<T> as Drop>::drop` is `<Vec as Drop>::drop`: what functions are made for is longer
/// than what they are.
fn without_generics(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    // For each angle that is open: whether what it holds is left out.
    let mut open: Vec<bool> = Vec::new();
    let mut before = ' ';
    for letter in name.chars() {
        let hidden = open.last() == Some(&true);
        match letter {
            '<' => {
                // Behind a name it holds arguments; else it is part of a path.
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

/// `<Queue as Drop>::drop` is `Queue::drop`: viewers of profiles take angle brackets for arguments and leave out what they
/// hold.
fn without_traits(name: &str) -> String {
    let mut short = name.to_owned();
    while let Some(open) = short.find('<') {
        match closing(&short[open..]) {
            Some(close) => {
                let inner = &short[open + 1..open + close];
                let of = own_type(inner).to_owned();
                short.replace_range(open..=open + close, &of);
            }
            // One that is never closed is an operator's name.
            None => short.replace_range(open..=open, "less"),
        }
    }
    short
}

/// Where the angle bracket closes with which `text` begins; arrows close nothing.
fn closing(text: &str) -> Option<usize> {
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

/// What stands before ` as Trait`, outside of brackets within.
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
        assert_eq!(readable("<[u8; 4] as A>::f"), "[u8, 4]::f");
        assert!(readable(&"é".repeat(200)).len() <= LONGEST + "…".len());
    }

    #[test]
    fn names_are_without_what_they_are_made_for() {
        let check = |long: &str, short: &str| assert_eq!(without_generics(long), short);
        check("catch_unwind<core::result::Result<(), Error>, {closure#0}>", "catch_unwind");
        check("alloc::vec::Vec::from_iter::<u8, F<u8>>", "alloc::vec::Vec::from_iter");
        check("<alloc::vec::Vec<T, A> as Drop<X>>::drop", "<alloc::vec::Vec as Drop>::drop");
        check("<caudal::Queue<fn(u8) -> u8>>::run::{closure#0}", "<caudal::Queue>::run::{closure#0}");
        check("main", "main");
        check("a -> b > c", "a -> b > c");
    }

    #[test]
    fn names_hold_no_angle_brackets() {
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
    fn steps_between_functions_are_left_out() {
        for step in ["{closure#2}", "call_once", "<alloc::boxed::Box as core::ops::function::FnOnce>::call_once"] {
            assert!(says_nothing(step), "{step}");
        }
        for name in ["caudal::main", "caudal::run::{closure#0}", "call", "[libc.so]"] {
            assert!(!says_nothing(name), "{name}");
        }
    }

    #[test]
    fn what_has_no_name_is_named_by_its_module_once() {
        let mut namer = Namer::new(Vec::new());
        assert_eq!(namer.stack(&[1, 2, 3]), ["[unknown]"]);
    }
}
