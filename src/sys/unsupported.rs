//! Where nothing of this is known: the same names, and honest answers.

pub(crate) fn fence_every_thread() -> bool {
    false
}

#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    0
}

pub(crate) fn thread_id() -> Option<u32> {
    None
}
