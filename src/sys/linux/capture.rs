//! Captures the registers and the stack of another thread. That thread copies them in a signal handler.
//!
//! A handler may interrupt the allocator, the loader or an unwinder. So it does very little. It saves `errno`, checks
//! that the request is for its thread, and copies registers and bytes into a static buffer. Then it wakes the requester,
//! restarts a system call that the signal interrupted by mistake (`restart_syscall`), and
//! restores `errno`. It allocates nothing, takes no lock, touches no thread-local, and cannot panic. The requester
//! unwinds the copy.
//!
//! There is one sentinel, so one static buffer for one request is enough.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::memory::read_raw;
#[cfg(target_arch = "x86_64")]
use super::restart_syscall::restart;
use super::thread::{Thread, current_id, send};
use crate::sys::capture::{Copied, NoCapture, Registers};
use crate::sys::request_cell::RequestCell;

/// The largest part of a stack that is copied. The buffer is static, so it bounds the memory too.
const CAPACITY_BYTES: usize = 256 * 1024;

/// The bytes beyond the stack pointer that a leaf function may use, by the ABI.
#[cfg(target_arch = "x86_64")]
const RED_ZONE_BYTES: usize = 128;
#[cfg(target_arch = "aarch64")]
const RED_ZONE_BYTES: usize = 0;

/// The request and the buffer of its answer.
struct CaptureExchange {
    request: RequestCell,
    /// The bounds of the stack of the requested thread.
    low: AtomicUsize,
    high: AtomicUsize,
    /// The last requested thread whose system call may fail by the signal; 0 if there is none.
    may_interrupt: AtomicU32,
    /// The number of answers. The requester waits for a change.
    answers: AtomicU32,
    answer: UnsafeCell<StackCopy>,
}

struct StackCopy {
    registers: Registers,
    /// The address of the first copied byte.
    from: usize,
    len: usize,
    bytes: [u8; CAPACITY_BYTES],
}

// SAFETY: only the thread that accepted writes the answer, between `accept` and `deliver`. Only the requester reads it,
// after it saw the answer delivered or before its next request. Invariant 3 of `RequestCell` guarantees this, and its
// release and acquire order the two. Everything else is atomic.
unsafe impl Sync for CaptureExchange {}

static EXCHANGE: CaptureExchange = CaptureExchange {
    request: RequestCell::new(),
    low: AtomicUsize::new(0),
    high: AtomicUsize::new(0),
    may_interrupt: AtomicU32::new(0),
    answers: AtomicU32::new(0),
    answer: UnsafeCell::new(StackCopy {
        registers: Registers {
            ip: 0,
            sp: 0,
            fp: 0,
            lr: 0,
        },
        from: 0,
        len: 0,
        bytes: [0; CAPACITY_BYTES],
    }),
};

/// The capture signal; 0 before the handler is installed.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Returns the capture signal; 0 before the handler is installed.
pub(super) fn signal_of_captures() -> libc::c_int {
    SIGNAL.load(Relaxed)
}

/// The signals of faults. After a handler that returns, the thread would repeat the fault without end, where the process
/// should have ended.
const FAULTS: [libc::c_int; 7] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// The right to request captures. A process has one.
pub(crate) struct Capturer {
    signal: libc::c_int,
}

impl Capturer {
    /// Installs the handler, unless the program has one for this signal.
    ///
    /// It has `SA_RESTART`, so the kernel restarts the calls that it can. It has no `SA_ONSTACK`, because std's alternate
    /// stack is small and for overflows. It masks every signal for a few microseconds: see `restart_syscall`.
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

    /// Returns the capture signal.
    pub(crate) fn signal(&self) -> i32 {
        self.signal
    }

