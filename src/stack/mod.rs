//! Floor 1: the stack of a thread, and the names of its frames.

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

/// Shows the stack of a thread at one time.
///
/// `Display` writes one frame a line, from the blocking call to the watched poll. A frame has its file and line if the
/// program's debug information has them. Frames of std and of the runtime are folded. [`frames`](Self::frames) has all.
///
/// The first thread that needs the names looks them up. That may take long, because it reads the program's debug
/// information once. It also takes a lock of the dynamic loader. So use the names on a reporter's thread, where reports
/// arrive.
///
/// # Non-guarantees
///
/// Functions that the compiler inlined have names only in a build with debug information
/// (`debug = "line-tables-only"` in the profile is enough). A stripped program has addresses instead of names.
#[derive(Clone)]
pub struct Stack {
    inner: Arc<StackInner>,
}

struct StackInner {
    raw_frames: Vec<RawFrame>,
    /// The number of frames inside the watched poll, if the stack reaches it.
    inside: Option<usize>,
    frames: OnceLock<NamedFrames>,
}

/// One call on a copied stack, before its functions are looked up: inlined functions share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RawFrame {
    /// The present instruction, or the return address of the call that the function made.
    pub(crate) address: usize,
    pub(crate) is_return: bool,
    /// The file of the code.
    pub(crate) module: Option<Arc<str>>,
}

struct NamedFrames {
    frames: Vec<Frame>,
    inside: Option<usize>,
}

impl Stack {
    /// Makes a stack. `inside` is the number of frames inside the watched poll, if the stack reaches it.
    pub(crate) fn new(raw_frames: Vec<RawFrame>, inside: Option<usize>) -> Self {
        let inner = StackInner {
            raw_frames,
            inside,
            frames: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes a stack with known names.
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "some test builds use it")]
    pub(crate) fn of_frames(frames: Vec<Frame>) -> Self {
        let named = NamedFrames {
            frames,
            inside: None,
        };
        let inner = StackInner {
            raw_frames: Vec::new(),
            inside: None,
            frames: OnceLock::from(named),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn raw_frames(&self) -> impl Iterator<Item = &RawFrame> {
        self.inner.raw_frames.iter()
    }

    /// Returns all frames, innermost first. One address has several frames if functions were inlined.
    pub fn frames(&self) -> &[Frame] {
        &self.named().frames
    }

    /// Returns the frames inside the watched poll, innermost first, or all frames if the stack does not reach it.
    pub fn frames_of_poll(&self) -> &[Frame] {
        let named = self.named();
        &named.frames[..named.inside.unwrap_or(named.frames.len())]
    }

    /// Returns whether the stack reaches the watched poll. If not, frames at its outer end are missing.
    pub fn is_complete(&self) -> bool {
        self.inner.inside.is_some()
    }

    /// Returns the stack in one line. `Display` writes the same in several.
    pub fn one_line(&self) -> impl fmt::Display + '_ {
        OneLine(self)
    }

    /// Returns the frames of libraries at the innermost end. They show how the program waits.
    pub(crate) fn waiting_frames(&self) -> &[Frame] {
        let frames = self.frames_of_poll();
        let own = frames.iter().position(|frame| !frame.is_foreign());
        &frames[..own.unwrap_or(frames.len())]
    }

    fn named(&self) -> &NamedFrames {
        static NAMELESS: NamedFrames = NamedFrames {
            frames: Vec::new(),
            inside: None,
        };
        let StackInner {
            raw_frames,
            inside,
            frames,
        } = &*self.inner;
        // In the child of a fork, the thread that was looking names up does not exist, and would never finish.
        if sys::is_forked() {
            return frames.get().unwrap_or(&NAMELESS);
        }
        frames.get_or_init(|| {
            let mut frames = Vec::with_capacity(raw_frames.len());
            let mut frames_inside = None;
            for (number, raw_frame) in raw_frames.iter().enumerate() {
                frames.extend_from_slice(&symbols::frames_of(raw_frame));
                if Some(number + 1) == *inside {
                    frames_inside = Some(frames.len());
                }
            }
            NamedFrames {
                frames,
                inside: frames_inside,
            }
        })
    }
}

/// Returns the function that begins at an address, if it has a name. The first call may take long.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn function_at(address: usize) -> Option<Frame> {
    let raw_frame = RawFrame {
        address,
        is_return: false,
        module: None,
    };
    let frame = symbols::frames_of(&raw_frame).last().cloned()?;
    frame.function.is_some().then_some(frame)
}

/// A part of the output of `Display`.
enum Shown<'s> {
    Frame(&'s Frame, usize),
    Folded(usize),
}

/// Folds the frames of libraries. Of those inside the program's innermost frame, the outermost one stays: the function
/// that the program called.
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
        // The runtime around the watched poll is in every stack.
        shown.pop();
    }
    shown
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Frame(frame, 0) => write!(f, "{frame}"),
            Shown::Frame(frame, folded) => {
                write!(f, "{frame} (+{folded} inner {})", frames(*folded))
            }
            Shown::Folded(folded) => write!(f, "({folded} library {})", frames(*folded)),
        }
    }
}

fn frames(count: usize) -> &'static str {
    if count == 1 { "frame" } else { "frames" }
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
        // No names: a debug print must not read the program's debug information.
        f.debug_struct("Stack")
            .field("raw_frames", &self.inner.raw_frames.len())
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
    fn fold_with_own_frames_folds_the_libraries() {
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
                "(2 library frames)",
                "app::load",
                "(2 library frames)",
                "app::handler::{{closure}}"
            ]
        );
        let lines = shown(&frames[1..]);
        assert_eq!(lines[0], "std::thread::sleep (+1 inner frame)");
    }

    #[test]
    fn fold_without_own_frames_folds_nothing() {
        let frames = ["std::thread::sleep", "core::ops::FnOnce::call_once"].map(frame);
        assert_eq!(shown(&frames).len(), 2);
        assert!(shown(&[]).is_empty());
    }
}
