//! One code: dark and light squares.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use qrcodegen_no_heap::{QrCode, QrCodeEcc, QrSegment, Version};

/// Squares around a code that must be light (ISO/IEC 18004, 6.3.8).
pub const QUIET_ZONE: usize = 4;

/// The largest version that is made: 117 squares a side, and with the quiet zone 125, each of
/// three pixels on the smallest screen there is (640x480).
const MAX_VERSION: Version = Version::new(25);

/// Characters of the alphanumeric set in a code of [`MAX_VERSION`] that can be read with 15 % of
/// it unreadable (ISO/IEC 18004, table 7: version 25, level M).
pub(crate) const MAX_CHARACTERS: usize = 1451;

/// A QR code.
pub struct Code {
    size: usize,
    dark: Box<[bool]>,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Code {
    /// Makes the code of a part that [`crate::pack`] has made. `None` if it is too long, or has
    /// characters that are not in the alphanumeric set.
    #[must_use]
    pub fn new(part: &str) -> Option<Self> {
        // Other characters would make it a code of bytes, which holds less.
        if !QrSegment::is_alphanumeric(part) {
            return None;
        }
        let mut scratch = vec![0; MAX_VERSION.buffer_len()];
        let mut squares = vec![0; MAX_VERSION.buffer_len()];
        let code = QrCode::encode_text(
            part,
            &mut scratch,
            &mut squares,
            QrCodeEcc::Medium,
            Version::MIN,
            MAX_VERSION,
            None,
            false,
        )
        .ok()?;
        let side = code.size();
        let dark = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
        Some(Self {
            size: usize::try_from(side).ok()?,
            dark: dark.map(|(x, y)| code.get_module(x, y)).collect(),
        })
    }

    /// Squares a side, without the quiet zone.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether the square in column `x` and row `y` is dark, counted from the top left corner;
    /// everything outside of the code is light.
    #[must_use]
    pub fn is_dark(&self, x: usize, y: usize) -> bool {
        x < self.size && y < self.size && self.dark[y * self.size + x]
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, MAX_CHARACTERS, QUIET_ZONE};
    use crate::{pack, unpack};

    /// What another program reads in the picture of a code.
    fn read(code: &Code, scale: usize) -> String {
        let side = (code.size() + 2 * QUIET_ZONE) * scale;
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| {
            let square = |at: usize| (at / scale).wrapping_sub(QUIET_ZONE);
            if code.is_dark(square(x), square(y)) {
                0
            } else {
                255
            }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn another_program_reads_it() {
        for length in [1, 100, 1000, 3000] {
            let text: String = (0..length).map(|n| format!("{n} ")).collect();
            let parts = pack(&text);
            let codes: Vec<_> = parts.iter().map(|part| Code::new(part).unwrap()).collect();
            let found: Vec<_> = codes.iter().map(|code| read(code, 3)).collect();
            assert_eq!(found, parts);
            assert_eq!(unpack(&found).unwrap(), text);
        }
    }

    /// The longest part makes the largest code, and a longer one none.
    #[test]
    fn has_a_longest_part() {
        let longest = "A".repeat(MAX_CHARACTERS);
        assert_eq!(Code::new(&longest).unwrap().size(), 117);
        assert!(Code::new(&format!("{longest}A")).is_none());
        assert!(Code::new("lower case").is_none());
    }
}
