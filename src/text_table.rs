//! Floor 0: prints a table in aligned columns of text.

use std::fmt;

/// Writes a line of headings and a line for each row. Aligns the first column left and the others right.
pub(crate) fn write<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    headings: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> fmt::Result {
    let mut all = vec![headings.map(String::from)];
    all.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let widths = all.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    });
    for (number, row) in all.iter().enumerate() {
        if number > 0 {
            writeln!(f)?;
        }
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            match column {
                0 => write!(f, "{cell:<width$}")?,
                _ => write!(f, "  {cell:>width$}")?,
            }
        }
    }
    Ok(())
}
