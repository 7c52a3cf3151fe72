//! Sampler: a CPU timer per thread, whose signal handler copies the thread's registers and stack to a slot.
//!
//! The handler may interrupt any code, even while it holds the allocator's lock. So it takes no lock, allocates
//! nothing, and copies the stack with a system call, which returns an error at unmapped memory instead of faulting.
//! Slots are never freed, so that a late handler writes to valid memory.
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

/// Bytes of a stack that are copied. ONNX Runtime's kernels keep 64 KiB of packed numbers on their stacks.
const MAX_STACK_BYTES: usize = 128 << 10;
/// Number of samples that can wait to be read.
pub(crate) const SLOT_COUNT: usize = 64;
const PAGE_BYTES: usize = 4 << 10;
/// Segments of a copy: one per page, because the kernel copies whole segments.
const MAX_IOVECS: usize = MAX_STACK_BYTES / PAGE_BYTES + 1;

const SLOT_FREE: u32 = 0;
const SLOT_WRITING: u32 = 1;
const SLOT_FULL: u32 = 2;

/// Number of the current recording; 0 if there is none.
static CURRENT_RUN: AtomicU32 = AtomicU32::new(0);
static RUN_COUNTER: AtomicU32 = AtomicU32::new(0);
static LOST_PERIODS: AtomicU64 = AtomicU64::new(0);
static SLOT_POOL: OnceLock<SlotPool> = OnceLock::new();

struct SlotPool(&'static [Slot; SLOT_COUNT]);

/// All zeroes is a free slot.
struct Slot {
    state: AtomicU32,
    sample: UnsafeCell<Sample>,
}

// SAFETY: a thread that sets `state` from SLOT_FREE to SLOT_WRITING, or finds SLOT_FULL, owns the sample until it
// changes `state` again.
unsafe impl Sync for Slot {}

/// A thread at one moment.
#[repr(C)]
pub(crate) struct Sample {
    run: u32,
    /// Thread id.
    pub(crate) thread: u32,
    /// Number of periods it stands for: the clock that ends them ticks some hundred times per second.
    pub(crate) periods: u64,
    pub(crate) registers: Registers,
    length: usize,
    stack: [u8; MAX_STACK_BYTES],
}

/// Registers from which unwinding starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// Program counter of the interrupted instruction.
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    /// Return address, on processors that keep it in a register.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "it is on the stack"))]
    pub(crate) lr: u64,
}

impl Sample {
    /// The copied part of the stack, from the stack pointer.
    pub(crate) fn stack_bytes(&self) -> &[u8] {
        &self.stack[..self.length.min(MAX_STACK_BYTES)]
    }
}

/// A period of sampling.
pub(crate) struct Session {
    run: u32,
}

impl Session {
    /// Starts sampling. The caller ensures that there is only one session at a time.
    pub(crate) fn start() -> io::Result<Self> {
        let pool = slot_pool()?;
        install_handler()?;
        // A late handler of an earlier session may have left a sample.
        for slot in pool.0 {
            let _ = slot.state.compare_exchange(SLOT_FULL, SLOT_FREE, Ordering::AcqRel, Ordering::Relaxed);
        }
        LOST_PERIODS.store(0, Ordering::Relaxed);
        let run = RUN_COUNTER.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        CURRENT_RUN.store(run, Ordering::Release);
        Ok(Self { run })
    }

    /// Passes each waiting sample to `read`.
    pub(crate) fn drain_samples(&self, mut read: impl FnMut(&Sample)) {
        let Some(pool) = SLOT_POOL.get() else { return };
        for slot in pool.0.iter().filter(|slot| slot.state.load(Ordering::Acquire) == SLOT_FULL) {
            // SAFETY: a full slot belongs to this thread until it is set free; handlers use free slots only.
            let sample = unsafe { &*slot.sample.get() };
            if sample.run == self.run {
                read(sample);
            }
            slot.state.store(SLOT_FREE, Ordering::Release);
        }
    }

