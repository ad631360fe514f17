//! The program and the libraries that are loaded, read from `/proc` and from their files: not through
//! the loader, whose lock the thread that is looked at may hold.

mod frame_table;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};

use super::part::Part;
use crate::proc::{Mapping, executable_mappings};
use crate::sys::read_memory;

/// A part of a file: its addresses, and what is in it.
type Section = (Range<u64>, Arc<[u8]>);

/// What one file says about unwinding.
pub(super) struct Unwinding {
    pub(super) eh_frame: Option<Section>,
    pub(super) eh_frame_hdr: Option<Section>,
    pub(super) text: Option<Range<u64>>,
}

/// One executable mapping of a file.
pub(super) struct Module {
    pub(super) path: Arc<str>,
    pub(super) addresses: Range<u64>,
    /// What is added to an address of the file to get one of the process.
    pub(super) bias: u64,
    /// Where such functions are, as addresses of the file, in order.
    pub(super) parts: Vec<(Range<u64>, Part)>,
    /// By what it is told from another file that is mapped there later.
    pub(super) mark: Option<Mark>,
}

/// Some bytes of a file, and where they are in memory.
pub(super) struct Mark {
    address: u64,
    bytes: Box<[u8]>,
}

impl Mark {
    fn is_there(&self) -> bool {
        let mut now = vec![0; self.bytes.len()];
        let read =
            usize::try_from(self.address).map_or(0, |address| read_memory(address, &mut now));
        now[..read] == *self.bytes
    }
}

impl Module {
    /// Whether it is the C library, whose wrappers stand between a system call and its caller.
    pub(super) fn is_c_library(&self) -> bool {
        is_c_library(&self.path)
    }

    /// What the function at an address belongs to.
    pub(super) fn part_at(&self, address: u64) -> Option<Part> {
        let address = address.wrapping_sub(self.bias);
        let after = self
            .parts
            .partition_point(|(range, _)| range.start <= address);
        let (range, part) = self.parts.get(after.checked_sub(1)?)?;
        range.contains(&address).then_some(*part)
    }
}

fn is_c_library(path: &str) -> bool {
    // The resolver of glibc was in files of its own before 2.34.
    const FILES: [&str; 5] = ["libc.", "libc-", "libpthread", "libresolv", "libnss_dns"];
    let name = path.rsplit('/').next().unwrap_or_default();
    FILES.iter().any(|file| name.starts_with(file))
}

/// The modules that are known.
#[derive(Default)]
pub(super) struct Modules {
    known: Vec<Module>,
    read_at: Option<Instant>,
    /// Where the modules begin of which it was checked that they are still there, since the last stack.
    checked: Vec<u64>,
}

/// How often the list is read again at most, when an address is in no module that is known.
const AGAIN: Duration = Duration::from_secs(1);

