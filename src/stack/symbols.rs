//! Looks up the names of functions by address.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::RawFrame;
use super::debug_info;
use crate::catch_panic::catch_panic;
use crate::sync::IgnorePoison as _;

/// Names one function of a [`Stack`](super::Stack). `Display` prints `function (file:line)`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The address that the function executes, or returns to.
    pub address: usize,
    /// The demangled name. `None` if the program has no symbol for the address.
    pub function: Option<Arc<str>>,
    /// The source file, as the compiler got it.
    pub file: Option<Arc<str>>,
    /// The line in the source file.
    pub line: Option<u32>,
    /// The path of the program or library that holds the code.
    pub module: Option<Arc<str>>,
}

/// The crates of the standard library.
const STD_CRATES: [&str; 3] = ["std", "core", "alloc"];

/// Other crates whose frames a report folds: tokio, the crates between it and a handler, and this crate.
const FOREIGN_CRATES: [&str; 11] = [
    "tokio",
    "tokio_util",
    "futures",
    "futures_util",
    "futures_core",
    "futures_executor",
    "tracing",
    "hyper",
    "tower",
    "axum",
    "shotclock",
];

/// Libraries whose frames a report folds, by the start of the file name.
const FOREIGN_MODULES: [&str; 6] = ["libc.", "libc-", "libpthread", "libm.", "ld-", "[vdso]"];

impl Frame {
    /// Returns whether the frame belongs to the standard library, the runtime, the C library or a dependency.
    ///
    /// Only debug information reveals a dependency: its source lies in cargo's registry.
    pub(crate) fn is_foreign(&self) -> bool {
        let file = self.file.as_deref().unwrap_or_default();
        if file.contains("/.cargo/registry/") {
            return true;
        }
        let crate_name = self.function.as_deref().and_then(crate_of);
        let is_foreign = |name| STD_CRATES.contains(&name) || FOREIGN_CRATES.contains(&name);
        self.is_of_c_library() || crate_name.is_some_and(is_foreign)
    }

    /// Returns whether the frame belongs to the standard library or the C library.
    pub(crate) fn is_std(&self) -> bool {
        let crate_name = self.function.as_deref().and_then(crate_of);
        self.is_of_c_library() || crate_name.is_some_and(|name| STD_CRATES.contains(&name))
    }

    fn is_of_c_library(&self) -> bool {
        let module = self.module.as_deref().unwrap_or_default();
        let file_name = module.rsplit('/').next().unwrap_or_default();
        FOREIGN_MODULES
            .iter()
            .any(|prefix| file_name.starts_with(*prefix))
    }

    /// Returns the function's name, or the file name of its program or library.
    pub(crate) fn name(&self) -> Arc<str> {
        let module = self.module.as_deref().unwrap_or("unknown");
        let file_name = module.rsplit('/').next().unwrap_or(module);
        self.function.clone().unwrap_or_else(|| file_name.into())
    }

    /// Returns the file and the line, as far as they are known.
    pub(crate) fn place(&self) -> Option<String> {
        let file = short(self.file.as_deref()?);
        Some(match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file.to_owned(),
        })
    }

    #[cfg(test)]
    pub(super) fn named(function: &str, address: usize) -> Self {
        Self {
            address,
            function: Some(function.into()),
            file: None,
            line: None,
            module: None,
        }
    }
}

/// Returns the crate of a function: the first segment of its path, or of the type that it is implemented for.
///
/// For a type parameter it is the crate of the trait, and for a primitive type it is `core`.
fn crate_of(function: &str) -> Option<&str> {
    let path = function.trim_start_matches(['<', '&', '*', '(', '[']);
    let path = ["mut ", "const ", "dyn ", "impl "]
        .iter()
        .fold(path, |path, word| path.strip_prefix(word).unwrap_or(path));
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (name, rest) = path.split_at(path.find(|c| !is_name(c))?);
    if rest.starts_with("::") {
        Some(name)
    } else if let Some(implemented) = rest.strip_prefix(" as ") {
        crate_of(implemented)
    } else {
        (path != function).then_some("core")
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.function, &self.module) {
            (Some(function), _) => f.write_str(function)?,
            (None, Some(module)) => write!(f, "{:#x} in {module}", self.address)?,
            (None, None) => write!(f, "{:#x}", self.address)?,
        }
        if let Some(place) = self.place() {
            write!(f, " ({place})")?;
        }
        Ok(())
    }
}

