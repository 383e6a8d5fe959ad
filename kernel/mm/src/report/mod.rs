//! The report for a person: what memory is spent on, before and after huge pages
//! were folded, and a picture of the vmemmap.
//!
//! [`Snapshot`] and [`Slot`] are plain data, so that the text can be tested without
//! a machine; [`Snapshot::take`] and [`slots`] fill them in from a running one.

mod live;
mod picture;
mod units;

use core::fmt;

use arrayvec::ArrayVec;
pub use live::{block_slots, slots};
pub use picture::{Picture, Slot};
pub use units::{Kib, Percent, Size};

use crate::addr::{MAX_NODES, NodeId, Order, PAGE_SIZE, PhysAddr, VirtAddr};
use crate::page::STRUCT_PAGE_SIZE;
use crate::vmemmap::Totals;

/// Huge page sizes.
pub const MAX_SIZES: usize = 2;

/// Huge pages of one size on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HugeCounts {
    /// All of them.
    #[doc(alias = "nr_hugepages")]
    pub nr: u64,
    /// Those that nobody has.
    #[doc(alias = "free_hugepages")]
    pub free: u64,
    /// Blocks of the size whose struct pages are folded.
    pub folded: u64,
}

/// Memory of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeMemory {
    /// The node.
    pub node: NodeId,
    /// Pages of RAM, usable or not.
    #[doc(alias = "node_present_pages")]
    pub present: u64,
    /// Free pages.
    #[doc(alias = "nr_free_pages")]
    pub free: u64,
    /// Huge pages, in the order of [`Snapshot::sizes`].
    pub huge: [HugeCounts; MAX_SIZES],
}

/// What memory was spent on at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The nodes, lowest first.
    pub nodes: ArrayVec<NodeMemory, MAX_NODES>,
    /// The huge page sizes there are.
    pub sizes: ArrayVec<Order, MAX_SIZES>,
    /// The ledger of the vmemmap.
    pub memmap: Totals,
}

impl Snapshot {
    /// Pages of RAM of all nodes.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.nodes.iter().map(|node| node.present).sum()
    }

    /// Free pages of all nodes.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.nodes.iter().map(|node| node.free).sum()
    }

    /// Frames that hold struct pages.
    #[must_use]
    #[doc(alias = "nr_memmap_pages")]
    pub const fn struct_pages(&self) -> u64 {
        self.memmap.boot_pages + self.memmap.pages
    }

    /// Frames that the struct pages of all sections would be, none folded.
    #[must_use]
    pub const fn full_memmap(&self) -> u64 {
        self.memmap.sections * SECTION_STRUCT_PAGES
    }

    /// Frames that folding has taken for itself: page tables and shared tails.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.memmap.tables + self.memmap.tails
    }
}

/// Two moments side by side. The pictures, if wanted, are displayed separately.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The earlier one.
    pub before: &'a Snapshot,
    /// The later one, of the same machine.
    pub after: &'a Snapshot,
}

impl Report<'_> {
    /// Frames that folding saved between the two moments, what it spent on itself
    /// subtracted; negative if it cost more.
    #[must_use]
    pub const fn net_pages(&self) -> i64 {
        let saved = self.after.memmap.saved.cast_signed() - self.before.memmap.saved.cast_signed();
        saved - self.spent_pages()
    }

    /// Frames that folding spent on page tables and shared tails in between.
    #[must_use]
    pub const fn spent_pages(&self) -> i64 {
        self.after.spent().cast_signed() - self.before.spent().cast_signed()
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        label: fmt::Arguments<'_>,
        pages: impl Fn(&Snapshot) -> u64,
    ) -> fmt::Result {
        Row(label, Kib(pages(self.before)), Kib(pages(self.after))).fmt(f)
    }

    fn nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, after) in self.after.nodes.iter().enumerate() {
            let (node, size) = (after.node, Size(after.present * PAGE_SIZE));
            self.row(f, format_args!("  node {node}, {size}: free"), |at| {
                at.nodes.get(n).map_or(0, |node| node.free)
            })?;
        }
        Ok(())
    }

    fn huge_pages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (s, order) in self.after.sizes.iter().enumerate() {
            let size = Size(order.bytes());
            for (n, after) in self.after.nodes.iter().enumerate() {
                let before = self.before.nodes.get(n).map(|node| node.huge[s]);
                let (before, after) = (before.unwrap_or_default(), after.huge[s]);
                if before == after && after == HugeCounts::default() {
                    continue;
                }
                let node = self.after.nodes[n].node;
                let label = format_args!("  {size}, node {node}");
                Row(label, before, after).fmt(f)?;
            }
        }
        Ok(())
    }

    /// What was saved before anything was folded: by folding from the start.
    fn never_built(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { saved, folded, .. } = self.before.memmap;
        if saved == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "Never built: {} of struct pages of {folded} blocks, {} of all",
            Kib(saved),
            Percent(saved, self.before.full_memmap()),
        )
    }

    /// What folding came to between the two moments, in a sentence; two, if something was never
    /// built.
    pub fn gain(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            self.never_built(f)?;
            self.verdict(f)
        })
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (net, spent) = (self.net_pages(), self.spent_pages());
        if net == 0 && spent == 0 {
            return f.write_str("HVO freed nothing");
        }
        let kib = (PAGE_SIZE >> 10).cast_signed();
        let memmap = self.after.full_memmap();
        let gained = net.max(0).unsigned_abs();
        write!(
            f,
            "HVO freed {} KiB and spent {} KiB: {} KiB gained, {} of RAM, {} of the struct pages",
            (net + spent) * kib,
            spent * kib,
            net * kib,
            Percent(gained, self.after.present()),
            Percent(gained, memmap),
        )
    }
}

