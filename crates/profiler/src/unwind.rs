//! Stack unwinding: from copied registers and stack to return addresses, with the modules' unwind tables and across
//! code without tables.

use std::{collections::HashMap, ops::Range, sync::Arc};

use framehop::{CacheNative, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _, UnwinderNative};

use crate::{modules::Module, sampler::Registers, unwind_tables::UnwindTables};

/// Maximum number of frames. Deeper recursion is cut at its outer end.
const MAX_FRAMES: usize = 256;
/// Number of stack words that are tried as return addresses where there is no table.
const MAX_CANDIDATES: usize = 64;

/// Unwinds stacks.
pub(crate) struct StackUnwinder {
    unwinder: UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    /// Ordered by address.
    code: Vec<CodeRange>,
    /// Cache of `is_thread_start`.
    ends: HashMap<u64, bool>,
}

/// Address range of a module's code, and its tables.
struct CodeRange {
    range: Range<u64>,
    bias: u64,
    tables: Option<UnwindTables>,
}

/// The addresses of a stack, innermost first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct UnwoundStack {
    pub(crate) addresses: Vec<u64>,
    /// True if it reaches the start of the thread.
    pub(crate) whole: bool,
}

/// A copied stack.
struct StackCopy<'a> {
    from: u64,
    bytes: &'a [u8],
}

impl StackCopy<'_> {
    fn read_word(&self, address: u64) -> Result<u64, ()> {
        let at = usize::try_from(address.checked_sub(self.from).ok_or(())?).map_err(|_| ())?;
        let word = self.bytes.get(at..at.checked_add(8).ok_or(())?).ok_or(())?;
        Ok(u64::from_le_bytes(word.try_into().map_err(|_| ())?))
    }

    fn contains_address(&self, address: u64) -> bool {
        address.checked_sub(self.from).is_some_and(|at| at < self.bytes.len() as u64)
    }
}

impl StackUnwinder {
    pub(crate) fn new(modules: &[Module]) -> Self {
        let (unwinder, cache) = (UnwinderNative::new(), CacheNative::new_in());
        let mut unwinder = Self { unwinder, cache, code: Vec::new(), ends: HashMap::new() };
        modules.iter().for_each(|module| unwinder.add_module(module));
        unwinder
    }

    /// Adds a module, so that its code can be unwound.
    pub(crate) fn add_module(&mut self, module: &Module) {
        // Modules that were mapped there before are gone.
        self.code.retain(|code| code.range.end <= module.code.start || module.code.end <= code.range.start);
        self.unwinder.remove_module(module.code.start);
        self.ends.clear();
        let (tables, range) = (module.unwind_tables(), module.code.clone());
        if let Some(tables) = &tables {
            let sections = tables.to_module_sections();
            self.unwinder.add_module(framehop::Module::new(module.name.clone(), range.clone(), module.bias, sections));
        }
        let index = self.code.partition_point(|code| code.range.start < range.start);
        self.code.insert(index, CodeRange { range, bias: module.bias, tables });
    }

    /// Returns true if `address` is in a module.
    fn is_code(&self, address: u64) -> bool {
        self.code_at(address).is_some()
    }

    /// Returns true if a thread starts at `address`. If a table is missing, or a guess was wrong, a stack seems to end
    /// earlier.
    fn is_thread_start(&mut self, address: u64) -> bool {
        if let Some(known) = self.ends.get(&address) {
            return *known;
        }
        let outermost =
            |code: &CodeRange| code.tables.as_ref()?.is_outermost(address.wrapping_sub(code.bias)).then_some(());
        let is_start = self.code_at(address).and_then(outermost).is_some();
        self.ends.insert(address, is_start);
        is_start
    }

    fn code_at(&self, address: u64) -> Option<&CodeRange> {
        let after = self.code.partition_point(|code| code.range.start <= address);
        self.code[..after].last().filter(|code| code.range.contains(&address))
    }

