//! What is fuzzed of the looking at threads: stacks, the files that are mapped, system calls.

#![allow(
    clippy::missing_panics_doc,
    reason = "a resource panics where it finds something"
)]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use object::{Object as _, ObjectSegment as _};

use super::modules::{Module, known_frames, parse};
use super::restarting_callers::Call;
use super::syscalls::{Interrupted, describe, interrupted, waiting_on};
use super::unwind::{MAX_STEPS, Unwinder, lookup, word};
use crate::fuzzing::Input;
use crate::procfs::{Mapping, Waits};
use crate::report::{Resource, Syscall};
use crate::sys::{Copied, Registers};

/// No rule of unwinding reads more for one frame than the return address and the frame pointer, besides
/// what an expression asks for.
const READS_A_STEP: usize = 64;

thread_local! {
    /// With the modules of this process.
    static UNWINDER: RefCell<Unwinder> = RefCell::new(loaded());
}

fn loaded() -> Unwinder {
    let mut unwinder = Unwinder::new();
    unwinder.load();
    unwinder
}

/// Where some code of this program begins, and how much of it there is.
fn code(unwinder: &Unwinder) -> std::ops::Range<u64> {
    let here = loaded as *const () as u64;
    let module = unwinder.module(here).expect("this program is known");
    module.addresses.clone()
}

/// A copy of a stack with hostile words and hostile registers, unwound by the tables of this program.
pub fn stack(data: &[u8]) {
    UNWINDER.with_borrow_mut(|unwinder| {
        let copied = copied(&mut Input::new(data), &code(unwinder));
        assert_unwinds(unwinder, &copied);
    });
}

/// Mostly what a stack has in it: addresses of code, and of the stack.
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
    // Not always a whole number of words.
    bytes.truncate(bytes.len() - bytes.len().min(usize::from(registers.lr as u8 % 9)));
    Copied {
        registers,
        from,
        bytes,
    }
}

/// What is in the copy, read byte by byte.
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

fn assert_unwinds(unwinder: &mut Unwinder, copied: &Copied) {
    let reads = Cell::new(0);
    let read = |address| {
        reads.set(reads.get() + 1);
        let word = word(copied, address);
        assert_eq!(word, byte_by_byte(copied, address), "at {address:#x}");
        word.ok_or(())
    };
    let steps = unwinder.frames(copied.registers, read).len();
    assert!((1..=MAX_STEPS).contains(&steps));
    assert!(
        reads.get() <= steps * READS_A_STEP,
        "{reads:?} reads for {steps}"
    );
    // What was remembered of the first time changes nothing.
    let unwound = unwinder.unwind(copied);
    assert_eq!(unwound.steps.len(), steps);
    assert_eq!(unwound.sps.len(), steps);
    for step in &unwound.steps {
        let module = unwinder.module(lookup(step));
        assert_eq!(step.module, module.map(|module| module.path.clone()));
    }
    let _ = unwinder.caller_restarts(&unwound, Call::Sleep);
    let marks = unwound.sps.iter().copied();
    for mark in marks.chain([0, 1, u64::MAX]) {
        let beyond = (1..steps).find(|n| unwound.sps[*n] > mark);
        let expected = beyond.filter(|_| mark != 0);
        assert_eq!(unwound.inside(mark as usize), expected);
    }
}

/// A file that is mapped and that may be any by now: what it says about itself, and unwinding by its
/// tables.
pub fn elf(data: &[u8]) {
    let mut input = Input::new(data);
    let (start, len, offset) = (input.u64(), input.u32(), u64::from(input.u32()));
    let mapping = Mapping {
        addresses: start..start.saturating_add(u64::from(len)),
        offset,
        path: "/any".into(),
    };
    let image = input.bytes(usize::MAX);
    let Ok(file) = super::modules::Elf::parse(image) else {
        return;
    };
    let known_frames = known_frames(&file);
    assert!(known_frames.is_sorted_by_key(|(range, _)| range.start));
    assert!(
        known_frames
            .iter()
            .all(|(range, _)| range.start <= range.end)
    );
    let Some((bias, unwinding)) = parse(&file, &mapping) else {
        return;
    };
    let is_there = file.segments().any(|segment| {
        let (from, _) = segment.file_range();
        let distance = i128::from(offset) - i128::from(from);
        i128::from(start) - i128::from(bias) == i128::from(segment.address()) + distance
    });
    assert!(is_there, "no segment is mapped so");
    for (_, bytes) in unwinding.eh_frame.iter().chain(&unwinding.eh_frame_hdr) {
        assert!(bytes.len() <= image.len());
    }
    let module = Module {
        path: mapping.path.into(),
        addresses: mapping.addresses.clone(),
        bias,
        known_frames,
        mark: None,
    };
    unwind_in(module, unwinding, image);
}

/// The file itself is the stack: it has many small numbers, and addresses of its own.
fn unwind_in(module: Module, unwinding: super::modules::Unwinding, image: &[u8]) {
    let (addresses, bias) = (module.addresses.clone(), module.bias);
    let text = unwinding.text.clone().unwrap_or_default();
    let mut unwinder = Unwinder::over(module, unwinding);
    let in_text = [0, 1, 5, 16].map(|n| bias.wrapping_add(text.start).wrapping_add(n));
    for ip in in_text
        .into_iter()
        .chain([addresses.start, addresses.end.wrapping_sub(1)])
    {
        if let Some(part) = unwinder.module(ip).map(|module| module.known_frame_at(ip)) {
            assert!(part.is_none() || addresses.contains(&ip));
        }
        let from = 0x7fff_0000_0000;
        let registers = Registers {
            ip,
            sp: from as u64,
            fp: from as u64 + 16,
            lr: ip,
        };
        let copied = Copied {
            registers,
            from,
            bytes: image.to_vec(),
        };
        assert_unwinds(&mut unwinder, &copied);
    }
}

/// A system call with any number and any arguments, which is described without believing them.
pub(crate) fn system_call(input: &mut Input<'_>) {
    let spec = [input.number(), input.number()];
    let number = match input.flag() {
        true => i64::from(input.u32() % 500),
        false => (input.number() >> 1) as i64,
    };
    let mut waits = Waits {
        number,
        arguments: std::array::from_fn(|_| input.number()),
        sp: 0,
        pc: 0,
    };
    // For a sleep it is where the time is; for others any number.
    let address = spec.as_ptr().addr() as u64;
    waits.arguments[0] = address;
    let Syscall { name, resource } = describe(&waits);
    assert!(name.is_some() || resource == Resource::Unknown);
    assert!(name.is_none_or(|name| !name.is_empty() && number < 1_000));
    let text = waiting_on(&waits);
    if name == Some("nanosleep") {
        let is_valid = spec[1] < 1_000_000_000;
        let expected =
            is_valid.then(|| Duration::from_secs(spec[0]) + Duration::from_nanos(spec[1]));
        assert_eq!(
            text.as_deref(),
            expected.map(|time| format!("{time:?}")).as_deref()
        );
        assert_eq!(interrupted(&waits), Interrupted::IsCutShort(Call::Sleep));
    } else if resource != Resource::Clock {
        // No descriptor has an address for its number.
        assert_eq!(text, None, "{name:?}");
    }
    if name.is_none() {
        assert_eq!(interrupted(&waits), Interrupted::Fails);
    }
}
