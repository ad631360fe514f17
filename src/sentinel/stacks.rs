//! Taking the stack of a stuck thread: whether it may be signalled, and what can be had if not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::loader::Loader;
use super::part::Part;
use super::patience::Patience;
use super::repeats::Call;
use super::syscalls::{Interrupted, interrupted};
use super::unwind::Unwinder;
use crate::procfs::{self, Standpoint, Waits};
use crate::slot::{InFlightPoll, Slot};
use crate::stack::{Stack, Step};
use crate::sys::{Capturer, Copied, NoCapture, Registers, Thread, read_memory};
use crate::watch::Stacks;

/// How long a thread may take to answer when its stall is told. One that runs answers in microseconds,
/// one that sleeps must first be run; meanwhile the sentinel sees nothing else.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);

/// The same of a thread that takes no signal before its call is over, as in `fsync`: it answers only if that is
/// about to be so.
const SHORT_PATIENCE: Duration = Duration::from_micros(500);

/// How much of a sleeping thread's stack is looked at from outside.
const GLIMPSE: usize = 64 * 1024;

/// The right to capture, from when the first watchdog that wants stacks was built.
static CAPTURER: Mutex<Option<Result<Capturer, NoCapture>>> = Mutex::new(None);

/// Installs the signal handler, if nobody has yet.
pub(super) fn install(signal: i32) {
    let mut capturer = CAPTURER.lock().unwrap_or_else(PoisonError::into_inner);
    capturer.get_or_insert_with(|| Capturer::install(signal));
}

/// Whether the handler is installed; an error says why not.
pub(super) fn is_installed() -> Result<(), String> {
    let capturer = CAPTURER.lock().unwrap_or_else(PoisonError::into_inner);
    match &*capturer {
        Some(Ok(_)) => Ok(()),
        Some(Err(why)) => Err(why.to_string()),
        None => Err("no watchdog has asked for stacks".into()),
    }
}

/// Takes stacks. Lives on the sentinel's thread.
pub(super) struct Taker {
    loader: Loader,
    patience: Patience,
}

/// What came of asking for a stack.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) stack: Option<Stack>,
    /// The thread was asked.
    pub(super) was_asked: bool,
    /// It did not answer in time, or was not asked because it goes to and fro: it may be asked again.
    pub(super) is_late: bool,
    /// Why there is no stack, or none but what can be had without a signal.
    pub(super) why_not: Option<NoCapture>,
}

/// A thread that is to be looked at.
#[derive(Clone, Copy)]
pub(super) struct Subject<'s> {
    pub(super) slot: &'s Slot,
    pub(super) poll: &'s InFlightPoll,
    pub(super) thread: &'s Thread,
    /// Where it stands, if that is known.
    pub(super) standpoint: Option<&'s Standpoint>,
    /// Whether it has a processor at this moment.
    pub(super) is_on_cpu: bool,
    /// How long it may take to answer a signal.
    pub(super) patience: Duration,
}

impl Taker {
    /// Without stacks at first: reading how to unwind takes some milliseconds for a small program and
    /// more for a large one, so it is done by a thread of its own. That one tries the whole out on itself as
    /// well.
    pub(super) fn new() -> Self {
        Self {
            loader: Loader::start(try_out),
            patience: Patience::of_a_look(),
        }
    }

    /// A look begins: for how long threads may be waited for is counted anew.
    pub(super) fn begin_look(&mut self) {
        self.patience = Patience::of_a_look();
    }

    /// Whether it is not known yet how to take stacks, and will be.
    pub(super) fn is_loading(&mut self) -> bool {
        self.loader.is_loading()
    }

    /// Whether a stack is that of a thread that runs a runtime of the current thread, as far as the
    /// program has symbols.
    pub(super) fn is_in_block_on(&self, stack: &Stack) -> bool {
        self.has(stack, Part::Scheduler) || self.has(stack, Part::BlockOn)
    }

