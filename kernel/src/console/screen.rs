//! Text on a framebuffer of any size.
//!
//! What should be on the screen and what is on it are two arrays of cells; only
//! where they differ is anything drawn, and the framebuffer is never read (that is
//! slow on a PC). At the bottom the text jumps up by a quarter of the screen, so
//! that everything is redrawn once per many lines and not once per line.
//!
//! A page of something else may lie over the text for a while ([`Screen::look`]); and pictures may
//! stand among the text until it moves ([`Screen::place`]).

use core::ops::Range;

use arrayvec::ArrayVec;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use spin::{Mutex, MutexGuard};

use super::Level;
use super::bar::{BarCell, Colour, EIGHTHS};
use super::picture::Picture;
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

    /// With the number of a picture: a part of it.
    const PICTURE: u16 = 1 << 14;

    const fn text(byte: u8, level: Level) -> Self {
        // A blank looks the same in any colour.
        let level = if byte == b' ' { Level::Info } else { level };
        Self(byte as u16 | (level as u16) << 8)
    }

    const fn picture(number: u8) -> Self {
        Self(Self::PICTURE | number as u16)
    }

    const fn is_picture(self) -> bool {
        self.0 & (Self::BAR | Self::PICTURE) == Self::PICTURE
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

/// Most pictures at a time; one more is the page's.
const MAX_PICTURES: u8 = 3;

/// A picture, and the pixels of its top left corner.
#[derive(Clone, Copy)]
struct Placed {
    picture: Picture,
    x: usize,
    y: usize,
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
    /// The page that lies over the text.
    page: &'static mut Cells,
    /// Whether one does.
    looking: bool,
    /// Those that cells of `wanted` or `page` are parts of.
    pictures: ArrayVec<Placed, { MAX_PICTURES as usize }>,
    /// The page's own.
    page_picture: Option<Placed>,
    /// A pixel value for each intensity, by level.
    ramps: [[u32; 256]; 3],
    bar_colours: [u32; Colour::ALL.len()],
}

struct Cells([[Cell; MAX_COLUMNS]; MAX_ROWS]);

// Too large for a stack. The one screen takes them and never gives them back.
static WANTED: Mutex<Cells> = Mutex::new(Cells([[Cell::BLANK; MAX_COLUMNS]; MAX_ROWS]));
static DRAWN: Mutex<Cells> = Mutex::new(Cells([[Cell::BLANK; MAX_COLUMNS]; MAX_ROWS]));
static PAGE: Mutex<Cells> = Mutex::new(Cells([[Cell::BLANK; MAX_COLUMNS]; MAX_ROWS]));

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
        let page = MutexGuard::leak(PAGE.try_lock()?);
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
            page,
            looking: false,
            pictures: ArrayVec::new_const(),
            page_picture: None,
            ramps,
            bar_colours,
        })
    }

    /// Size in characters: columns, rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// Size of a character in pixels.
    pub(crate) fn cell(&self) -> (usize, usize) {
        (GLYPH_WIDTH * self.scale, GLYPH_HEIGHT * self.scale)
    }

    /// Makes it blank and starts at the top again.
    pub(crate) fn clear(&mut self) {
        self.cursor = None;
        for row in &mut self.wanted.0 {
            row.fill(Cell::BLANK);
        }
        self.pictures.clear();
        (self.column, self.row) = (0, 0);
        self.looking = false;
        self.redraw();
    }

    /// Puts `picture` over the characters from `column` and `row` on that it touches, where it
    /// stays until the text moves up, but for what is written over it. Does nothing if there is
    /// no room.
    pub(crate) fn place(&mut self, picture: Picture, column: usize, row: usize) {
        let placed = self.placed(picture, column, row);
        let number = u8::try_from(self.pictures.len());
        let (Some((placed, columns, rows)), Ok(number @ ..MAX_PICTURES)) = (placed, number) else {
            return;
        };
        self.pictures.push(placed);
        for row in rows {
            self.wanted.0[row][columns.clone()].fill(Cell::picture(number));
        }
        self.redraw();
    }

    /// The picture at its place, and the columns and rows that it touches. `None` if it would
    /// not be whole.
    fn placed(
        &self,
        picture: Picture,
        column: usize,
        row: usize,
    ) -> Option<(Placed, Range<usize>, Range<usize>)> {
        let ((cell_width, cell_height), (width, height)) = (self.cell(), picture.size());
        let columns = column..column + width.div_ceil(cell_width);
        let rows = row..row + height.div_ceil(cell_height);
        let (x, y) = (column * cell_width, row * cell_height);
        let fits = columns.end <= self.columns && rows.end <= self.rows;
        fits.then_some((Placed { picture, x, y }, columns, rows))
    }

    /// Lays a page over the text: `draw` calls its argument with a column, a row and what to
    /// show there; `picture` stands at a column and a row. The rest is blank. What is written
    /// meanwhile is kept for later.
    pub(crate) fn look(
        &mut self,
        draw: impl FnOnce(&mut dyn FnMut(usize, usize, char, Level)),
        picture: Option<(Picture, usize, usize)>,
    ) {
        for row in &mut self.page.0[..self.rows] {
            row.fill(Cell::BLANK);
        }
        let placed = picture.and_then(|(picture, column, row)| self.placed(picture, column, row));
        self.page_picture = None;
        if let Some((placed, columns, rows)) = placed {
            self.page_picture = Some(placed);
            for row in rows.clone() {
                self.page.0[row][columns.clone()].fill(Cell::picture(MAX_PICTURES));
                // What is drawn there may be a part of the last page's picture.
                self.drawn.0[row][columns.clone()].fill(Cell::UNKNOWN);
            }
        }
        let (columns, rows) = self.size();
        draw(&mut |column, row, c, level| {
            if column < columns && row < rows {
                self.page.0[row][column] = Cell::of(c, level);
            }
        });
        self.looking = true;
        if let Some((column, row)) = self.cursor {
            self.drawn.0[row][column] = Cell::UNKNOWN;
        }
        self.redraw();
    }

    /// Shows the text again.
    pub(crate) fn look_away(&mut self) {
        if core::mem::replace(&mut self.looking, false) {
            self.redraw();
            if self.cursor.is_some() {
                self.show_cursor();
            }
        }
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
    pub(crate) fn position(&self) -> (usize, usize) {
        (self.column, self.row)
    }

    /// Writes `text` from `column` and `row` on, as far as the row goes; what is written next goes
    /// where it would have gone.
    pub(crate) fn write_at(&mut self, column: usize, row: usize, text: &str) {
        if row >= self.rows {
            return;
        }
        for (column, c) in (column..self.columns).zip(text.chars()) {
            self.wanted.0[row][column] = Cell::of(c, Level::Info);
            self.draw(column, row);
        }
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
        self.cursor = Some((column, row));
        if !self.looking {
            let colour = self.bar_colours[Colour::Green as usize];
            self.surface.fill(line, colour);
        }
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
        self.forget_pictures();
        self.wanted.0[..self.rows].rotate_left(up);
        let row = self.rows - up;
        for row in &mut self.wanted.0[row..self.rows] {
            row.fill(Cell::BLANK);
        }
        self.row = row;
        self.redraw();
    }

    /// Leaves blanks where pictures were: pixels do not move.
    fn forget_pictures(&mut self) {
        if self.pictures.is_empty() {
            return;
        }
        let cells = self.wanted.0[..self.rows].iter_mut().flatten();
        for cell in cells.filter(|cell| cell.is_picture()) {
            *cell = Cell::BLANK;
        }
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
        let shown = if self.looking {
            &self.page
        } else {
            &self.wanted
        };
        let cell = shown.0[row][column];
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
        if cell.is_picture() {
            self.draw_part(at, usize::from(low));
        } else if cell.0 & Cell::BAR == 0 {
            self.draw_glyph(at, char::from(low), usize::from(high));
        } else {
            let colour = self.bar_colours[usize::from(high & 0x7f)];
            self.draw_bar(at, colour, usize::from(low));
        }
    }

    /// The part of picture `number` that lies `at` a cell.
    fn draw_part(&mut self, at: Rect, number: usize) {
        let own = self.pictures.get(number);
        let Some(&Placed { picture, x, y }) = own.or(self.page_picture.as_ref()) else {
            return;
        };
        let colours = self.bar_colours;
        for row in 0..at.height {
            let pixel = |column| picture.pixel(at.x - x + column, at.y - y + row);
            let values = (0..at.width).map(|column| colours[pixel(column) as usize]);
            self.surface.line(at.x, at.y + row, values);
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
