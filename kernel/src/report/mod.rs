//! What memory is used for, for a person: the table and the picture of `mm`, and
//! bars. No time stamps, so that it fits a narrow screen.

mod last_page;

use core::fmt::{self, Write as _};

use ktest::Text;
use mm::addr::VirtAddr;
use mm::machine::Memory as _;
use mm::report::{Kib, NodeMemory, Peak, Percent, Report, Size, Snapshot, ToolLine, slots};
use spin::Once;

pub(crate) use last_page::{print as print_last_page, visible};

use crate::arch::x86_64::layout;
use crate::console::{Bar, Colour, raw_line};
use crate::metal::Metal;
use crate::state::{self, MM};

static BEFORE: Once<Snapshot> = Once::new();

/// Keeps the numbers as they are now: what the report compares with.
pub(crate) fn remember_before() {
    BEFORE.call_once(|| Snapshot::take(&Metal, &MM));
}

/// Prints it, and the line for tools.
pub(crate) fn print() {
    let after = Snapshot::take(&Metal, &MM);
    let before = BEFORE.get().unwrap_or(&after);
    let report = Report {
        before,
        after: &after,
    };
    print_lines(format_args!("{report}"));
    let end = state::ram().iter().map(|ram| ram.range.end).max();
    if let Some(end) = end {
        let memmap = MM.vmemmap.memmap();
        print_lines(format_args!("{}", slots(&Metal, memmap, end)));
    }
    after.nodes.iter().for_each(memory_of);
    for (name, bar) in bars(before, &after) {
        raw_line(format_args!("memmap {name:<7} {bar}"));
    }
    raw_line(format_args!("{}", Peak(&after)));
    let line = ToolLine {
        base: MM.vmemmap.memmap().base(),
        direct_map: VirtAddr::new(layout::DIRECT_MAP),
        cr3: Metal.root().phys(),
    };
    raw_line(format_args!("{line}"));
}

/// Length of a bar in characters.
const BAR: u32 = 32;

/// How much of a node's RAM is in use.
fn memory_of(node: &NodeMemory) {
    let used = node.present - node.free;
    let bar = Bar {
        cells: BAR,
        part: used,
        whole: node.present,
        colour: Colour::Blue,
    };
    let (id, share, ram) = (
        node.node,
        Percent(used, node.present),
        Size(node.present << 12),
    );
    raw_line(format_args!("node {id:<9} [{bar}] {share} of {ram} used"));
}

/// What the struct pages take, tables and shared pages included, before and after: names, and
/// bars with numbers.
fn bars(before: &Snapshot, after: &Snapshot) -> [(&'static str, impl fmt::Display); 2] {
    let taken = |at: &Snapshot| at.struct_pages() + at.spent();
    let whole = taken(before).max(taken(after));
    [
        ("before", before, Colour::Orange),
        ("after", after, Colour::Green),
    ]
    .map(|(name, at, colour)| {
        let (part, present) = (taken(at), at.present());
        let bar = Bar {
            cells: BAR,
            part,
            whole,
            colour,
        };
        let text = fmt::from_fn(move |f| {
            write!(
                f,
                "[{bar}] {}, {} of RAM",
                Kib(part),
                Percent(part, present)
            )
        });
        (name, text)
    })
}

/// Prints text of several lines.
fn print_lines(text: fmt::Arguments<'_>) {
    let mut lines = Lines(Text::new());
    // Cannot fail: `Lines` does not.
    let _ = lines.write_fmt(text);
    lines.end();
}

/// Collects a line, and prints it when it ends.
struct Lines(Text<200>);

impl Lines {
    fn end(&mut self) {
        raw_line(format_args!("{}", self.0));
        self.0 = Text::new();
    }
}

impl fmt::Write for Lines {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for (n, piece) in s.split('\n').enumerate() {
            if n > 0 {
                self.end();
            }
            self.0.write_str(piece)?;
        }
        Ok(())
    }
}
