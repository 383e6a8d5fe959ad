//! The boot memory map, and frames from it before there is a buddy allocator.
//!
//! Three steps, each a type: [`MapBuilder`] takes the firmware's regions as they
//! come (any order, overlapping, unaligned); [`MemoryMap`] is what RAM there is in
//! whole frames, and on which node; [`Early`] gives out frames of it and remembers
//! which, until the buddy allocator takes over. As in Linux, RAM and reservations
//! are two lists of ranges, and what is free is the difference.
//!
//! Nothing here allocates: tables have room for [`MAX_REGIONS`]. When one is full,
//! memory is lost, never invented, and a [`Warning`] says how much.
//! The types are 8 to 16 KiB large; each can be made in a `static`.

mod early;
mod ranges;

use core::fmt;

use arrayvec::ArrayVec;
pub use early::{Direction, Early, EarlyFrames, LOW_MEMORY, NotReserved};
use ranges::{RangeSet, Span};

use crate::addr::{MAX_NODES, NodeId, PAGE_SIZE, Pfn, PfnRange, PhysAddr};

/// Ranges a table of this module has room for.
#[doc(alias = "INIT_MEMBLOCK_REGIONS")]
pub const MAX_REGIONS: usize = 512;

/// Where RAM must end, in bytes: the direct map has room for 64 TiB.
#[doc(alias = "MAX_ARCH_PFN")]
pub const MAX_RAM: u64 = 1 << 46;

/// What the firmware says of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// RAM that may be used.
    #[doc(alias = "E820_TYPE_RAM")]
    Usable,
    /// Anything else: it is left alone, and has no struct pages of its own.
    #[doc(alias = "E820_TYPE_RESERVED")]
    Reserved,
}

/// A region as the firmware lists it, in bytes. Any values at all are accepted.
/// Displays as Linux prints one: `[mem 0x…-0x…] usable`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "struct e820_entry")]
pub struct Region {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// What it is.
    pub kind: Kind,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Usable => "usable",
            Kind::Reserved => "reserved",
        };
        let last = self.start.wrapping_add(self.length).wrapping_sub(1);
        write!(f, "[mem {:#018x}-{last:#018x}] {kind}", self.start)
    }
}

/// Frames of RAM, all of one node. Displays as Linux prints the early node
/// ranges: `node   0: [mem 0x…-0x…]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "struct memblock_region")]
pub struct RamRange {
    /// The frames.
    pub range: PfnRange,
    /// Whose they are.
    pub node: NodeId,
}

impl fmt::Display for RamRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:3}: {}", self.node, MemRange(self.range))
    }
}

/// Displays a range of frames as Linux's log does, by its first and last byte:
/// `[mem 0x…-0x…]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemRange(
    /// The frames; not empty.
    pub PfnRange,
);

impl fmt::Display for MemRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.0.start.phys().as_u64(), self.0.end.phys().as_u64());
        write!(f, "[mem {start:#018x}-{:#018x}]", end.wrapping_sub(1))
    }
}

/// What was wrong with the firmware's map, or too much for our tables. Each kind
/// comes at most once; boot goes on without the memory it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warning {
    /// Usable regions that end beyond 2^64 and are ignored: the first, how many.
    Wraps(Region, u64),
    /// Usable regions, or parts of them, above [`MAX_RAM`]: the first, bytes in all.
    TooHigh(Region, u64),
    /// More usable ranges than there is room for: bytes of the shortest ones,
    /// which were dropped.
    TooManyUsable(u64),
    /// More reserved ranges than there is room for: bytes of the narrowest gaps
    /// between them, which are now reserved too.
    TooManyReserved(u64),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wraps(region, count) => write!(
                f,
                "{} bytes at {:#x} end beyond 2^64: region ignored, {count} such",
                region.length, region.start
            ),
            Self::TooHigh(region, bytes) => write!(
                f,
                "{region} lies above {} TiB: {} KiB of RAM ignored",
                MAX_RAM >> 40,
                bytes >> 10
            ),
            Self::TooManyUsable(bytes) => write!(
                f,
                "more than {MAX_REGIONS} ranges of RAM: the shortest, {} KiB in all, ignored",
                bytes >> 10
            ),
            Self::TooManyReserved(bytes) => write!(
                f,
                "more than {MAX_REGIONS} reserved ranges: {} KiB between them reserved too",
                bytes >> 10
            ),
        }
    }
}

/// Collects the firmware's regions. The order in which they are added does not
/// matter, as long as the tables do not overflow.
#[derive(Clone, Debug)]
#[doc(alias = "e820_table")]
pub struct MapBuilder<const N: usize = MAX_REGIONS> {
    usable: RangeSet<PhysAddr, N>,
    reserved: RangeSet<PhysAddr, N>,
    wrapping: Option<(Region, u64)>,
    too_high: Option<(Region, u64)>,
    evicted: u64,
    bridged: u64,
}

