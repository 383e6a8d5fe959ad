//! The last page tells all that is known of a run to somebody who has a photograph of the screen
//! and nothing else.
//!
//! The whole text goes to the serial port and into the QR codes; a small screen shows the first
//! lines of fields that are long.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use ktest::Text;
use mm::addr::{Order, Pfn};
use mm::report::{Kib, Report, Size, Slot, Snapshot, block_slots};
use qr::Code;
use spin::Once;

use super::{BEFORE, bars};
use crate::arch::x86_64::{cpu, lapic, memory_types};
use crate::boot;
use crate::console::{self, Colour, Level, Picture, Screen};
use crate::metal::Metal;
use crate::selftest::Run;
use crate::smp::start;
use crate::state::{self, MM};

/// Columns of the text: what the narrowest screen has room for, 640 pixels.
const COLUMNS: usize = 80;

/// Columns before the text of a field.
const LABEL: usize = 10;

/// Rows that are left free for what is typed.
const PROMPT_ROWS: usize = 4;

/// A line on its way to the places that show it.
struct Line {
    text: String,
    level: Level,
    /// Left out where there is no room for all.
    is_extra: bool,
}

/// The text as it grows.
struct Page(Vec<Line>);

impl Page {
    /// Adds a field, in lines of [`COLUMNS`]; those behind the first `keep` are extra.
    fn field(&mut self, label: &str, keep: usize, level: Level, text: fmt::Arguments<'_>) {
        let text = text.to_string();
        let mut label = label;
        let mut line = String::new();
        let mut count = 0;
        let mut end = |line: &mut String| {
            count += 1;
            self.0.push(Line {
                text: core::mem::take(line),
                level,
                is_extra: count > keep,
            });
        };
        for piece in text.split('\n') {
            for word in piece.split(' ').flat_map(pieces) {
                let full = line.chars().count() + 1 + word.chars().count() > COLUMNS;
                if !line.is_empty() && full {
                    end(&mut line);
                }
                if line.is_empty() {
                    line = format!("{label:<LABEL$}");
                    label = "";
                } else {
                    line.push(' ');
                }
                line.push_str(word);
            }
            end(&mut line);
        }
    }
}

/// A word in pieces that fit a line each.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(word);
    core::iter::from_fn(move || {
        let word = rest?;
        let cut = word.char_indices().nth(COLUMNS - LABEL - 1);
        let (piece, behind) = match cut {
            Some((at, _)) => (&word[..at], Some(&word[at..])),
            None => (word, None),
        };
        rest = behind;
        Some(piece)
    })
}

fn machine(page: &mut Page) {
    let (vendor, brand) = cpu::names();
    let apic = lapic::mode_name().unwrap_or("no local APIC");
    page.field(
        "CPU",
        1,
        Level::Info,
        format_args!("{} ({}), {apic}", brand.as_str(), vendor.as_str()),
    );
    let (online, left_out) = (crate::smp::online(), start::left_out());
    if left_out.count() == 0 {
        page.field(
            "CPUs",
            1,
            Level::Info,
            format_args!("{online} started, none left out"),
        );
    } else {
        page.field(
            "CPUs",
            2,
            Level::Warn,
            format_args!("{online} started, {left_out}"),
        );
    }
    let (firmware, source) = state::booted().map_or_else(
        || ("firmware of an unknown kind", "nowhere".to_string()),
        |(firmware, source)| (firmware, source.to_string()),
    );
    let (serial, screen) = console::outputs();
    let serial = if serial { "COM1" } else { "no serial port" };
    let screen = screen.map_or_else(
        || "no screen".to_string(),
        |(columns, rows)| format!("{columns}x{rows} characters"),
    );
    page.field(
        "Boot",
        1,
        Level::Info,
        format_args!("{firmware}; {serial}; {screen}"),
    );
    page.field(
        "Words",
        2,
        Level::Info,
        format_args!("{} (from: {source})", state::command_line().escape_ascii()),
    );
}

fn warnings(page: &mut Page) {
    let warnings = console::warnings();
    if warnings.count == 0 {
        return page.field("Warnings", 1, Level::Info, format_args!("none"));
    }
    let mut text = format!("{}, the first of them:", warnings.count);
    for warning in &warnings.first {
        let _ = write!(text, "\n{warning}");
    }
    page.field("Warnings", 3, Level::Warn, format_args!("{text}"));
}

/// Nodes whose memory has a line of its own on a small screen.
const NODES: usize = 3;

