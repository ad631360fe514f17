//! Which instructions lock the bus, or what takes its place: those are the read-modify-writes that threads
//! would wait for one another with. On x86-64 they have the prefix `lock`, or are an `xchg` with memory.

use std::collections::{HashMap, HashSet};
use std::process::Command;

/// Where the files of a program were mapped while it ran.
pub(crate) struct Locks<'t> {
    bases: HashMap<&'t str, u64>,
}

/// Of this process, for [`Locks::of`].
pub(crate) fn print_maps() {
    let maps = std::fs::read_to_string("/proc/self/maps");
    print!("{}", maps.unwrap_or_default());
}

impl<'t> Locks<'t> {
    pub(crate) fn of(maps: &'t str) -> Self {
        let bases = maps.lines().filter_map(|line| {
            let mut columns = line.split_whitespace();
            let (start, _) = columns.next()?.split_once('-')?;
            let is_beginning = columns.nth(1)? == "00000000";
            let path = columns.nth(2).filter(|_| is_beginning)?;
            Some((path, u64::from_str_radix(start, 16).ok()?))
        });
        // Of a file that is mapped twice, the first is the loader's.
        let mut first = HashMap::new();
        for (path, base) in bases {
            first.entry(path).or_insert(base);
        }
        Self { bases: first }
    }

    /// How many of the executed instructions of that file lock.
    pub(crate) fn among(&self, object: &str, executed: &[(u64, u64)]) -> u64 {
        // Code outside all files is the kernel's clock (vDSO), which programs only read.
        if object == "???" {
            return 0;
        }
        let base = self.bases.get(object).copied();
        let base = base.unwrap_or_else(|| panic!("{object} is mapped nowhere"));
        let locking = locking(object);
        let locked = executed.iter().filter(|(address, _)| {
            // A program that is not relocated has its addresses in its file.
            locking.contains(&(address - base)) || locking.contains(address)
        });
        locked.map(|(_, count)| count).sum()
    }
}

/// Where a file has such instructions.
fn locking(object: &str) -> HashSet<u64> {
    let mut objdump = Command::new("objdump");
    let disassembled = objdump.args(["-d", "--no-show-raw-insn", object]).output();
    let disassembled = disassembled.expect("objdump is installed").stdout;
    let text = String::from_utf8_lossy(&disassembled);
    let found = text.lines().filter_map(|line| {
        let (address, instruction) = line.trim_start().split_once(":\t")?;
        let locks = instruction.starts_with("lock ")
            || instruction.starts_with("xchg ") && instruction.contains('(');
        locks.then(|| u64::from_str_radix(address, 16).ok())?
    });
    let found = found.collect();
    assert!(
        text.lines().count() > 100,
        "objdump tells nothing of {object}"
    );
    found
}
