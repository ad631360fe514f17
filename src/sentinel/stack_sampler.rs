//! Samples the stack of a thread: by a signal if that does no harm, or else from outside.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::known_frame::KnownFrame;
use super::restarting_callers::Call;
use super::run_state::{RunState, run_state};
use super::sample_budget::SampleBudget;
use super::syscalls::{Interrupted, interrupted};
use super::unwind::Unwinder;
use super::unwind_loader::UnwindLoader;
use crate::procfs::{self, SyscallState, Waits};
use crate::slot::{InFlightPoll, Slot};
use crate::stack::{RawFrame, Stack};
use crate::sync::IgnorePoison as _;
use crate::sys::{Capturer, Copied, NoCapture, Registers, Thread, read_memory};
use crate::watch::Stacks;

/// The time in which a thread may answer. A running thread answers in microseconds, and a sleeping one must be
/// scheduled first. The sentinel scans nothing in this time.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(5);

/// The time between two requests to a thread that does not answer: a thread on a busy host is usually scheduled within
/// it.
pub(super) const STACK_RETRY_NANOS: u64 = 5_000_000;

/// The time for a thread that takes no signal before its system call returns, as in `fsync`. It answers only if the
/// call is about to return.
const UNINTERRUPTIBLE_MAX_WAIT: Duration = Duration::from_micros(500);

/// The part of a sleeping thread's stack that is read from outside: enough for a few frames of std.
const OUTSIDE_BYTES: usize = 64 * 1024;

/// The installed handler, from the first watchdog with stacks on.
static CAPTURER: Mutex<Option<Result<Capturer, NoCapture>>> = Mutex::new(None);

/// Installs the signal handler, unless it is installed.
pub(super) fn install(signal: i32) {
    let mut capturer = CAPTURER.lock().ignore_poison();
    capturer.get_or_insert_with(|| Capturer::install(signal));
}

/// Returns whether the handler is installed. An error says why not.
pub(super) fn is_installed() -> Result<(), String> {
    let capturer = CAPTURER.lock().ignore_poison();
    match &*capturer {
        Some(Ok(_)) => Ok(()),
        Some(Err(why)) => Err(why.to_string()),
        None => Err("no watchdog with stacks was built".into()),
    }
}

/// Samples stacks, on the sentinel's thread.
pub(super) struct StackSampler {
    loader: UnwindLoader,
    budget: SampleBudget,
}

/// The result of a request for a stack.
#[derive(Default)]
pub(super) struct StackSample {
    pub(super) stack: Option<Stack>,
    /// Whether the sampler signalled the thread.
    pub(super) was_signalled: bool,
    /// The thread did not answer in time, or moved on before the request. A later request may succeed.
    pub(super) is_late: bool,
    /// Why there is no stack, or only a part that was read without a signal.
    pub(super) no_stack: Option<NoCapture>,
}

/// A thread to sample.
#[derive(Clone, Copy)]
pub(super) struct Target<'s> {
    pub(super) slot: &'s Slot,
    pub(super) poll: &'s InFlightPoll,
    pub(super) thread: &'s Thread,
    pub(super) syscall_state: Option<SyscallState>,
    pub(super) run_state: RunState,
    /// The time in which the thread may answer a signal.
    pub(super) max_wait: Duration,
}

impl<'s> Target<'s> {
    /// Observes what the thread does now.
    pub(super) fn observe(
        slot: &'s Slot,
        poll: &'s InFlightPoll,
        thread: &'s Thread,
        max_wait: Duration,
    ) -> Self {
        let syscall_state = procfs::syscall_state(thread).ok();
        Self {
            slot,
            poll,
            thread,
            syscall_state,
            run_state: run_state(thread, syscall_state.as_ref()),
            max_wait,
        }
    }
}

impl StackSampler {
    /// Starts the loader of unwind tables.
    ///
    /// There are no stacks until the tables are read, which takes milliseconds for a small program and more for a large
    /// one. The loader's thread also tests a capture on itself.
    pub(super) fn new() -> Self {
        Self {
            loader: UnwindLoader::start(test_capture),
            budget: SampleBudget::of_a_scan(),
        }
    }

    /// Renews the time in which a scan may wait for threads.
    pub(super) fn begin_scan(&mut self) {
        self.budget = SampleBudget::of_a_scan();
    }

    /// Returns whether the unwind tables are still being read.
    pub(super) fn is_loading(&mut self) -> bool {
        self.loader.is_loading()
    }

