//! A memory map of one layout: made, filled, taken down.

use core::marker::PhantomData;

use super::descriptors::Descriptors;
use super::error::LayoutError;
use super::fields::{self, PageBits, WORDS};
use super::ledger::Ledger;
use super::model::{Model, Place, Spec};
use mm::addr::{Order, PAGE_SIZE, Pfn, VirtAddr};
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::page::encoding::{Encoding, PageShape, PageShapeInfo, Refusal, Sharing, Support, support};

/// The three types, of which a map holds no value.
type Layout<E, S, Mo> = fn() -> (E, S, Mo);

/// The layout of a map, checked: the ticket to populate one.
///
/// A combination that does not work does not compile:
///
/// ```compile_fail
/// use lab::layouts::{Map, Spec, Vmemmap};
/// use mm::addr::{Order, Pfn};
/// use mm::page::encoding::{Bytes56, Mask};
/// // The mask needs a struct page size that is a power of two.
/// let map = Map::<Mask, Bytes56, Vmemmap>::new(Spec::of(Pfn::new(0).block(Order::PMD)));
/// ```
///
/// With another size it does:
///
/// ```
/// use lab::layouts::{Map, Spec, Vmemmap};
/// use mm::addr::{Order, Pfn};
/// use mm::page::encoding::{Bytes64, Mask};
/// let map = Map::<Mask, Bytes64, Vmemmap>::new(Spec::of(Pfn::new(0).block(Order::PMD)));
/// ```
#[derive(Debug)]
pub struct Map<E, S, Mo> {
    pub(super) spec: Spec,
    pub(super) support: Support,
    pub(super) place: Option<Place>,
    pub(super) descriptors: Descriptors,
    /// Shared tail pages by order.
    pub(super) tails: [Option<Pfn>; Order::COUNT],
    pub(super) ledger: Ledger,
    layout: PhantomData<Layout<E, S, Mo>>,
}

impl<E: Encoding, S: PageShape, Mo: Model> Map<E, S, Mo> {
    /// What the layout can do. To name it for one that does not work stops the compiler,
    /// with the reason.
    pub const SUPPORT: Support = match support::<E, S>(Mo::MODEL) {
        Ok(support) => support,
        Err(refusal) => panic!("{}", refusal.reason()),
    };

    /// A map of `spec` with no struct page yet.
    #[must_use]
    pub const fn new(spec: Spec) -> Self {
        Self::unchecked(spec, Self::SUPPORT)
    }

    /// [`Map::new`] for code that does not know whether the layout works.
    ///
    /// # Errors
    /// Why it does not.
    pub const fn try_new(spec: Spec) -> Result<Self, Refusal> {
        match support::<E, S>(Mo::MODEL) {
            Ok(support) => Ok(Self::unchecked(spec, support)),
            Err(refusal) => Err(refusal),
        }
    }

    const fn unchecked(spec: Spec, support: Support) -> Self {
        Self {
            spec,
            support,
            place: None,
            descriptors: Descriptors::new(),
            tails: [None; Order::COUNT],
            ledger: Ledger::EMPTY,
            layout: PhantomData,
        }
    }

    /// What the map was asked to describe.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What the layout can do.
    #[must_use]
    pub const fn support(&self) -> Support {
        self.support
    }

