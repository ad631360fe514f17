//! Reads memory of this process that may not be mapped.

/// Copies the bytes at `address` into `into`. Returns the number of bytes that were mapped.
///
/// The kernel copies. So an unmapped page makes a short read and no crash. The memory may change during the copy, which
/// the language would not allow for a plain read.
pub(crate) fn read_memory(address: usize, into: &mut [u8]) -> usize {
    // SAFETY: `into` is valid for writes of its whole length.
    unsafe { read_raw(address, into.as_mut_ptr(), into.len()) }
}

/// Like [`read_memory`], for a signal handler: it allocates nothing and takes no lock.
///
/// # Safety
///
/// `into` must be valid for writes of `len` bytes.
pub(super) unsafe fn read_raw(address: usize, into: *mut u8, len: usize) -> usize {
    let local = libc::iovec {
        iov_base: into.cast(),
        iov_len: len,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address),
        iov_len: len,
    };
    // SAFETY: the caller guarantees the local end. Only the kernel reads the remote one, and returns an error if it is not
    // mapped.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri does not know the call")]
    fn read_memory_of_an_unmapped_address_is_a_short_read() {
        let bytes = [1u8, 2, 3, 4];
        let mut into = [0; 4];
        assert_eq!(read_memory(bytes.as_ptr().addr(), &mut into), 4);
        assert_eq!(into, bytes);
        assert_eq!(read_memory(8, &mut into), 0);
    }
}