    /// Returns whether the handler is still ours. The program may have installed another since.
    fn is_ours(&self) -> bool {
        // SAFETY: as in `install`.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(self.signal, std::ptr::null(), &mut now) == 0
                && now.sa_sigaction == on_signal as *const () as usize
        }
    }

    /// Requests a capture of a thread, and does not wait.
    ///
    /// The caller keeps the thread alive until this returns, because its id could be reused. With `may_interrupt`, the
    /// signal may make the thread's system call fail.
    pub(crate) fn request(
        &mut self,
        thread: &Thread,
        may_interrupt: bool,
    ) -> Result<(), NoCapture> {
        if !self.is_ours() {
            return Err(NoCapture::SignalTaken);
        }
        let may_interrupt = if may_interrupt { thread.id } else { 0 };
        let prepare = || {
            EXCHANGE.may_interrupt.store(may_interrupt, Relaxed);
            EXCHANGE.low.store(thread.stack.start, Relaxed);
            EXCHANGE.high.store(thread.stack.end, Relaxed);
        };
        if !EXCHANGE.request.request(thread.id, prepare) {
            return Err(NoCapture::Busy);
        }
        if !send(thread.id, self.signal) {
            EXCHANGE.request.withdraw(thread.id);
            return Err(NoCapture::NotSent);
        }
        Ok(())
    }

    /// Waits for the answer of the requested thread, and copies it.
    pub(crate) fn wait(&mut self, thread: &Thread, timeout: Duration) -> Result<Copied, NoCapture> {
        let deadline = Instant::now() + timeout;
        loop {
            let answers = EXCHANGE.answers.load(Relaxed);
            if EXCHANGE.request.is_answered() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                EXCHANGE.request.withdraw(thread.id);
                return Err(NoCapture::NoAnswer);
            }
            wait_for_answer(answers, left);
        }
        // SAFETY: the answer was delivered. No thread writes it before the next request, which takes `&mut self` (see
        // `Sync`).
        let answer = unsafe { &*EXCHANGE.answer.get() };
        Ok(Copied {
            registers: answer.registers,
            from: answer.from,
            bytes: answer.bytes[..answer.len.min(CAPACITY_BYTES)].to_vec(),
        })
    }
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `__errno_location` returns the calling thread's own, and cannot fail.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let thread = current_id();
    if EXCHANGE.request.accept(thread) {
        // SAFETY: the kernel passes a `ucontext_t` to a handler with SA_SIGINFO. This thread accepted the request, so
        // only it writes the answer now.
        unsafe {
            copy(
                &*context.cast::<libc::ucontext_t>(),
                &mut *EXCHANGE.answer.get(),
            )
        };
        EXCHANGE.request.deliver(thread);
        EXCHANGE.answers.fetch_add(1, Relaxed);
        wake_requester();
    }
    // A late signal may interrupt a system call that began after the request.
    #[cfg(target_arch = "x86_64")]
    if EXCHANGE.may_interrupt.load(Relaxed) != thread {
        // SAFETY: the kernel passes a `ucontext_t`, and reads it when the handler ends.
        restart(unsafe { &mut *context.cast::<libc::ucontext_t>() });
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Copies the registers and the stack of the interrupted thread.
///
/// # Safety
///
/// Only the handler may call it, on the interrupted thread.
unsafe fn copy(context: &libc::ucontext_t, answer: &mut StackCopy) {
    let registers = registers(context);
    let (sp, bytes) = (registers.sp as usize, answer.bytes.as_mut_ptr());
    let from = sp.saturating_sub(RED_ZONE_BYTES);
    let (low, high) = (EXCHANGE.low.load(Relaxed), EXCHANGE.high.load(Relaxed));
    answer.registers = registers;
    answer.from = from;
    answer.len = if (low..high).contains(&sp) {
        let len = (high - from).min(CAPACITY_BYTES);
        // SAFETY: the stack is mapped from the red zone to its end, because the thread runs on it. `bytes` has room for
        // CAPACITY_BYTES.
        unsafe { copy_bytes(std::ptr::with_exposed_provenance(from), bytes, len) };
        len
    } else {
        // The thread runs on another stack, whose end is unknown. The kernel copies as much as is mapped.
        // SAFETY: `bytes` has room for CAPACITY_BYTES.
        unsafe { read_raw(from, bytes, CAPACITY_BYTES) }
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

/// Copies bytes, in assembler where the crate has it. Sanitizers stop at the zones around the locals of a stack, and the
/// language calls parts of a stack uninitialised.
///
/// # Safety
///
/// As for `std::ptr::copy_nonoverlapping`, but the bytes need not be initialised.
unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as for the caller. The direction flag is clear by the ABI, and the instruction pushes nothing.
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
    // SAFETY: as for the caller.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, len);
    }
}

fn wake_requester() {
    // SAFETY: the kernel only compares the address of the word, which is static.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            EXCHANGE.answers.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

/// Waits until the number of answers is no longer `answers`.
fn wait_for_answer(answers: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: both pointers are valid during the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            EXCHANGE.answers.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            answers,
            &raw const timeout,
        );
    }
}
