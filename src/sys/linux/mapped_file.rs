//! Maps files, to read them without a copy.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd as _;
use std::{ptr, slice};

/// Parses the bytes of a file into something that borrows from them.
pub(crate) trait Parse {
    type Parsed<'a>;

    fn parse(bytes: &[u8]) -> Option<Self::Parsed<'_>>;
}

/// A mapped file and what was parsed from it.
///
/// If a file becomes shorter while it is mapped, the next read beyond its end ends the process (`SIGBUS`). The same holds
/// for code that runs from such a file.
pub(crate) struct MappedFile<P: Parse> {
    /// Borrows from `_mapping`, and is dropped first.
    parsed: ManuallyDrop<P::Parsed<'static>>,
    _mapping: MappedBytes,
}

struct MappedBytes {
    address: ptr::NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: nothing writes to the mapping, and `munmap` may be called on any thread.
unsafe impl Send for MappedBytes {}

impl MappedBytes {
    fn of(file: &File) -> Option<Self> {
        let len = usize::try_from(file.metadata().ok()?.len()).ok()?;
        // SAFETY: the kernel chooses an address that is free, so no other memory changes.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return None;
        }
        let address = ptr::NonNull::new(address)?;
        Some(Self { address, len })
    }
}

impl Drop for MappedBytes {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it is left: see the destructor of `MappedFile`.
        unsafe { libc::munmap(self.address.as_ptr(), self.len) };
    }
}

impl<P: Parse> MappedFile<P> {
    /// Maps the file and parses it. `None` if it cannot be mapped, or holds nothing that can be parsed.
    pub(crate) fn open(file: &File) -> Option<Self> {
        let mapping = MappedBytes::of(file)?;
        // SAFETY: the mapping is readable for `len` bytes until it is dropped. `'static` stands for that time. `parse`
        // must accept any lifetime, so it cannot keep the bytes elsewhere. `parsed` is dropped first, and is lent only
        // under a lifetime that the borrower cannot choose.
        let bytes = unsafe { slice::from_raw_parts(mapping.address.as_ptr().cast(), mapping.len) };
        let parsed = ManuallyDrop::new(P::parse(bytes)?);
        Some(Self {
            parsed,
            _mapping: mapping,
        })
    }

    /// Lends the parsed value. The result cannot borrow from it.
    pub(crate) fn with<T>(&self, use_it: impl for<'a> FnOnce(&'a P::Parsed<'a>) -> T) -> T {
        let parsed = ptr::from_ref::<P::Parsed<'static>>(&self.parsed);
        // SAFETY: only the lifetime changes. `use_it` accepts any, so it can put nothing shorter-lived into `parsed`,
        // and cannot keep a part of it beyond this call.
        use_it(unsafe { &*parsed.cast::<P::Parsed<'_>>() })
    }
}

impl<P: Parse> Drop for MappedFile<P> {
    fn drop(&mut self) {
        // SAFETY: it is not used again. `_mapping` is dropped after this destructor.
        unsafe { ManuallyDrop::drop(&mut self.parsed) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines;

    impl Parse for Lines {
        type Parsed<'a> = Vec<&'a [u8]>;

        fn parse(bytes: &[u8]) -> Option<Vec<&[u8]>> {
            Some(bytes.split(|byte| *byte == b'\n').collect())
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn with_of_a_mapped_file_lends_what_was_parsed() {
        let manifest = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
        let mapped = MappedFile::<Lines>::open(&manifest).unwrap();
        assert_eq!(mapped.with(|lines| lines[0].to_vec()), b"[package]");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn open_of_a_file_without_bytes_is_none() {
        assert!(MappedFile::<Lines>::open(&File::open("/proc/self/maps").unwrap()).is_none());
        assert!(MappedFile::<Lines>::open(&File::open("/").unwrap()).is_none());
    }
}
