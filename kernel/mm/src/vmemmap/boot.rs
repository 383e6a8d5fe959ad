//! Folded from the start: blocks whose full memmap is never built (T28).
//!
//! A block that is set aside before the memmap is built gets one frame of struct
//! pages, the head's, and one table of its own; all its other entries point to the shared
//! tail page, and all its other slots to the shared table, from their first store on.
//! Nothing was present before, so nothing is flushed, and nobody can see a step in
//! between.

use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::slot::slots;
use super::{HvoError, Vmemmap};
use crate::addr::{ENTRIES, NodeId, Order, Pfn};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::memblock::MAX_RAM;
use crate::page::{
    self, Flags, HEAD_PAGES, Memmap, PageType, SHARES_ACROSS_NODE, clean_record, mark_allocated,
    vmemmap_pages,
};
use crate::paging::{self, Level, Pte, PteFlags};

/// The order of the blocks that can be folded from the start: 1 GiB. Their memmap is
/// whole slots, and so shares no table with a neighbour's.
pub const BOOT_ORDER: Order = Order::PUD;

/// Page tables that the memmap of such a block lies under.
const SLOTS: u64 = vmemmap_pages(BOOT_ORDER) / ENTRIES;
/// Frames that such a block takes at most: its tables, none shared, and the head's.
#[expect(clippy::cast_possible_truncation, reason = "8 and 1")]
const FRAMES: usize = SLOTS as usize + 1;

/// Blocks of [`BOOT_ORDER`], a bit each.
#[derive(Debug)]
pub(super) struct BootBlocks([AtomicU64; Self::WORDS]);

// One CPU runs while these change: relaxed.
impl BootBlocks {
    const WORDS: usize = (MAX_RAM / BOOT_ORDER.bytes() / 64) as usize;

    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Self::WORDS])
    }

    fn word(&self, pfn: Pfn) -> Option<(&AtomicU64, u64)> {
        let block = pfn.as_u64() / BOOT_ORDER.pages();
        let word = self.0.get(usize::try_from(block / 64).ok()?)?;
        Some((word, 1 << (block % 64)))
    }

    /// Whether `pfn` lies in one of them.
    fn contains(&self, pfn: Pfn) -> bool {
        self.word(pfn)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn insert(&self, pfn: Pfn) -> bool {
        let word = self.word(pfn);
        word.is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    fn remove(&self, pfn: Pfn) -> bool {
        let word = self.word(pfn);
        word.is_some_and(|(word, bit)| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }

    fn iter(&self) -> impl Iterator<Item = Pfn> + '_ {
        (0u64..).zip(&self.0).flat_map(|(n, word)| {
            let word = word.load(Ordering::Relaxed);
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| Pfn::new((n * 64 + bit) * BOOT_ORDER.pages()))
        })
    }
}

impl Vmemmap {
    /// Sets `block` aside to be folded when the memmap is built. The caller owns it:
    /// it is wholly RAM of one node, and the early allocator will not give it out.
    ///
    /// # Errors
    /// [`HvoError::BaseMisaligned`] or [`HvoError::HeadMisaligned`], and
    /// [`HvoError::AlreadyOptimized`] if it is set aside already.
    #[doc(alias = "hugetlb_vmemmap_init_early")]
    pub fn set_aside<M: Machine>(&self, m: &M, block: Pfn) -> Result<(), HvoError> {
        self.check_order(m, BOOT_ORDER.get())?;
        if !block.is_aligned(BOOT_ORDER) {
            return Err(HvoError::HeadMisaligned(self.memmap.page(block)));
        }
        if self.boot.insert(block) {
            Ok(())
        } else {
            Err(HvoError::AlreadyOptimized)
        }
    }

    /// The blocks set aside, lowest first; once the memmap is built, those of them
    /// that are folded compound pages, frozen and of no type yet.
    #[doc(alias = "huge_boot_pages")]
    pub fn set_aside_blocks(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.boot.iter()
    }

    /// Removes `block` from the blocks that were set aside at boot, because a pool owns it now.
    /// Returns whether it was one of them.
    pub fn take_over(&self, block: Pfn) -> bool {
        self.boot.remove(block)
    }

