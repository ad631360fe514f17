//! Stands in for `syscalls` on platforms whose system calls are unknown.

use std::sync::Arc;

use super::restarting_callers::Call;
use crate::procfs::Waits;
use crate::report::Syscall;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Interrupted {
    Restarts,
    #[expect(dead_code, reason = "the contract is that of `syscalls`")]
    IsCutShort(Call),
    Fails,
}

pub(super) fn describe(_: &Waits) -> Syscall {
    Syscall::default()
}

pub(super) fn waiting_on(_: &Waits) -> Option<Arc<str>> {
    None
}

pub(super) fn interrupted(_: &Waits) -> Interrupted {
    Interrupted::Fails
}
