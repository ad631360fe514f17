//! Bytes, taken as what a target wants of them.

use std::time::Duration;

/// Parts of names that have a meaning somewhere.
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

/// What is left of the bytes. At their end everything is 0, or empty.
pub(crate) struct Input<'d> {
    rest: &'d [u8],
}

impl<'d> Input<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Self {
        Self { rest: data }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn duration(&mut self) -> Duration {
        match self.flag() {
            true => Duration::from_nanos(self.number()),
            false => Duration::new(self.number(), self.u32() % 1_000_000_000),
        }
    }

    pub(crate) fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        let taken = self.bytes(4);
        bytes[..taken.len()].copy_from_slice(taken);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// From any order of magnitude, and often at an edge.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => i64::MAX as u64,
            4 => u64::from(u32::MAX),
            bits => self.u64() >> (bits % 64),
        }
    }

    /// Less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// A name, which may hold anything that a string may.
    pub(crate) fn name(&mut self) -> String {
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