    /// Unwinds a copied stack from `at`.
    pub(crate) fn unwind_stack(&mut self, at: &Registers, stack: &[u8]) -> UnwoundStack {
        if !self.is_code(at.pc) {
            return UnwoundStack { addresses: vec![at.pc], whole: false };
        }
        let stack = StackCopy { from: at.sp, bytes: stack };
        let (mut unwound, stopped_at) =
            self.follow_callers(FrameAddress::from_instruction_pointer(at.pc), unwind_registers(at), &stack);
        let Some(at) = stopped_at.filter(|_| !unwound.whole) else { return unwound };
        if let Some(rest) = self.recover_caller(&at, &stack) {
            unwound.addresses.extend(rest.addresses);
            unwound.addresses.truncate(MAX_FRAMES);
            unwound.whole = true;
        }
        unwound
    }

    /// Follows callers. If it cannot continue, returns the registers of the last frame.
    fn follow_callers(
        &mut self,
        begin: FrameAddress,
        mut registers: UnwindRegsNative,
        stack: &StackCopy<'_>,
    ) -> (UnwoundStack, Option<UnwindRegsNative>) {
        let mut unwound = UnwoundStack::default();
        let mut address = begin;
        while unwound.addresses.len() < MAX_FRAMES {
            unwound.addresses.push(address.address_for_lookup());
            let before = registers;
            let next =
                self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut |at| stack.read_word(at));
            match next {
                Ok(None) if self.is_thread_start(address.address_for_lookup()) => {
                    unwound.whole = true;
                    return (unwound, None);
                }
                // Code without tables is assumed to have frame pointers; the result may be invalid.
                Ok(Some(caller)) if self.is_code(caller) && registers.sp() > before.sp() => {
                    address = FrameAddress::from_return_address(caller).expect("no module is mapped at 0");
                }
                Ok(_) | Err(_) => return (unwound, Some(before)),
            }
        }
        unwound.whole = true;
        (unwound, None)
    }

    /// Recovers the rest of a stack whose innermost frame, at `registers`, has no table: mostly assembler. One of the
    /// next words that are code addresses is its return address: the first one from which unwinding reaches the end.
    fn recover_caller(&mut self, registers: &UnwindRegsNative, stack: &StackCopy<'_>) -> Option<UnwoundStack> {
        let words = (registers.sp()..).step_by(8).map_while(|at| Some((at, stack.read_word(at).ok()?)));
        let candidates: Vec<(u64, u64)> = words.filter(|(_, word)| self.is_code(*word)).take(MAX_CANDIDATES).collect();
        for (at, word) in candidates {
            let begin = FrameAddress::from_return_address(word)?;
            // A function that saves registers saves the frame pointer first, next to the return address.
            let saved = at
                .checked_sub(8)
                .and_then(|at| stack.read_word(at).ok())
                .filter(|saved| stack.contains_address(*saved));
            for frame in saved.into_iter().chain([frame_pointer(registers)]) {
                let (unwound, _) = self.follow_callers(begin, caller_registers(word, at + 8, frame), stack);
                if unwound.whole {
                    return Some(unwound);
                }
            }
        }
        None
    }
}

#[cfg(target_arch = "x86_64")]
fn unwind_registers(at: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(at.pc, at.sp, at.fp)
}

#[cfg(target_arch = "x86_64")]
fn caller_registers(address: u64, stack: u64, frame: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(address, stack, frame)
}

#[cfg(target_arch = "x86_64")]
fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
    registers.bp()
}

#[cfg(target_arch = "aarch64")]
fn unwind_registers(at: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(at.lr, at.sp, at.fp)
}

#[cfg(target_arch = "aarch64")]
fn caller_registers(address: u64, stack: u64, frame: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(address, stack, frame)
}

#[cfg(target_arch = "aarch64")]
fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
    registers.fp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::loaded_modules;

    #[test]
    fn unwind_stack_outside_code_has_no_callers() {
        let mut unwinder = StackUnwinder::new(&loaded_modules());
        let at = Registers { pc: 0x10, sp: 0x1000, fp: 0, lr: 0 };
        let unwound = unwinder.unwind_stack(&at, &[0; 64]);
        assert_eq!(unwound, UnwoundStack { addresses: vec![0x10], whole: false });
    }

    #[test]
    fn unwind_stack_of_random_bytes_ends() {
        let all = loaded_modules();
        let mut unwinder = StackUnwinder::new(&all);
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
            let unwound = unwinder.unwind_stack(&Registers { pc, sp, fp: sp + next() % 4096, lr: next() }, &stack);
            assert!((1..=MAX_FRAMES).contains(&unwound.addresses.len()));
        }
    }
}