fn memory(page: &mut Page, before: &Snapshot, after: &Snapshot) {
    for (n, node) in after.nodes.iter().enumerate() {
        let ranges = state::ram().iter().filter(|ram| ram.node == node.node);
        let odd: u64 = ranges.map(|ram| memory_types::odd_bytes(ram.range)).sum();
        let kind = match odd {
            0 => "write-back".to_string(),
            odd => format!("{} NOT write-back", Size(odd)),
        };
        let level = if odd == 0 { Level::Info } else { Level::Warn };
        let (size, free) = (Size(node.present << 12), Kib(node.free));
        let label = if n == 0 { "Memory" } else { "" };
        let keep = usize::from(n < NODES);
        page.field(
            label,
            keep,
            level,
            format_args!("node {}: {size}, {free} free, {kind}", node.node),
        );
    }
    for (name, bar) in bars(before, after) {
        page.field(name, 1, Level::Info, format_args!("{bar}"));
    }
    let report = Report { before, after };
    page.field("Gain", 2, Level::Info, format_args!("{}", report.gain()));
    let memmap = after.memmap;
    page.field(
        "",
        1,
        Level::Info,
        format_args!(
            "{} in full, {} at most",
            Kib(after.full_memmap()),
            Kib(memmap.peak)
        ),
    );
}

/// Failed cases that have a line on a small screen.
const FAILED: usize = 4;

fn tests(page: &mut Page, run: &Run) {
    for (n, failed) in run.failed.iter().enumerate() {
        let keep = usize::from(n < FAILED);
        page.field("failed:", keep, Level::Warn, format_args!("{failed}"));
    }
    if !run.skipped.is_empty() {
        let names = run.skipped.join(", ");
        page.field("skipped:", 2, Level::Info, format_args!("{names}"));
    }
    let totals = run.totals;
    let level = if totals.is_pass() {
        Level::Info
    } else {
        Level::Warn
    };
    page.0.push(Line {
        text: format!(
            "Self-tests: {} passed, {} failed, {} skipped",
            totals.pass, totals.fail, totals.skip
        ),
        level,
        is_extra: false,
    });
}

/// Makes the last page, on a screen of its own, and lets `verdict`, a line and its level, end it.
pub(crate) fn print(run: Option<&Run>, verdict: (Level, fmt::Arguments<'_>)) {
    let mut page = Page(Vec::new());
    page.0.push(Line {
        text: format!("Tailfold {}", boot::version::version()),
        level: Level::Info,
        is_extra: false,
    });
    machine(&mut page);
    warnings(&mut page);
    let after = Snapshot::take(&Metal, &MM);
    memory(&mut page, BEFORE.get().unwrap_or(&after), &after);
    if let Some(run) = run {
        tests(&mut page, run);
    }
    page.0.push(Line {
        text: verdict.1.to_string(),
        level: verdict.0,
        is_extra: false,
    });
    let codes = codes(&page.0);
    console::set_codes(codes);
    console::new_page();
    show(&page.0);
    dress(codes);
}

/// Which lines a screen of `rows` shows, by whether each is extra: all, if there is room for them;
/// else those that are not, and of these the first ones and the last two, totals and verdict.
pub(crate) fn visible(extra: &[bool], rows: usize) -> Vec<bool> {
    let mut room = rows.saturating_sub(PROMPT_ROWS);
    if extra.len() <= room {
        return extra.iter().map(|_| true).collect();
    }
    // One for the line that says how many are missing.
    room = room.saturating_sub(3);
    let last = extra.len().saturating_sub(2);
    let mut shown = 0;
    let keeps = extra.iter().enumerate().map(|(n, is_extra)| {
        let keep = n >= last || (!is_extra && shown < room);
        shown += usize::from(keep);
        keep
    });
    keeps.collect()
}

/// Prints the lines everywhere, on a screen that has no room for all only those that count most.
fn show(lines: &[Line]) {
    let rows = console::outputs().1.map_or(usize::MAX, |(_, rows)| rows);
    let extra: Vec<bool> = lines.iter().map(|line| line.is_extra).collect();
    let visible = visible(&extra, rows);
    let missing = visible.iter().filter(|visible| !**visible).count();
    for (n, (line, visible)) in lines.iter().zip(visible).enumerate() {
        if missing > 0 && n + 2 == lines.len() {
            console::with_screen(|screen| {
                let text = Text::<COLUMNS>::of(format_args!(
                    "({missing} lines more are on the serial port and in the code)"
                ));
                text.as_str()
                    .chars()
                    .chain(['\n'])
                    .for_each(|c| screen.put(c, Level::Info));
            });
        }
        if visible {
            console::result_line(line.level, format_args!("{}", line.text));
        } else {
            console::unseen_line(format_args!("{}", line.text));
        }
    }
}

static CODES: Once<Box<[Code]>> = Once::new();

/// The codes of the text.
fn codes(lines: &[Line]) -> &'static [Code] {
    CODES.call_once(|| {
        let mut text = String::new();
        for line in lines {
            let ascii = line.text.chars().map(console::as_ascii);
            text.extend(ascii.chain(['\n']));
        }
        qr::pack(&text)
            .iter()
            .filter_map(|part| Code::new(part))
            .collect()
    })
}

