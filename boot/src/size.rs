//! Amounts of memory as people write them.

use std::fmt;
use std::str::FromStr;

/// An amount of memory in bytes; written `512M`, `4G`, `64GiB`, `1T`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Size(u64);

/// One of the units of a [`Size`]: letter and bytes, greatest first.
const UNITS: [(char, u64); 4] = [
    ('T', 1 << 40),
    ('G', 1 << 30),
    ('M', 1 << 20),
    ('K', 1 << 10),
];

impl Size {
    /// `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `n` MiB.
    ///
    /// # Panics
    /// If that is 2^64 bytes or more.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.checked_mul(1 << 20).expect("a size below 2^64 bytes"))
    }

    /// Memory for a screen of `width` by `height` pixels of 32 bits: the least
    /// power of two of MiB that holds them.
    #[must_use]
    pub fn of_screen(width: u32, height: u32) -> Self {
        let bytes = u64::from(width) * u64::from(height) * 4;
        Self::mib(bytes.div_ceil(1 << 20).next_power_of_two())
    }

    /// The amount in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// `parts` sizes that are whole MiB and add up to this one, as equal as they
    /// can be, the greater ones first; `None` if a part would be empty or this
    /// one is not whole MiB.
    #[must_use]
    pub fn split(self, parts: u32) -> Option<Vec<Self>> {
        let parts = u64::from(parts);
        let mib = self.0 >> 20;
        if parts == 0 || mib < parts || !self.0.is_multiple_of(1 << 20) {
            return None;
        }
        let more = mib % parts;
        Some(
            (0..parts)
                .map(|part| Self::mib(mib / parts + u64::from(part < more)))
                .collect(),
        )
    }
}

impl fmt::Display for Size {
    /// In the greatest unit that leaves no remainder, as QEMU reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS
            .iter()
            .find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit))
        {
            Some((letter, unit)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.to_ascii_uppercase();
        let unit = unit.strip_suffix("IB").unwrap_or(&unit);
        let wanted = || format!("`{text}` is no amount of memory; write it like 512M or 4G");
        let mut letters = unit.chars();
        let bytes = match (letters.next(), letters.next()) {
            (Some(letter), None) => UNITS
                .iter()
                .find(|(known, _)| *known == letter)
                .map(|(_, bytes)| *bytes)
                .ok_or_else(wanted)?,
            _ => return Err(wanted()),
        };
        let number: u64 = number.parse().map_err(|_| wanted())?;
        number
            .checked_mul(bytes)
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not between 1K and 16 EiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("4g", 4 << 30),
            ("64GiB", 64 << 30),
            ("1T", 1 << 40),
            ("128K", 128 << 10),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn names_what_it_cannot_read() {
        for text in [
            "",
            "M",
            "4",
            "4X",
            "4GB",
            "-1G",
            "1.5G",
            "4 G",
            "0M",
            "99999999T",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn shows_the_greatest_whole_unit() {
        assert_eq!(Size::mib(512).to_string(), "512M");
        assert_eq!(Size::mib(4096).to_string(), "4G");
        assert_eq!(Size::mib(1536).to_string(), "1536M");
        assert_eq!(Size::new(1).to_string(), "1B");
    }

    #[test]
    fn screens_fit() {
        assert_eq!(Size::of_screen(800, 600), Size::mib(2));
        assert_eq!(Size::of_screen(1024, 768), Size::mib(4));
        assert_eq!(Size::of_screen(2560, 1600), Size::mib(16));
        assert_eq!(Size::of_screen(1, 1), Size::mib(1));
    }

    #[test]
    fn splits_evenly_and_loses_nothing() {
        let parts = Size::mib(512).split(3).unwrap();
        assert_eq!(parts, [Size::mib(171), Size::mib(171), Size::mib(170)]);
        assert_eq!(Size::mib(2).split(3), None);
        assert_eq!(Size::mib(2).split(0), None);
        assert_eq!(Size::new(4096).split(1), None);
    }
}