impl Modules {
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "where nothing is fuzzed nobody makes it")]
    pub(super) fn of(module: Module) -> Self {
        Self {
            known: vec![module],
            read_at: Some(Instant::now()),
            checked: Vec::new(),
        }
    }

    pub(super) fn at(&self, address: u64) -> Option<&Module> {
        self.known
            .iter()
            .find(|module| module.addresses.contains(&address))
    }

    /// From now on another stack is unwound: any module may have been unloaded since the last one, and another
    /// one loaded at its address.
    pub(super) fn begin_stack(&mut self) {
        self.checked.clear();
    }

    /// Whether the module of an address is known, and still what is mapped there.
    fn is_up_to_date(&mut self, address: u64) -> Option<bool> {
        let module = self
            .known
            .iter()
            .find(|module| module.addresses.contains(&address))?;
        let begin = module.addresses.start;
        if !self.checked.contains(&begin) {
            if module.mark.as_ref().is_some_and(|mark| !mark.is_there()) {
                return Some(false);
            }
            self.checked.push(begin);
        }
        Some(true)
    }

    /// Reads the list if it was not read yet, if another file is mapped by now where the module of `address` was, or
    /// if it was not read lately and `address` is in no known module. Hands each new module to `add`, and the
    /// addresses of each that is gone to `remove`.
    pub(super) fn refresh(
        &mut self,
        address: u64,
        mut add: impl FnMut(&Module, Unwinding),
        mut remove: impl FnMut(Range<u64>),
    ) {
        match (self.read_at, self.is_up_to_date(address)) {
            (Some(_), Some(true)) => return,
            (Some(at), None) if at.elapsed() < AGAIN => return,
            _ => {}
        }
        let mappings = executable_mappings();
        let is_mapped = |module: &Module| {
            let same = |m: &Mapping| m.addresses == module.addresses && *m.path == *module.path;
            let is_there = module.mark.as_ref().is_none_or(Mark::is_there);
            is_there && mappings.iter().any(same)
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
    // What is mapped may be a device, and another thing may be at its path by now: opening it could wait
    // for ever, or do something.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let cache = ReadCache::new(File::open(path).ok()?);
    Some(use_file(object::File::parse(&cache).ok()?))
}

fn read(mapping: &Mapping) -> Option<(Module, Unwinding)> {
    let (bias, unwinding, parts, mark) = if mapping.path == "[vdso]" {
        let (bias, unwinding) = read_from_memory(mapping)?;
        (bias, unwinding, Vec::new(), None)
    } else {
        with_file(&mapping.path, |file| {
            let (bias, unwinding) = parse(&file, mapping)?;
            let parts = match is_c_library(&mapping.path) {
                true => parts_of_c(&file),
                false => parts(&file),
            };
            Some((bias, unwinding, parts, mark(&file, bias)))
        })??
    };
    let module = Module {
        path: mapping.path.as_str().into(),
        addresses: mapping.addresses.clone(),
        bias,
        parts,
        mark,
    };
    Some((module, unwinding))
}

/// The number of its build; in a file that has none, its first instructions.
fn mark<'d, R: object::ReadRef<'d>>(file: &object::File<'d, R>, bias: u64) -> Option<Mark> {
    const MOST: usize = 256;
    let section = |name| file.section_by_name(name);
    let section = section(".note.gnu.build-id").or_else(|| section(".text"))?;
    let bytes = section.data().ok()?;
    let bytes = &bytes[..bytes.len().min(MOST)];
    let mark = Mark {
        address: section.address().checked_add(bias)?,
        bytes: bytes.into(),
    };
    // What is not in memory now tells nothing later: the file may have been replaced on disk.
    mark.is_there().then_some(mark)
}

/// The kernel's own library is in no file.
fn read_from_memory(mapping: &Mapping) -> Option<(u64, Unwinding)> {
    const LARGEST: usize = 1 << 20;
    let len = usize::try_from(mapping.addresses.end - mapping.addresses.start).ok()?;
    let mut image = vec![0; len.min(LARGEST)];
    let read = read_memory(usize::try_from(mapping.addresses.start).ok()?, &mut image);
    parse(&object::File::parse(image.get(..read)?).ok()?, mapping)
}

/// The file may be any by now, so nothing that it says is added up unchecked.
pub(super) fn parse<'d, R: object::ReadRef<'d>>(
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
        is_executable && (from..offset.saturating_add(size)).contains(&mapping.offset)
    };
    let segment = file.segments().find(holds)?;
    let (offset, _) = segment.file_range();
    // Where the mapping begins, as an address of the file.
    let begin = segment.address().checked_add(mapping.offset)?;
    let begin = begin.checked_sub(offset)?;
    let bias = mapping.addresses.start.checked_sub(begin)?;
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        let addresses = addresses(section.address(), section.size())?;
        Some((addresses, section.data().ok()?.into()))
    };
    let text = file.section_by_name(".text");
    let eh_frame: Option<Section> = section(".eh_frame");
    let is_sound = |(at, table): &Section| {
        let eh_frame = eh_frame.as_ref();
        eh_frame.is_some_and(|(eh_frame, _)| frame_table::is_sound(table, at.start, eh_frame))
    };
    let unwinding = Unwinding {
        // Without it, an index is made of the section itself.
        eh_frame_hdr: section(".eh_frame_hdr").filter(is_sound),
        eh_frame,
        text: text.and_then(|text| addresses(text.address(), text.size())),
    };
    Some((bias, unwinding))
}

