//! Text on a framebuffer of any size.
//!
//! What should be on the screen and what is on it are two arrays of cells; only
//! where they differ is anything drawn, and the framebuffer is never read (that is
//! slow on a PC). At the bottom the text jumps up by a quarter of the screen, so
//! that everything is redrawn once per many lines and not once per line.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use spin::{Mutex, MutexGuard};

use super::Level;
use super::bar::{BarCell, Colour, EIGHTHS};
use crate::drivers::framebuffer::{Rect, Surface};

const MAX_COLUMNS: usize = 256;
const MAX_ROWS: usize = 144;
/// Widest screen in pixels whose text is not magnified.
const UNSCALED_WIDTH: usize = 1920;

const FONT: RasterHeight = RasterHeight::Size16;
const WEIGHT: FontWeight = FontWeight::Regular;
const GLYPH_WIDTH: usize = get_raster_width(WEIGHT, FONT);
const GLYPH_HEIGHT: usize = FONT.val();

/// What a character position shows: an ASCII character in the colour of a level,
/// or a cell of a bar.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cell(u16);

impl Cell {
    const BLANK: Self = Self::text(b' ', Level::Info);
    const BAR: u16 = 1 << 15;
    /// Differs from whatever is wanted.
    const UNKNOWN: Self = Self(u16::MAX);

    const fn text(byte: u8, level: Level) -> Self {
        // A blank looks the same in any colour.
        let level = if byte == b' ' { Level::Info } else { level };
        Self(byte as u16 | (level as u16) << 8)
    }

    fn of(c: char, level: Level) -> Self {
        if let Some(bar) = BarCell::from_char(c) {
            return Self(Self::BAR | (bar.colour as u16) << 8 | u16::from(bar.eighths));
        }
        match u8::try_from(c) {
            Ok(byte @ b' '..=b'~') => Self::text(byte, level),
            _ => Self::text(b'?', level),
        }
    }
}

/// A text screen.
pub(crate) struct Screen {
    surface: Surface,
    columns: usize,
    rows: usize,
    /// Pixels of the screen per pixel of a glyph, each way.
    scale: usize,
    column: usize,
    row: usize,
    /// Where the cursor is drawn, if it is.
    cursor: Option<(usize, usize)>,
    /// What should be on the screen.
    wanted: &'static mut Cells,
    /// What is.
    drawn: &'static mut Cells,
    /// A pixel value for each intensity, by level.
    ramps: [[u32; 256]; 3],
    bar_colours: [u32; 4],
}

struct Cells([[Cell; MAX_COLUMNS]; MAX_ROWS]);

// Too large for a stack. The one screen takes them and never gives them back.
static WANTED: Mutex<Cells> = Mutex::new(Cells([[Cell::BLANK; MAX_COLUMNS]; MAX_ROWS]));
static DRAWN: Mutex<Cells> = Mutex::new(Cells([[Cell::BLANK; MAX_COLUMNS]; MAX_ROWS]));

const fn rgb(level: usize) -> [u8; 3] {
    const EMERG: usize = Level::Emerg as usize;
    const WARN: usize = Level::Warn as usize;
    match level {
        EMERG => [0xff, 0x6b, 0x5e],
        WARN => [0xf2, 0xc9, 0x4c],
        _ => [0xd8, 0xdc, 0xe2],
    }
}

impl Screen {
    /// A blank screen on `surface`. `None` if not even one character fits, or if
    /// there is a screen already.
    pub(crate) fn new(mut surface: Surface) -> Option<Self> {
        let (width, height) = surface.size();
        let scale = width.div_ceil(UNSCALED_WIDTH).max(1);
        let columns = (width / (GLYPH_WIDTH * scale)).min(MAX_COLUMNS);
        let rows = (height / (GLYPH_HEIGHT * scale)).min(MAX_ROWS);
        if columns == 0 || rows == 0 {
            return None;
        }
        let wanted = MutexGuard::leak(WANTED.try_lock()?);
        let drawn = MutexGuard::leak(DRAWN.try_lock()?);
        let mut ramps = [[0; 256]; 3];
        for (level, ramp) in ramps.iter_mut().enumerate() {
            for (intensity, value) in (0u8..=255).zip(ramp) {
                *value = surface.encode(rgb(level).map(|c| dimmed(c, intensity)));
            }
        }
        let bar_colours = Colour::ALL.map(|colour| surface.encode(colour.rgb()));
        let all = Rect {
            x: 0,
            y: 0,
            width,
            height,
        };
        // Black, which is what a blank looks like: `drawn` is true from here on.
        surface.fill(all, 0);
        Some(Self {
            surface,
            columns,
            rows,
            scale,
            column: 0,
            row: 0,
            cursor: None,
            wanted,
            drawn,
            ramps,
            bar_colours,
        })
    }

    /// Size in characters: columns, rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// Makes it blank and starts at the top again.
    pub(crate) fn clear(&mut self) {
        self.cursor = None;
        for row in &mut self.wanted.0 {
            row.fill(Cell::BLANK);
        }
        (self.column, self.row) = (0, 0);
        self.redraw();
    }

