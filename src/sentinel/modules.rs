//! The loaded program and libraries, from `/proc` and their files. Not from the dynamic loader, whose lock the observed
//! thread may hold.

mod frame_table;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use object::read::ReadCache;
use object::read::elf::{ElfFile64, ElfSegment64, ElfSymbol64};
use object::{
    NativeEndian, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _,
};

use super::known_frame::KnownFrame;
use crate::procfs::{Mapping, executable_mappings, open_mapped};
use crate::sys::read_memory;

/// A file of this processor. `object::File` would also read the files of others, which doubles the code.
pub(crate) type Elf<'d, R> = ElfFile64<'d, NativeEndian, R>;

/// A section of a file: its addresses and its bytes.
type ElfSection = (Range<u64>, Arc<[u8]>);

/// The unwind tables of one file.
pub(crate) struct Unwinding {
    pub(crate) eh_frame: Option<ElfSection>,
    pub(crate) eh_frame_hdr: Option<ElfSection>,
    pub(crate) text: Option<Range<u64>>,
}

/// One executable mapping of a file.
pub(crate) struct Module {
    pub(crate) path: Arc<str>,
    pub(crate) addresses: Range<u64>,
    /// The difference between an address in the process and one in the file.
    pub(crate) bias: u64,
    /// The known functions, in the order of their addresses in the file.
    pub(crate) known_frames: Vec<(Range<u64>, KnownFrame)>,
    /// Distinguishes it from another file at the same address later.
    pub(crate) mark: Option<Mark>,
}

/// Some bytes of a file, and their place in memory.
pub(crate) struct Mark {
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
    fn known(&self) -> KnownModule {
        KnownModule {
            addresses: self.addresses.clone(),
            path: Arc::clone(&self.path),
        }
    }

    /// Returns whether it is the C library, whose functions make the system calls.
    pub(super) fn is_c_library(&self) -> bool {
        is_c_library(&self.path)
    }

    /// Returns the known function at an address.
    pub(crate) fn known_frame_at(&self, address: u64) -> Option<KnownFrame> {
        let address = address.wrapping_sub(self.bias);
        let after = self
            .known_frames
            .partition_point(|(range, _)| range.start <= address);
        let (range, part) = self.known_frames.get(after.checked_sub(1)?)?;
        range.contains(&address).then_some(*part)
    }
}

fn is_c_library(path: &str) -> bool {
    // Before 2.34, the resolver of glibc was in files of its own.
    const FILES: [&str; 5] = ["libc.", "libc-", "libpthread", "libresolv", "libnss_dns"];
    let name = path.rsplit('/').next().unwrap_or_default();
    FILES.iter().any(|file| name.starts_with(file))
}

/// The known modules.
#[derive(Default)]
pub(super) struct Modules {
    known: Vec<Module>,
    /// The start addresses of the modules that were checked since the begin of this stack.
    checked: Vec<u64>,
}

/// Identifies a module.
#[derive(Clone, PartialEq)]
pub(super) struct KnownModule {
    addresses: Range<u64>,
    path: Arc<str>,
}

impl KnownModule {
    pub(super) fn start(&self) -> u64 {
        self.addresses.start
    }
}

/// The difference between the loaded and the known modules.
pub(super) struct Difference {
    pub(super) gone: Vec<KnownModule>,
    pub(super) new: Vec<(Module, Unwinding)>,
}

impl Modules {
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "some test builds use it")]
    pub(super) fn of(module: Module) -> Self {
        Self {
            known: vec![module],
            checked: Vec::new(),
        }
    }

    pub(super) fn at(&self, address: u64) -> Option<&Module> {
        self.known
            .iter()
            .find(|module| module.addresses.contains(&address))
    }

    /// Begins another stack. Since the last one, any module may have been unloaded, and another loaded at its address.
    pub(super) fn begin_stack(&mut self) {
        self.checked.clear();
    }

    /// Forgets the module of an address if another file is mapped there now. Returns its start address.
    pub(super) fn forget_if_replaced(&mut self, address: u64) -> Option<u64> {
        let mut all = self.known.iter();
        let place = all.position(|module| module.addresses.contains(&address))?;
        let module = &self.known[place];
        let start = module.addresses.start;
        if self.checked.contains(&start) {
            return None;
        }
        if module.mark.as_ref().is_none_or(Mark::is_there) {
            self.checked.push(start);
            return None;
        }
        self.known.swap_remove(place);
        Some(start)
    }

    pub(super) fn known(&self) -> Vec<KnownModule> {
        self.known.iter().map(Module::known).collect()
    }

    pub(super) fn add(&mut self, module: Module) {
        self.known.push(module);
    }

    pub(super) fn remove(&mut self, gone: &KnownModule) {
        self.known.retain(|module| module.known() != *gone);
    }
}

