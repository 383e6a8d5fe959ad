//! HVO in a map: the frames of a folio's memmap but the first give way to one that is
//! mapped read-only in place of all.
//!
//! | what is shared | whose frame | what it holds |
//! |---|---|---|
//! | across the node | the map's, one an order | tails |
//! | within the folio | the first of the folio's memmap | the head and the first tails, or a descriptor's address over and over |

use super::error::LayoutError;
use super::fields::{self, PageBits};
use super::map::Map;
use super::model::Model;
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::Flags;
use mm::page::encoding::{BlockInfo, Encoding, PageShape, PageShapeInfo, Sharing, Support};
use mm::paging::{self, Flush, Level, Pte, PteFlags};

/// Frames that are flushed and freed together.
const BATCH: usize = 128;

impl<E: Encoding, S: PageShape, Mo: Model> Map<E, S, Mo> {
    /// Folds the memmap of the folio of `order` at `first`. Readers find the folio of
    /// each page at every moment.
    ///
    /// The order of steps is that of `vmemmap::fold`: the flag, entries one by one, a
    /// flush, and only then the old frames go (INV-3). What takes their place is
    /// read-only and holds what they held (INV-2, INV-4).
    ///
    /// # Errors
    /// [`LayoutError`], with nothing folded.
    #[doc(alias = "hugetlb_vmemmap_optimize_folio")]
    pub fn fold<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<(), LayoutError> {
        let sharing = self.support.hvo?;
        self.check_fold(m, first, order)?;
        self.check_uniform(m, first, order, sharing)?;
        let at = self.page(m, first);
        self.split_leaves(m, frames, at, order)?;
        let shared = match sharing {
            Sharing::AcrossNode => self.shared_tail(m, frames, first, order)?,
            _ => paging::translate(m, m.root(), at)
                .ok_or(LayoutError::BadBlock(first, order))?
                .pfn(),
        };
        self.set_folded(m, first, true);
        let count = Self::memmap_frames(order);
        let entry = Pte::new(shared, PteFlags::KERNEL_RO);
        let mut n = 1;
        while n < count {
            let batch = (count - n).min(BATCH as u64);
            self.replace(m, frames, at.offset(n * PAGE_SIZE), batch, entry);
            n += batch;
        }
        self.ledger.saved += count - 1;
        self.ledger.folded[order.index()] += 1;
        Ok(())
    }

    /// Points `count` entries from that of `at` on elsewhere, flushes, and frees what they
    /// pointed to.
    fn replace<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        at: VirtAddr,
        count: u64,
        to: Pte,
    ) {
        let mut old = [None; BATCH];
        for (n, old) in (0..count).zip(&mut old) {
            let entry = paging::walk(m, m.root(), at.offset(n * PAGE_SIZE));
            *old = Some(entry.pte.pfn());
            // Release: pairs with the hardware walker (INV-3).
            m.write_phys(entry.at, to.raw());
        }
        Flush::new(at.range(count * PAGE_SIZE)).flush(m);
        self.ledger.flushes += 1;
        for frame in old.into_iter().flatten() {
            frames.free_pages(m, frame, 1);
            self.ledger.frames -= 1;
        }
    }

    /// Frames of memmap of a folio of `order`.
    pub(super) fn memmap_frames(order: Order) -> u64 {
        S::memmap_bytes(order) / PAGE_SIZE
    }

    /// Whether it is a folio whose memmap can be folded, and is not.
    fn check_fold<M: Machine>(&self, m: &M, first: Pfn, order: Order) -> Result<(), LayoutError> {
        if order < Support::hvo_min_order::<S>() {
            return Err(LayoutError::OrderOutOfBounds(order));
        }
        self.check_block(first, order)?;
        if !self.is_folio(m, first, order) || self.is_folded(m, first) {
            return Err(LayoutError::WrongState(first));
        }
        Ok(())
    }

    /// Whether all struct pages that will be in fewer frames than now are the same.
    fn check_uniform<M: Machine>(
        &self,
        m: &M,
        first: Pfn,
        order: Order,
        sharing: Sharing,
    ) -> Result<(), LayoutError> {
        // The frame of the head stays as it is, but within a folio it stands for others.
        let from = match sharing {
            Sharing::AcrossNode => S::PER_FRAME,
            _ => u64::from(!E::DESCRIPTOR),
        };
        // A head is not like its tails, but what is true of its page alone must not show
        // at others (LAY-3).
        if sharing == Sharing::WithinFolio && !E::DESCRIPTOR {
            let bits = self.page_bits(m, first).map(PageBits::raw);
            let born = Flags::from_raw(self.bits(first).raw()).with(Flags::HEAD);
            if bits.is_some_and(|bits| bits != born.raw()) {
                return Err(LayoutError::PerPageBits(first));
            }
        }
        let record = self.tail_record(m, first, order);
        for n in from..order.pages() {
            let pfn = first.offset(n);
            if self.words(m, pfn)[..] != self.in_shape(&record)[..] {
                return Err(LayoutError::PerPageBits(pfn));
            }
        }
        Ok(())
    }

    /// `record` with zeroes behind the words that the shape has.
    fn in_shape(&self, record: &[u64; fields::WORDS]) -> [u64; fields::WORDS] {
        core::array::from_fn(|n| {
            if (n as u64) < fields::words::<S>() {
                record[n]
            } else {
                0
            }
        })
    }

    /// What every tail of the folio at `first` holds.
    pub(super) fn tail_record<M: Machine>(
        &self,
        m: &M,
        first: Pfn,
        order: Order,
    ) -> [u64; fields::WORDS] {
        let head = self.page(m, first);
        let info = BlockInfo {
            head,
            order,
            descriptor: self.descriptor(m, first),
        };
        fields::record::<S>(self.bits(first), E::tail::<S>(&info))
    }

    /// The frame of tails of `order`; made if need be.
    fn shared_tail<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<Pfn, LayoutError> {
        if let Some(frame) = self.tails[order.index()] {
            return Ok(frame);
        }
        let frame = frames
            .alloc(m, Order::PAGE, Placement::Prefer(self.spec.node))
            .ok_or(LayoutError::NoMemory)?;
        let record = self.tail_record(m, first, order);
        self.fill_frame(m, frame, &record);
        self.tails[order.index()] = Some(frame);
        self.ledger.tails += 1;
        Ok(frame)
    }

    /// Fills a frame that nobody maps with `record`.
    pub(super) fn fill_frame<M: Machine>(&self, m: &M, frame: Pfn, record: &[u64; fields::WORDS]) {
        // HVO is refused where there is none.
        if let Some(pattern) = fields::pattern::<S>(record) {
            m.fill_phys(frame.phys(), &pattern, PAGE_SIZE / 64);
        }
    }

    /// Makes entries of pages of the 2 MiB leaves that the memmap of a folio lies in.
    fn split_leaves<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        at: VirtAddr,
        order: Order,
    ) -> Result<(), LayoutError> {
        let end = at.offset(S::memmap_bytes(order));
        let mut slot = at.align_down(PMD_SIZE);
        while slot < end {
            let found = paging::walk(m, m.root(), slot);
            if found.is_leaf() && found.level == Level::Pmd {
                let table = frames
                    .alloc(m, Order::PAGE, Placement::Prefer(self.spec.node))
                    .ok_or(LayoutError::NoMemory)?;
                self.ledger.pte_tables += 1;
                self.ledger.flushes += 1;
                paging::split(m, found, slot, table).flush(m);
            }
            slot = slot.offset(PMD_SIZE);
        }
        Ok(())
    }
}