    /// What a function in a stack belongs to, if that is anything known.
    pub(super) fn part(&self, step: &Step) -> Option<Part> {
        self.loader.loaded()?.part(step)
    }

    /// Whether a stack is that of a thread that has handed its worker to another one: it is still in
    /// `block_in_place`, or has gone back to the pool, of which a worker's thread is one too.
    pub(super) fn has_handed_over(&self, stack: &Stack) -> bool {
        let is_in_pool = || self.has(stack, Part::Pool) && !self.has(stack, Part::Worker);
        self.is_in_block_in_place(stack) || is_in_pool()
    }

    /// Whether a stack is in `block_in_place`, as far as the program has symbols.
    pub(super) fn is_in_block_in_place(&self, stack: &Stack) -> bool {
        self.has(stack, Part::BlockInPlace)
    }

    /// Whether a stack is that of a worker between two polls: in the hands of its runtime alone.
    pub(super) fn is_between_polls(&self, stack: &Stack) -> bool {
        let unwinder = self.loader.loaded();
        let part = |step| unwinder.and_then(|unwinder| unwinder.part(step));
        // The worker is itself a task, of the pool of threads: what counts is which is further inside.
        let is_either = |part: &Part| matches!(part, Part::Worker | Part::Task);
        stack.steps().filter_map(part).find(is_either) == Some(Part::Worker)
    }

    fn has(&self, stack: &Stack, part: Part) -> bool {
        let unwinder = self.loader.loaded();
        unwinder.is_some_and(|unwinder| stack.steps().any(|step| unwinder.part(step) == Some(part)))
    }

    /// The stack of a thread, if the poll has not ended meanwhile.
    pub(super) fn take(&mut self, subject: &Subject<'_>, stacks: Stacks) -> Taken {
        let patience = self.patience.for_one(subject.patience);
        let subject = Subject {
            patience,
            ..*subject
        };
        let begun = Instant::now();
        let mut taken = match self.loader.unwinder() {
            Some(unwinder) if stacks != Stacks::Never => take(unwinder, &subject, stacks),
            _ => Taken::default(),
        };
        if taken.is_late {
            self.patience.spend(begun.elapsed());
        }
        // A stack that ends in a library that is being read may be asked for again.
        taken.is_late |= self.loader.read_what_was_missed();
        taken
    }
}

fn take(unwinder: &mut Unwinder, subject: &Subject<'_>, stacks: Stacks) -> Taken {
    let glimpse = match subject.standpoint {
        Some(Standpoint::Waits(waits)) => glimpse(waits).map(|copied| unwinder.unwind(&copied)),
        _ => None,
    };
    let is_repeated = |call| {
        glimpse
            .as_ref()
            .is_some_and(|g| unwinder.is_repeated(g, call))
    };
    let captured = match may_signal(subject, stacks, is_repeated) {
        Ok(()) if subject.patience.is_zero() => Err(NoCapture::NotRequested),
        Ok(()) => capture(subject, stacks),
        Err(why_not) => Err(why_not),
    };
    let is_late = matches!(captured, Err(NoCapture::NoAnswer | NoCapture::Busy));
    let why_not = captured.as_ref().err().copied();
    let captured = captured.ok();
    let was_asked = is_late || captured.is_some();
    let unwound = captured.map(|copied| unwinder.unwind(&copied)).or(glimpse);
    // It was in flight before and is now, so it was when the stack was taken.
    let unwound = unwound
        .filter(|unwound| subject.slot.is_in_flight(subject.poll) && !unwound.steps.is_empty());
    let stack = unwound.map(|unwound| {
        let inside = unwound.inside(subject.poll.stack);
        Stack::new(unwound.steps, inside)
    });
    Taken {
        stack,
        was_asked,
        is_late: is_late
            || matches!(
                why_not,
                Some(NoCapture::Continued | NoCapture::NotRequested)
            ),
        why_not,
    }
}