impl<const N: usize> Default for MapBuilder<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> MapBuilder<N> {
    /// No region yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            usable: RangeSet::new(),
            reserved: RangeSet::new(),
            wrapping: None,
            too_high: None,
            evicted: 0,
            bridged: 0,
        }
    }

    /// Adds a region. Where a usable and a reserved one overlap, it is reserved.
    #[doc(alias = "e820__range_add")]
    pub fn add(&mut self, region: Region) {
        let Region {
            start,
            length,
            kind,
        } = region;
        let end = start.checked_add(length);
        let clipped = Span::new(
            PhysAddr::new(start.min(MAX_RAM)),
            PhysAddr::new(end.unwrap_or(u64::MAX).min(MAX_RAM)),
        );
        if kind == Kind::Reserved {
            let gap = self.reserved.insert_bridging(clipped);
            self.bridged += gap.map_or(0, Span::len);
            return;
        }
        // A length that makes no sense is no evidence of RAM at the start either.
        let Some(end) = end else {
            self.wrapping.get_or_insert((region, 0)).1 += 1;
            return;
        };
        if end > MAX_RAM && length > 0 {
            let above = end - start.max(MAX_RAM);
            let (_, bytes) = self.too_high.get_or_insert((region, 0));
            *bytes = bytes.saturating_add(above);
        }
        let lost = self.usable.insert_evicting(clipped);
        self.evicted += lost.map_or(0, Span::len);
    }

    /// The map put in order: sorted, no overlaps, neighbours of one kind made one,
    /// reserved first where both apply.
    #[doc(alias = "e820__update_table")]
    #[doc(alias = "e820__print_table")]
    pub fn regions(&self) -> impl Iterator<Item = Region> + use<'_, N> {
        let mut usable = self.usable_spans().peekable();
        let mut reserved = self.reserved.as_slice().iter().copied().peekable();
        core::iter::from_fn(move || {
            let usable_is_next = match (usable.peek(), reserved.peek()) {
                (Some(u), Some(r)) => u.start < r.start,
                (next, _) => next.is_some(),
            };
            let (span, kind) = if usable_is_next {
                (usable.next()?, Kind::Usable)
            } else {
                (reserved.next()?, Kind::Reserved)
            };
            Some(Region {
                start: span.start.as_u64(),
                length: span.len(),
                kind,
            })
        })
    }

    /// Usable and not reserved, to the byte.
    fn usable_spans(&self) -> impl Iterator<Item = Span<PhysAddr>> + use<'_, N> {
        self.usable
            .as_slice()
            .iter()
            .flat_map(|span| self.reserved.gaps(*span))
    }

    /// What was wrong so far.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> + use<N> {
        let lost = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
        [
            self.wrapping.map(|(first, n)| Warning::Wraps(first, n)),
            self.too_high.map(|(first, n)| Warning::TooHigh(first, n)),
            lost(self.evicted).map(Warning::TooManyUsable),
            lost(self.bridged).map(Warning::TooManyReserved),
        ]
        .into_iter()
        .flatten()
    }

    /// The RAM in it in whole frames: a frame counts if all of its bytes are usable
    /// and none is reserved. All of it is on node 0 for now.
    #[must_use]
    #[doc(alias = "e820__memblock_setup")]
    #[doc(alias = "memblock_trim_memory")]
    pub fn build(&self) -> MemoryMap<N> {
        let mut map = MemoryMap::new();
        for span in self.usable_spans() {
            let start = PhysAddr::new(span.start.as_u64().next_multiple_of(PAGE_SIZE));
            let range = PfnRange::new(start.pfn(), span.end.pfn());
            if !range.is_empty() {
                map.push(range);
            }
        }
        map
    }
}

/// The RAM of the machine in whole frames, sorted, each range on one node. What
/// lies between the ranges is a hole.
#[derive(Clone, Debug)]
#[doc(alias = "memblock.memory")]
pub struct MemoryMap<const N: usize = MAX_REGIONS> {
    ram: ArrayVec<RamRange, N>,
    /// Frames left out because the table was full.
    lost: u64,
}

