//! Copies of stacks with any content.

use std::cell::{Cell, RefCell};

use super::Input;
use crate::sentinel::restarting_callers::Call;
use crate::sentinel::unwind::{MAX_FRAMES, Unwinder, lookup, word};
use crate::sys::{Copied, Registers};

/// The limit of reads for one frame. A rule reads the return address, the frame pointer and the operands of an
/// expression.
const READS_PER_FRAME: usize = 64;

thread_local! {
    /// Knows the modules of this process.
    static UNWINDER: RefCell<Unwinder> = RefCell::new(loaded());
}

fn loaded() -> Unwinder {
    let mut unwinder = Unwinder::new();
    unwinder.load();
    unwinder
}

/// The addresses of this program's code.
fn code(unwinder: &Unwinder) -> std::ops::Range<u64> {
    let here = loaded as *const () as u64;
    let module = unwinder.module(here).expect("this program is known");
    module.addresses.clone()
}

/// Unwinds a copied stack of hostile words and registers by the tables of this program.
pub fn stack(data: &[u8]) {
    UNWINDER.with_borrow_mut(|unwinder| {
        let copied = copied(&mut Input::new(data), &code(unwinder));
        assert_unwinds(unwinder, &copied);
    });
}

/// Makes a stack, mostly of addresses of code and of the stack.
fn copied(input: &mut Input<'_>, code: &std::ops::Range<u64>) -> Copied {
    let from = match input.byte() {
        0..200 => 0x7fff_0000_1000,
        200..240 => usize::MAX - usize::from(input.byte()),
        _ => input.number() as usize,
    };
    let value = |input: &mut Input<'_>| match input.byte() {
        0..100 => code.start + u64::from(input.u32()) % (code.end - code.start),
        100..200 => (from as u64).wrapping_add(8 * u64::from(input.byte())),
        200..240 => (from as u64).wrapping_add(u64::from(input.u32()) & 0xffff),
        _ => input.number(),
    };
    let registers = Registers {
        ip: value(input),
        sp: value(input),
        fp: value(input),
        lr: value(input),
    };
    let mut bytes = Vec::new();
    while !input.is_empty() && bytes.len() < 32 * 1024 {
        bytes.extend_from_slice(&value(input).to_ne_bytes());
    }
    // Sometimes the last word is cut.
    bytes.truncate(bytes.len() - bytes.len().min(usize::from(registers.lr as u8 % 9)));
    Copied {
        registers,
        from,
        bytes,
    }
}

/// Reads a word of the copy byte by byte.
fn byte_by_byte(copied: &Copied, address: u64) -> Option<u64> {
    let at = u128::from(address).checked_sub(copied.from as u128)?;
    let byte = |n: u32| {
        let byte = copied
            .bytes
            .get(usize::try_from(at + u128::from(n)).ok()?)?;
        Some(u64::from(*byte) << (8 * n))
    };
    (0..8).map(byte).sum()
}

pub(super) fn assert_unwinds(unwinder: &mut Unwinder, copied: &Copied) {
    let reads = Cell::new(0);
    let read = |address| {
        reads.set(reads.get() + 1);
        let word = word(copied, address);
        assert_eq!(word, byte_by_byte(copied, address), "at {address:#x}");
        word.ok_or(())
    };
    let raw_frames = unwinder.frames(copied.registers, read).len();
    assert!((1..=MAX_FRAMES).contains(&raw_frames));
    assert!(
        reads.get() <= raw_frames * READS_PER_FRAME,
        "{reads:?} reads for {raw_frames}"
    );
    // The second time the unwinder has remembered rules, which change nothing.
    let unwound = unwinder.unwind(copied);
    assert_eq!(unwound.raw_frames.len(), raw_frames);
    assert_eq!(unwound.sps.len(), raw_frames);
    for raw_frame in &unwound.raw_frames {
        let module = unwinder.module(lookup(raw_frame));
        assert_eq!(raw_frame.module, module.map(|module| module.path.clone()));
    }
    let _ = unwinder.caller_restarts(&unwound, Call::Sleep);
    let marks = unwound.sps.iter().copied();
    for mark in marks.chain([0, 1, u64::MAX]) {
        let beyond = (1..raw_frames).find(|n| unwound.sps[*n] > mark);
        let expected = beyond.filter(|_| mark != 0);
        assert_eq!(unwound.inside(mark as usize), expected);
    }
}
