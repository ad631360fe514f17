//! Registers and stack of another thread, copied by that thread in a signal handler.
//!
//! A handler may interrupt anything: the allocator, the loader, an unwinding. So it does next to
//! nothing: it saves and restores `errno`, checks that it is asked, copies registers and bytes to a
//! place that has been there from the start, rings, sees to a call that it interrupted by mistake
//! (`again`), and returns. It allocates nothing, takes no lock, touches no thread-local and cannot
//! panic. The unwinding is done by the asker, on the copy.
//!
//! One request at a time, in one static place: there is one sentinel.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::memory::read_raw;
#[cfg(target_arch = "x86_64")]
use super::restart_syscall::make_again;
use super::thread::{Thread, current_id, send};
use crate::sys::capture::{Copied, NoCapture, Registers};
use crate::sys::request_cell::RequestCell;

/// So much of a stack is copied at most.
const CAPACITY: usize = 256 * 1024;

/// What a leaf function may use beyond the stack pointer.
#[cfg(target_arch = "x86_64")]
const RED_ZONE: usize = 128;
#[cfg(target_arch = "aarch64")]
const RED_ZONE: usize = 0;

/// The request and the place of its answer.
struct Desk {
    errand: RequestCell,
    /// Where the stack of the thread that is asked is.
    low: AtomicUsize,
    high: AtomicUsize,
    /// The thread that was asked last although its call may fail by that; 0 if there is none.
    interrupts: AtomicU32,
    /// Counts answers; the asker waits for it to change.
    bell: AtomicU32,
    answer: UnsafeCell<Answer>,
}

struct Answer {
    registers: Registers,
    /// The address of the first byte that was copied.
    from: usize,
    len: usize,
    bytes: [u8; CAPACITY],
}

// SAFETY: the answer is written only between `accept` and `deliver`, by the one thread that accepted,
// and read only by the asker after it saw the answer delivered, or before it asks (invariant 3 of
// `RequestCell`, whose release and acquire order the two). Everything else is atomic.
unsafe impl Sync for Desk {}

static DESK: Desk = Desk {
    errand: RequestCell::new(),
    low: AtomicUsize::new(0),
    high: AtomicUsize::new(0),
    interrupts: AtomicU32::new(0),
    bell: AtomicU32::new(0),
    answer: UnsafeCell::new(Answer {
        registers: Registers {
            ip: 0,
            sp: 0,
            fp: 0,
            lr: 0,
        },
        from: 0,
        len: 0,
        bytes: [0; CAPACITY],
    }),
};

/// The signal that is in use; 0 before the handler is installed.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The signal that captures are made by; 0 before the handler is installed.
pub(super) fn signal_of_captures() -> libc::c_int {
    SIGNAL.load(Relaxed)
}

/// By these the processor or the kernel tells of a fault. A handler that returns would have it made
/// again, for ever, where the process should have ended.
const FAULTS: [libc::c_int; 7] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// The right to ask. There is one in a process.
pub(crate) struct Capturer {
    signal: libc::c_int,
}

