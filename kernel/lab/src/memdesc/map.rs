//! The map: its window, its struct pages, its end.

use core::marker::PhantomData;

use super::descriptor::Kind;
use super::error::MemdescError;
use super::layout::{Page, StructPage};
use super::ledger::Totals;
use super::slab::Cache;
use super::word::Memdesc;
use mm::addr::{ENTRIES, NodeId, Order, PAGE_SIZE, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::{Memmap, PageList};
use mm::paging::{self, Flush, Level, Pte, PteFlags};
use mm::sync::assert_no_lock_held;

/// Where a map's struct page of frame 0 is unless one says otherwise: behind the
/// kernel's own memmap.
pub const DEFAULT_BASE: VirtAddr = Memmap::OTHER_MAPS;

/// What the map's lock protects: everything but references.
#[derive(Debug)]
pub(super) struct State {
    pub(super) caches: [Cache; Kind::ALL.len()],
    pub(super) totals: Totals,
}

/// A memory map of its own, with struct pages of layout `L`, over one block of frames.
///
/// Everything that changes struct pages, folds or frees is under one lock, which is
/// held over flushes and taken with interrupts on and no other lock held (INV-9).
/// Lookups and references take no lock.
#[derive(Debug)]
pub struct MemdescMap<L: StructPage> {
    base: VirtAddr,
    block: Pfn,
    order: Order,
    node: NodeId,
    /// The kernel's own struct pages: frames on their way are listed there.
    kernel: Memmap,
    state: spin::Mutex<State>,
    layout: PhantomData<L>,
}

impl<L: StructPage> MemdescMap<L> {
    /// A map over a block of `order` from `frames`, all of it free, its struct pages in
    /// the window at `base`, a multiple of 512 GiB. `kernel` is where the kernel's own
    /// struct pages are.
    ///
    /// # Errors
    /// [`MemdescError::TooSmall`], [`MemdescError::BadWindow`],
    /// [`MemdescError::NoMemory`].
    pub fn new<M: Machine>(
        m: &M,
        frames: &impl FrameSource<M>,
        kernel: Memmap,
        base: VirtAddr,
        order: Order,
        placement: Placement,
    ) -> Result<Self, MemdescError> {
        if order < L::FRAME_ORDER {
            let least = L::FRAME_ORDER;
            return Err(MemdescError::TooSmall { order, least });
        }
        let block = frames
            .alloc(m, order, placement)
            .ok_or(MemdescError::NoMemory)?;
        let map = Self {
            base,
            block,
            order,
            node: kernel.page(block).node(m),
            kernel,
            state: spin::Mutex::new(State {
                caches: Kind::ALL.map(Cache::new),
                totals: Totals::EMPTY,
            }),
            layout: PhantomData,
        };
        if !map.window_is_empty(m) {
            frames.free(m, block, order);
            return Err(MemdescError::BadWindow(base));
        }
        let populated = map.populate(m, frames);
        match populated {
            Ok(()) => Ok(map),
            Err(error) => {
                map.tear_down(m, frames);
                Err(error)
            }
        }
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// [`MemdescError::InUse`], with the map, if something is allocated in it.
    #[expect(clippy::result_large_err, reason = "a map that stays is given back")]
    pub fn destroy<M: Machine>(
        self,
        m: &M,
        frames: &impl FrameSource<M>,
    ) -> Result<(), (MemdescError, Self)> {
        let used = self.totals(m).descriptors.iter().sum();
        if used != 0 {
            return Err((MemdescError::InUse(used), self));
        }
        self.tear_down(m, frames);
        Ok(())
    }

    /// The struct page of `pfn`, which is a frame of the map.
    #[inline]
    #[must_use]
    #[doc(alias = "pfn_to_page")]
    pub const fn page(&self, pfn: Pfn) -> Page<L> {
        Page::at(self.base.offset(pfn.as_u64() * L::SIZE))
    }

    /// The frame of `page`.
    #[inline]
    #[must_use]
    #[doc(alias = "page_to_pfn")]
    pub const fn pfn(&self, page: Page<L>) -> Pfn {
        Pfn::new((page.address().as_u64() - self.base.as_u64()) / L::SIZE)
    }

    /// The frames it describes.
    #[must_use]
    pub const fn range(&self) -> PfnRange {
        self.block.block(self.order)
    }

    /// Their node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The ledger.
    pub fn totals<M: Machine>(&self, m: &M) -> Totals {
        self.lock(m).totals
    }

    /// Frames of struct pages if nothing were folded: `frames + saved` of the ledger,
    /// always.
    #[must_use]
    pub const fn memmap_frames(&self) -> u64 {
        self.order.pages() / L::PER_FRAME
    }

    pub(super) const fn kernel(&self) -> Memmap {
        self.kernel
    }

    /// Addresses of the struct pages of a block.
    pub(super) const fn memmap_of(&self, first: Pfn, order: Order) -> VirtRange {
        self.page(first).address().range(order.pages() * L::SIZE)
    }

    /// Waits for the map's lock.
    pub(super) fn lock<M: Machine>(&self, m: &M) -> spin::MutexGuard<'_, State> {
        assert_no_lock_held(m);
        self.state.try_lock().unwrap_or_else(|| {
            let mut found = None;
            m.wait_until("a memdesc map", &mut || {
                found = self.state.try_lock();
                found.is_some()
            });
            found.expect("the wait ended with it")
        })
    }

    /// A frame for struct pages, descriptors or tables, near what it describes.
    pub(super) fn frame<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>) -> Option<Pfn> {
        frames.alloc(m, Order::PAGE, Placement::Prefer(self.node))
    }

    /// The top-level entries of the window.
    fn roots<M: Machine>(&self, m: &M) -> impl Iterator<Item = mm::addr::PhysAddr> {
        let range = self.memmap_of(self.block, self.order);
        let last = range.end.as_u64() - 1;
        let (first, last) = (
            Level::Pgd.index(range.start),
            Level::Pgd.index(VirtAddr::new(last)),
        );
        let root = m.root();
        (first..=last).map(move |n| root.phys().offset(n * 8))
    }

    fn window_is_empty<M: Machine>(&self, m: &M) -> bool {
        self.base.is_aligned(Level::Pgd.span())
            && self
                .roots(m)
                .all(|at| !Pte::from_raw(m.read_phys(at)).is_present())
    }

    /// Maps a frame of its own for each page of the memmap: every frame is free.
    fn populate<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
    ) -> Result<(), MemdescError> {
        let state = &mut *self.lock(m);
        let start = self.memmap_of(self.block, self.order).start;
        let records = L::records(self.node, Memdesc::FREE);
        for n in 0..self.memmap_frames() {
            let frame = self.frame(m, frames).ok_or(MemdescError::NoMemory)?;
            m.fill_phys(frame.phys(), &records, PAGE_SIZE / 64);
            let at = start.offset(n * PAGE_SIZE);
            let mut table = || {
                let table = self.frame(m, frames)?;
                state.totals.tables += 1;
                Some(table)
            };
            let rights = PteFlags::KERNEL;
            if paging::map(m, m.root(), at, frame, Level::Pte, rights, &mut table).is_err() {
                frames.free(m, frame, Order::PAGE);
                return Err(MemdescError::NoMemory);
            }
            state.totals.frames += 1;
            self.set_home(m, frame, n);
        }
        Ok(())
    }

    /// Notes in the kernel's struct page of a frame of memmap which page of the memmap
    /// it is for; 0 is for none.
    pub(super) fn set_home<M: Machine>(&self, m: &M, frame: Pfn, index: u64) {
        self.kernel.page(frame).set_private(m, index + 1);
    }

    /// Takes the window out of the tables, flushes, and only then frees (INV-3).
    fn tear_down<M: Machine>(self, m: &M, frames: &impl FrameSource<M>) {
        let mut gone = PageList::new();
        for at in self.roots(m) {
            let pte = Pte::from_raw(m.read_phys(at));
            if pte.is_present() {
                self.collect(m, &mut gone, pte.pfn(), Level::Pud);
                m.write_phys(at, Pte::NONE.raw());
            }
        }
        // Tables go, too: everything that was walked through them.
        Flush::new(self.base.range(Level::Pgd.span())).flush(m);
        while let Some(page) = gone.pop(m) {
            page.set_private(m, 0);
            frames.free(m, self.kernel.pfn(page), Order::PAGE);
        }
        let state = &mut *self.lock(m);
        for cache in &mut state.caches {
            cache.destroy(m, frames, &mut state.totals);
        }
        frames.free(m, self.block, self.order);
    }

    /// Lists the table at `table` and all below it; a frame shared by several entries
    /// once.
    fn collect<M: Machine>(&self, m: &M, gone: &mut PageList, table: Pfn, level: Level) {
        for n in 0..ENTRIES {
            let pte = Pte::from_raw(m.read_phys(table.phys().offset(n * 8)));
            if !pte.is_present() {
                continue;
            }
            match level.down() {
                Some(down) => self.collect(m, gone, pte.pfn(), down),
                None if pte.flags().contains(PteFlags::WRITABLE) => {
                    gone.push(m, self.kernel.page(pte.pfn()));
                }
                None => {
                    // Taken by the first entry that leads there.
                    let page = self.kernel.page(pte.pfn());
                    if page.private(m) != 0 {
                        page.set_private(m, 0);
                        gone.push(m, page);
                    }
                }
            }
        }
        gone.push(m, self.kernel.page(table));
    }
}
