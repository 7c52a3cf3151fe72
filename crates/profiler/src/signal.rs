//! Timers, their signal and its handler: a thread that has worked for a period leaves a copy of its registers and of
//! its stack in a slot, for somebody else to read.
//!
//! The handler runs between two instructions of any code, a lock of the allocator held perhaps. So it takes no lock,
//! allocates nothing, and reads the stack by the kernel, which says where memory ends instead of faulting. Its slots are
//! never given back, so that one that comes late writes where it may.
#![allow(unsafe_code, reason = "signals and timers are C")]

use std::{
    cell::UnsafeCell,
    io, mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Most bytes of a stack that are copied. ONNX Runtime's kernels keep 64 KiB of packed numbers on theirs.
const STACK: usize = 128 << 10;
/// Samples that wait to be read.
pub(crate) const SLOTS: usize = 64;
const PAGE: usize = 4 << 10;
/// Pieces of a copy: one a page, for the kernel copies whole pieces.
const PIECES: usize = STACK / PAGE + 1;

const FREE: u32 = 0;
const WRITING: u32 = 1;
const FULL: u32 = 2;

/// The recording that is on; 0 when none is.
static RUN: AtomicU32 = AtomicU32::new(0);
static RUNS: AtomicU32 = AtomicU32::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static POOL: OnceLock<Pool> = OnceLock::new();

struct Pool(&'static [Slot; SLOTS]);

/// All zeroes is a slot that is free.
struct Slot {
    state: AtomicU32,
    sample: UnsafeCell<Sample>,
}

// SAFETY: who turns `state` from FREE to WRITING, and who finds it FULL, has the sample for itself until it says so.
unsafe impl Sync for Slot {}

/// A thread at one moment.
#[repr(C)]
pub(crate) struct Sample {
    run: u32,
    /// Its number.
    pub(crate) thread: u32,
    /// How many periods it stands for: the clock that ends them ticks some hundred times a second.
    pub(crate) periods: u64,
    pub(crate) registers: Registers,
    length: usize,
    stack: [u8; STACK],
}

/// What a walk over the stack begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// Of the instruction that was interrupted.
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    /// Where the function returns to, on processors that keep it in a register.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "it lies on the stack"))]
    pub(crate) lr: u64,
}

impl Sample {
    /// The stack from its pointer on, as far as it was copied.
    pub(crate) fn stack(&self) -> &[u8] {
        &self.stack[..self.length.min(STACK)]
    }
}

/// The time during which samples are taken.
pub(crate) struct Session {
    run: u32,
}

impl Session {
    /// From now on timers leave samples. One session at a time: the caller sees to that.
    pub(crate) fn begin() -> io::Result<Self> {
        let pool = pool()?;
        install()?;
        // What a late handler of a session before has left.
        for slot in pool.0 {
            let _ = slot.state.compare_exchange(FULL, FREE, Ordering::AcqRel, Ordering::Relaxed);
        }
        LOST.store(0, Ordering::Relaxed);
        let run = RUNS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        RUN.store(run, Ordering::Release);
        Ok(Self { run })
    }

    /// Hands each sample that waits to `read`.
    pub(crate) fn drain(&self, mut read: impl FnMut(&Sample)) {
        let Some(pool) = POOL.get() else { return };
        for slot in pool.0.iter().filter(|slot| slot.state.load(Ordering::Acquire) == FULL) {
            // SAFETY: a slot that is full is ours until we say that it is free; handlers touch free ones alone.
            let sample = unsafe { &*slot.sample.get() };
            if sample.run == self.run {
                read(sample);
            }
            slot.state.store(FREE, Ordering::Release);
        }
    }

    /// Periods that found no slot.
    pub(crate) fn lost(&self) -> u64 {
        LOST.load(Ordering::Relaxed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        RUN.store(0, Ordering::Release);
        if let Some(pool) = POOL.get() {
            // SAFETY: the memory is ours for ever and all zeroes are a valid pool. A handler that is still at it loses
            // its sample, or leaves one of no run.
            unsafe {
                libc::madvise(ptr::from_ref(pool.0).cast_mut().cast(), size_of::<[Slot; SLOTS]>(), libc::MADV_DONTNEED)
            };
        }
    }
}

fn pool() -> io::Result<&'static Pool> {
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: asks for new memory, which takes none until it is written to.
    let memory = unsafe { libc::mmap(ptr::null_mut(), size_of::<[Slot; SLOTS]>(), access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as large as asked for, on a page's boundary, all zeroes, which is a valid pool, and never given back.
    Ok(POOL.get_or_init(|| Pool(unsafe { &*memory.cast() })))
}

/// Takes over the signal, for good: a timer's last signal may come when its timer is gone, and would end the process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if INSTALLED.get().is_some() {
        return Ok(());
    }
    // SAFETY: all zeroes is a valid description of what to do.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_tick as extern "C" fn(_, _, _) as usize;
    // Not on the alternative stack: that of Rust's threads may just hold the processor's registers.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe and lives as long as the program.
    match unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) } {
        0 => {
            let _ = INSTALLED.set(());
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The beginning of `siginfo_t` of a timer's signal, as the kernel lays it out.
#[repr(C)]
struct TimerInfo {
    signal: i32,
    error: i32,
    code: i32,
    _gap: i32,
    timer: i32,
    overrun: i32,
    value: usize,
}

extern "C" fn on_tick(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let run = RUN.load(Ordering::Acquire);
    if run == 0 {
        return;
    }
    // SAFETY: the thread's own errno, put back as it was: the code around does not expect it to change.
    let before = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel calls us with what belongs to this signal.
    unsafe { record(run, info.cast(), context.cast()) };
    // SAFETY: see above.
    unsafe { *libc::__errno_location() = before };
}

/// # Safety
/// `info` and `context` are those of a signal that is being handled by this thread.
unsafe fn record(run: u32, info: *const TimerInfo, context: *const libc::ucontext_t) {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    if info.code != libc::SI_TIMER {
        return;
    }
    let periods = 1 + u64::from(info.overrun.max(0).unsigned_abs());
    let Some(slot) = free_slot() else {
        LOST.fetch_add(periods, Ordering::Relaxed);
        return;
    };
    let sample = slot.sample.get();
    // SAFETY: the slot was free and is ours now.
    unsafe {
        (*sample).run = run;
        (*sample).thread = info.value as u32;
        (*sample).periods = periods;
        (*sample).registers = registers(&*context);
        (*sample).length = copy((*sample).registers.sp as usize, (&raw mut (*sample).stack).cast());
    }
    slot.state.store(FULL, Ordering::Release);
}

fn free_slot() -> Option<&'static Slot> {
    // Those at the beginning first: their memory is in the caches, and that of the others is seldom touched at all.
    let mut slots = POOL.get()?.0.iter();
    slots.find(|slot| slot.state.compare_exchange(FREE, WRITING, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let of = |register: i32| context.uc_mcontext.gregs[register as usize] as u64;
    Registers { pc: of(libc::REG_RIP), sp: of(libc::REG_RSP), fp: of(libc::REG_RBP), lr: 0 }
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let machine = &context.uc_mcontext;
    Registers { pc: machine.pc, sp: machine.sp, fp: machine.regs[29], lr: machine.regs[30] }
}

/// Copies the stack from `from` on, as far as there is memory.
///
/// # Safety
/// `to` has room for a stack, and `from` is the stack pointer of this thread.
unsafe fn copy(from: usize, to: *mut u8) -> usize {
    let mut pieces = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; PIECES];
    let (mut at, mut count) = (from, 0);
    let end = from.saturating_add(STACK);
    while at < end && count < PIECES {
        let next = ((at / PAGE + 1) * PAGE).min(end);
        pieces[count] = libc::iovec { iov_base: at as *mut _, iov_len: next - at };
        (at, count) = (next, count + 1);
    }
    let whole = libc::iovec { iov_base: to.cast(), iov_len: STACK };
    // SAFETY: writes no more than a stack, to where there is room; where there is no memory to read it stops.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &whole, 1, pieces.as_ptr(), count as u64, 0) };
    if copied > 0 {
        return copied as usize;
    }
    // A sandbox may forbid the call. The page that the stack pointer is on is there in any case.
    let length = pieces[0].iov_len;
    // SAFETY: no more than that page and no more than there is room for.
    unsafe { ptr::copy_nonoverlapping(from as *const u8, to, length) };
    length
}

/// A timer on the CPU clock of one thread; it stops when it is dropped.
pub(crate) struct Timer(libc::timer_t);

// SAFETY: a timer is a number that any thread of the process may name.
unsafe impl Send for Timer {}

impl Timer {
    /// Lets `thread` leave a sample each time that it has worked for `period`.
    pub(crate) fn start(thread: u32, period: Duration) -> io::Result<Self> {
        // SAFETY: all zeroes is a valid event.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_value = libc::sigval { sival_ptr: thread as usize as *mut _ };
        event.sigev_notify_thread_id = thread as i32;
        let mut timer = ptr::null_mut();
        // SAFETY: the event is valid; a new timer is written, or an error and nothing.
        check(unsafe { libc::timer_create(cpu_clock(thread), &mut event, &mut timer) })?;
        let timer = Self(timer);
        let time =
            |time: Duration| libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        // Not all threads at the same moments: the first period is a part of one.
        let part = f64::from(thread.wrapping_mul(0x9E37_79B9)) / f64::from(u32::MAX);
        let first = period.mul_f64(part).max(Duration::from_nanos(1));
        let times = libc::itimerspec { it_interval: time(period), it_value: time(first) };
        // SAFETY: the timer was made above.
        check(unsafe { libc::timer_settime(timer.0, 0, &times, ptr::null_mut()) })?;
        Ok(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and is not used after this.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The kernel's name of a thread's CPU clock (`CPUCLOCK_SCHED`, per thread, in linux/posix-timers.h).
fn cpu_clock(thread: u32) -> libc::clockid_t {
    (!(thread as i32) << 3) | 0b110
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of the thread that asks.
pub(crate) fn this_thread() -> u32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::gettid() as u32 }
}
