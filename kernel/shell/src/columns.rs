//! Names side by side.

use core::fmt::{self, Write};

/// Blanks between columns.
const GAP: usize = 2;

/// Writes `names` in columns, top to bottom and then left to right, as `ls` does: as many
/// as fit into `width`.
pub(crate) fn write(names: &[&str], width: usize, out: &mut impl Write) -> fmt::Result {
    let len = |name: &str| name.chars().count();
    let widest = |rows: usize| -> usize {
        let columns = names.chunks(rows);
        let widths = columns.map(|c| c.iter().map(|n| len(n)).max().unwrap_or(0) + GAP);
        widths.sum::<usize>().saturating_sub(GAP)
    };
    let fits = |&rows: &usize| widest(rows) < width;
    let rows = (1..=names.len()).find(fits).unwrap_or(names.len());
    for row in 0..rows {
        let mut pad = 0;
        for column in names.chunks(rows) {
            let Some(name) = column.get(row) else {
                continue;
            };
            write!(out, "{:pad$}{name}", "")?;
            let wide = column.iter().map(|n| len(n)).max().unwrap_or(0);
            pad = wide + GAP - len(name);
        }
        out.write_char('\n')?;
    }
    Ok(())
}
