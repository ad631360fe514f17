//! The kernel's files about threads and mappings.

use std::time::Duration;

use super::Input;
use crate::procfs::{Mapping, SchedCounts, SyscallState, Waits};
use crate::procfs::{
    parse_mappings, parse_processor, parse_sched_counts, parse_state, parse_syscall_state,
};
use crate::report::{Resource, Syscall};
use crate::sentinel::restarting_callers::Call;
use crate::sentinel::syscalls::{Interrupted, describe, interrupted, waiting_on};
use crate::stolen_time::parse_counts;

/// Reads files of `/proc`. The parsers read each text that the kernel may write, and make up nothing from another one.
pub fn procfs(data: &[u8]) {
    any(&String::from_utf8_lossy(data));
    let mut input = Input::new(data);
    syscall_state(&mut input);
    turns(&mut input);
    state(&mut input);
    stolen(&mut input);
    mappings(&mut input);
    system_call(&mut input);
}

/// Reads any text. If a parser understands it, the same value written again reads the same.
fn any(text: &str) {
    match parse_syscall_state(text) {
        Some(SyscallState::Waits(waits)) => {
            assert_eq!(
                parse_syscall_state(&line_of(waits)),
                Some(SyscallState::Waits(waits))
            );
            assert_eq!(text.split_whitespace().count(), 9, "{text:?}");
        }
        Some(SyscallState::Running) => assert!(text.trim_start().starts_with("running")),
        Some(SyscallState::Elsewhere) => assert!(text.trim_start().starts_with('-')),
        None => {}
    }
    if let Some(SchedCounts { wait, count }) = parse_sched_counts(text) {
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(
            (decimal(words[1]), decimal(words[2])),
            (Some(wait), Some(count))
        );
    }
    if let Some(state) = parse_state(text) {
        assert!(text.contains(')') && !state.is_whitespace());
    }
    if let Some(processor) = parse_processor(text) {
        let word = text.split_whitespace().rev().find_map(decimal);
        assert!(word.is_some() && text.contains(')'), "{processor}");
    }
    if let Some(counts) = parse_counts(text) {
        assert!((1..=text.lines().count()).contains(&counts.stolen().len()));
    }
    let mappings = parse_mappings(text);
    assert!(mappings.len() <= text.split('\n').count());
    let lines: Vec<_> = mappings.iter().map(maps_line).collect();
    assert_eq!(parse_mappings(&lines.concat()), mappings);
}

/// Reads a number digit by digit, unlike the parser.
fn decimal(word: &str) -> Option<u64> {
    let digits = word.strip_prefix('+').unwrap_or(word).chars();
    digits.map(|c| c.to_digit(10)).try_fold(0u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit?))
    })
}

fn line_of(waits: Waits) -> String {
    let [a, b, c, d, e, f] = waits.arguments;
    let Waits { number, sp, pc, .. } = waits;
    format!("{number} {a:#x} {b:#x} {c:#x} {d:#x} {e:#x} {f:#x} {sp:#x} {pc:#x}\n")
}

fn syscall_state(input: &mut Input<'_>) {
    let waits = Waits {
        number: (input.number() >> 1) as i64,
        arguments: std::array::from_fn(|_| input.number()),
        sp: input.number(),
        pc: input.number(),
    };
    assert_eq!(
        parse_syscall_state(&line_of(waits)),
        Some(SyscallState::Waits(waits))
    );
    let elsewhere = format!("-1 {:#x} {:#x}\n", waits.sp, waits.pc);
    assert_eq!(
        parse_syscall_state(&elsewhere),
        Some(SyscallState::Elsewhere)
    );
}

fn turns(input: &mut Input<'_>) {
    let (on_cpu, wait, count) = (input.number(), input.number(), input.number());
    let was_run = on_cpu > 0 || count > 0;
    let expected = was_run.then_some(SchedCounts { wait, count });
    assert_eq!(
        parse_sched_counts(&format!("{on_cpu} {wait} {count}\n")),
        expected
    );
}

fn state(input: &mut Input<'_>) {
    let state = char::from(b"RSDTtZXIPW"[input.below(10)]);
    let name = input.name();
    // The kernel cuts a name after 15 bytes, also inside of a character.
    let name = String::from_utf8_lossy(&name.as_bytes()[..name.len().min(15)]);
    let stat = format!("4242 ({name}) {state} 1 4242 4242 0 -1 4194304\n");
    assert_eq!(parse_state(&stat), Some(state), "{stat:?}");
    assert_eq!(parse_processor(&stat), None, "{stat:?}");
    let (between, processor) = ("0 ".repeat(38 - 3), input.u32());
    let stat = format!("4242 ({name}) {state} {between}{processor} 0 0\n");
    assert_eq!(parse_processor(&stat), Some(processor), "{stat:?}");
}

fn stolen(input: &mut Input<'_>) {
    let processors = 0..input.below(5) as u32;
    let expected: Vec<_> = processors.map(|number| (number, input.number())).collect();
    let line = |(number, stolen): &(u32, u64)| format!("cpu{number} 1 2 3 4 5 6 7 {stolen} 0 0\n");
    let lines: String = expected.iter().map(line).collect();
    let stat = format!("cpu  1 2 3 4 5 6 7 8 9 10\n{lines}intr 1 0 2\n");
    let counts = parse_counts(&stat);
    let counts = counts.as_ref().map(|counts| counts.stolen().to_vec());
    assert_eq!(counts.unwrap_or_default(), expected, "{stat}");
}

fn maps_line(mapping: &Mapping) -> String {
    let Mapping {
        addresses,
        offset,
        path,
    } = mapping;
    let (from, to) = (addresses.start, addresses.end);
    format!("{from:08x}-{to:08x} r-xp {offset:08x} 08:01 1234    {path}\n")
}

fn mappings(input: &mut Input<'_>) {
    let (mut text, mut expected) = (String::new(), Vec::new());
    for _ in 0..input.below(5) {
        let from = input.number() >> 1;
        let mapping = Mapping {
            addresses: from..from + 1 + (input.number() >> 1),
            offset: input.number(),
            // The kernel escapes line breaks only.
            path: format!("/{}", input.name().replace('\n', "\\012")),
        };
        let line = maps_line(&mapping);
        if input.flag() {
            text += &line;
            expected.push(mapping);
        } else {
            text += &line.replace(" r-xp ", " rw-p ");
        }
    }
    assert_eq!(parse_mappings(&text), expected, "{text}");
}

/// Describes a system call with any number and any arguments, of which none need be valid.
fn system_call(input: &mut Input<'_>) {
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
    // A sleep has the address of its time there, another call any number.
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
        // No descriptor has such a large number as an address.
        assert_eq!(text, None, "{name:?}");
    }
    if name.is_none() {
        assert_eq!(interrupted(&waits), Interrupted::Fails);
    }
}