    /// What has been taken, saved and spent.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes memory for the struct pages and makes each that of a page without a user.
    ///
    /// # Errors
    /// [`LayoutError`], with everything given back.
    pub fn populate<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
    ) -> Result<(), LayoutError> {
        let Spec { range, skew, .. } = self.spec;
        let grain = Mo::GRAIN;
        let aligned = range.start.is_aligned(grain) && range.end.is_aligned(grain);
        if range.is_empty() || !aligned {
            return Err(LayoutError::BadRange(range));
        }
        if !skew.is_multiple_of(if S::SIZE.is_power_of_two() {
            S::SIZE
        } else {
            8
        }) {
            return Err(LayoutError::BadSkew(skew));
        }
        if self.place.is_some() {
            return Err(LayoutError::Occupied);
        }
        let place = Mo::populate::<M, S>(m, frames, &self.spec, &mut self.ledger)?;
        self.place = Some(place);
        self.fill(m, range.start, range.pages());
        Ok(())
    }

    /// Makes `pages` struct pages from that of `first` on those of pages without a user:
    /// a frame at a time where whole ones hold them.
    fn fill<M: Machine>(&self, m: &M, first: Pfn, pages: u64) {
        let mut n = 0;
        while n < pages {
            let pfn = first.offset(n);
            let at = self.page(m, pfn);
            let record = fields::record::<S>(self.bits(pfn), 0);
            let whole = at.is_aligned(PAGE_SIZE) && pages - n >= S::PER_FRAME;
            let pattern = fields::pattern::<S>(&record).filter(|_| whole);
            match (pattern, Mo::phys(m, at)) {
                (Some(pattern), Some(frame)) => {
                    m.fill_phys(frame, &pattern, PAGE_SIZE / 64);
                    n += S::PER_FRAME;
                }
                _ => {
                    self.set_record(m, at, &record);
                    n += 1;
                }
            }
        }
    }

    /// Frees all memory, whether or not folios are still folded.
    pub fn release<M: Machine>(mut self, m: &M, frames: &impl FrameSource<M>) -> Ledger {
        if let Some(place) = self.place.take() {
            Mo::release::<M, S>(m, frames, &self.spec, &place, &mut self.ledger);
        }
        // Only now: no translation leads to them any more.
        for tail in self.tails.iter_mut().filter_map(Option::take) {
            frames.free(m, tail, Order::PAGE);
            self.ledger.tails -= 1;
        }
        self.descriptors.release(m, frames, &mut self.ledger);
        self.ledger
    }

    /// The struct page of `pfn`, which is in the range.
    ///
    /// # Panics
    /// If nothing is populated.
    #[inline(always)]
    #[doc(alias = "pfn_to_page")]
    pub fn page<M: Machine>(&self, m: &M, pfn: Pfn) -> VirtAddr {
        Mo::page::<M, S>(m, self.populated(), pfn)
    }

    /// The frame of `page`, which is a struct page of this map.
    ///
    /// # Panics
    /// If nothing is populated.
    #[inline(always)]
    #[doc(alias = "page_to_pfn")]
    pub fn pfn<M: Machine>(&self, m: &M, page: VirtAddr) -> Pfn {
        Mo::pfn::<M, S>(m, self.populated(), page)
    }

    /// The struct page `n` pages behind `page`, wherever that is.
    pub fn nth_page<M: Machine>(&self, m: &M, page: VirtAddr, n: u64) -> VirtAddr {
        self.page(m, self.pfn(m, page).offset(n))
    }

    #[inline(always)]
    fn populated(&self) -> &Place {
        self.place
            .as_ref()
            .expect("a map is populated before it is used")
    }

    /// The flags of the struct page of `pfn`, if it has any.
    pub fn page_bits<M: Machine>(&self, m: &M, pfn: Pfn) -> Option<PageBits> {
        let at = self.page(m, pfn).offset(S::FLAGS?);
        Some(PageBits::from_raw(Mo::load(m, at)))
    }

    /// Sets or clears `bits` of the struct page of `pfn`, if it has flags.
    ///
    /// # Errors
    /// [`LayoutError::SharedPage`]: the frame that it lies in stands for others, too
    /// (LAY-3).
    pub fn set_page_bits<M: Machine>(
        &self,
        m: &M,
        pfn: Pfn,
        bits: PageBits,
        on: bool,
    ) -> Result<(), LayoutError> {
        let Some(flags) = S::FLAGS else { return Ok(()) };
        if self.is_shared(m, pfn) {
            return Err(LayoutError::SharedPage(pfn));
        }
        let at = self.page(m, pfn).offset(flags);
        let old = Mo::load(m, at);
        let new = if on {
            old | bits.raw()
        } else {
            old & !bits.raw()
        };
        Mo::store(m, at, new);
        Ok(())
    }

    /// Whether the frame of the struct page of `pfn` is mapped more than once: within a
    /// folded folio all are, the first included; across the node all but the first.
    fn is_shared<M: Machine>(&self, m: &M, pfn: Pfn) -> bool {
        let Some(first) = self.folio_of(m, pfn) else {
            return false;
        };
        let private = match self.support.hvo {
            Ok(Sharing::AcrossNode) => S::PER_FRAME,
            _ => 0,
        };
        pfn >= first.offset(private) && self.is_folded(m, first)
    }

    /// All words of the struct page of `pfn`; zeroes behind them.
    pub fn words<M: Machine>(&self, m: &M, pfn: Pfn) -> [u64; WORDS] {
        let at = self.page(m, pfn);
        core::array::from_fn(|n| match n as u64 {
            n if n < fields::words::<S>() => Mo::load(m, at.offset(n * 8)),
            _ => 0,
        })
    }

    fn set_record<M: Machine>(&self, m: &M, at: VirtAddr, record: &[u64; WORDS]) {
        for (n, value) in (0..fields::words::<S>()).zip(record) {
            Mo::store(m, at.offset(n * 8), *value);
        }
    }

    /// The flags that the page `pfn` was born with.
    pub(super) fn bits(&self, pfn: Pfn) -> PageBits {
        PageBits::of(self.spec.node, Mo::MODEL, pfn)
    }
}
