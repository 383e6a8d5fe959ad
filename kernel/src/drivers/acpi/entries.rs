//! Tables that are lists of entries, each with a type and a length in front.

use core::fmt;

/// An entry that cannot be what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    /// Signature of the table.
    pub(crate) table: &'static str,
    /// Bytes from the start of the table.
    pub(crate) offset: usize,
    /// Its type.
    pub(crate) kind: u8,
    /// Its length in bytes.
    pub(crate) length: u8,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entry at byte {}: type {} cannot be {} bytes long",
            self.table, self.offset, self.kind, self.length
        )
    }
}

/// Calls `each` with every entry of `bytes`, the table `table`, from byte `first`
/// on. An entry has at least as many bytes as `shortest` says of its type, 2 or more.
///
/// # Errors
/// [`Damage`] at the first entry that is too short or reaches beyond the table.
#[doc(alias = "acpi_table_parse_entries_array")]
pub(super) fn entries(
    table: &'static str,
    bytes: &[u8],
    first: usize,
    shortest: &dyn Fn(u8) -> usize,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Damage> {
    let mut offset = first;
    let mut rest = bytes.get(offset..).unwrap_or(&[]);
    while let [kind, tail @ ..] = rest {
        let length = tail.first().copied().unwrap_or(0);
        let damage = Damage {
            table,
            offset,
            kind: *kind,
            length,
        };
        let (entry, next) = rest
            .split_at_checked(usize::from(length))
            .filter(|(entry, _)| entry.len() >= shortest(*kind))
            .ok_or(damage)?;
        each(entry);
        offset += entry.len();
        rest = next;
    }
    Ok(())
}
