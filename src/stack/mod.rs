//! Floor 1: the stack of a stuck thread, and what its frames are called.

#[cfg(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shotclock_loom)
))]
mod debug_info;
#[cfg(not(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shotclock_loom)
)))]
#[path = "no_debug_info.rs"]
mod debug_info;
mod symbols;

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::sys;
pub use symbols::Frame;
#[allow(unused_imports, reason = "only `unwind` calls it")]
pub(crate) use symbols::invalidate_names;

/// The stack of a thread at the moment when it was looked at.
///
/// `Display` shows the frames from the blocking call down to the watched poll, one in a line, with
/// file and line where the program's debug information has them, and folds those of std and of the
/// runtime; [`frames`](Self::frames) has all of them.
///
/// What a stack is called is looked up when it is first asked for, by the thread that asks. That may
/// take long (the debug information of the program is read, once), and it takes the loader's lock:
/// ask on a reporter's thread, which is where reports arrive.
///
/// # Non-guarantees
///
/// Functions that the compiler inlined have names of their own only in a build with debug
/// information (`debug = "line-tables-only"` in the profile is enough). A stripped program has no
/// names: then there are addresses.
#[derive(Clone)]
pub struct Stack {
    taken: Arc<Taken>,
}

struct Taken {
    steps: Vec<Step>,
    /// How many of the steps are of the watched poll, if the stack reaches it.
    inside: Option<usize>,
    frames: OnceLock<Named>,
}

/// One function that was being run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    /// Where it is, or where it will go on.
    pub(crate) address: usize,
    /// Whether it will go on there, rather than being there.
    pub(crate) is_return: bool,
    /// The file that holds the code.
    pub(crate) module: Option<Arc<str>>,
}

struct Named {
    frames: Vec<Frame>,
    inside: Option<usize>,
}

impl Stack {
    /// `inside` says how many of the steps are of the watched poll, if it was reached.
    pub(crate) fn new(steps: Vec<Step>, inside: Option<usize>) -> Self {
        let taken = Taken {
            steps,
            inside,
            frames: OnceLock::new(),
        };
        Self {
            taken: Arc::new(taken),
        }
    }

    /// One of which the names are known.
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "where nothing is fuzzed nobody makes one")]
    pub(crate) fn of_frames(frames: Vec<Frame>) -> Self {
        let named = Named {
            frames,
            inside: None,
        };
        let taken = Taken {
            steps: Vec::new(),
            inside: None,
            frames: OnceLock::from(named),
        };
        Self {
            taken: Arc::new(taken),
        }
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.taken.steps.iter()
    }

    /// All frames, from the innermost. One address has several where functions were inlined.
    pub fn frames(&self) -> &[Frame] {
        &self.named().frames
    }

    /// The frames from the innermost down to the one in which the watched poll was made; all of
    /// them, if the stack does not reach it.
    pub fn frames_of_poll(&self) -> &[Frame] {
        let named = self.named();
        &named.frames[..named.inside.unwrap_or(named.frames.len())]
    }

    /// Whether the stack reaches the watched poll. If not, what is missing is at its outer end.
    pub fn is_complete(&self) -> bool {
        self.taken.inside.is_some()
    }

    /// The stack in one line, as `Display` shows it in several.
    pub fn one_line(&self) -> impl fmt::Display + '_ {
        OneLine(self)
    }

    /// The frames of the libraries at the innermost end: how the program's own code waits.
    pub(crate) fn waiting_frames(&self) -> &[Frame] {
        let frames = self.frames_of_poll();
        let own = frames.iter().position(|frame| !frame.is_foreign());
        &frames[..own.unwrap_or(frames.len())]
    }

    fn named(&self) -> &Named {
        static NAMELESS: Named = Named {
            frames: Vec::new(),
            inside: None,
        };
        let Taken {
            steps,
            inside,
            frames,
        } = &*self.taken;
        // In the child of a fork, whoever looks the names up may not exist, and would be waited for.
        if sys::is_forked() {
            return frames.get().unwrap_or(&NAMELESS);
        }
        frames.get_or_init(|| {
            let mut frames = Vec::with_capacity(steps.len());
            let mut frames_inside = None;
            for (number, step) in steps.iter().enumerate() {
                frames.extend_from_slice(&symbols::frames_of(step));
                if Some(number + 1) == *inside {
                    frames_inside = Some(frames.len());
                }
            }
            Named {
                frames,
                inside: frames_inside,
            }
        })
    }
}

