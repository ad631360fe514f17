//! The program and the libraries that are loaded, read from `/proc` and from their files: not through
//! the loader, whose lock the thread that is looked at may hold.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};

use crate::proc::{Mapping, executable_mappings};
use crate::sys::read_memory;

/// What one file says about unwinding.
pub(super) struct Unwinding {
    pub(super) eh_frame: Option<(Range<u64>, Arc<[u8]>)>,
    pub(super) eh_frame_hdr: Option<(Range<u64>, Arc<[u8]>)>,
    pub(super) text: Option<Range<u64>>,
}

/// One executable mapping of a file.
pub(super) struct Module {
    pub(super) path: Arc<str>,
    pub(super) addresses: Range<u64>,
    /// What is added to an address of the file to get one of the process.
    pub(super) bias: u64,
    /// Where functions of std and of `parking_lot` are, as addresses of the file, in order.
    std: Vec<Range<u64>>,
}

impl Module {
    /// Whether it is the C library, whose wrappers stand between a system call and its caller.
    pub(super) fn is_c_library(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.starts_with("libc.") || name.starts_with("libc-") || name.starts_with("libpthread")
    }

    /// Whether the function at an address is one of std or of `parking_lot`.
    pub(super) fn is_std_at(&self, address: u64) -> bool {
        let address = address.wrapping_sub(self.bias);
        let after = self.std.partition_point(|range| range.start <= address);
        let range = after.checked_sub(1).and_then(|place| self.std.get(place));
        range.is_some_and(|range| range.contains(&address))
    }
}

/// The modules that are known.
#[derive(Default)]
pub(super) struct Modules {
    known: Vec<Module>,
    read_at: Option<Instant>,
}

/// How often the list is read again at most, when an address is in no module that is known.
const AGAIN: Duration = Duration::from_secs(1);

impl Modules {
    pub(super) fn at(&self, address: u64) -> Option<&Module> {
        self.known
            .iter()
            .find(|module| module.addresses.contains(&address))
    }

    /// Reads the list if it was not read yet, or not lately and `address` is in no known module.
    /// Hands each new module to `add`, and the addresses of each that is gone to `remove`.
    pub(super) fn refresh(
        &mut self,
        address: u64,
        mut add: impl FnMut(&Module, Unwinding),
        mut remove: impl FnMut(Range<u64>),
    ) {
        let is_recent = self.read_at.is_some_and(|at| at.elapsed() < AGAIN);
        if is_recent || (self.read_at.is_some() && self.at(address).is_some()) {
            return;
        }
        let mappings = executable_mappings();
        let is_mapped = |module: &Module| {
            let same = |m: &Mapping| m.addresses == module.addresses && *m.path == *module.path;
            mappings.iter().any(same)
        };
        let (kept, gone): (Vec<_>, Vec<_>) = self.known.drain(..).partition(is_mapped);
        self.known = kept;
        for module in gone {
            remove(module.addresses);
        }
        for mapping in mappings {
            let is_known = self.known.iter().any(|m| m.addresses == mapping.addresses);
            if let Some((module, unwinding)) = (!is_known).then(|| read(&mapping)).flatten() {
                add(&module, unwinding);
                self.known.push(module);
            }
        }
        self.read_at = Some(Instant::now());
    }
}

