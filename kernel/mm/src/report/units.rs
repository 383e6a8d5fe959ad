//! Numbers for people.

use core::fmt;

use crate::addr::PAGE_SIZE;

/// Bytes as Linux's log writes a size: three digits and a unit, `2.00 MiB`,
/// `64.0 KiB`, `512 MiB`. Rounded to nearest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "string_get_size")]
pub struct Size(
    /// Bytes.
    pub u64,
);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let power = self.0.max(1).ilog2() / 10;
        let unit = 1u128 << (10 * power);
        let decimals: u32 = match self.0 >> (10 * power) {
            _ if power == 0 => 0,
            0..10 => 2,
            10..100 => 1,
            _ => 0,
        };
        let scale = 10u128.pow(decimals);
        let scaled = (u128::from(self.0) * scale + unit / 2) / unit;
        write!(f, "{}", scaled / scale)?;
        if decimals > 0 {
            write!(f, ".{:0width$}", scaled % scale, width = decimals as usize)?;
        }
        write!(f, " {}", UNITS[power as usize])
    }
}

/// Pages, exactly, in KiB: `28 KiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "K")]
pub struct Kib(
    /// Base pages.
    pub u64,
);

impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 * (PAGE_SIZE >> 10))
    }
}

/// A part of a whole in percent, two decimals, rounded to nearest: `1.56 %`.
/// A part of nothing is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Percent(
    /// The part.
    pub u64,
    /// The whole, in the same unit.
    pub u64,
);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, whole) = (u128::from(self.0), u128::from(self.1));
        let hundredths = (part * 10_000 + whole / 2).checked_div(whole).unwrap_or(0);
        write!(f, "{}.{:02} %", hundredths / 100, hundredths % 100)
    }
}
