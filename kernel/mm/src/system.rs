//! The parts put together: one memory manager for one machine.

use crate::addr::{NodeId, Pfn, PfnRange};
use crate::frames::FrameSource;
use crate::hugetlb::{Backing, HugeTlb};
use crate::hwpoison::{Handled, HwPoison, PoisonError};
use crate::machine::Machine;
use crate::node::Nodes;
use crate::page::Memmap;
use crate::vmemmap::{NoMemoryForMemmap, RamRange, Vmemmap};

/// Memmap, nodes and huge pages. Can live in a `static`.
#[derive(Debug)]
pub struct Mm {
    /// The struct pages.
    pub vmemmap: Vmemmap,
    /// The free memory.
    pub nodes: Nodes,
    /// The huge pages.
    pub hugetlb: HugeTlb,
    /// The broken frames.
    pub hwpoison: HwPoison,
}

impl Mm {
    /// Nothing populated, no node online.
    #[must_use]
    pub const fn new(memmap: Memmap) -> Self {
        Self {
            vmemmap: Vmemmap::new(memmap),
            nodes: Nodes::new(memmap),
            hugetlb: HugeTlb::new(),
            hwpoison: HwPoison::new(),
        }
    }

    /// What the huge pages are made from.
    #[must_use]
    pub const fn backing(&self) -> Backing<'_> {
        Backing {
            nodes: &self.nodes,
            vmemmap: &self.vmemmap,
        }
    }

    /// [`HwPoison::memory_failure`].
    ///
    /// # Errors
    /// [`PoisonError`].
    pub fn memory_failure<M: Machine>(&self, m: &M, pfn: Pfn) -> Result<Handled, PoisonError> {
        self.hwpoison
            .memory_failure(m, &self.hugetlb, self.backing(), pfn)
    }

    /// [`HwPoison::soft_offline_page`].
    ///
    /// # Errors
    /// [`PoisonError`]; nothing has changed then.
    pub fn soft_offline_page<M: Machine>(&self, m: &M, pfn: Pfn) -> Result<Handled, PoisonError> {
        self.hwpoison
            .soft_offline_page(m, &self.hugetlb, self.backing(), pfn)
    }

    /// [`HwPoison::unpoison_memory`].
    ///
    /// # Errors
    /// [`PoisonError`]; nothing has changed then.
    pub fn unpoison_memory<M: Machine>(&self, m: &M, pfn: Pfn) -> Result<(), PoisonError> {
        self.hwpoison
            .unpoison_memory(m, &self.hugetlb, self.backing(), pfn)
    }

    /// Builds the struct pages of `ram` (sorted, free of overlaps) from frames of
    /// the early allocator.
    ///
    /// # Errors
    /// [`NoMemoryForMemmap`].
    #[doc(alias = "paging_init")]
    pub fn build_memmap<M: Machine>(
        &self,
        m: &M,
        early: &impl FrameSource<M>,
        ram: impl Iterator<Item = RamRange> + Clone,
    ) -> Result<(), NoMemoryForMemmap> {
        self.vmemmap.check_alignment(m);
        self.vmemmap.populate(m, early, ram)
    }

    /// Hands the early allocator's memory over: `reserved` is what it gave out or
    /// never had, `free` the rest, by node. The early allocator is done. Nodes that
    /// have RAM are brought online; others are up to the caller.
    #[doc(alias = "memblock_free_all")]
    #[doc(alias = "mm_core_init")]
    pub fn hand_over<M: Machine>(
        &self,
        m: &M,
        ram: impl Iterator<Item = RamRange> + Clone,
        reserved: impl Iterator<Item = PfnRange>,
        free: impl Iterator<Item = RamRange>,
    ) {
        for range in reserved {
            self.vmemmap.mark_reserved(m, range);
        }
        self.vmemmap.claim_memmap_frames(m, ram.clone());
        let mut present = [0; crate::addr::MAX_NODES];
        for RamRange { range, node } in ram {
            present[node.index()] += range.pages();
            self.nodes.extend_span(node, range);
        }
        for (n, pages) in (0u8..).zip(present) {
            if pages > 0 {
                self.nodes.set_online(NodeId::of(n), pages);
            }
        }
        for RamRange { range, node } in free {
            self.nodes.add_range(m, node, range);
        }
        self.nodes.set_watermarks(m);
        self.hugetlb.init(m, self.vmemmap.memmap());
    }
}
