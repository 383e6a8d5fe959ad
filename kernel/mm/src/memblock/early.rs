//! Frames before there is a buddy allocator.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::ranges::{RangeSet, Span};
use super::{MAX_REGIONS, MemRange, MemoryMap, RamRange, Warning};
use crate::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange, PhysAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::{FailPoint, Level, Machine};
use crate::sync::{IrqGuard, IrqLock, LockClass};

/// Low memory that is never handed out, in bytes. The BIOS keeps its data there
/// and on some machines goes on writing to it, frame 0 has the real-mode vectors,
/// and other CPUs wake up in a trampoline that must lie below 1 MiB.
#[doc(alias = "reserve_real_mode")]
pub const LOW_MEMORY: u64 = 1 << 20;

/// Which end of a node's free memory an allocation comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "memblock_set_bottom_up")]
pub enum Direction {
    /// The lowest address that fits.
    BottomUp,
    /// The highest address that fits: spares low memory, which some devices need.
    TopDown,
}

/// An attempt to free what is not, or not wholly, reserved. Nothing was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotReserved(
    /// What was to be freed.
    pub PfnRange,
);

impl fmt::Display for NotReserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allocated from memblock", MemRange(self.0))
    }
}

impl Span<Pfn> {
    const fn of(range: PfnRange) -> Self {
        Self::new(range.start, range.end)
    }

    const fn frames(self) -> PfnRange {
        PfnRange::new(self.start, self.end)
    }
}

/// The frames of a [`MemoryMap`], and which of them are in use.
///
/// An allocation is a reservation: RAM is free if it is in the map and not reserved.
#[derive(Clone, Debug)]
#[doc(alias = "memblock.reserved")]
pub struct Early<'a, const N: usize = MAX_REGIONS> {
    map: &'a MemoryMap<N>,
    reserved: RangeSet<Pfn, N>,
    /// Frames reserved, or kept so, only because the table was full.
    lost: u64,
}

impl<'a, const N: usize> Early<'a, N> {
    /// Everything in `map` is free but [`LOW_MEMORY`].
    #[must_use]
    pub fn new(map: &'a MemoryMap<N>) -> Self {
        let mut early = Self {
            map,
            reserved: RangeSet::new(),
            lost: 0,
        };
        early.reserve(PfnRange::new(Pfn::new(0), PhysAddr::new(LOW_MEMORY).pfn()));
        early
    }

    /// The RAM it gives out.
    #[must_use]
    pub const fn map(&self) -> &'a MemoryMap<N> {
        self.map
    }

    /// Takes `range` out of what is free: the kernel image, boot data. It may lie
    /// in a hole or be reserved already.
    #[doc(alias = "memblock_reserve")]
    pub fn reserve(&mut self, range: PfnRange) {
        if let Some(gap) = self.reserved.insert_bridging(Span::of(range)) {
            self.lost += gap.len();
        }
    }

    /// Reserves a block of `order` at a multiple of `align`'s size (at least its
    /// own), or `None` if no node that `placement` allows has one.
    #[doc(alias = "memblock_phys_alloc_range")]
    #[doc(alias = "memblock_phys_alloc_try_nid")]
    pub fn alloc(
        &mut self,
        order: Order,
        align: Order,
        placement: Placement,
        direction: Direction,
    ) -> Option<Pfn> {
        let align = align.max(order);
        let near = self.find(order, align, direction, placement.node());
        let block = match placement {
            Placement::Only(_) => near,
            Placement::Prefer(first) => near.or_else(|| {
                // In order of number, as the buddy allocator does it.
                self.other_nodes(first)
                    .find_map(|other| self.find(order, align, direction, other))
            }),
        }?;
        self.reserve(block.block(order));
        Some(block)
    }

    fn other_nodes(&self, first: NodeId) -> impl Iterator<Item = NodeId> + use<N> {
        let pages = self.map.pages_by_node();
        (0u8..)
            .zip(pages)
            .filter(move |(n, pages)| *pages > 0 && *n != first.get())
            .map(|(n, _)| NodeId::of(n))
    }

    #[doc(alias = "memblock_find_in_range_node")]
    fn find(&self, order: Order, align: Order, direction: Direction, node: NodeId) -> Option<Pfn> {
        let mut gaps = self.free_ranges().filter(|free| free.node == node);
        let fits = |free: RamRange| fit(free.range, order, align, direction);
        match direction {
            Direction::BottomUp => gaps.find_map(fits),
            Direction::TopDown => gaps.rev().find_map(fits),
        }
    }

    /// Makes `range` free again. If it would take more ranges than there is room
    /// for, it stays reserved and is counted as lost.
    ///
    /// # Errors
    /// [`NotReserved`].
    #[doc(alias = "memblock_phys_free")]
    pub fn free(&mut self, range: PfnRange) -> Result<(), NotReserved> {
        let span = Span::of(range);
        if !self.reserved.contains(span) {
            return Err(NotReserved(range));
        }
        if self.reserved.remove(span).is_err() {
            self.lost += range.pages();
        }
        Ok(())
    }

    /// RAM that is free, lowest first.
    #[doc(alias = "for_each_free_mem_range")]
    pub fn free_ranges(
        &self,
    ) -> impl DoubleEndedIterator<Item = RamRange> + Clone + use<'_, 'a, N> {
        self.map.iter().flat_map(|RamRange { range, node }| {
            self.reserved.gaps(Span::of(range)).map(move |gap| {
                let range = gap.frames();
                RamRange { range, node }
            })
        })
    }

    /// RAM that is not free, lowest first. Reservations in holes are left out.
    #[doc(alias = "for_each_reserved_mem_range")]
    pub fn reserved_ranges(
        &self,
    ) -> impl DoubleEndedIterator<Item = RamRange> + Clone + use<'_, 'a, N> {
        self.map.iter().flat_map(|RamRange { range, node }| {
            self.reserved.within(Span::of(range)).map(move |span| {
                let range = span.frames();
                RamRange { range, node }
            })
        })
    }

    /// Free pages of `node`.
    #[must_use]
    pub fn free_pages(&self, node: NodeId) -> u64 {
        pages_of(self.free_ranges(), node)
    }

    /// Pages of `node` that are RAM but not free.
    #[must_use]
    pub fn reserved_pages(&self, node: NodeId) -> u64 {
        pages_of(self.reserved_ranges(), node)
    }

    /// What had to be kept reserved for want of room, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        (self.lost > 0).then_some(Warning::TooManyReserved(self.lost * PAGE_SIZE))
    }
}