/// Reads the loaded modules, and the files of unknown ones. That may take long, so the sentinel must not call it.
pub(super) fn difference(known: Vec<KnownModule>) -> Difference {
    let mappings = executable_mappings();
    let is_mapped = |known: &KnownModule| {
        let same = |m: &Mapping| m.addresses == known.addresses && *m.path == *known.path;
        mappings.iter().any(same)
    };
    let (known, gone): (Vec<_>, Vec<_>) = known.into_iter().partition(is_mapped);
    let is_new = |mapping: &&Mapping| known.iter().all(|k| k.addresses != mapping.addresses);
    let new = mappings.iter().filter(is_new).filter_map(read).collect();
    Difference { gone, new }
}

/// Runs `use_file` on the file behind a path of `/proc/self/maps`.
fn with_file<T>(path: &str, use_file: impl FnOnce(Elf<'_, &ReadCache<File>>) -> T) -> Option<T> {
    let cache = ReadCache::new(open_mapped(path)?);
    Some(use_file(Elf::parse(&cache).ok()?))
}

fn read(mapping: &Mapping) -> Option<(Module, Unwinding)> {
    let (bias, unwinding, known_frames, mark) = if mapping.path == "[vdso]" {
        let (bias, unwinding) = read_from_memory(mapping)?;
        (bias, unwinding, Vec::new(), None)
    } else {
        with_file(&mapping.path, |file| {
            let (bias, unwinding) = parse(&file, mapping)?;
            let known_frames = match is_c_library(&mapping.path) {
                true => known_frames_of_c(&file),
                false => known_frames(&file),
            };
            Some((bias, unwinding, known_frames, mark(&file, bias)))
        })??
    };
    let module = Module {
        path: mapping.path.as_str().into(),
        addresses: mapping.addresses.clone(),
        bias,
        known_frames,
        mark,
    };
    Some((module, unwinding))
}

/// Returns the mark of a module: its build id, or its first instructions if the file has none.
fn mark<'d, R: object::ReadRef<'d>>(file: &Elf<'d, R>, bias: u64) -> Option<Mark> {
    /// A build id has 20 bytes after a header. Some bytes of code distinguish two files too.
    const MOST_BYTES: usize = 256;
    let section = |name| file.section_by_name(name);
    let section = section(".note.gnu.build-id").or_else(|| section(".text"))?;
    let bytes = section.data().ok()?;
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let mark = Mark {
        address: section.address().checked_add(bias)?,
        bytes: bytes.into(),
    };
    // Only bytes in memory are comparable later, because the file may be replaced on disk.
    mark.is_there().then_some(mark)
}

/// Reads the kernel's own library (vDSO), which is in no file.
fn read_from_memory(mapping: &Mapping) -> Option<(u64, Unwinding)> {
    const LARGEST: usize = 1 << 20;
    let len = usize::try_from(mapping.addresses.end - mapping.addresses.start).ok()?;
    let mut image = vec![0; len.min(LARGEST)];
    let read = read_memory(usize::try_from(mapping.addresses.start).ok()?, &mut image);
    parse(&Elf::parse(image.get(..read)?).ok()?, mapping)
}

/// Parses a file. It may have any content, so all arithmetic is checked.
pub(crate) fn parse<'d, R: object::ReadRef<'d>>(
    file: &Elf<'d, R>,
    mapping: &Mapping,
) -> Option<(u64, Unwinding)> {
    // A mapping begins at the page in which its segment begins.
    const PAGE: u64 = 64 * 1024;
    let holds = |segment: &ElfSegment64<'d, '_, NativeEndian, R>| {
        let (offset, size) = segment.file_range();
        let is_executable = matches!(
            segment.flags(),
            object::SegmentFlags::Elf { p_flags, .. } if p_flags.contains(object::elf::PF_X)
        );
        let from = offset.saturating_sub(PAGE - 1);
        is_executable && (from..offset.saturating_add(size)).contains(&mapping.offset)
    };
    let segment = file.segments().find(holds)?;
    let (offset, _) = segment.file_range();
    // The begin of the mapping, as an address of the file.
    let begin = segment.address().checked_add(mapping.offset)?;
    let begin = begin.checked_sub(offset)?;
    let bias = mapping.addresses.start.checked_sub(begin)?;
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        let addresses = addresses(section.address(), section.size())?;
        Some((addresses, section.data().ok()?.into()))
    };
    let text = file.section_by_name(".text");
    let eh_frame: Option<ElfSection> = section(".eh_frame");
    let is_sound = |(at, table): &ElfSection| {
        let eh_frame = eh_frame.as_ref();
        eh_frame.is_some_and(|(eh_frame, _)| frame_table::is_sound(table, at.start, eh_frame))
    };
    let unwinding = Unwinding {
        // Without it, the unwinder makes an index of the section itself.
        eh_frame_hdr: section(".eh_frame_hdr").filter(is_sound),
        eh_frame,
        text: text.and_then(|text| addresses(text.address(), text.size())),
    };
    Some((bias, unwinding))
}

fn addresses(from: u64, size: u64) -> Option<Range<u64>> {
    Some(from..from.checked_add(size)?)
}

