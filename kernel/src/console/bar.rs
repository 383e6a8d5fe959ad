//! Bars within a line of text, and their colours.
//!
//! A bar is a run of private-use characters, so that it passes through the same
//! text layer as everything else: the screen fills rectangles for them, everywhere
//! else they are `#` and `.`.

use core::fmt::{self, Write as _};

/// What a bar or its background is painted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Colour {
    /// Nothing there: the background of a bar.
    Dim = 0,
    /// In use.
    Blue = 1,
    /// Free, or saved.
    Green = 2,
    /// Spent on bookkeeping.
    Orange = 3,
    /// Of several kinds.
    Violet = 4,
    /// The light squares of a QR code.
    White = 5,
    /// Its dark ones, and the background of a screen.
    Black = 6,
}

impl Colour {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::Dim,
        Self::Blue,
        Self::Green,
        Self::Orange,
        Self::Violet,
        Self::White,
        Self::Black,
    ];

    /// A character that is a cell of the colour.
    pub(crate) fn square(self) -> char {
        let (colour, eighths) = (self, EIGHTHS);
        BarCell { colour, eighths }.as_char()
    }

    /// Red, green and blue, 0 to 255 each.
    pub(crate) const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Dim => [0x30, 0x34, 0x3c],
            Self::Blue => [0x4a, 0x90, 0xe2],
            Self::Green => [0x50, 0xb8, 0x6c],
            Self::Orange => [0xe0, 0x9a, 0x3c],
            Self::Violet => [0x9a, 0x6c, 0xc8],
            Self::White => [0xff; 3],
            Self::Black => [0; 3],
        }
    }
}

const FIRST: u32 = 0xe000;
/// Parts of a cell that can be told apart.
pub(crate) const EIGHTHS: u8 = 8;

/// A cell of a bar: its left `eighths` of 8 are painted in the colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BarCell {
    /// What in.
    pub(crate) colour: Colour,
    /// How much, 0 to 8.
    pub(crate) eighths: u8,
}

impl BarCell {
    fn as_char(self) -> char {
        let code = FIRST + ((self.colour as u32) << 4) + u32::from(self.eighths);
        char::from_u32(code).unwrap_or('?')
    }

    /// The cell that `c` stands for, if it is one.
    pub(crate) fn from_char(c: char) -> Option<Self> {
        let code = u32::from(c).checked_sub(FIRST)?;
        let colour = *Colour::ALL.get((code >> 4) as usize)?;
        let eighths = u8::try_from(code & 0xf).ok()?;
        (eighths <= EIGHTHS).then_some(Self { colour, eighths })
    }
}

/// What a character that is not ASCII is where only ASCII goes.
pub(crate) fn as_ascii(c: char) -> u8 {
    match BarCell::from_char(c) {
        Some(cell) if cell.eighths * 2 >= EIGHTHS => b'#',
        Some(_) => b'.',
        None => b'?',
    }
}

/// A bar of `cells` characters, of which the left `part / whole` are painted.
/// Something is painted for any `part` but 0, and all only for `part == whole`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    /// Length in characters.
    pub(crate) cells: u32,
    /// How much is painted.
    pub(crate) part: u64,
    /// Of how much; 0 makes an empty bar.
    pub(crate) whole: u64,
    /// What in.
    pub(crate) colour: Colour,
}

impl Bar {
    /// Painted eighths of a cell.
    fn eighths(self) -> u64 {
        let all = u128::from(self.cells) * u128::from(EIGHTHS);
        let part = u128::from(self.part.min(self.whole));
        match part * all / u128::from(self.whole.max(1)) {
            0 if part > 0 => 1,
            n => u64::try_from(n).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let painted = self.eighths();
        (0..u64::from(self.cells)).try_for_each(|n| {
            let left = painted.saturating_sub(n * u64::from(EIGHTHS));
            let eighths = u8::try_from(left).map_or(EIGHTHS, |left| left.min(EIGHTHS));
            let colour = self.colour;
            f.write_char(BarCell { colour, eighths }.as_char())
        })
    }
}
