//! Restarts a system call that the capture signal made fail.
//!
//! The sentinel observes a thread before it signals it, but the thread may enter a call in between. The kernel restarts
//! most calls (`SA_RESTART`). Others, such as `poll`, would return `EINTR`, and only because of this crate. The handler
//! finds the thread behind the instruction of the call, with this result. It restores the number of the call, and sets
//! the thread back before the instruction. So the thread makes the call once more, with the same arguments.
//!
//! The kernel has overwritten the number of the call. The handler reads it from the code, because nearly every call of
//! the C library has it in the instruction before. Some have not: the function `syscall`, glibc from 2.41 on, and musl,
//! where one place makes all calls. There the handler changes nothing.
//!
//! A timeout of the call begins again, so this is right only for a call that had just begun. If another signal is
//! pending, the program may want the call to be interrupted, so the handler changes nothing. A signal whose handler ended
//! just before this one cannot be distinguished from ours.
//!
//! `docs/decisions/stacks.md` has the figures for which this module stays.

use super::memory::read_raw;

/// Calls, by number, that have done nothing when they fail with `EINTR`. `close` is not one of them.
const RESTARTABLE: [i64; 34] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_clock_nanosleep,
    libc::SYS_connect,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_futex,
    libc::SYS_io_getevents,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_nanosleep,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_pause,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_select,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_wait4,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The instruction `syscall`.
const SYSCALL_INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// The code that is read before the next instruction: enough for the moves between a call and its number.
const WINDOW_BYTES: usize = 32;

/// Restarts the interrupted call, if the signal interrupted one.
///
/// The handler must have every signal masked. Otherwise the pending ones would not be known.
pub(super) fn restart(context: &mut libc::ucontext_t) {
    let registers = &mut context.uc_mcontext.gregs;
    let pc = registers[libc::REG_RIP as usize];
    let failed = registers[libc::REG_RAX as usize] == -i64::from(libc::EINTR);
    // The instruction stores its return address in this register.
    if !failed || registers[libc::REG_RCX as usize] != pc {
        return;
    }
    let mut code = [0; WINDOW_BYTES];
    let from = (pc as usize).wrapping_sub(WINDOW_BYTES);
    // SAFETY: `code` has room for the window.
    let read = unsafe { read_raw(from, code.as_mut_ptr(), WINDOW_BYTES) };
    let is_whole = read == WINDOW_BYTES;
    if let Some(number) = is_whole.then(|| number(&code)).flatten()
        && RESTARTABLE.contains(&number)
        && !is_another_pending(&context.uc_sigmask)
    {
        registers[libc::REG_RAX as usize] = number;
        registers[libc::REG_RIP as usize] = pc - SYSCALL_INSTRUCTION.len() as i64;
    }
}

/// Returns the number of the call that the last instruction makes, if the code before it is known.
fn number(code: &[u8]) -> Option<i64> {
    let mut code = code.strip_suffix(&SYSCALL_INSTRUCTION)?;
    loop {
        match code {
            // mov number, %eax. A prefix would change the register.
            [.., before, 0xb8, a, b, c, d] if before & 0xf0 != 0x40 => {
                return Some(u32::from_le_bytes([*a, *b, *c, *d]).into());
            }
            // xor %eax, %eax
            [.., 0x31, 0xc0] => return Some(0),
            // mov from the stack, 8 or 4 bytes, to %rdi, %rsi or %rdx
            [rest @ .., 0x48, 0x8b, 0x7c | 0x74 | 0x54, 0x24, _]
            | [rest @ .., 0x8b, 0x7c | 0x74 | 0x54, 0x24, _] => code = rest,
            _ => return None,
        }
    }
}

/// Returns whether a signal is pending that the thread does not block itself.
fn is_another_pending(before: &libc::sigset_t) -> bool {
    const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;
    let mut waiting = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is read only if the call has written it. A handler may call both functions.
    unsafe {
        libc::sigpending(waiting.as_mut_ptr()) != 0 || {
            let waiting = waiting.assume_init();
            let is_due =
                |n| libc::sigismember(&waiting, n) == 1 && libc::sigismember(before, n) == 0;
            SIGNALS.into_iter().any(is_due)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_known_code_is_that_of_the_call() {
        let known: [(&[u8], i64); 4] = [
            (b"\x90\xb8\x07\0\0\0\x0f\x05", 7),
            (b"\xe8\xb8\x0e\x01\0\0\x8b\x7c\x24\x1c\x0f\x05", 270),
            (b"\x48\x8b\x74\x24\x10\x8b\x7c\x24\x08\x31\xc0\x0f\x05", 0),
            (
                b"\x90\xb8\xe8\0\0\0\x48\x8b\x74\x24\x10\x8b\x7c\x24\x08\x0f\x05",
                232,
            ),
        ];
        for (code, call) in known {
            assert_eq!(number(code), Some(call), "{code:x?}");
        }
    }

    #[test]
    fn number_of_unknown_code_is_none() {
        let unknown: [&[u8]; 5] = [
            // mov $7, %r8d
            b"\x90\x41\xb8\x07\0\0\0\x0f\x05",
            // mov %rdi, %rax
            b"\x48\x89\xf8\x0f\x05",
            b"\xb8\x07\0\0\0\x0f\x05",
            b"\x90\xb8\x07\0\0\0\x0f\x34",
            b"\x0f\x05",
        ];
        for code in unknown {
            assert_eq!(number(code), None, "{code:x?}");
        }
    }
}