/// Finds the known functions, in the order of their addresses. A stripped program has none, because it has no symbols.
pub(crate) fn known_frames<'d, R: object::ReadRef<'d>>(
    file: &Elf<'d, R>,
) -> Vec<(Range<u64>, KnownFrame)> {
    let known = |symbol: ElfSymbol64<'d, '_, NativeEndian, R>| {
        let name = symbol
            .name()
            .ok()
            .filter(|name| KnownFrame::may_be_in(name))?;
        let frame = KnownFrame::of(&format!("{:#}", rustc_demangle::demangle(name)))?;
        Some((addresses(symbol.address(), symbol.size())?, frame))
    };
    in_order(file.symbols().filter_map(known))
}

/// Finds the known functions of the C library among its exports, because it is nearly always stripped.
fn known_frames_of_c<'d, R: object::ReadRef<'d>>(
    file: &Elf<'d, R>,
) -> Vec<(Range<u64>, KnownFrame)> {
    let known = |symbol: ElfSymbol64<'d, '_, NativeEndian, R>| {
        let frame = KnownFrame::of_c(symbol.name().ok()?)?;
        Some((addresses(symbol.address(), symbol.size())?, frame))
    };
    in_order(file.dynamic_symbols().filter_map(known))
}

fn in_order(
    known_frames: impl Iterator<Item = (Range<u64>, KnownFrame)>,
) -> Vec<(Range<u64>, KnownFrame)> {
    let mut known_frames: Vec<_> = known_frames.collect();
    known_frames.sort_unstable_by_key(|(range, _)| range.start);
    known_frames
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use crate::sentinel::restarting_callers::Call;

    #[inline(never)]
    fn somewhere() -> u64 {
        std::hint::black_box(7)
    }

    /// An `open` of a FIFO for reading waits for a writer.
    #[test]
    fn open_of_a_special_file_is_refused() {
        let path = format!("shotclock-fifo-{}", std::process::id());
        let path = std::env::temp_dir().join(path);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let opened = with_file(path.to_str().unwrap(), |_| ());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(opened, None);
    }

    /// Pretends that another library was at this program's address.
    #[test]
    fn module_replaced_at_its_address_is_forgotten() {
        let address = somewhere as *const () as u64;
        let here = executable_mappings();
        let mut here = here.iter();
        let here = here.find(|mapping| mapping.addresses.contains(&address));
        let start = here.unwrap().addresses.start;
        let forgotten = |bytes: &[u8]| {
            let mut modules = Modules::of(Module {
                path: "unloaded.so".into(),
                addresses: here.unwrap().addresses.clone(),
                bias: 0,
                known_frames: Vec::new(),
                mark: Some(Mark {
                    address: start,
                    bytes: bytes.into(),
                }),
            });
            let forgotten = modules.forget_if_replaced(address);
            assert_eq!(modules.at(address).is_none(), forgotten.is_some());
            // Once for each stack.
            assert_eq!(modules.forget_if_replaced(address), None);
            forgotten
        };
        let mut bytes = [0; 16];
        assert_eq!(read_memory(start as usize, &mut bytes), 16);
        assert_eq!(forgotten(&bytes), None);
        bytes[15] ^= 1;
        assert_eq!(forgotten(&bytes), Some(start));
    }

    #[test]
    fn module_is_recognized_by_its_mark() {
        let mut modules = Modules::default();
        let address = somewhere as *const () as u64;
        for (module, _) in difference(Vec::new()).new {
            modules.add(module);
        }
        assert!(modules.at(address).unwrap().mark.is_some());
        for _ in 0..2 {
            modules.begin_stack();
            assert_eq!(modules.forget_if_replaced(address), None);
        }
        assert_eq!(modules.forget_if_replaced(8), None);
    }

    #[test]
    fn modules_of_this_program_have_function_names() {
        let (mut modules, address) = (Modules::default(), somewhere as *const () as u64);
        let Difference { gone, new } = difference(modules.known());
        assert!(gone.is_empty(), "nothing is gone");
        let unwound = new.iter().filter(|(_, how)| how.eh_frame.is_some());
        let count = unwound.count();
        assert!(
            count >= 2,
            "the program and the C library at least: {count}"
        );
        new.into_iter().for_each(|(module, _)| modules.add(module));
        let module = modules.at(address).unwrap();
        assert!(module.known_frame_at(address).is_none() && !module.is_c_library());
        let sleeps = std::thread::sleep as *const () as u64;
        assert_eq!(
            module.known_frame_at(sleeps),
            Some(KnownFrame::Repeats(Call::Sleep))
        );
        let yields = std::thread::yield_now as *const () as u64;
        assert_eq!(module.known_frame_at(yields), None);
        assert!(modules.at(8).is_none());
    }

    #[test]
    fn difference_reads_only_new_modules_and_drops_unmapped_ones() {
        let Difference { new, .. } = difference(Vec::new());
        let mut modules = Modules::default();
        new.into_iter().for_each(|(module, _)| modules.add(module));
        let unmapped = KnownModule {
            addresses: 0x1000..0x2000,
            path: "/no/such/library.so".into(),
        };
        let known = [modules.known(), vec![unmapped.clone()]].concat();
        let Difference { gone, new } = difference(known);
        assert!(gone == [unmapped] && new.is_empty());
        let first = modules.known().swap_remove(0);
        modules.remove(&first);
        assert!(!modules.known().contains(&first));
    }
}
