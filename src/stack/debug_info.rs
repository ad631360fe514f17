//! Reads the names of functions, with their files and lines, from the mapped files. It does not use the dynamic loader.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use addr2line::gimli::{self, EndianSlice, NativeEndian, Section as _};
use object::read::elf::{ElfFile64, ElfSymbol64};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};

use super::RawFrame;
use super::symbols::{Frame, unnamed};
use crate::procfs::{Mapping, executable_mappings, open_mapped};
use crate::sync::IgnorePoison as _;
use crate::sys::{MappedFile, Parse};

/// The files that stay open. A stack leads through few files, and the names in one take some megabytes.
const MAX_OPEN_FILES: usize = 8;

/// The known mappings of the program, and the files that were read.
struct Files {
    mappings: Vec<Mapping>,
    /// By path. `None` for a file that cannot be read.
    open: Vec<(String, Option<Binary>)>,
}

static FILES: Mutex<Files> = Mutex::new(Files {
    mappings: Vec::new(),
    open: Vec::new(),
});

/// Returns the functions at one address, innermost first. Empty if it has no name.
pub(super) fn look_up(raw_frame: &RawFrame) -> Vec<Frame> {
    let address = raw_frame.address as u64 - u64::from(raw_frame.is_return);
    let mut files = FILES.lock().ignore_poison();
    let Some(mapping) = files.mapping_at(address) else {
        return Vec::new();
    };
    match files.binary(&mapping.path) {
        Some(binary) => binary.frames(
            address - mapping.addresses.start + mapping.offset,
            raw_frame,
        ),
        None => Vec::new(),
    }
}

/// Forgets all files, because a library was loaded or unloaded.
pub(super) fn forget() {
    let mut files = FILES.lock().ignore_poison();
    files.mappings.clear();
    files.open.clear();
}

impl Files {
    fn mapping_at(&mut self, address: u64) -> Option<Mapping> {
        let holds = |mapping: &&Mapping| mapping.addresses.contains(&address);
        if !self.mappings.iter().any(|mapping| holds(&mapping)) {
            self.mappings = executable_mappings();
        }
        self.mappings.iter().find(holds).cloned()
    }

    fn binary(&mut self, path: &str) -> Option<&Binary> {
        let known = self.open.iter().position(|(open, _)| open == path);
        let index = known.unwrap_or_else(|| {
            if self.open.len() >= MAX_OPEN_FILES {
                self.open.remove(0);
            }
            self.open.push((path.to_owned(), Binary::open(path)));
            self.open.len() - 1
        });
        self.open[index].1.as_ref()
    }
}

/// The program or a library, and the file beside it that holds its debug information, if there is one.
struct Binary {
    file: MappedFile<ElfNames>,
    debug_file: Option<MappedFile<ElfNames>>,
}

struct ElfNames;

/// The names of the functions of one file.
struct FileNames<'a> {
    segments: Vec<Segment>,
    /// In order of their addresses.
    symbols: Vec<Symbol<'a>>,
    dwarf: Option<addr2line::Context<EndianSlice<'a, NativeEndian>>>,
    debug_files: Vec<PathBuf>,
}

struct Segment {
    offset: u64,
    size: u64,
    address: u64,
}

struct Symbol<'a> {
    address: u64,
    size: u64,
    name: &'a [u8],
}

impl Parse for ElfNames {
    type Parsed<'a> = FileNames<'a>;

    fn parse(bytes: &[u8]) -> Option<FileNames<'_>> {
        FileNames::of(&ElfFile64::parse(bytes).ok()?)
    }
}

impl<'a> FileNames<'a> {
    fn of(file: &ElfFile64<'a, object::NativeEndian>) -> Option<Self> {
        let segments = file.segments().map(|segment| {
            let (offset, size) = segment.file_range();
            Segment {
                offset,
                size,
                address: segment.address(),
            }
        });
        let mut symbols: Vec<_> = file.symbols().filter_map(symbol).collect();
        if symbols.is_empty() {
            symbols = file.dynamic_symbols().filter_map(symbol).collect();
        }
        symbols.sort_unstable_by_key(|symbol| symbol.address);
        Some(Self {
            segments: segments.collect(),
            symbols,
            dwarf: dwarf(file),
            debug_files: debug_files(file),
        })
    }