    /// Returns whether a stack is in `block_on` of a current-thread runtime, as far as the program has symbols.
    pub(super) fn is_in_block_on(&self, stack: &Stack) -> bool {
        self.has(stack, KnownFrame::Scheduler) || self.has(stack, KnownFrame::BlockOn)
    }

    /// Returns the known function at an address of a stack.
    pub(super) fn known_frame(&self, raw_frame: &RawFrame) -> Option<KnownFrame> {
        self.loader.loaded()?.known_frame(raw_frame)
    }

    /// Returns whether a stack is that of a thread that has handed its worker over.
    ///
    /// Such a thread is still in `block_in_place`, or has gone back to the blocking pool, which workers belong to too.
    pub(super) fn has_handed_over(&self, stack: &Stack) -> bool {
        let is_in_pool =
            || self.has(stack, KnownFrame::Pool) && !self.has(stack, KnownFrame::Worker);
        self.is_in_block_in_place(stack) || is_in_pool()
    }

    /// Returns whether a stack is in `block_in_place`, as far as the program has symbols.
    pub(super) fn is_in_block_in_place(&self, stack: &Stack) -> bool {
        self.has(stack, KnownFrame::BlockInPlace)
    }

    /// Returns whether a stack is that of a worker between two polls.
    pub(super) fn is_between_polls(&self, stack: &Stack) -> bool {
        let unwinder = self.loader.loaded();
        let known = |raw_frame| unwinder.and_then(|unwinder| unwinder.known_frame(raw_frame));
        // A worker is itself a task of the blocking pool. The inner one of the two frames decides.
        let is_either = |known: &KnownFrame| matches!(known, KnownFrame::Worker | KnownFrame::Task);
        stack.raw_frames().filter_map(known).find(is_either) == Some(KnownFrame::Worker)
    }

    fn has(&self, stack: &Stack, frame: KnownFrame) -> bool {
        let is_it = |unwinder: &Unwinder| {
            let mut raw_frames = stack.raw_frames();
            raw_frames.any(|raw_frame| unwinder.known_frame(raw_frame) == Some(frame))
        };
        self.loader.loaded().is_some_and(is_it)
    }

    /// Samples the stack of a thread, if the poll is still in flight afterwards.
    pub(super) fn sample(&mut self, target: &Target<'_>, stacks: Stacks) -> StackSample {
        let target = Target {
            max_wait: self.budget.for_one(target.max_wait),
            ..*target
        };
        let begun = Instant::now();
        let mut sample = match self.loader.unwinder() {
            Some(unwinder) if stacks != Stacks::Never => sample_stack(unwinder, &target, stacks),
            _ => StackSample::default(),
        };
        if sample.is_late {
            self.budget.spend(begun.elapsed());
        }
        // A stack that ends in a library without tables may be complete once the loader has read them.
        sample.is_late |= self.loader.load_missed();
        sample
    }
}

fn sample_stack(unwinder: &mut Unwinder, target: &Target<'_>, stacks: Stacks) -> StackSample {
    let outside = match &target.syscall_state {
        Some(SyscallState::Waits(waits)) => {
            copy_from_outside(waits).map(|copied| unwinder.unwind(&copied))
        }
        _ => None,
    };
    let restarts = |call| {
        let outside = outside.as_ref();
        outside.is_some_and(|unwound| unwinder.caller_restarts(unwound, call))
    };
    let captured = match may_signal(target, stacks, restarts) {
        Ok(()) if target.max_wait.is_zero() => Err(NoCapture::NotRequested),
        Ok(()) => capture(target, stacks),
        Err(no_stack) => Err(no_stack),
    };
    let is_late = matches!(captured, Err(NoCapture::NoAnswer | NoCapture::Busy));
    let no_stack = captured.as_ref().err().copied();
    let captured = captured.ok();
    let was_signalled = is_late || captured.is_some();
    let unwound = captured.map(|copied| unwinder.unwind(&copied)).or(outside);
    // The poll was in flight before the copy and is now, so it was in flight at the copy.
    let unwound = unwound
        .filter(|unwound| target.slot.is_in_flight(target.poll) && !unwound.raw_frames.is_empty());
    let stack = unwound.map(|unwound| {
        let inside = unwound.inside(target.poll.stack);
        Stack::new(unwound.raw_frames, inside)
    });
    StackSample {
        stack,
        was_signalled,
        is_late: is_late
            || matches!(
                no_stack,
                Some(NoCapture::Continued | NoCapture::NotRequested)
            ),
        no_stack,
    }
}

