//! The bytes of a fuzzer, as the values that a target needs.

use std::time::Duration;

/// Parts of names that mean something to one of the formats.
const HOSTILE: [&str; 24] = [
    "\"",
    "\\",
    "\n",
    "\r",
    ";",
    ",",
    "{",
    "}",
    "=",
    " 7",
    "\\n",
    "\\\"",
    "\0",
    "\u{1b}[31m",
    "\u{202e}",
    "\u{2028}",
    "\u{85}",
    "</script>",
    "le",
    "other",
    "unnamed",
    "watch=\"x\"",
    "\u{fffd}",
    "é",
];

/// The bytes that are left. After the last one each value is 0 or empty.
pub(super) struct Input<'d> {
    rest: &'d [u8],
}

impl<'d> Input<'d> {
    pub(super) fn new(data: &'d [u8]) -> Self {
        Self { rest: data }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn duration(&mut self) -> Duration {
        match self.flag() {
            true => Duration::from_nanos(self.number()),
            false => Duration::new(self.number(), self.u32() % 1_000_000_000),
        }
    }

    pub(super) fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        let taken = self.bytes(4);
        bytes[..taken.len()].copy_from_slice(taken);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// Takes a number of any magnitude, often the largest or smallest of its kind.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => i64::MAX as u64,
            4 => u64::from(u32::MAX),
            bits => self.u64() >> (bits % 64),
        }
    }

    /// Takes a number less than `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Takes a name of any characters.
    pub(super) fn name(&mut self) -> String {
        let mut name = String::new();
        for _ in 0..self.below(4) {
            match self.byte() {
                known if known < 128 => name.push_str(HOSTILE[usize::from(known) % HOSTILE.len()]),
                len => name += &String::from_utf8_lossy(self.bytes(usize::from(len - 128) % 16)),
            }
        }
        name
    }
}
