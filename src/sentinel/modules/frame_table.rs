//! Checks the table of `.eh_frame_hdr`, through which the unwinder finds the entry of a function in `.eh_frame`.
//!
//! Layout: Linux Standard Base, "Exception Frames". Linkers write one form of it. It has the begin of `.eh_frame`, relative
//! to that field, and the number of rows. Each row has the begin of a function and the place of its entry, relative to the
//! table. All fields have four bytes.
//!
//! The unwinder subtracts the begin of `.eh_frame` from the place of an entry without a check. A file may have been replaced
//! or damaged since it was mapped, so this module checks it once for each file.

use std::ops::Range;

/// The version, and the three encodings: `pcrel | sdata4`, `udata4`, `datarel | sdata4`.
const USUAL: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
const FIELDS: usize = 12;
const ROW: usize = 8;

/// Returns whether a table has this form, and all its entries are in `.eh_frame`. `at` and `eh_frame` are addresses of the
/// file.
pub(super) fn is_sound(table: &[u8], at: u64, eh_frame: &Range<u64>) -> bool {
    let Some((fields, rows)) = table.split_at_checked(FIELDS) else {
        return false;
    };
    let begins = relative(at.wrapping_add(4), &fields[4..8]);
    let count = number(&fields[8..12]) as usize;
    let Some(rows) = count.checked_mul(ROW).and_then(|len| rows.get(..len)) else {
        return false;
    };
    let mut entries = rows.chunks_exact(ROW).map(|row| relative(at, &row[4..]));
    fields[..4] == USUAL
        && begins == eh_frame.start
        && entries.all(|entry| eh_frame.contains(&entry))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn relative(to: u64, distance: &[u8]) -> u64 {
    let distance = distance.try_into().map_or(0, i32::from_ne_bytes);
    to.wrapping_add_signed(distance.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x1000;
    const EH_FRAME: Range<u64> = 0x1100..0x1200;

    /// Makes a table of one function, with the distance of its entry from the table.
    fn table(begin: i32, entry: i32) -> Vec<u8> {
        let (count, function) = (1_i32, -0x800_i32);
        let fields = [begin, count, function, entry];
        let fields = fields.iter().flat_map(|field| field.to_ne_bytes());
        USUAL.into_iter().chain(fields).collect()
    }

    #[test]
    fn entries_are_inside_the_section() {
        let is_sound = |table: &[u8]| is_sound(table, AT, &EH_FRAME);
        let sound = table(0x100 - 4, 0x100);
        assert!(is_sound(&sound));
        assert!(is_sound(&table(0x100 - 4, 0x1ff)));
        for entry in [0xff, 0x200, -1, i32::MIN, i32::MAX] {
            assert!(!is_sound(&table(0x100 - 4, entry)), "{entry}");
        }
        assert!(!is_sound(&table(0x100, 0x100)));
        for len in 0..sound.len() {
            assert!(!is_sound(&sound[..len]), "{len}");
        }
        for field in 0..USUAL.len() {
            let mut unusual = sound.clone();
            unusual[field] ^= 0x40;
            assert!(!is_sound(&unusual), "{field}");
        }
        let mut many = sound;
        many[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(!is_sound(&many));
    }
}