impl<const N: usize> Default for MemoryMap<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> MemoryMap<N> {
    /// No RAM.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ram: ArrayVec::new_const(),
            lost: 0,
        }
    }

    /// Adds a range above all others. They never touch: between them lies at least
    /// one byte that is not usable.
    fn push(&mut self, range: PfnRange) {
        if self.ram.is_full() && !self.drop_shortest(range.pages()) {
            self.lost += range.pages();
            return;
        }
        let node = NodeId::ZERO;
        self.ram.push(RamRange { range, node });
    }

    /// Drops the shortest range if it is shorter than `pages`; whether it was.
    fn drop_shortest(&mut self, pages: u64) -> bool {
        let shortest = self.ram.iter().map(|ram| ram.range.pages()).enumerate();
        match shortest.min_by_key(|(_, pages)| *pages) {
            Some((at, fewer)) if fewer < pages => {
                self.ram.remove(at);
                self.lost += fewer;
                true
            }
            _ => false,
        }
    }

    /// The ranges as a slice, lowest first.
    #[must_use]
    pub fn as_slice(&self) -> &[RamRange] {
        &self.ram
    }

    /// The ranges, lowest first.
    #[doc(alias = "for_each_mem_range")]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = RamRange> + Clone + use<'_, N> {
        self.ram.iter().copied()
    }

    /// What had to be left out, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        (self.lost > 0).then_some(Warning::TooManyUsable(self.lost * PAGE_SIZE))
    }

    /// Keeps the lowest `bytes` of RAM (holes do not count) and forgets the rest;
    /// how many pages that were. Linux on x86 cuts at an address instead; this is
    /// what its memblock does for the same word on other machines.
    #[doc(alias = "mem=")]
    #[doc(alias = "memblock_enforce_memory_limit")]
    pub fn limit(&mut self, bytes: u64) -> u64 {
        let before = self.total_pages();
        let mut left = bytes / PAGE_SIZE;
        self.ram.retain(|ram| {
            let keep = ram.range.pages().min(left);
            left -= keep;
            ram.range.end = ram.range.start.offset(keep);
            keep > 0
        });
        before - self.total_pages()
    }

    /// Gives all RAM in `range` to `node`.
    ///
    /// A range that straddles an end is split. If the table is full, the shortest
    /// range is dropped for that: wrong nodes would break more than lost frames.
    #[doc(alias = "memblock_set_node")]
    pub fn assign(&mut self, range: PfnRange, node: NodeId) {
        if range.is_empty() {
            return;
        }
        self.split_at(range.start);
        self.split_at(range.end);
        for ram in &mut self.ram {
            if range.contains(ram.range.start) {
                ram.node = node;
            }
        }
        self.join();
    }

    fn split_at(&mut self, at: Pfn) {
        let inside = |ram: &RamRange| ram.range.start < at && ram.range.contains(at);
        if self.ram.is_full() && self.ram.iter().any(inside) {
            self.drop_shortest(u64::MAX);
        }
        if let Some(n) = self.ram.iter().position(inside) {
            let upper = RamRange {
                range: PfnRange::new(at, self.ram[n].range.end),
                ..self.ram[n]
            };
            self.ram[n].range.end = at;
            self.ram.insert(n + 1, upper);
        }
    }

    /// Makes neighbours of one node one range.
    #[doc(alias = "memblock_merge_regions")]
    fn join(&mut self) {
        let mut kept = 0usize;
        for n in 0..self.ram.len() {
            let next = self.ram[n];
            match kept.checked_sub(1).map(|last| &mut self.ram[last]) {
                Some(last) if last.range.end == next.range.start && last.node == next.node => {
                    last.range.end = next.range.end;
                }
                _ => {
                    self.ram[kept] = next;
                    kept += 1;
                }
            }
        }
        self.ram.truncate(kept);
    }

    /// The node that the frame is on; `None` in a hole.
    #[must_use]
    #[doc(alias = "early_pfn_to_nid")]
    pub fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        let at = self.ram.partition_point(|ram| ram.range.end <= pfn);
        let ram = self.ram.get(at)?;
        ram.range.contains(pfn).then_some(ram.node)
    }

    /// Pages of RAM.
    #[must_use]
    #[doc(alias = "memblock_phys_mem_size")]
    pub fn total_pages(&self) -> u64 {
        self.ram.iter().map(|ram| ram.range.pages()).sum()
    }

    /// Pages of RAM by node.
    #[must_use]
    pub fn pages_by_node(&self) -> [u64; MAX_NODES] {
        let mut pages = [0; MAX_NODES];
        for ram in &self.ram {
            pages[ram.node.index()] += ram.range.pages();
        }
        pages
    }

    /// From the first frame of RAM to behind the last; empty if there is none.
    #[must_use]
    #[doc(alias = "memblock_end_of_DRAM")]
    pub fn span(&self) -> PfnRange {
        match (self.ram.first(), self.ram.last()) {
            (Some(first), Some(last)) => PfnRange::new(first.range.start, last.range.end),
            _ => PfnRange::EMPTY,
        }
    }
}