/// Strips the working directory from a path, or the directory in which std was compiled.
fn short(file: &str) -> &str {
    if let Some((_, of_std)) = file.strip_prefix("/rustc/").and_then(|f| f.split_once('/')) {
        return of_std;
    }
    let directory = std::env::current_dir().unwrap_or_default();
    let stripped = std::path::Path::new(file).strip_prefix(directory);
    stripped.ok().and_then(|path| path.to_str()).unwrap_or(file)
}

/// Addresses whose names are cached. A program is slow in few places, so this many bound the memory and are rarely
/// reached.
const CACHED_ADDRESSES: usize = 4_096;

/// Whether a library was loaded or unloaded since the last lookup of a name.
static CACHE_IS_STALE: AtomicBool = AtomicBool::new(false);

/// Makes the next look-up drop all cached names, because a library was loaded or unloaded.
///
/// Waits for no other thread: a look-up may take long.
pub(crate) fn invalidate_names() {
    CACHE_IS_STALE.store(true, Relaxed);
}

type FrameCache = HashMap<RawFrame, Arc<[Frame]>>;

/// Returns the functions at one address, innermost first: several if the compiler inlined some. Never empty.
pub(super) fn frames_of(raw_frame: &RawFrame) -> Arc<[Frame]> {
    static NAMES: Mutex<Option<FrameCache>> = Mutex::new(None);
    let lock = || NAMES.lock().ignore_poison();
    if CACHE_IS_STALE.swap(false, Relaxed) {
        *lock() = None;
        debug_info::forget();
    }
    if let Some(known) = lock().as_ref().and_then(|names| names.get(raw_frame)) {
        return Arc::clone(known);
    }
    // Outside the lock, because a look-up may take long.
    let frames = catch_panic(|| debug_info::look_up(raw_frame)).unwrap_or_default();
    let frames: Arc<[Frame]> = if frames.is_empty() {
        [unnamed(raw_frame)].into()
    } else {
        frames.into()
    };
    let mut names = lock();
    let names = names.get_or_insert_default();
    if names.len() >= CACHED_ADDRESSES {
        names.clear();
    }
    names.insert(raw_frame.clone(), Arc::clone(&frames));
    frames
}

pub(super) fn unnamed(raw_frame: &RawFrame) -> Frame {
    Frame {
        address: raw_frame.address,
        function: None,
        file: None,
        line: None,
        module: raw_frame.module.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crate_of_a_method_is_the_crate_of_its_type() {
        for (function, expected) in [
            ("std::thread::sleep", Some("std")),
            ("<tokio::a::B<T> as core::C>::d", Some("tokio")),
            ("<&mut app::A as core::C>::d", Some("app")),
            ("<dyn app::A>::b", Some("app")),
            ("<(app::A, B) as core::C>::d", Some("app")),
            ("<u64>::unchecked_add", Some("core")),
            ("<u64 as core::A>::b", Some("core")),
            ("<T as app::A>::b", Some("app")),
            ("<[T]>::sort", Some("core")),
            ("clock_nanosleep", None),
            ("", None),
        ] {
            assert_eq!(crate_of(function), expected, "{function}");
        }
    }

    #[test]
    fn short_of_a_file_of_std_starts_at_its_library() {
        assert_eq!(
            short("/rustc/59807616e1/library/std/src/fs.rs"),
            "library/std/src/fs.rs"
        );
        assert_eq!(short("/elsewhere/a.rs"), "/elsewhere/a.rs");
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn frames_of_a_function_of_this_test_have_its_name() {
        #[inline(never)]
        fn somewhere() -> usize {
            std::hint::black_box(7)
        }
        let raw_frame = RawFrame {
            address: somewhere as *const () as usize,
            is_return: false,
            module: None,
        };
        let frames = frames_of(&raw_frame);
        let function = frames.last().and_then(|frame| frame.function.as_deref());
        assert!(function.unwrap().ends_with("somewhere"), "{function:?}");
        // Another test may load modules, which drops the cached names.
        let is_cached = |_| Arc::ptr_eq(&frames_of(&raw_frame), &frames_of(&raw_frame));
        assert!((0..1_000).any(is_cached), "not cached");
    }
}