/// Runs `use_file` on the file behind a path of `/proc/self/maps`.
fn with_file<T>(
    path: &str,
    use_file: impl FnOnce(object::File<'_, &ReadCache<File>>) -> T,
) -> Option<T> {
    // The program may have been replaced on disk since it was started.
    let is_own = std::env::current_exe().is_ok_and(|exe| exe.as_os_str() == path);
    let path = if is_own { "/proc/self/exe" } else { path };
    let cache = ReadCache::new(File::open(path).ok()?);
    Some(use_file(object::File::parse(&cache).ok()?))
}

fn read(mapping: &Mapping) -> Option<(Module, Unwinding)> {
    let (bias, unwinding, std) = if mapping.path == "[vdso]" {
        let (bias, unwinding) = read_from_memory(mapping)?;
        (bias, unwinding, Vec::new())
    } else {
        with_file(&mapping.path, |file| {
            let (bias, unwinding) = parse(&file, mapping)?;
            Some((bias, unwinding, std_functions(&file)))
        })??
    };
    let module = Module {
        path: mapping.path.as_str().into(),
        addresses: mapping.addresses.clone(),
        bias,
        std,
    };
    Some((module, unwinding))
}

/// The kernel's own library is in no file.
fn read_from_memory(mapping: &Mapping) -> Option<(u64, Unwinding)> {
    const LARGEST: usize = 1 << 20;
    let len = usize::try_from(mapping.addresses.end - mapping.addresses.start).ok()?;
    let mut image = vec![0; len.min(LARGEST)];
    let read = read_memory(usize::try_from(mapping.addresses.start).ok()?, &mut image);
    parse(&object::File::parse(image.get(..read)?).ok()?, mapping)
}

fn parse<'d, R: object::ReadRef<'d>>(
    file: &object::File<'d, R>,
    mapping: &Mapping,
) -> Option<(u64, Unwinding)> {
    // A mapping begins at the page in which its segment begins.
    const PAGE: u64 = 64 * 1024;
    let holds = |segment: &object::Segment<'d, '_, R>| {
        let (offset, size) = segment.file_range();
        let is_executable = matches!(
            segment.flags(),
            object::SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0
        );
        let from = offset.saturating_sub(PAGE - 1);
        is_executable && (from..offset + size).contains(&mapping.offset)
    };
    let segment = file.segments().find(holds)?;
    let (offset, _) = segment.file_range();
    // Where the mapping begins, as an address of the file.
    let begin = (segment.address() + mapping.offset).checked_sub(offset)?;
    let bias = mapping.addresses.start.checked_sub(begin)?;
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        let addresses = section.address()..section.address() + section.size();
        Some((addresses, section.data().ok()?.into()))
    };
    let text = file.section_by_name(".text");
    let unwinding = Unwinding {
        eh_frame: section(".eh_frame"),
        eh_frame_hdr: section(".eh_frame_hdr"),
        text: text.map(|text| text.address()..text.address() + text.size()),
    };
    Some((bias, unwinding))
}

/// The functions of Rust's standard library, and of `parking_lot`: when a signal interrupts their
/// sleeping or waiting, they go on with it. A program that is stripped has no symbols, and so none of
/// them.
fn std_functions<'d, R: object::ReadRef<'d>>(file: &object::File<'d, R>) -> Vec<Range<u64>> {
    let range = |symbol: object::Symbol<'d, '_, R>| {
        let name = symbol.name().ok().filter(|name| may_be_std(name))?;
        let name = format!("{:#}", rustc_demangle::demangle(name));
        let address = symbol.address();
        is_std(&name).then(|| address..address + symbol.size())
    };
    let mut functions: Vec<_> = file.symbols().filter_map(range).collect();
    functions.sort_by_key(|range| range.start);
    functions
}

/// A cheap look at the mangled name, because there are many.
fn may_be_std(mangled: &str) -> bool {
    mangled.contains("3std") || mangled.contains("parking_lot")
}

fn is_std(name: &str) -> bool {
    let path = name.trim_start_matches('<');
    path.starts_with("std::") || path.starts_with("parking_lot")
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[inline(never)]
    fn somewhere() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn this_program_is_a_module_and_its_functions_have_names() {
        let mut modules = Modules::default();
        let (mut added, address) = (0, somewhere as *const () as u64);
        modules.refresh(
            address,
            |_, unwinding| added += usize::from(unwinding.eh_frame.is_some()),
            |_| panic!("nothing is gone"),
        );
        assert!(
            added >= 2,
            "the program and the C library at least: {added}"
        );
        let module = modules.at(address).unwrap();
        assert!(!module.is_std_at(address) && !module.is_c_library());
        assert!(module.is_std_at(std::thread::yield_now as *const () as u64));
        assert!(modules.at(8).is_none());
    }

    #[test]
    fn std_is_known_by_name() {
        for (name, expected) in [
            ("std::thread::sleep", true),
            (
                "<std::sys::sync::mutex::futex::Mutex>::lock_contended",
                true,
            ),
            ("parking_lot_core::parking_lot::park", true),
            ("app::sleep", false),
            ("<app::Sleep as std::future::Future>::poll", false),
        ] {
            assert_eq!(is_std(name), expected, "{name}");
        }
    }
}