impl Capturer {
    /// Installs the handler, unless somebody else has one.
    ///
    /// `SA_RESTART`, so that what can be restarted is; no `SA_ONSTACK`, because std's alternate stack
    /// is for overflows and small. Every signal is masked meanwhile, for a few microseconds: see `again`.
    pub(crate) fn install(signal: i32) -> Result<Self, NoCapture> {
        if FAULTS.contains(&signal) {
            return Err(NoCapture::NoSuchSignal);
        }
        if SIGNAL
            .compare_exchange(0, signal, Relaxed, Relaxed)
            .is_err()
        {
            return Err(NoCapture::InUse);
        }
        let refuse = |why| {
            SIGNAL.store(0, Relaxed);
            Err(why)
        };
        // SAFETY: all-zero is a valid `sigaction`, and the calls only read and write the two structs.
        // The handler has the signature that SA_SIGINFO asks for, and keeps the rules of the module.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &mut before) != 0 {
                return refuse(NoCapture::NoSuchSignal);
            }
            if before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN {
                return refuse(NoCapture::SignalTaken);
            }
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = on_signal as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigfillset(&mut ours.sa_mask);
            if libc::sigaction(signal, &ours, std::ptr::null_mut()) != 0 {
                return refuse(NoCapture::NoSuchSignal);
            }
        }
        Ok(Self { signal })
    }

    /// The signal by which a thread is asked.
    pub(crate) fn signal(&self) -> i32 {
        self.signal
    }

    /// Whether the handler is still ours: somebody may have installed another since.
    fn is_ours(&self) -> bool {
        // SAFETY: as in `install`.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(self.signal, std::ptr::null(), &mut now) == 0
                && now.sa_sigaction == on_signal as *const () as usize
        }
    }

    /// Asks a thread, and does not wait. The caller keeps the thread from ending meanwhile: its number
    /// could be given to another one.
    ///
    /// `interrupts` says that the thread waits in a call that may fail by this, and that it is meant to.
    pub(crate) fn request(&mut self, thread: &Thread, interrupts: bool) -> Result<(), NoCapture> {
        if !self.is_ours() {
            return Err(NoCapture::SignalTaken);
        }
        let interrupts = if interrupts { thread.id } else { 0 };
        let prepare = || {
            DESK.interrupts.store(interrupts, Relaxed);
            DESK.low.store(thread.stack.start, Relaxed);
            DESK.high.store(thread.stack.end, Relaxed);
        };
        if !DESK.errand.request(thread.id, prepare) {
            return Err(NoCapture::Busy);
        }
        if !send(thread.id, self.signal) {
            DESK.errand.withdraw(thread.id);
            return Err(NoCapture::NotSent);
        }
        Ok(())
    }

    /// Waits for the answer of the thread that was asked, and copies it out.
    pub(crate) fn wait(&mut self, thread: &Thread, timeout: Duration) -> Result<Copied, NoCapture> {
        let deadline = Instant::now() + timeout;
        loop {
            let rung = DESK.bell.load(Relaxed);
            if DESK.errand.is_answered() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                DESK.errand.withdraw(thread.id);
                return Err(NoCapture::NoAnswer);
            }
            wait_for_bell(rung, left);
        }
        // SAFETY: the answer was delivered, and nobody writes to it before the next `ask`, which
        // takes `&mut self` (see `Sync`).
        let answer = unsafe { &*DESK.answer.get() };
        Ok(Copied {
            registers: answer.registers,
            from: answer.from,
            bytes: answer.bytes[..answer.len.min(CAPACITY)].to_vec(),
        })
    }
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `__errno_location` gives the calling thread's own, and cannot fail.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let thread = current_id();
    if DESK.errand.accept(thread) {
        // SAFETY: the kernel passes a `ucontext_t` to a handler with SA_SIGINFO; and the request was
        // accepted, so the answer is this thread's to write.
        unsafe {
            copy(
                &*context.cast::<libc::ucontext_t>(),
                &mut *DESK.answer.get(),
            )
        };
        DESK.errand.deliver(thread);
        DESK.bell.fetch_add(1, Relaxed);
        ring();
    }
    // A late signal too: it interrupts what it was not meant for.
    #[cfg(target_arch = "x86_64")]
    if DESK.interrupts.load(Relaxed) != thread {
        // SAFETY: the kernel passes a `ucontext_t`, and takes it back when the handler ends.
        make_again(unsafe { &mut *context.cast::<libc::ucontext_t>() });
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// # Safety
///
/// Only in the handler, on the interrupted thread.
unsafe fn copy(context: &libc::ucontext_t, answer: &mut Answer) {
    let registers = registers(context);
    let (sp, bytes) = (registers.sp as usize, answer.bytes.as_mut_ptr());
    let from = sp.saturating_sub(RED_ZONE);
    let (low, high) = (DESK.low.load(Relaxed), DESK.high.load(Relaxed));
    answer.registers = registers;
    answer.from = from;
    answer.len = if (low..high).contains(&sp) {
        let len = (high - from).min(CAPACITY);
        // SAFETY: from the red zone to the end of the stack everything is mapped, because the thread
        // stands on it; `bytes` has room for CAPACITY.
        unsafe { copy_bytes(std::ptr::with_exposed_provenance(from), bytes, len) };
        len
    } else {
        // Another stack than the thread's own, of which nobody knows the end: the kernel finds it.
        // SAFETY: `bytes` has room for CAPACITY.
        unsafe { read_raw(from, bytes, CAPACITY) }
    };
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let all = &context.uc_mcontext.gregs;
    Registers {
        ip: all[libc::REG_RIP as usize] as u64,
        sp: all[libc::REG_RSP as usize] as u64,
        fp: all[libc::REG_RBP as usize] as u64,
        lr: 0,
    }
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let all = &context.uc_mcontext;
    Registers {
        ip: all.pc,
        sp: all.sp,
        fp: all.regs[29],
        lr: all.regs[30],
    }
}

/// Copies in assembler where it can be: a stack holds what sanitizers would stop at (the zones around
/// locals), and what the language calls uninitialised.
///
/// # Safety
///
/// As for `std::ptr::copy_nonoverlapping`, initialised or not.
unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's. The direction flag is clear by the ABI; nothing is pushed.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, len);
    }
}

fn ring() {
    // SAFETY: wakes whoever waits on the address; it is only compared, and lives for ever.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            DESK.bell.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

fn wait_for_bell(rung: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: waits while the word has the value; both pointers are good for the time of the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            DESK.bell.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            rung,
            &raw const timeout,
        );
    }
}
