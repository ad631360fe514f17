//! A system call that our signal made fail is made again.
//!
//! The asker looks before it signals, but a thread may enter a call between the look and the signal.
//! Most calls the kernel makes again by itself (`SA_RESTART`). The others, `poll` and its like, would
//! return `EINTR`, for which nobody is to blame but us. The handler finds the thread behind the
//! instruction that made the call, with that result; it puts the number of the call back and the thread
//! before the instruction, so that the call is made once more with the same arguments.
//!
//! The kernel has thrown the number away. It is read from the code: nearly every call of the C library
//! has it in the instruction before. Where it is not there (in the function `syscall`, in glibc from
//! 2.41 on and in musl, where one place makes all calls), nothing is done.
//!
//! A time limit that the call was given begins anew, so this is for a call that had only just begun.
//! Another signal that waits to be delivered means that the call is to be interrupted: then it is left
//! alone. A signal whose handler has ended just before, and kept ours waiting, cannot be told from ours.

use super::memory::read_raw;

/// Calls of which nothing is done yet when they fail with `EINTR`, by number. Not `close`, say.
const CALLS: [i64; 34] = [
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
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// So many bytes before the next instruction are looked at.
const WINDOW: usize = 32;

/// Has an interrupted call made again, if it was one.
///
/// For a handler that has every signal masked, so that those that wait can be asked for.
pub(super) fn make_again(context: &mut libc::ucontext_t) {
    let registers = &mut context.uc_mcontext.gregs;
    let pc = registers[libc::REG_RIP as usize];
    let failed = registers[libc::REG_RAX as usize] == -i64::from(libc::EINTR);
    // The instruction leaves its return address there.
    if !failed || registers[libc::REG_RCX as usize] != pc {
        return;
    }
    let mut code = [0; WINDOW];
    let from = (pc as usize).wrapping_sub(WINDOW);
    // SAFETY: there is room for the window.
    let read = unsafe { read_raw(from, code.as_mut_ptr(), WINDOW) };
    let number = if read == WINDOW { number(&code) } else { None };
    if let Some(number) = number {
        if CALLS.contains(&number) && !is_another_due(&context.uc_sigmask) {
            registers[libc::REG_RAX as usize] = number;
            registers[libc::REG_RIP as usize] = pc - INSTRUCTION.len() as i64;
        }
    }
}

/// The number of the call that the last instruction makes, if the code before it is known.
fn number(code: &[u8]) -> Option<i64> {
    let mut code = code.strip_suffix(&INSTRUCTION)?;
    loop {
        match code {
            // mov number, %eax: not with a prefix, which makes another register of it.
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

/// Whether a signal waits for this handler to end that did not wait before.
fn is_another_due(before: &libc::sigset_t) -> bool {
    const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;
    let mut waiting = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is written if the call succeeds, and only then it is read; both may be called in
    // a handler.
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
    fn the_number_is_read_from_the_code_before_the_call() {
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
    fn what_is_not_known_for_certain_is_no_number() {
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
