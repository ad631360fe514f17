//! Mapped files: what they say about themselves, and unwinding by their tables.

use object::{Object as _, ObjectSegment as _};

use super::Input;
use super::stack::assert_unwinds;
use crate::procfs::Mapping;
use crate::sentinel::modules::{Elf, Module, Unwinding, known_frames, parse};
use crate::sentinel::unwind::Unwinder;
use crate::sys::{Copied, Registers};

/// Reads a mapped file that has any content, and unwinds by its tables.
pub fn elf(data: &[u8]) {
    let mut input = Input::new(data);
    let (start, len, offset) = (input.u64(), input.u32(), u64::from(input.u32()));
    let mapping = Mapping {
        addresses: start..start.saturating_add(u64::from(len)),
        offset,
        path: "/any".into(),
    };
    let image = input.bytes(usize::MAX);
    let Ok(file) = Elf::parse(image) else {
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

/// Unwinds with the file as the stack, because it has many small numbers and its own addresses.
fn unwind_in(module: Module, unwinding: Unwinding, image: &[u8]) {
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
