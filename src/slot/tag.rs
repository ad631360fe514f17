//! Packs a watch id, a section kind and the ticked mark into the `watch` word of a frame.

use crate::report::SectionKind;

/// The bits below the watch id: three for the kind, one for [`TICKED`].
const BITS: u32 = 4;
const KIND_MASK: u64 = (1 << (BITS - 1)) - 1;

/// Marks a poll whose start is a tick: the poll read no clock, and began at or after that tick.
pub(super) const TICKED: u64 = 1 << (BITS - 1);

#[inline]
pub(super) fn tag(kind: SectionKind, watch: u64, is_ticked: bool) -> u64 {
    watch << BITS | u64::from(is_ticked) << (BITS - 1) | kind as u64
}

pub(super) fn watch_of(tag: u64) -> u64 {
    tag >> BITS
}

pub(super) fn kind_of(tag: u64) -> SectionKind {
    match tag & KIND_MASK {
        0 => SectionKind::Poll,
        1 => SectionKind::Drop,
        2 => SectionKind::Contained,
        3 => SectionKind::Entered,
        _ => SectionKind::Audited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_of_each_kind_gives_back_its_parts() {
        for kind in [
            SectionKind::Poll,
            SectionKind::Drop,
            SectionKind::Contained,
            SectionKind::Entered,
            SectionKind::Audited,
        ] {
            for is_ticked in [false, true] {
                let tag = tag(kind, 1_234_567, is_ticked);
                assert_eq!((watch_of(tag), kind_of(tag)), (1_234_567, kind));
                assert_eq!(tag & TICKED != 0, is_ticked);
            }
        }
    }
}
