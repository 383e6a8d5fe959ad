//! What stands among the text and is none.

use qr::{Code, QUIET_ZONE};

use super::bar::Colour;

/// A picture that a screen can show, of things that stay as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Picture {
    /// A QR code with its quiet zone, each square so many pixels a side.
    Code(&'static Code, usize),
    /// Squares in rows of `columns`, each `side` pixels wide with a line of background at its
    /// right and below.
    Map {
        /// What to paint them in, row by row.
        squares: &'static [Colour],
        /// Squares in a row.
        columns: usize,
        /// Width of one in pixels, the line included.
        side: usize,
    },
}

impl Picture {
    /// The code at the largest whole number of pixels a square that `width` and `height` have
    /// room for. `None` if there is none.
    pub(crate) fn code(code: &'static Code, width: usize, height: usize) -> Option<Self> {
        let squares = code.size() + 2 * QUIET_ZONE;
        let scale = width.min(height) / squares;
        (scale > 0).then_some(Self::Code(code, scale))
    }

    /// Width and height in pixels.
    pub(crate) const fn size(&self) -> (usize, usize) {
        match *self {
            Self::Code(code, scale) => {
                let side = (code.size() + 2 * QUIET_ZONE) * scale;
                (side, side)
            }
            Self::Map {
                squares,
                columns,
                side,
            } => (columns * side, squares.len().div_ceil(columns) * side),
        }
    }

    /// Colour of the pixel in column `x` and row `y` from the top left corner.
    pub(super) fn pixel(&self, x: usize, y: usize) -> Colour {
        let (width, height) = self.size();
        if x >= width || y >= height {
            return Colour::Black;
        }
        match *self {
            Self::Code(code, scale) => {
                // Nothing is dark in the quiet zone: below 0 is far beyond the code.
                let square = |at: usize| (at / scale).wrapping_sub(QUIET_ZONE);
                if code.is_dark(square(x), square(y)) {
                    Colour::Black
                } else {
                    Colour::White
                }
            }
            Self::Map {
                squares,
                columns,
                side,
            } => {
                let is_line = |at: usize| at % side == side - 1;
                let square = squares.get(y / side * columns + x / side);
                match square {
                    Some(colour) if !is_line(x) && !is_line(y) => *colour,
                    _ => Colour::Black,
                }
            }
        }
    }
}