/// Frames of struct pages in a section: 2 MiB for 128 MiB of RAM.
const SECTION_STRUCT_PAGES: u64 =
    crate::page::Memmap::SECTION.pages() * STRUCT_PAGE_SIZE / PAGE_SIZE;

impl fmt::Display for HugeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.nr, self.free, self.folded)
    }
}

/// A line of the table: label, before, after.
struct Row<'a, T>(fmt::Arguments<'a>, T, T);

impl<T: fmt::Display> Row<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line::new();
        line.column(28, true, self.0);
        line.column(16, false, format_args!("{}", self.1));
        line.column(16, false, format_args!("{}", self.2));
        f.write_str(&line.0)?;
        f.write_str("\n")
    }
}

/// A line in the making: columns need a value's width before it is printed, and
/// nothing is allocated here.
struct Line(arrayvec::ArrayString<128>);

impl Line {
    const fn new() -> Self {
        Self(arrayvec::ArrayString::new_const())
    }

    /// Adds `text` in a column of `width`; wider text moves the rest along.
    fn column(&mut self, width: usize, left: bool, text: fmt::Arguments<'_>) {
        use fmt::Write as _;
        let mut field = arrayvec::ArrayString::<64>::new_const();
        // Numbers of 64 bits fit; a longer label is cut, which harms no one.
        let _ = field.write_fmt(text);
        let _ = if left {
            write!(self.0, "{field:<width$}")
        } else {
            write!(self.0, " {field:>width$}")
        };
    }
}

/// Several lines, without a newline at the end.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Row(format_args!("Memory"), "before", "after").fmt(f)?;
        self.nodes(f)?;
        let sections = self.after.memmap.sections;
        self.row(
            f,
            format_args!("  struct pages, {sections} sections"),
            Snapshot::struct_pages,
        )?;
        self.row(f, format_args!("  their page tables"), |at| {
            at.memmap.tables
        })?;
        self.row(f, format_args!("  shared tail pages"), |at| at.memmap.tails)?;
        let huge = |at: &Snapshot| {
            at.nodes
                .iter()
                .flat_map(|n| n.huge)
                .any(|h| h != HugeCounts::default())
        };
        if huge(self.before) || huge(self.after) {
            writeln!(f, "Huge pages (free, folded)")?;
            self.huge_pages(f)?;
        }
        self.gain().fmt(f)
    }
}

/// What the struct pages have come to at most, beside what they would be in full.
#[derive(Clone, Copy, Debug)]
pub struct Peak<'a>(
    /// The numbers now.
    pub &'a Snapshot,
);

impl fmt::Display for Peak<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peak, full) = (self.0.memmap.peak, self.0.full_memmap());
        write!(
            f,
            "memmap since start: {} at most, tables and shared tails included; in full {}: {}",
            Kib(peak),
            Kib(full),
            Percent(peak, full),
        )
    }
}

/// The line for tools that read guest memory from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToolLine {
    /// Where the struct page of frame 0 is.
    pub base: VirtAddr,
    /// Where physical address 0 is mapped.
    pub direct_map: VirtAddr,
    /// The top-level page table.
    pub cr3: PhysAddr,
}

impl fmt::Display for ToolLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "vmemmap: base={:#018x} page_struct={STRUCT_PAGE_SIZE} direct_map={:#018x} cr3={:#x}",
            self.base.as_u64(),
            self.direct_map.as_u64(),
            self.cr3.as_u64()
        )
    }
}