fn pages_of(ranges: impl Iterator<Item = RamRange>, node: NodeId) -> u64 {
    ranges
        .filter(|ram| ram.node == node)
        .map(|ram| ram.range.pages())
        .sum()
}

/// Where in `gap` a block of `order` starts that is aligned to `align`.
fn fit(gap: PfnRange, order: Order, align: Order, direction: Direction) -> Option<Pfn> {
    let (start, end) = (gap.start.as_u64(), gap.end.as_u64());
    let at = match direction {
        Direction::BottomUp => start.next_multiple_of(align.pages()),
        Direction::TopDown => end.checked_sub(order.pages())? & !(align.pages() - 1),
    };
    (start <= at && at + order.pages() <= end).then(|| Pfn::new(at))
}

/// [`Early`] behind a lock, as the frame source that the memory map is built from.
/// Blocks come from the top, which leaves low memory and whole huge pages below.
#[derive(Debug)]
pub struct EarlyFrames<'a, const N: usize = MAX_REGIONS> {
    early: IrqLock<Early<'a, N>>,
    /// Whether the warning was given. Relaxed: only a log line hangs on it.
    warned: AtomicBool,
}

impl<'a, const N: usize> EarlyFrames<'a, N> {
    /// Gives out what is free in `early`.
    #[must_use]
    pub const fn new(early: Early<'a, N>) -> Self {
        Self {
            early: IrqLock::new(LockClass::Early, early),
            warned: AtomicBool::new(false),
        }
    }

    /// The allocator itself: to reserve, and for the hand-over.
    pub fn lock<'s, M: Machine>(&'s self, m: &'s M) -> IrqGuard<'s, Early<'a, N>, M> {
        self.early.lock(m)
    }

    fn warn_once<M: Machine>(&self, m: &M, warning: Option<Warning>) {
        if let Some(warning) = warning
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            m.log(Level::Warn, format_args!("memblock: {warning}"));
        }
    }

    fn give_back<M: Machine>(&self, m: &M, range: PfnRange) {
        let mut early = self.early.lock(m);
        let freed = early.free(range);
        let warning = early.warning();
        drop(early);
        if let Err(misuse) = freed {
            panic!("BUG: {misuse}");
        }
        self.warn_once(m, warning);
    }
}

impl<M: Machine, const N: usize> FrameSource<M> for EarlyFrames<'_, N> {
    #[doc(alias = "memblock_alloc_try_nid")]
    fn alloc(&self, m: &M, order: Order, placement: Placement) -> Option<Pfn> {
        if m.inject(FailPoint::PageAlloc) {
            return None;
        }
        let mut early = self.early.lock(m);
        let block = early.alloc(order, order, placement, Direction::TopDown);
        let warning = early.warning();
        drop(early);
        self.warn_once(m, warning);
        block
    }

    fn free(&self, m: &M, block: Pfn, order: Order) {
        self.give_back(m, block.block(order));
    }

    /// Nothing to do: a reservation knows no blocks, any part of it can be freed.
    fn split(&self, _: &M, _: Pfn, _: Order) {}

    fn free_pages(&self, m: &M, first: Pfn, pages: u64) {
        self.give_back(m, PfnRange::new(first, first.offset(pages)));
    }
}