    /// Periods without a free slot.
    pub(crate) fn lost_periods(&self) -> u64 {
        LOST_PERIODS.load(Ordering::Relaxed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        CURRENT_RUN.store(0, Ordering::Release);
        if let Some(pool) = SLOT_POOL.get() {
            // SAFETY: the memory is never freed, and all zeroes are a valid pool. A handler that still runs loses its
            // sample, or leaves one without a run.
            unsafe {
                libc::madvise(
                    ptr::from_ref(pool.0).cast_mut().cast(),
                    size_of::<[Slot; SLOT_COUNT]>(),
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
}

fn slot_pool() -> io::Result<&'static SlotPool> {
    if let Some(pool) = SLOT_POOL.get() {
        return Ok(pool);
    }
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: maps new memory, which is not allocated until it is written.
    let memory = unsafe { libc::mmap(ptr::null_mut(), size_of::<[Slot; SLOT_COUNT]>(), access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: of the requested size, aligned to a page, never freed, and all zeroes, which is a valid pool.
    Ok(SLOT_POOL.get_or_init(|| SlotPool(unsafe { &*memory.cast() })))
}

/// Installs the handler for good: a timer's last signal may arrive after its deletion, and would end the process.
fn install_handler() -> io::Result<()> {
    static HANDLER_INSTALLED: OnceLock<()> = OnceLock::new();
    if HANDLER_INSTALLED.get().is_some() {
        return Ok(());
    }
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_tick as extern "C" fn(_, _, _) as usize;
    // Not on the alternative stack: that of Rust's threads may be too small for the processor's registers.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe and lives as long as the program.
    match unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) } {
        0 => {
            let _ = HANDLER_INSTALLED.set(());
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The beginning of a timer signal's `siginfo_t` in the kernel's layout.
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
    let run = CURRENT_RUN.load(Ordering::Acquire);
    if run == 0 {
        return;
    }
    // SAFETY: the thread's own errno, restored below, because the interrupted code does not expect a change.
    let before = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes the arguments of this signal.
    unsafe { record_sample(run, info.cast(), context.cast()) };
    // SAFETY: see above.
    unsafe { *libc::__errno_location() = before };
}

/// # Safety
/// `info` and `context` belong to a signal that this thread is handling.
unsafe fn record_sample(run: u32, info: *const TimerInfo, context: *const libc::ucontext_t) {
    // SAFETY: required of the caller.
    let info = unsafe { &*info };
    if info.code != libc::SI_TIMER {
        return;
    }
    let periods = 1 + u64::from(info.overrun.max(0).unsigned_abs());
    let Some(slot) = free_slot() else {
        LOST_PERIODS.fetch_add(periods, Ordering::Relaxed);
        return;
    };
    let sample = slot.sample.get();
    // SAFETY: the slot was free and now belongs to this handler.
    unsafe {
        (*sample).run = run;
        (*sample).thread = info.value as u32;
        (*sample).periods = periods;
        (*sample).registers = read_registers(&*context);
        (*sample).length = copy_stack((*sample).registers.sp as usize, (&raw mut (*sample).stack).cast());
    }
    slot.state.store(SLOT_FULL, Ordering::Release);
}

fn free_slot() -> Option<&'static Slot> {
    // The first slots first: their memory is cached, and that of the others is seldom touched.
    let mut slots = SLOT_POOL.get()?.0.iter();
    slots.find(|slot| slot.state.compare_exchange(SLOT_FREE, SLOT_WRITING, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

#[cfg(target_arch = "x86_64")]
fn read_registers(context: &libc::ucontext_t) -> Registers {
    let of = |register: i32| context.uc_mcontext.gregs[register as usize] as u64;
    Registers { pc: of(libc::REG_RIP), sp: of(libc::REG_RSP), fp: of(libc::REG_RBP), lr: 0 }
}

#[cfg(target_arch = "aarch64")]
fn read_registers(context: &libc::ucontext_t) -> Registers {
    let machine = &context.uc_mcontext;
    Registers { pc: machine.pc, sp: machine.sp, fp: machine.regs[29], lr: machine.regs[30] }
}

/// Copies the stack from `from`, up to the end of its memory.
///
/// # Safety
/// `to` has room for `MAX_STACK_BYTES`, and `from` is the stack pointer of this thread.
unsafe fn copy_stack(from: usize, to: *mut u8) -> usize {
    let mut pieces = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_IOVECS];
    let (mut at, mut count) = (from, 0);
    let end = from.saturating_add(MAX_STACK_BYTES);
    while at < end && count < MAX_IOVECS {
        let next = ((at / PAGE_BYTES + 1) * PAGE_BYTES).min(end);
        pieces[count] = libc::iovec { iov_base: at as *mut _, iov_len: next - at };
        (at, count) = (next, count + 1);
    }
    let whole = libc::iovec { iov_base: to.cast(), iov_len: MAX_STACK_BYTES };
    // SAFETY: writes at most `MAX_STACK_BYTES` to `to`; the kernel stops at unmapped memory.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &whole, 1, pieces.as_ptr(), count as u64, 0) };
    if copied > 0 {
        return copied as usize;
    }
    // A sandbox may forbid the call. The page of the stack pointer is always mapped.
    let length = pieces[0].iov_len;
    // SAFETY: at most that page, and at most the size of `to`.
    unsafe { ptr::copy_nonoverlapping(from as *const u8, to, length) };
    length
}

/// A timer on the CPU clock of one thread; it is deleted when it is dropped.
pub(crate) struct Timer(libc::timer_t);

// SAFETY: a timer is an id that is valid in all threads of the process.
unsafe impl Send for Timer {}

impl Timer {
    /// Starts a timer that records a sample of `thread` after each `period` of CPU time.
    pub(crate) fn start(thread: u32, period: Duration) -> io::Result<Self> {
        // SAFETY: all zeroes is a valid sigevent.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_value = libc::sigval { sival_ptr: thread as usize as *mut _ };
        event.sigev_notify_thread_id = thread as i32;
        let mut timer = ptr::null_mut();
        // SAFETY: the event is valid; the kernel writes a new timer, or returns an error.
        check_result(unsafe { libc::timer_create(cpu_clock(thread), &mut event, &mut timer) })?;
        let timer = Self(timer);
        let time =
            |time: Duration| libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        // The first period is shortened by thread, so that threads are not sampled at the same moments.
        let part = f64::from(thread.wrapping_mul(0x9E37_79B9)) / f64::from(u32::MAX);
        let first = period.mul_f64(part).max(Duration::from_nanos(1));
        let times = libc::itimerspec { it_interval: time(period), it_value: time(first) };
        // SAFETY: the timer was created above.
        check_result(unsafe { libc::timer_settime(timer.0, 0, &times, ptr::null_mut()) })?;
        Ok(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer belongs to this value and is not used afterwards.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The kernel's id of a thread's CPU clock (`CPUCLOCK_SCHED`, per thread, in linux/posix-timers.h).
fn cpu_clock(thread: u32) -> libc::clockid_t {
    (!(thread as i32) << 3) | 0b110
}

fn check_result(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Id of the calling thread.
pub(crate) fn current_thread_id() -> u32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::gettid() as u32 }
}
