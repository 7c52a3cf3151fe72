//! From a copy of registers and stack to the addresses that the thread was at: by the unwind tables of its modules, and
//! over code that has none.

use std::{collections::HashMap, ops::Range, sync::Arc};

use framehop::{CacheNative, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder, UnwinderNative};

use crate::{modules::Module, signal::Registers, tables::Tables};

/// Most frames of a stack. Recursion that goes deeper is cut at its outer end.
const DEPTH: usize = 256;
/// Words of a stack that are tried where no table tells the caller.
const CANDIDATES: usize = 64;

/// Walks stacks.
pub(crate) struct Walker {
    unwinder: UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    /// By where they begin.
    code: Vec<Code>,
    /// Whether threads begin there, of places where a stack seemed to end.
    ends: HashMap<u64, bool>,
}

/// Where code lies, and its tables.
struct Code {
    range: Range<u64>,
    bias: u64,
    tables: Option<Tables>,
}

/// The addresses of a stack, the innermost first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) addresses: Vec<u64>,
    /// Whether it goes to where the thread began.
    pub(crate) whole: bool,
}

/// A stack that is walked over.
struct Copied<'a> {
    from: u64,
    bytes: &'a [u8],
}

impl Copied<'_> {
    fn word(&self, address: u64) -> Result<u64, ()> {
        let at = usize::try_from(address.checked_sub(self.from).ok_or(())?).map_err(|_| ())?;
        let word = self.bytes.get(at..at.checked_add(8).ok_or(())?).ok_or(())?;
        Ok(u64::from_le_bytes(word.try_into().map_err(|_| ())?))
    }

    fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.from).is_some_and(|at| at < self.bytes.len() as u64)
    }
}

impl Walker {
    pub(crate) fn new(modules: &[Module]) -> Self {
        let (unwinder, cache) = (UnwinderNative::new(), CacheNative::new_in());
        let mut walker = Self { unwinder, cache, code: Vec::new(), ends: HashMap::new() };
        modules.iter().for_each(|module| walker.add(module));
        walker
    }

    /// From now on code of `module` can be walked through.
    pub(crate) fn add(&mut self, module: &Module) {
        // What lay there before has gone.
        self.code.retain(|code| code.range.end <= module.code.start || module.code.end <= code.range.start);
        self.unwinder.remove_module(module.code.start);
        self.ends.clear();
        let (tables, range) = (module.tables(), module.code.clone());
        if let Some(tables) = &tables {
            let sections = tables.sections();
            self.unwinder.add_module(framehop::Module::new(module.name.clone(), range.clone(), module.bias, sections));
        }
        let place = self.code.partition_point(|code| code.range.start < range.start);
        self.code.insert(place, Code { range, bias: module.bias, tables });
    }

    /// Whether `address` lies in a module.
    fn knows(&self, address: u64) -> bool {
        self.code_at(address).is_some()
    }

    /// Whether a thread begins at `address`. Where a table is missing, or a guess was wrong, a stack seems to end that
    /// does not.
    fn begins(&mut self, address: u64) -> bool {
        if let Some(known) = self.ends.get(&address) {
            return *known;
        }
        let outermost = |code: &Code| code.tables.as_ref()?.is_outermost(address.wrapping_sub(code.bias)).then_some(());
        let begins = self.code_at(address).and_then(outermost).is_some();
        self.ends.insert(address, begins);
        begins
    }

    fn code_at(&self, address: u64) -> Option<&Code> {
        let after = self.code.partition_point(|code| code.range.start <= address);
        self.code[..after].last().filter(|code| code.range.contains(&address))
    }

    /// Where a thread was and who had called it there.
    pub(crate) fn walk(&mut self, at: &Registers, stack: &[u8]) -> Walk {
        if !self.knows(at.pc) {
            return Walk { addresses: vec![at.pc], whole: false };
        }
        let stack = Copied { from: at.sp, bytes: stack };
        let (mut walk, broke) = self.follow(FrameAddress::from_instruction_pointer(at.pc), registers(at), &stack);
        let Some(at) = broke.filter(|_| !walk.whole) else { return walk };
        if let Some(rest) = self.mend(&at, &stack) {
            walk.addresses.extend(rest.addresses);
            walk.addresses.truncate(DEPTH);
            walk.whole = true;
        }
        walk
    }

