//! The System Locality Information Table (ACPI 6.5, 5.2.17): how far apart proximity domains are.

use mm::numa::{BadDistance, Slit};

/// The number of domains, behind the header; the square of distances follows.
const COUNT: usize = 36;
const DISTANCES: usize = COUNT + 8;

/// Why a table cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Too short for as many domains as it says, or for the number.
    #[error("{bytes} bytes are too few for its domains")]
    Short {
        /// Bytes there are, header included.
        bytes: usize,
    },
    /// A distance that cannot be.
    #[error("{0}")]
    Distance(BadDistance),
}

/// The distances of the table (header included).
///
/// # Errors
/// [`Error`]: nothing of a damaged table is used.
#[doc(alias = "acpi_parse_slit")]
pub(crate) fn parse(table: &[u8]) -> Result<Slit<'_>, Error> {
    let square = || {
        let (count, distances) = table
            .get(COUNT..)?
            .split_first_chunk::<{ DISTANCES - COUNT }>()?;
        let domains = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        Some((domains, distances.get(..domains.checked_mul(domains)?)?))
    };
    let bytes = table.len();
    let (domains, distances) = square().ok_or(Error::Short { bytes })?;
    Slit::new(domains, distances).map_err(Error::Distance)
}