/// Whether a signal does no harm, or is wanted anyway. `is_repeated` says whether such a call is made again
/// if a signal cuts it short.
fn may_signal(
    subject: &Subject<'_>,
    stacks: Stacks,
    is_repeated: impl FnOnce(Call) -> bool,
) -> Result<(), NoCapture> {
    if stacks == Stacks::Always {
        return Ok(());
    }
    match subject.standpoint {
        Some(Standpoint::Running | Standpoint::Elsewhere) => Ok(()),
        Some(Standpoint::Waits(waits)) => match interrupted(waits) {
            Interrupted::Restarts => Ok(()),
            Interrupted::IsCutShort(call) if is_repeated(call) => Ok(()),
            Interrupted::IsCutShort(_) | Interrupted::Fails => Err(NoCapture::WouldFail),
        },
        None if subject.is_on_cpu => Ok(()),
        None => Err(NoCapture::UnknownCall),
    }
}

/// Whether a call may be cut short by the signal, which is accepted: it is made again, or the user wants it so.
fn interrupts(subject: &Subject<'_>, stacks: Stacks) -> bool {
    match subject.standpoint {
        Some(Standpoint::Running | Standpoint::Elsewhere) => false,
        Some(Standpoint::Waits(waits)) => interrupted(waits) != Interrupted::Restarts,
        None => stacks == Stacks::Always,
    }
}

/// What can be had of a sleeping thread without a signal: the registers that a call preserves are not
/// known, so it can be unwound as far as frames do without.
fn glimpse(waits: &Waits) -> Option<Copied> {
    let from = usize::try_from(waits.sp).ok()?;
    let mut bytes = vec![0; GLIMPSE];
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

/// Takes the stack of the calling thread, to see whether it works at all here.
fn try_out(unwinder: &mut Unwinder) -> Result<(), String> {
    unwinder.load();
    is_installed()?;
    let thread = Thread::current().ok_or("threads have no numbers here")?;
    let copied = with_capturer(|capturer| {
        capturer.ask(&thread, false)?;
        capturer.wait(&thread, Duration::from_secs(1))
    });
    let copied = copied.map_err(|why| why.to_string())?;
    match unwinder.unwind(&copied).steps.len() {
        0..3 => Err("the stack could be copied and not unwound".into()),
        _ => Ok(()),
    }
}

fn with_capturer<T>(
    use_it: impl FnOnce(&mut Capturer) -> Result<T, NoCapture>,
) -> Result<T, NoCapture> {
    let mut capturer = CAPTURER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *capturer {
        Some(Ok(capturer)) => use_it(capturer),
        Some(Err(why)) => Err(*why),
        None => Err(NoCapture::Unsupported),
    }
}

fn capture(subject: &Subject<'_>, stacks: Stacks) -> Result<Copied, NoCapture> {
    let interrupts = interrupts(subject, stacks);
    with_capturer(|capturer| {
        let deaf = procfs::deaf(subject.thread, capturer.signal());
        if deaf.is_blocked {
            return Err(NoCapture::Blocked);
        }
        {
            // As long as this is held the thread cannot end, so its number is its own.
            let diagnostics = subject.slot.hold(subject.poll);
            let owner = diagnostics
                .as_ref()
                .and_then(|diagnostics| diagnostics.owner.as_ref());
            if owner.and_then(|owner| owner.thread.as_ref()) != Some(subject.thread) {
                return Err(NoCapture::NotSent);
            }
            // Looking and unwinding took a while, in which it may have come to a call that would fail.
            if stacks == Stacks::Auto
                && procfs::standpoint(subject.thread).ok().as_ref() != subject.standpoint
            {
                return Err(NoCapture::Continued);
            }
            capturer.ask(subject.thread, interrupts)?;
        }
        let patience = match deaf.is_uninterruptible {
            true => subject.patience.min(SHORT_PATIENCE),
            false => subject.patience,
        };
        capturer.wait(subject.thread, patience)
    })
}