fn addresses(from: u64, size: u64) -> Option<Range<u64>> {
    Some(from..from.checked_add(size)?)
}

/// The functions that are parts of something, in order. A program that is stripped has no symbols, and
/// so none of them.
pub(super) fn parts<'d, R: object::ReadRef<'d>>(
    file: &object::File<'d, R>,
) -> Vec<(Range<u64>, Part)> {
    let part = |symbol: object::Symbol<'d, '_, R>| {
        let name = symbol.name().ok().filter(|name| Part::may_be_in(name))?;
        let part = Part::of(&format!("{:#}", rustc_demangle::demangle(name)))?;
        Some((addresses(symbol.address(), symbol.size())?, part))
    };
    in_order(file.symbols().filter_map(part))
}

/// The same of the C library, which is nearly always stripped: of what it exports.
fn parts_of_c<'d, R: object::ReadRef<'d>>(file: &object::File<'d, R>) -> Vec<(Range<u64>, Part)> {
    let part = |symbol: object::Symbol<'d, '_, R>| {
        let part = Part::of_c(symbol.name().ok()?)?;
        Some((addresses(symbol.address(), symbol.size())?, part))
    };
    in_order(file.dynamic_symbols().filter_map(part))
}

fn in_order(parts: impl Iterator<Item = (Range<u64>, Part)>) -> Vec<(Range<u64>, Part)> {
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|(range, _)| range.start);
    parts
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use crate::sentinel::repeats::Call;

    #[inline(never)]
    fn somewhere() -> u64 {
        std::hint::black_box(7)
    }

    /// Opening one for reading waits for a writer.
    #[test]
    fn what_is_no_file_is_not_opened() {
        let path = format!("shotclock-fifo-{}", std::process::id());
        let path = std::env::temp_dir().join(path);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let opened = with_file(path.to_str().unwrap(), |_| ());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(opened, None);
    }

    /// As if another library had been at this program's address until just now.
    #[test]
    fn refresh_when_another_file_is_mapped_at_the_address_forgets_the_old_one() {
        let address = somewhere as *const () as u64;
        let here = executable_mappings();
        let here = here
            .iter()
            .find(|mapping| mapping.addresses.contains(&address));
        let here = here.unwrap().clone();
        let unloaded = |bytes: &[u8]| Module {
            path: "unloaded.so".into(),
            addresses: here.addresses.clone(),
            bias: 0,
            parts: Vec::new(),
            mark: Some(Mark {
                address: here.addresses.start,
                bytes: bytes.into(),
            }),
        };
        let refreshed = |module: Module| {
            let mut modules = Modules::of(module);
            modules.begin_stack();
            let mut removed = Vec::new();
            modules.refresh(address, |_, _| (), |gone| removed.push(gone));
            (modules.at(address).unwrap().path.to_string(), removed)
        };
        let mut is_there = [0; 16];
        assert_eq!(
            read_memory(here.addresses.start as usize, &mut is_there),
            16
        );
        let known = refreshed(unloaded(&is_there));
        assert_eq!(known, ("unloaded.so".to_owned(), Vec::new()));
        let mut was_there = is_there;
        was_there[15] ^= 1;
        let known = refreshed(unloaded(&was_there));
        assert_eq!(known, (here.path.clone(), vec![here.addresses.clone()]));
    }

    #[test]
    fn a_module_that_was_read_is_known_again_by_its_mark() {
        let mut modules = Modules::default();
        let address = somewhere as *const () as u64;
        modules.refresh(address, |_, _| (), |_| ());
        assert!(modules.at(address).unwrap().mark.is_some());
        modules.begin_stack();
        assert_eq!(modules.is_up_to_date(address), Some(true));
        assert_eq!(modules.is_up_to_date(8), None);
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
        assert!(module.part_at(address).is_none() && !module.is_c_library());
        let sleeps = std::thread::sleep as *const () as u64;
        assert_eq!(module.part_at(sleeps), Some(Part::Repeats(Call::Sleep)));
        let yields = std::thread::yield_now as *const () as u64;
        assert_eq!(module.part_at(yields), None);
        assert!(modules.at(8).is_none());
    }
}
