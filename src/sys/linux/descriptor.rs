//! Classifies file descriptors of this process.

use crate::sys::FileType;

/// Returns the type of a descriptor, as far as the kernel has it cached. The call does not wait for a network file system
/// or one in user space.
pub(crate) fn file_type(descriptor: u64) -> Option<FileType> {
    let descriptor = libc::c_int::try_from(descriptor).ok()?;
    let mut status = std::mem::MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty string that ends with a zero, and `status` has room for the result. A closed
    // descriptor is an error.
    let status = unsafe {
        let path = c"".as_ptr();
        if libc::statx(
            descriptor,
            path,
            flags,
            libc::STATX_TYPE,
            status.as_mut_ptr(),
        ) != 0
        {
            return None;
        }
        status.assume_init()
    };
    match u32::from(status.stx_mode) & libc::S_IFMT {
        libc::S_IFSOCK => Some(FileType::Socket),
        libc::S_IFIFO => Some(FileType::Pipe),
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK => Some(FileType::File),
        libc::S_IFCHR => Some(FileType::Device),
        _ => None,
    }
}

/// Returns whether a socket has a timeout for receiving, or for sending. `None` if the kernel does not say.
pub(crate) fn socket_timeout(descriptor: u64, receive: bool) -> Option<bool> {
    let descriptor = libc::c_int::try_from(descriptor).ok()?;
    let option = if receive {
        libc::SO_RCVTIMEO
    } else {
        libc::SO_SNDTIMEO
    };
    let mut limit = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let mut len = size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: `limit` has room for `len` bytes.
    let asked = unsafe {
        let limit = (&raw mut limit).cast();
        libc::getsockopt(descriptor, libc::SOL_SOCKET, option, limit, &mut len)
    };
    (asked == 0).then_some(limit.tv_sec != 0 || limit.tv_usec != 0)
}

/// Returns whether a socket carries a byte stream instead of messages. `None` if the kernel does not say.
pub(crate) fn is_stream(descriptor: u64) -> Option<bool> {
    let descriptor = libc::c_int::try_from(descriptor).ok()?;
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `kind` has room for `len` bytes.
    let asked = unsafe {
        let kind = (&raw mut kind).cast();
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_TYPE, kind, &mut len)
    };
    (asked == 0).then_some(kind == libc::SOCK_STREAM)
}
