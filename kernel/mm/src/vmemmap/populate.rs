//! Building the memmap at boot, section by section.

use super::{BOOT_ORDER, HvoError, Vmemmap};
use crate::addr::{ENTRIES, NodeId, Order, PAGE_SIZE, PMD_SIZE, Pfn, PfnRange};
use crate::frames::{FrameSource, Placement};
use crate::machine::{Level as LogLevel, Machine};
use crate::memblock::RamRange;
use crate::page::{
    Flags, Memmap, PageType, Record, STRUCT_PAGE_SIZE, clean_record, mark_allocated, vmemmap_pages,
};
use crate::paging::{self, Level, MapError, PteFlags};

/// Frames of struct pages in a section.
const SECTION_FRAMES: u64 = vmemmap_pages(Memmap::SECTION);

/// No frame for the memmap itself: the machine cannot boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemoryForMemmap(
    /// The section that got none.
    pub PfnRange,
);

impl Vmemmap {
    /// Maps and fills the struct pages of every 128 MiB section that has RAM.
    /// `ram` is sorted and free of overlaps. A section's struct pages lie in RAM of
    /// the section's own node, under one 2 MiB leaf; where no such block is to be
    /// had, they are no 2 MiB, or a leaf could not be replaced later, in 4 KiB pages
    /// from wherever.
    ///
    /// Frames in a populated section that are no RAM become reserved pages. Blocks that
    /// were set aside get folded struct pages; one for which that fails is given back.
    ///
    /// # Errors
    /// [`NoMemoryForMemmap`], with the sections below populated.
    #[doc(alias = "sparse_mem_map_populate")]
    #[doc(alias = "vmemmap_populate")]
    pub fn populate<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        ram: impl Iterator<Item = RamRange> + Clone,
    ) -> Result<(), NoMemoryForMemmap> {
        let mut next = Pfn::new(0);
        for RamRange { range, node } in ram.clone() {
            let mut section = range.start.align_down(Memmap::SECTION);
            if section < next {
                section = next;
            }
            while section < range.end {
                if let Some(block) = self.set_aside_around(section) {
                    match self.populate_folded(m, frames, block, node) {
                        Ok(()) => section = block.block(BOOT_ORDER).end,
                        Err(why) => self.give_up(m, frames, block, why),
                    }
                    continue;
                }
                let frames_of = section.block(Memmap::SECTION);
                self.map_section(m, frames, section, node)
                    .map_err(|_| NoMemoryForMemmap(frames_of))?;
                self.fill_section(m, frames_of, node, ram.clone());
                self.ledger.count_sections(1, SECTION_FRAMES);
                section = frames_of.end;
            }
            next = section;
        }
        Ok(())
    }

    /// Gives a block back that was to be folded. It gets all its struct pages like
    /// any other RAM, and may even supply them.
    fn give_up<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>, block: Pfn, why: HvoError) {
        self.take_over(block);
        frames.free(m, block, BOOT_ORDER);
        m.log(
            LogLevel::Warn,
            format_args!("vmemmap: {block:?} is not folded from the start: {why}"),
        );
    }

    fn map_section<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        section: Pfn,
        node: NodeId,
    ) -> Result<(), MapError> {
        let at = self.memmap.page(section).address();
        let root = m.root();
        let mut table = || frames.alloc(m, Order::PAGE, Placement::Prefer(node));
        if SECTION_FRAMES == ENTRIES
            && m.page_size_may_change()
            && let Some(block) = frames.alloc(m, Order::PMD, Placement::Only(node))
        {
            return paging::map(m, root, at, block, Level::Pmd, PteFlags::KERNEL, &mut table);
        }
        for n in 0..SECTION_FRAMES {
            let frame = table().ok_or(MapError::NoMemory)?;
            let page = at.offset(n * PAGE_SIZE);
            // A table belongs to two sections where their struct pages are no multiple of 2 MiB.
            let new = paging::walk(m, root, page).level != Level::Pte;
            self.ledger.count_tables(u64::from(new), true);
            paging::map(
                m,
                root,
                page,
                frame,
                Level::Pte,
                PteFlags::KERNEL,
                &mut table,
            )?;
        }
        Ok(())
    }

    fn fill_section<M: Machine>(
        &self,
        m: &M,
        section: PfnRange,
        node: NodeId,
        ram: impl Iterator<Item = RamRange>,
    ) {
        let mut at = section.start;
        let hole = clean_record(node, Flags::RESERVED);
        for ram in ram {
            let here = ram.range.intersect(section);
            if here.is_empty() {
                continue;
            }
            self.fill_records(m, PfnRange::new(at, here.start), &hole);
            self.fill_records(m, here, &clean_record(ram.node, Flags::empty()));
            at = here.end;
        }
        self.fill_records(m, PfnRange::new(at, section.end), &hole);
    }

    /// Writes `record` as the struct page of every frame of `range`, by way of the
    /// frames that hold them.
    fn fill_records<M: Machine>(&self, m: &M, range: PfnRange, record: &Record) {
        let mut at = range.start;
        while at < range.end {
            let address = self.memmap.page(at).address();
            let leaf = paging::leaf(m, m.root(), address).expect("section was just mapped");
            let offset = address.as_u64() % leaf.level.span();
            let fits = (leaf.level.span() - offset) / STRUCT_PAGE_SIZE;
            let count = PfnRange::new(at, range.end).pages().min(fits);
            if count == 0 {
                // It lies in two frames, which need not be neighbours.
                self.memmap.page(at).set_record(m, record);
                at = at.offset(1);
                continue;
            }
            m.fill_phys(leaf.pte.pfn().phys().offset(offset), record, count);
            at = at.offset(count);
        }
    }

    /// Marks `range` reserved: RAM in use that no allocator may ever hand out.
    /// Frames without struct pages are passed over, and blocks that are set aside.
    #[doc(alias = "reserve_bootmem_region")]
    pub fn mark_reserved<M: Machine>(&self, m: &M, range: PfnRange) {
        let mut at = range.start;
        while at < range.end {
            let section = at.align_down(Memmap::SECTION).block(Memmap::SECTION);
            let here = PfnRange::new(at, range.end).intersect(section);
            let page = self.memmap.page(at).address();
            let own = self.set_aside_around(at).is_none();
            if own && paging::leaf(m, m.root(), page).is_some() {
                for page in here.iter().map(|pfn| self.memmap.page(pfn)) {
                    page.set_flags(m, page.flags(m).with(Flags::RESERVED));
                }
            }
            at = here.end;
        }
    }

    /// Gives the frames that hold the memmap, and its tables, their type and an
    /// owner, so that folding can free them later. Call once, after
    /// [`Vmemmap::populate`] and before the buddy allocator takes over.
    #[doc(alias = "register_page_bootmem_memmap")]
    pub fn claim_memmap_frames<M: Machine>(&self, m: &M, ram: impl Iterator<Item = RamRange>) {
        let mut next = Pfn::new(0);
        for RamRange { range, .. } in ram {
            let mut section = range.start.align_down(Memmap::SECTION).max(next);
            while section < range.end {
                match self.set_aside_around(section) {
                    None => self.claim_section(m, section),
                    Some(block) if block == section => self.claim_folded(m, block),
                    Some(_) => {}
                }
                section = section.block(Memmap::SECTION).end;
            }
            next = section;
        }
        self.claim_early_tails(m);
    }

    fn claim_section<M: Machine>(&self, m: &M, section: Pfn) {
        let start = self.memmap.page(section).address();
        let first = paging::walk(m, m.root(), start);
        if first.level == Level::Pmd {
            for frame in first.pte.pfn().block(Order::PMD).iter() {
                self.claim(m, frame, PageType::MEMMAP);
            }
            return;
        }
        for n in 0..SECTION_FRAMES {
            let at = start.offset(n * PAGE_SIZE);
            if n == 0 || at.is_aligned(PMD_SIZE) {
                let table = paging::walk(m, m.root(), at).at.pfn();
                self.claim(m, table, PageType::TABLE);
            }
            let leaf = paging::leaf(m, m.root(), at).expect("section is populated");
            self.claim(m, leaf.pte.pfn(), PageType::MEMMAP);
        }
    }

    pub(super) fn claim<M: Machine>(&self, m: &M, frame: Pfn, page_type: PageType) {
        let page = self.memmap.page(frame);
        page.set_flags(m, page.flags(m).with(Flags::RESERVED));
        page.set_page_type(m, page_type);
        mark_allocated(m, page, Order::PAGE);
    }
}
