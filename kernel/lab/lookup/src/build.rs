//! Memmaps for one encoding each, in the address space of a machine.
//!
//! They are mapped by page tables of the machine's, as the kernel's own: by leaves of
//! 2 MiB where nothing is folded, by 4 KiB entries where something is. Tails that share a
//! frame share it in truth. Memory under a leaf of 2 MiB is put on one page of the host's,
//! but for [`Mapping::Small`].

use std::collections::BTreeMap;

use lab::memdesc::Kind;
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, PhysAddr, VirtAddr};
use mm::machine::Memory as _;
use mm::page::Flags;
use mm::page::encoding::{
    BlockInfo, Encoding, MemoryModel, PageShape, PageShapeInfo, Sharing, Support, support,
};
use mm::paging::{self, Level, PteFlags};

use crate::mapping::Mapping;
use crate::population::Population;
use crate::variant::Variant;
use native::Machine;
use native::{HostError, size};

/// Address space for one memmap.
const SLOT: u64 = 16 * PUD_SIZE;
/// Bytes from one descriptor to the next: they lie as closely as their slab allows.
pub(super) const DESCRIPTOR: u64 = Kind::Folio.size();

/// A machine that holds memmaps and knows nothing else.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) m: Machine,
    next: Pfn,
    slots: u64,
    pub(super) population: Population,
    /// Frames described, a power of two.
    pub(super) frames: u64,
    pub(super) descriptors: Option<PhysAddr>,
    /// Why the host has no pages of 2 MiB for us, if so.
    refused: Option<HostError>,
    missed: Option<HostError>,
}

/// What the flags of the `number`th folio are, besides those of its page: no two folios'
/// are the same, so that what was loaded tells whose it is.
pub(super) const fn mark(number: u64) -> u64 {
    (number + 1) << 16
}

/// A folio, as its struct pages are written.
struct Folio {
    block: BlockInfo,
    /// What its flags are, if they are in the struct page.
    flags: u64,
}

/// Entries that folding `frames` frames of memory makes, at most, with `S`.
pub(super) fn entries<S: PageShape>(frames: u64) -> u64 {
    frames * S::SIZE / PAGE_SIZE
}

impl Space {
    pub(super) fn new(population: Population, frames: u64) -> Result<Self, HostError> {
        // What is not touched costs nothing.
        let ram = 64 * PUD_SIZE;
        let mut space = Self {
            m: Machine::builder().ram(ram).build()?,
            next: Pfn::new(512),
            slots: 0,
            population,
            frames,
            descriptors: None,
            refused: None,
            missed: None,
        };
        let trial = space.take(PMD_SIZE);
        space.m.fill_words(trial, 0, PMD_SIZE / 8);
        space.refused = space.m.collapse(trial, PMD_SIZE).err();
        Ok(space)
    }

    /// Why the host has no pages of 2 MiB for us, if so.
    pub(super) const fn refused(&self) -> Option<&HostError> {
        self.refused.as_ref()
    }

    /// The last page of 2 MiB that the host did not give, although it has some.
    pub(super) const fn missed(&self) -> Option<&HostError> {
        self.missed.as_ref()
    }

    /// Puts what a leaf of 2 MiB maps on one page of the host's. Whether it did so is asked
    /// of the host afterwards, see [`Space::mapped_large`].
    fn collapse(&mut self, at: PhysAddr) {
        if self.refused.is_none()
            && let Err(why) = self.m.collapse(at, PMD_SIZE)
        {
            self.missed = Some(why);
        }
    }

    /// `bytes` of RAM that nobody has, at a multiple of 2 MiB; all zero.
    fn take(&mut self, bytes: u64) -> PhysAddr {
        let start = self.next.phys().as_u64().next_multiple_of(PMD_SIZE);
        self.next = PhysAddr::new(start + bytes.next_multiple_of(PMD_SIZE)).pfn();
        PhysAddr::new(start)
    }

    fn map(&mut self, at: VirtAddr, to: PhysAddr, level: Level, flags: PteFlags) {
        let (m, next) = (&self.m, &mut self.next);
        let mut table = || {
            let table = *next;
            *next = table.offset(1);
            Some(table)
        };
        let root = m.root();
        let mapped = paging::map(m, root, at, to.pfn(), level, flags, &mut table);
        assert_eq!(mapped, Ok(()), "{at:?} to {to:?}");
    }

    /// Where the `n`th folio's descriptor is. There is one set of descriptors for all
    /// memmaps: they are the same folios.
    fn descriptor(&mut self, n: u64) -> VirtAddr {
        let base = match self.descriptors {
            Some(base) => base,
            None => {
                let count = self.population.folios(self.frames).count() as u64;
                // To the last leaf's end: the kernel's direct map is of 2 MiB, too.
                let bytes = (count * DESCRIPTOR).next_multiple_of(PMD_SIZE);
                let base = self.take(bytes);
                self.m.fill_words(base, 0, bytes / 8);
                for at in (0..bytes).step_by(size(PMD_SIZE)) {
                    self.collapse(base.offset(at));
                }
                for number in 0..count {
                    self.m
                        .write_phys(base.offset(number * DESCRIPTOR), mark(number));
                }
                *self.descriptors.insert(base)
            }
        };
        self.m.direct_map(base.offset(n * DESCRIPTOR))
    }