    /// Adds a character; a line break starts the next line, and so does the right
    /// edge. What the font does not have is a question mark.
    pub(crate) fn put(&mut self, c: char, level: Level) {
        self.hide_cursor();
        match c {
            '\n' => return self.next_line(),
            '\r' => return,
            _ => {}
        }
        if self.column == self.columns {
            self.next_line();
        }
        self.wanted.0[self.row][self.column] = Cell::of(c, level);
        self.draw(self.column, self.row);
        self.column += 1;
    }

    /// Where the next character goes: column, row.
    pub(super) fn position(&self) -> (usize, usize) {
        (self.column, self.row)
    }

    /// Makes the next character go there, or as near as there is a place.
    pub(super) fn go_to(&mut self, column: usize, row: usize) {
        self.hide_cursor();
        self.column = column.min(self.columns - 1);
        self.row = row.min(self.rows - 1);
    }

    /// Makes the rest of the line blank.
    pub(super) fn erase_line_end(&mut self) {
        self.wanted.0[self.row][self.column.min(self.columns)..].fill(Cell::BLANK);
        for column in self.column..self.columns {
            self.draw(column, self.row);
        }
    }

    /// Makes the rest of the line, and all lines below, blank.
    pub(super) fn erase_below(&mut self) {
        self.erase_line_end();
        for row in &mut self.wanted.0[self.row + 1..] {
            row.fill(Cell::BLANK);
        }
        self.redraw();
    }

    /// Marks where the next character goes, until something changes.
    pub(super) fn show_cursor(&mut self) {
        let (column, row) = (self.column.min(self.columns - 1), self.row);
        let (width, height) = (GLYPH_WIDTH * self.scale, GLYPH_HEIGHT * self.scale);
        let line = Rect {
            x: column * width,
            y: (row + 1) * height - height / 8,
            width,
            height: height / 8,
        };
        let colour = self.bar_colours[Colour::Green as usize];
        self.surface.fill(line, colour);
        self.cursor = Some((column, row));
    }

    fn hide_cursor(&mut self) {
        if let Some((column, row)) = self.cursor.take() {
            self.drawn.0[row][column] = Cell::UNKNOWN;
            self.draw(column, row);
        }
    }

    /// The row is never one that there is not, not even for a moment: a panic on another
    /// CPU may stop this one anywhere and go on from there.
    fn next_line(&mut self) {
        self.column = 0;
        if self.row + 1 < self.rows {
            self.row += 1;
            return;
        }
        let up = (self.rows / 4).max(1);
        self.wanted.0[..self.rows].rotate_left(up);
        let row = self.rows - up;
        for row in &mut self.wanted.0[row..self.rows] {
            row.fill(Cell::BLANK);
        }
        self.row = row;
        self.redraw();
    }

    fn redraw(&mut self) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                self.draw(column, row);
            }
        }
    }

    /// Draws one cell, unless it is on the screen already.
    fn draw(&mut self, column: usize, row: usize) {
        let cell = self.wanted.0[row][column];
        if self.drawn.0[row][column] == cell {
            return;
        }
        self.drawn.0[row][column] = cell;
        let (width, height) = (GLYPH_WIDTH * self.scale, GLYPH_HEIGHT * self.scale);
        let at = Rect {
            x: column * width,
            y: row * height,
            width,
            height,
        };
        let [low, high] = cell.0.to_le_bytes();
        if cell.0 & Cell::BAR == 0 {
            self.draw_glyph(at, char::from(low), usize::from(high));
        } else {
            let colour = self.bar_colours[usize::from(high & 0x7f)];
            self.draw_bar(at, colour, usize::from(low));
        }
    }

    fn draw_glyph(&mut self, at: Rect, c: char, level: usize) {
        let Some(glyph) = get_raster(c, WEIGHT, FONT) else {
            return;
        };
        let ramp = &self.ramps[level];
        for (y, line) in glyph.rows().enumerate() {
            for repeat in 0..self.scale {
                let y = at.y + y * self.scale + repeat;
                let pixels = line
                    .iter()
                    .flat_map(|&i| core::iter::repeat_n(ramp[usize::from(i)], self.scale));
                self.surface.line(at.x, y, pixels);
            }
        }
    }

    /// A rectangle with a margin above and below, so that bars in neighbouring
    /// lines stay apart.
    fn draw_bar(&mut self, at: Rect, colour: u32, eighths: usize) {
        let margin = at.height / 8;
        let painted = at.width * eighths / usize::from(EIGHTHS);
        let bar = Rect {
            y: at.y + margin,
            height: at.height - 2 * margin,
            ..at
        };
        self.surface.fill(at, 0);
        self.surface
            .fill(bar, self.bar_colours[Colour::Dim as usize]);
        let filled = Rect {
            width: painted,
            ..bar
        };
        self.surface.fill(filled, colour);
    }
}

fn dimmed(colour: u8, intensity: u8) -> u8 {
    let product = u16::from(colour) * u16::from(intensity) / 255;
    u8::try_from(product).unwrap_or(u8::MAX)
}