    /// The block set aside that `pfn` lies in.
    pub(super) fn set_aside_around(&self, pfn: Pfn) -> Option<Pfn> {
        self.boot.contains(pfn).then(|| pfn.align_down(BOOT_ORDER))
    }

    /// Builds the memmap of `block`, RAM of `node`, folded. If frames run out, nothing
    /// of it is there, but for tables above the last level, which are empty.
    #[doc(alias = "vmemmap_populate_hvo")]
    pub(super) fn populate_folded<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        block: Pfn,
        node: NodeId,
    ) -> Result<(), HvoError> {
        let index = self.tail_index(m, BOOT_ORDER.get())?;
        let shared = if SHARES_ACROSS_NODE {
            Some(self.early_tail(m, frames, node, BOOT_ORDER)?)
        } else {
            None
        };
        let range = self.memmap.range(block, BOOT_ORDER);
        let mut one = || frames.alloc(m, Order::PAGE, Placement::Prefer(node));
        for slot in slots(range) {
            // The path is made beforehand, so that storing the entries cannot fail.
            paging::table_entry(m, m.root(), slot.start, Level::Pmd, &mut one)
                .map_err(|_| HvoError::NoMemory)?;
        }
        // Without a shared table each slot gets one of its own.
        let table = self.early_table(m, frames, node, BOOT_ORDER);
        let own = if table.is_some() { 1 } else { SLOTS };
        let needed = own + 1;
        let supply: ArrayVec<Pfn, FRAMES> = (0..needed).map_while(|_| one()).take(FRAMES).collect();
        let complete = supply.len() as u64 == needed;
        let Some((head, mut tables)) = supply.split_first().filter(|_| complete) else {
            for frame in supply {
                frames.free(m, frame, Order::PAGE);
            }
            return Err(HvoError::NoMemory);
        };
        let unused = clean_record(node, Flags::empty());
        m.fill_phys(head.phys(), &unused, HEAD_PAGES);
        for slot in slots(range) {
            if let Some(table) = table.filter(|_| slot.is_all_tails()) {
                slot.set_table(m, table);
                self.count_shared_slot(m, (node, BOOT_ORDER), true);
                continue;
            }
            let Some((own, rest)) = tables.split_first() else {
                break;
            };
            tables = rest;
            let tails = Pte::new(shared.unwrap_or(*head), PteFlags::KERNEL_RO);
            m.fill_words(own.phys(), tails.raw(), slot.pages);
            if slot.first == 0 {
                let own_page = Pte::new(*head, PteFlags::KERNEL);
                m.write_phys(own.phys(), own_page.raw());
            }
            slot.set_table(m, *own);
        }
        let page = self.memmap.page(block);
        page::prep_compound_head(m, page, BOOT_ORDER);
        page.set_flags(m, page.flags(m).with(Flags::VMEMMAP_OPTIMIZED));
        mark_allocated(m, page, BOOT_ORDER);
        let sections = BOOT_ORDER.pages() / Memmap::SECTION.pages();
        self.ledger.count_sections(sections, 1);
        self.ledger.count_tables(own, true);
        self.ledger.count_folded(node, index, true);
        Ok(())
    }

    /// Gives the frames of the memmap of `block`, folded from the start, their types
    /// and an owner.
    pub(super) fn claim_folded<M: Machine>(&self, m: &M, block: Pfn) {
        let range = self.memmap.range(block, BOOT_ORDER);
        let shared = self.existing_table(self.memmap.page(block).node(m), BOOT_ORDER);
        for table in slots(range).filter_map(|slot| slot.table(m)) {
            if Some(table) != shared {
                self.claim(m, table, PageType::TABLE);
            }
        }
        let head = paging::translate(m, m.root(), range.start);
        let head = head.expect("the block was just populated");
        self.claim(m, head.pfn(), PageType::MEMMAP);
    }

    /// Does the same for the shared tail pages and tables made so far. Also for one that no
    /// block uses, because frames ran out after it.
    pub(super) fn claim_early_tails<M: Machine>(&self, m: &M) {
        for node in (0..).map_while(NodeId::new) {
            if let Some(tail) = self.existing_tail(node, BOOT_ORDER) {
                self.claim(m, tail, PageType::TAILS);
            }
            if let Some(table) = self.existing_table(node, BOOT_ORDER) {
                self.claim(m, table, PageType::TABLE);
            }
        }
    }
}