/// Returns whether a signal does no harm, or the user accepts it.
///
/// `restarts` says whether the caller of a system call makes it again if a signal cuts it short.
fn may_signal(
    target: &Target<'_>,
    stacks: Stacks,
    restarts: impl FnOnce(Call) -> bool,
) -> Result<(), NoCapture> {
    if stacks == Stacks::Always {
        return Ok(());
    }
    match &target.syscall_state {
        Some(SyscallState::Running | SyscallState::Elsewhere) => Ok(()),
        Some(SyscallState::Waits(waits)) => match interrupted(waits) {
            Interrupted::Restarts => Ok(()),
            Interrupted::IsCutShort(call) if restarts(call) => Ok(()),
            Interrupted::IsCutShort(_) | Interrupted::Fails => Err(NoCapture::WouldFail),
        },
        None if target.run_state == RunState::OnCpu => Ok(()),
        None => Err(NoCapture::UnknownCall),
    }
}

/// Returns whether the signal may cut a system call short. The caller makes it again, or the user accepts it.
fn may_cut_short(target: &Target<'_>, stacks: Stacks) -> bool {
    match &target.syscall_state {
        Some(SyscallState::Running | SyscallState::Elsewhere) => false,
        Some(SyscallState::Waits(waits)) => interrupted(waits) != Interrupted::Restarts,
        None => stacks == Stacks::Always,
    }
}

/// Copies the stack of a sleeping thread without a signal.
///
/// The registers that a call preserves are unknown, so this unwinds only through frames that need none of them.
fn copy_from_outside(waits: &Waits) -> Option<Copied> {
    let from = usize::try_from(waits.sp).ok()?;
    let mut bytes = vec![0; OUTSIDE_BYTES];
    let read = read_memory(from, &mut bytes);
    bytes.truncate(read);
    let registers = Registers {
        ip: waits.pc,
        sp: waits.sp,
        ..Registers::default()
    };
    Some(Copied {
        registers,
        from,
        bytes,
    })
}

/// Captures the stack of the calling thread, to test whether captures work here.
fn test_capture(unwinder: &mut Unwinder) -> Result<(), String> {
    unwinder.load();
    is_installed()?;
    let thread = Thread::current().ok_or("thread ids are unknown on this platform")?;
    let copied = with_capturer(|capturer| {
        capturer.request(&thread, false)?;
        capturer.wait(&thread, Duration::from_secs(1))
    });
    let copied = copied.map_err(|why| why.to_string())?;
    match unwinder.unwind(&copied).raw_frames.len() {
        0..3 => Err("the stack could be copied and not unwound".into()),
        _ => Ok(()),
    }
}

fn with_capturer<T>(
    use_it: impl FnOnce(&mut Capturer) -> Result<T, NoCapture>,
) -> Result<T, NoCapture> {
    let mut capturer = CAPTURER.lock().ignore_poison();
    match &mut *capturer {
        Some(Ok(capturer)) => use_it(capturer),
        Some(Err(why)) => Err(*why),
        None => Err(NoCapture::Unsupported),
    }
}

fn capture(target: &Target<'_>, stacks: Stacks) -> Result<Copied, NoCapture> {
    let may_cut_short = may_cut_short(target, stacks);
    with_capturer(|capturer| {
        let obstacles = procfs::signal_obstacles(target.thread, capturer.signal());
        if obstacles.is_blocked {
            return Err(NoCapture::Blocked);
        }
        {
            // While this lock is held, the thread cannot end, so its id is not reused.
            let diagnostics = target.slot.lock_running(target.poll);
            let owner = diagnostics
                .as_ref()
                .and_then(|diagnostics| diagnostics.owner.as_ref());
            if owner.and_then(|owner| owner.thread.as_ref()) != Some(target.thread) {
                return Err(NoCapture::NotSent);
            }
            // The observation and the unwinding took a while. The thread may now be in a call that would fail.
            if stacks == Stacks::Auto
                && procfs::syscall_state(target.thread).ok() != target.syscall_state
            {
                return Err(NoCapture::Continued);
            }
            capturer.request(target.thread, may_cut_short)?;
        }
        let max_wait = match obstacles.is_uninterruptible {
            true => target.max_wait.min(UNINTERRUPTIBLE_MAX_WAIT),
            false => target.max_wait,
        };
        capturer.wait(target.thread, max_wait)
    })
}