/// The function that begins at an address, if it has a name. It may take long, the first time.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn function_at(address: usize) -> Option<Frame> {
    let step = Step {
        address,
        is_return: false,
        module: None,
    };
    let frame = symbols::frames_of(&step).last().cloned()?;
    frame.function.is_some().then_some(frame)
}

/// What `Display` shows of a run of frames.
enum Shown<'s> {
    Frame(&'s Frame, usize),
    Folded(usize),
}

/// Folds what is not the program's own: before the first own frame all but the last, which is the
/// function that the program called; after it, all.
fn fold(frames: &[Frame]) -> Vec<Shown<'_>> {
    if frames.iter().all(Frame::is_foreign) {
        return frames.iter().map(|frame| Shown::Frame(frame, 0)).collect();
    }
    let mut shown = Vec::new();
    for run in frames.chunk_by(|a, b| a.is_foreign() == b.is_foreign()) {
        match run {
            [.., called] if called.is_foreign() && shown.is_empty() => {
                shown.push(Shown::Frame(called, run.len() - 1));
            }
            [first, ..] if first.is_foreign() => shown.push(Shown::Folded(run.len())),
            own => shown.extend(own.iter().map(|frame| Shown::Frame(frame, 0))),
        }
    }
    if let Some(Shown::Folded(_)) = shown.last() {
        // The runtime around the watched poll is known to be there.
        shown.pop();
    }
    shown
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Frame(frame, 0) => write!(f, "{frame}"),
            Shown::Frame(frame, folded) => write!(f, "{frame} (and {folded} inside)"),
            Shown::Folded(folded) => write!(f, "({folded} of the libraries)"),
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, shown) in fold(self.frames_of_poll()).iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "    {shown}")?;
        }
        Ok(())
    }
}

struct OneLine<'s>(&'s Stack);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, shown) in fold(self.0.frames_of_poll()).iter().enumerate() {
            if number > 0 {
                f.write_str(" < ")?;
            }
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not by name: a debug print must not read the program's debug information.
        f.debug_struct("Stack")
            .field("steps", &self.taken.steps.len())
            .field("is_complete", &self.is_complete())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame::named(function, 1)
    }

    fn shown(frames: &[Frame]) -> Vec<String> {
        fold(frames).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn libraries_are_folded_around_the_programs_own_frames() {
        let frames = [
            "clock_nanosleep",
            "std::sys::thread::sleep",
            "std::thread::sleep",
            "app::load",
            "<core::pin::Pin<P> as core::future::Future>::poll",
            "tokio::task::poll",
            "app::handler::{{closure}}",
            "<shotclock::Watched<T> as core::future::Future>::poll",
        ]
        .map(frame);
        let lines = shown(&frames);
        assert_eq!(
            lines,
            [
                "clock_nanosleep",
                "(2 of the libraries)",
                "app::load",
                "(2 of the libraries)",
                "app::handler::{{closure}}"
            ]
        );
        let lines = shown(&frames[1..]);
        assert_eq!(lines[0], "std::thread::sleep (and 1 inside)");
    }

    #[test]
    fn where_nothing_is_the_programs_own_nothing_is_folded() {
        let frames = ["std::thread::sleep", "core::ops::FnOnce::call_once"].map(frame);
        assert_eq!(shown(&frames).len(), 2);
        assert!(shown(&[]).is_empty());
    }
}