/// Pixels a square of a code that a phone tells apart on a panel of a usual size.
const LEAST_SCALE: usize = 3;

/// Adds to the text what there is room for: the code beside it, a map of the vmemmap below.
fn dress(codes: &'static [Code]) {
    let geometry = |screen: &mut Screen| (screen.cell(), screen.size(), screen.position().1);
    let Some(((width, height), (columns, rows), row)) = console::with_screen(geometry) else {
        return;
    };
    let beside = columns.saturating_sub(COLUMNS + 1) * width;
    let code = match codes {
        [code] => Picture::code(code, beside, rows * height),
        _ => None,
    };
    let code = code.filter(|code| matches!(code, Picture::Code(_, LEAST_SCALE..)));
    let map_columns = if code.is_some() { COLUMNS } else { columns };
    let map_rows = rows.saturating_sub(row + PROMPT_ROWS + 1);
    let map = map(map_columns * width, map_rows * height);
    console::with_screen(|screen| {
        if let Some(code) = code {
            screen.place(code, COLUMNS + 1, 0);
        }
        if let Some(Map { picture, legend }) = &map {
            let row = rows.saturating_sub(picture.size().1.div_ceil(height));
            screen.place(*picture, 0, row);
            screen.write_at(0, row - 1, legend);
        }
    });
}

/// A map of the vmemmap and a line that explains it.
struct Map {
    picture: Picture,
    legend: String,
}

/// What a square of the map shows.
const fn colour_of(slot: Slot) -> Colour {
    match slot {
        Slot::Hole => Colour::Dim,
        Slot::Leaf => Colour::Orange,
        Slot::Split => Colour::Blue,
        Slot::Partly | Slot::Mixed => Colour::Violet,
        Slot::Folded => Colour::Green,
    }
}

static SQUARES: Once<Box<[Colour]>> = Once::new();

/// Widest square in pixels.
const MAX_SIDE: usize = 12;
/// Narrowest: two pixels and a line.
const MIN_SIDE: usize = 3;

/// A square for each 2 MiB of RAM, or for a power of two of them, in `width` by `height` pixels.
/// `None` if there is no room for a few lines of them, or if there is a map already.
fn map(width: usize, height: usize) -> Option<Map> {
    let end: Pfn = state::ram().iter().map(|ram| ram.range.end).max()?;
    let blocks = usize::try_from(end.as_u64().div_ceil(Order::PMD.pages())).ok()?;
    let room = |side: usize| (width / side) * (height / side);
    if height < 4 * MAX_SIDE || SQUARES.get().is_some() {
        return None;
    }
    let side = (MIN_SIDE..=MAX_SIDE)
        .rev()
        .find(|side| room(*side) >= blocks);
    let side = side.unwrap_or(MIN_SIDE);
    let scale = blocks.div_ceil(room(side)).next_power_of_two();
    let mut squares: Vec<Option<Slot>> = Vec::new();
    squares.resize(blocks.div_ceil(scale), None);
    block_slots(&Metal, MM.vmemmap.memmap(), end, |n, slot| {
        let square = usize::try_from(n)
            .ok()
            .and_then(|n| squares.get_mut(n / scale));
        if let Some(square) = square {
            *square = match *square {
                Some(other) if other != slot => Some(Slot::Mixed),
                _ => Some(slot),
            };
        }
    });
    let squares = SQUARES.call_once(|| {
        let colours = squares
            .into_iter()
            .map(|slot| slot.map_or(Colour::Dim, colour_of));
        colours.collect()
    });
    let mut legend = format!("vmemmap by {}:", Size(Order::PMD.bytes() * scale as u64));
    for (slot, name) in [
        (Slot::Folded, "folded"),
        (Slot::Leaf, "2 MiB leaf"),
        (Slot::Split, "4 KiB pages"),
        (Slot::Mixed, "mixed"),
        (Slot::Hole, "no RAM"),
    ] {
        let _ = write!(legend, " {} {name}", colour_of(slot).square());
    }
    let columns = width / side;
    let picture = Picture::Map {
        squares,
        columns,
        side,
    };
    Some(Map { picture, legend })
}
