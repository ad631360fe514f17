//! Reading our own memory where it may not be there.

/// Copies what lies at `address` into `into`, and says how many bytes there were.
///
/// The kernel copies. So a page that is not there makes a short read and not a crash, and memory
/// that another thread writes to at this moment may be read, which the language would not allow.
pub(crate) fn read_memory(address: usize, into: &mut [u8]) -> usize {
    // SAFETY: `into` is ours to write for its whole length.
    unsafe { read_raw(address, into.as_mut_ptr(), into.len()) }
}

/// As [`read_memory`], for a signal handler: no allocation, no lock.
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
    // SAFETY: the caller vouches for the local end; the remote one is only looked at by the kernel,
    // which answers with an error where nothing is mapped.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri does not know the call")]
    fn what_is_not_there_is_a_short_read() {
        let bytes = [1u8, 2, 3, 4];
        let mut into = [0; 4];
        assert_eq!(read_memory(bytes.as_ptr().addr(), &mut into), 4);
        assert_eq!(into, bytes);
        assert_eq!(read_memory(8, &mut into), 0);
    }
}