    /// Goes from caller to caller. Where it cannot go on, the registers of that frame.
    fn follow(
        &mut self,
        begin: FrameAddress,
        mut registers: UnwindRegsNative,
        stack: &Copied<'_>,
    ) -> (Walk, Option<UnwindRegsNative>) {
        let mut walk = Walk::default();
        let mut address = begin;
        while walk.addresses.len() < DEPTH {
            walk.addresses.push(address.address_for_lookup());
            let before = registers;
            let next = self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut |at| stack.word(at));
            match next {
                Ok(None) if self.begins(address.address_for_lookup()) => {
                    walk.whole = true;
                    return (walk, None);
                }
                // Code without tables is taken to have frame pointers: what comes of that may be anything.
                Ok(Some(caller)) if self.knows(caller) && registers.sp() > before.sp() => {
                    address = FrameAddress::from_return_address(caller).expect("no module lies at 0");
                }
                Ok(_) | Err(_) => return (walk, Some(before)),
            }
        }
        walk.whole = true;
        (walk, None)
    }

    /// The rest of a stack whose innermost frame, at `registers`, has no table: assembler, mostly. One of the next words
    /// that could be a place in code is where it returns to: the first from which the way leads to the stack's end.
    fn mend(&mut self, registers: &UnwindRegsNative, stack: &Copied<'_>) -> Option<Walk> {
        let words = (registers.sp()..).step_by(8).map_while(|at| Some((at, stack.word(at).ok()?)));
        let candidates: Vec<(u64, u64)> = words.filter(|(_, word)| self.knows(*word)).take(CANDIDATES).collect();
        for (at, word) in candidates {
            let begin = FrameAddress::from_return_address(word)?;
            // What saves registers saves this one first, next to where it returns to.
            let saved = at.checked_sub(8).and_then(|at| stack.word(at).ok()).filter(|saved| stack.holds(*saved));
            for frame in saved.into_iter().chain([frame_pointer(registers)]) {
                let (walk, _) = self.follow(begin, caller(word, at + 8, frame), stack);
                if walk.whole {
                    return Some(walk);
                }
            }
        }
        None
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(at: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(at.pc, at.sp, at.fp)
}

#[cfg(target_arch = "x86_64")]
fn caller(address: u64, stack: u64, frame: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(address, stack, frame)
}

#[cfg(target_arch = "x86_64")]
fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
    registers.bp()
}

#[cfg(target_arch = "aarch64")]
fn registers(at: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(at.lr, at.sp, at.fp)
}

#[cfg(target_arch = "aarch64")]
fn caller(address: u64, stack: u64, frame: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(address, stack, frame)
}

#[cfg(target_arch = "aarch64")]
fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
    registers.fp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::modules;

    #[test]
    fn what_is_no_code_has_no_callers() {
        let mut walker = Walker::new(&modules());
        let at = Registers { pc: 0x10, sp: 0x1000, fp: 0, lr: 0 };
        let walk = walker.walk(&at, &[0; 64]);
        assert_eq!(walk, Walk { addresses: vec![0x10], whole: false });
    }

    /// Whatever lies on a stack, a walk ends and stays within it.
    #[test]
    fn any_bytes_are_a_stack() {
        let all = modules();
        let mut walker = Walker::new(&all);
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 16
        };
        for _ in 0..300 {
            let sp = 0x7000_0000_0000;
            let mut stack = Vec::new();
            for _ in 0..256 {
                let code = &all[next() as usize % all.len()].code;
                let word = match next() % 3 {
                    0 => code.start + next() % (code.end - code.start),
                    1 => sp + next() % 2048,
                    _ => next(),
                };
                stack.extend(word.to_le_bytes());
            }
            let code = &all[next() as usize % all.len()].code;
            let pc = code.start + next() % (code.end - code.start);
            let walk = walker.walk(&Registers { pc, sp, fp: sp + next() % 4096, lr: next() }, &stack);
            assert!((1..=DEPTH).contains(&walk.addresses.len()));
        }
    }
}