    /// Converts an offset in the file to an address of the file.
    fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let inside = offset.checked_sub(segment.offset)?;
            (inside < segment.size).then(|| segment.address.wrapping_add(inside))
        })
    }

    fn symbol_at(&self, address: u64) -> Option<Arc<str>> {
        let after = self
            .symbols
            .partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols.get(after.checked_sub(1)?)?;
        (address - symbol.address < symbol.size)
            .then(|| demangled(&String::from_utf8_lossy(symbol.name)))
    }

    /// Returns the functions that debug information has at an address.
    fn frames_at(&self, address: u64, raw_frame: &RawFrame) -> Vec<Frame> {
        let mut frames = Vec::new();
        let Some(dwarf) = &self.dwarf else {
            return frames;
        };
        let Ok(mut found) = dwarf.find_frames(address).skip_all_loads() else {
            return frames;
        };
        while let Ok(Some(frame)) = found.next() {
            let name = frame
                .function
                .as_ref()
                .and_then(|name| name.raw_name().ok());
            let location = frame.location.as_ref();
            frames.push(Frame {
                function: name.map(|name: Cow<'_, str>| demangled(&name)),
                file: location.and_then(|location| location.file).map(Arc::from),
                line: location.and_then(|location| location.line),
                ..unnamed(raw_frame)
            });
        }
        frames
    }
}

impl Binary {
    fn open(path: &str) -> Option<Self> {
        let file = MappedFile::<ElfNames>::open(&open_mapped(path)?)?;
        let debug_files = file.with(|names| match names.dwarf {
            Some(_) => Vec::new(),
            None => names.debug_files.clone(),
        });
        let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
        let debug_file = debug_files.iter().find_map(|debug_file| {
            let debug_file = directory.join(debug_file);
            let is_other = debug_file != Path::new(path) && debug_file.is_file();
            let opened = is_other.then(|| File::open(&debug_file).ok())??;
            MappedFile::open(&opened)
                .filter(|it: &MappedFile<ElfNames>| it.with(|it| it.dwarf.is_some()))
        });
        Some(Self { file, debug_file })
    }

    /// Returns the functions at an offset of the file.
    fn frames(&self, offset: u64, raw_frame: &RawFrame) -> Vec<Frame> {
        let Some(address) = self.file.with(|names| names.address_of(offset)) else {
            return Vec::new();
        };
        let files = || self.debug_file.iter().chain([&self.file]);
        let symbol = || files().find_map(|file| file.with(|names| names.symbol_at(address)));
        let mut frames = files()
            .map(|file| file.with(|names| names.frames_at(address, raw_frame)))
            .find(|frames| !frames.is_empty())
            .unwrap_or_else(|| vec![unnamed(raw_frame)]);
        for frame in &mut frames {
            if frame.function.is_none() {
                frame.function = symbol();
            }
        }
        frames
    }
}

fn symbol<'a>(symbol: ElfSymbol64<'a, '_, object::NativeEndian>) -> Option<Symbol<'a>> {
    let is_function = symbol.kind() == SymbolKind::Text && symbol.size() > 0;
    Some(Symbol {
        address: symbol.address(),
        size: symbol.size(),
        name: symbol.name_bytes().ok().filter(|_| is_function)?,
    })
}

/// Returns the debug information, if the file has some that is not compressed.
fn dwarf<'a>(
    file: &ElfFile64<'a, object::NativeEndian>,
) -> Option<addr2line::Context<EndianSlice<'a, NativeEndian>>> {
    let section = |id: gimli::SectionId| {
        let section = file.section_by_name(id.name());
        let uncompressed = section.filter(|section| {
            let range = section.compressed_file_range();
            range.is_ok_and(|range| range.format == object::CompressionFormat::None)
        });
        let data = uncompressed.and_then(|section| section.data().ok());
        Ok::<_, gimli::Error>(EndianSlice::new(data.unwrap_or_default(), NativeEndian))
    };
    let dwarf = gimli::Dwarf::load(section).ok()?;
    if dwarf.debug_info.reader().is_empty() {
        return None;
    }
    addr2line::Context::from_dwarf(dwarf).ok()
}

/// Returns the paths where the debug information of a stripped file may be. A relative path starts at the file's directory.
fn debug_files(file: &ElfFile64<'_, object::NativeEndian>) -> Vec<PathBuf> {
    const OF_THE_SYSTEM: &str = "/usr/lib/debug/.build-id";
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let by_id = file.build_id().ok().flatten().and_then(<[u8]>::split_first);
    let by_id =
        by_id.map(|(first, rest)| format!("{OF_THE_SYSTEM}/{first:02x}/{}.debug", hex(rest)));
    let link = file.gnu_debuglink().ok().flatten();
    let link = link.and_then(|(name, _)| str::from_utf8(name).ok());
    let by_link = link.map(|name| [name.to_owned(), format!(".debug/{name}")]);
    by_id
        .into_iter()
        .chain(by_link.into_iter().flatten())
        .map(PathBuf::from)
        .collect()
}

/// Demangles a name, without its hash.
fn demangled(name: &str) -> Arc<str> {
    format!("{:#}", rustc_demangle::demangle(name)).into()
}