    /// Makes the memmap for `E` and `S`; `None` if there is none, or no HVO that would
    /// change anything in it.
    pub(super) fn build<E: Encoding, S: PageShape>(&mut self, mapping: Mapping) -> Option<Variant> {
        let hvo = mapping == Mapping::Folded;
        let support = support::<E, S>(MemoryModel::SparsememVmemmap).ok()?;
        let sharing = if hvo { Some(support.hvo.ok()?) } else { None };
        let folds = |order| sharing.is_some() && order >= Support::hvo_min_order::<S>();
        if hvo
            && !self
                .population
                .folios(self.frames)
                .any(|(_, order)| folds(order))
        {
            return None;
        }
        let memmap = self.m.scratch().start.offset(self.slots * SLOT);
        self.slots += 1;
        let bytes = self.frames * S::SIZE;
        let backing = self.take(bytes);
        let heads = self.take(if hvo { bytes } else { 0 });
        let mut layout = Layout {
            memmap,
            backing,
            heads,
            tails: BTreeMap::new(),
            frames: BTreeMap::new(),
        };
        let folios: Vec<_> = self.population.folios(self.frames).collect();
        for (n, (first, order)) in (0_u64..).zip(folios) {
            let head = order > Order::PAGE;
            let flag = if head { Flags::HEAD } else { Flags::empty() };
            let folio = Folio {
                block: BlockInfo {
                    head: memmap.offset(first.as_u64() * S::SIZE),
                    order,
                    descriptor: E::DESCRIPTOR.then(|| self.descriptor(n)),
                },
                flags: flag.raw() | mark(n),
            };
            if folds(order) {
                self.fold::<E, S>(&mut layout, first, &folio, sharing);
            } else {
                let at = backing.offset(first.as_u64() * S::SIZE);
                self.write::<E, S>(at, &folio, 0, order.pages());
            }
        }
        let leaves = self.map_all(&layout, bytes, mapping);
        Some(Variant::of::<E, S>(
            memmap,
            leaves,
            mapping,
            self.population == Population::Mixed,
        ))
    }

    /// Writes pages `from..to` of `folio` from `at` on.
    fn write<E: Encoding, S: PageShape>(&self, at: PhysAddr, folio: &Folio, from: u64, to: u64) {
        let block = &folio.block;
        for n in from..to {
            let page = at.offset((n - from) * S::SIZE);
            if let Some(flags) = S::FLAGS {
                let own = if n == 0 { folio.flags } else { 0 };
                self.m.write_phys(page.offset(flags), own);
            }
            let word = if n == 0 {
                E::head::<S>(block)
            } else {
                E::tail::<S>(block)
            };
            self.m.write_phys(page.offset(S::INFO), word);
        }
    }

    /// One frame for the head, and for the rest the one that is shared.
    fn fold<E: Encoding, S: PageShape>(
        &mut self,
        layout: &mut Layout,
        first: Pfn,
        folio: &Folio,
        sharing: Option<Sharing>,
    ) {
        let start = first.as_u64() * S::SIZE / PAGE_SIZE;
        let count = S::memmap_bytes(folio.block.order) / PAGE_SIZE;
        let head = layout.heads;
        layout.heads = head.offset(PAGE_SIZE);
        self.write::<E, S>(head, folio, 0, S::PER_FRAME);
        let tails = if sharing == Some(Sharing::AcrossNode) {
            let next = &mut layout.heads;
            *layout.tails.entry(folio.block.order).or_insert_with(|| {
                let shared = *next;
                *next = shared.offset(PAGE_SIZE);
                self.write::<E, S>(shared, folio, S::PER_FRAME, 2 * S::PER_FRAME);
                shared
            })
        } else {
            head
        };
        layout.frames.insert(start, head);
        for n in 1..count {
            layout.frames.insert(start + n, tails);
        }
    }

    /// Maps the memmap; how many bytes of it by pages of 2 MiB that are the host's, too.
    fn map_all(&mut self, layout: &Layout, bytes: u64, mapping: Mapping) -> u64 {
        let large = mapping != Mapping::Small && self.refused.is_none();
        let mut leaves = 0;
        let step = PMD_SIZE / PAGE_SIZE;
        for slot in 0..bytes.div_ceil(PMD_SIZE) {
            let at = layout.memmap.offset(slot * PMD_SIZE);
            let own = layout.backing.offset(slot * PMD_SIZE);
            let numbers = slot * step..(slot + 1) * step;
            if layout.frames.range(numbers.clone()).next().is_none() {
                self.map(at, own, Level::Pmd, PteFlags::KERNEL);
                if large {
                    self.collapse(own);
                    leaves += PMD_SIZE;
                }
                continue;
            }
            for (n, number) in (0..).zip(numbers) {
                let to = layout.frames.get(&number).copied();
                let to = to.unwrap_or(own.offset(n * PAGE_SIZE));
                self.map(
                    at.offset(n * PAGE_SIZE),
                    to,
                    Level::Pte,
                    PteFlags::KERNEL_RO,
                );
            }
        }
        leaves
    }
}

struct Layout {
    memmap: VirtAddr,
    /// The whole memmap in one piece, used where nothing is folded.
    backing: PhysAddr,
    /// The next frame for a head or a shared tail page.
    heads: PhysAddr,
    tails: BTreeMap<Order, PhysAddr>,
    /// Frames of folded memmap, by number from the memmap's start.
    frames: BTreeMap<u64, PhysAddr>,
}
