//! A map of a layout that is known at run time only, so that each case is compiled once
//! and not once a layout.

use alloc::boxed::Box;
use core::fmt;

use lab::layouts::{
    Finding, Flatmem, LayoutError, Leaf, Ledger, Map, Model, PageBits, Sparsemem, Spec, Vmemmap,
};
use mm::addr::{Order, Pfn, VirtAddr};
use mm::machine::Machine;
use mm::page::encoding::*;

use suites::Env;

/// A map of any layout.
pub(super) type Boxed<M> = Box<dyn AnyMap<M>>;

/// [`Map`] without its layout; frames come from the machine's nodes.
pub(super) trait AnyMap<M: Machine>: Send {
    fn spec(&self) -> &Spec;
    fn support(&self) -> Support;
    fn ledger(&self) -> &Ledger;
    fn populate(&mut self, env: &Env<'_, M>) -> Result<(), LayoutError>;
    fn release(self: Box<Self>, env: &Env<'_, M>) -> Ledger;
    fn prep(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError>;
    fn destroy(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError>;
    fn fold(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError>;
    fn unfold(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError>;
    fn first_failing_order(&mut self, env: &Env<'_, M>) -> Result<Option<Order>, LayoutError>;
    fn page(&self, m: &M, pfn: Pfn) -> VirtAddr;
    fn pfn(&self, m: &M, page: VirtAddr) -> Pfn;
    fn nth_page(&self, m: &M, page: VirtAddr, n: u64) -> VirtAddr;
    fn folio_of(&self, m: &M, pfn: Pfn) -> Option<Pfn>;
    fn is_tail(&self, m: &M, page: VirtAddr) -> bool;
    fn is_folded(&self, m: &M, first: Pfn) -> bool;
    fn words(&self, m: &M, pfn: Pfn) -> [u64; 8];
    fn page_bits(&self, m: &M, pfn: Pfn) -> Option<PageBits>;
    fn set_page_bits(&self, m: &M, pfn: Pfn, bits: PageBits, on: bool) -> Result<(), LayoutError>;
    fn audit(&self, m: &M, visit: &mut dyn FnMut(Leaf)) -> Result<(), Finding>;
}

impl<M: Machine, E: Encoding, S: PageShape, Mo: Model> AnyMap<M> for Map<E, S, Mo> {
    fn spec(&self) -> &Spec {
        Map::spec(self)
    }
    fn support(&self) -> Support {
        Map::support(self)
    }
    fn ledger(&self) -> &Ledger {
        Map::ledger(self)
    }
    fn populate(&mut self, env: &Env<'_, M>) -> Result<(), LayoutError> {
        Map::populate(self, env.m, &env.mm.nodes)
    }
    fn release(self: Box<Self>, env: &Env<'_, M>) -> Ledger {
        Map::release(*self, env.m, &env.mm.nodes)
    }
    fn prep(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError> {
        self.prep_compound(env.m, &env.mm.nodes, first, order)
    }
    fn destroy(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError> {
        self.destroy_compound(env.m, &env.mm.nodes, first, order)
    }
    fn fold(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError> {
        Map::fold(self, env.m, &env.mm.nodes, first, order)
    }
    fn unfold(&mut self, env: &Env<'_, M>, first: Pfn, order: Order) -> Result<(), LayoutError> {
        Map::unfold(self, env.m, &env.mm.nodes, first, order)
    }
    fn first_failing_order(&mut self, env: &Env<'_, M>) -> Result<Option<Order>, LayoutError> {
        Map::first_failing_order(self, env.m, &env.mm.nodes)
    }
    fn page(&self, m: &M, pfn: Pfn) -> VirtAddr {
        Map::page(self, m, pfn)
    }
    fn pfn(&self, m: &M, page: VirtAddr) -> Pfn {
        Map::pfn(self, m, page)
    }
    fn nth_page(&self, m: &M, page: VirtAddr, n: u64) -> VirtAddr {
        Map::nth_page(self, m, page, n)
    }
    fn folio_of(&self, m: &M, pfn: Pfn) -> Option<Pfn> {
        Map::folio_of(self, m, pfn)
    }
    fn is_tail(&self, m: &M, page: VirtAddr) -> bool {
        Map::is_tail(self, m, page)
    }
    fn is_folded(&self, m: &M, first: Pfn) -> bool {
        Map::is_folded(self, m, first)
    }
    fn words(&self, m: &M, pfn: Pfn) -> [u64; 8] {
        Map::words(self, m, pfn)
    }
    fn page_bits(&self, m: &M, pfn: Pfn) -> Option<PageBits> {
        Map::page_bits(self, m, pfn)
    }
    fn set_page_bits(&self, m: &M, pfn: Pfn, bits: PageBits, on: bool) -> Result<(), LayoutError> {
        Map::set_page_bits(self, m, pfn, bits, on)
    }
    fn audit(&self, m: &M, visit: &mut dyn FnMut(Leaf)) -> Result<(), Finding> {
        Map::audit(self, m, visit)
    }
}

/// A combination of encoding, size and model.
pub(super) struct Layout<M> {
    /// [`Encoding::NAME`].
    pub(super) name: &'static str,
    /// [`Encoding::SHARING`].
    pub(super) sharing: Sharing,
    /// [`Encoding::COMPUTES`].
    pub(super) computes: bool,
    /// [`Encoding::DESCRIPTOR`].
    pub(super) descriptor: bool,
    /// [`PageShape::SIZE`].
    pub(super) size: u64,
    /// [`PageShape::INFO`].
    pub(super) info: u64,
    /// The model.
    pub(super) model: MemoryModel,
    /// [`Map::page_folio`], for whoever does not own the map.
    pub(super) folio: fn(&M, VirtAddr) -> VirtAddr,
    make: fn(Spec) -> Result<Boxed<M>, Refusal>,
}

impl<M: Machine> Layout<M> {
    pub(super) const fn of<E: Encoding, S: PageShape, Mo: Model>() -> Self {
        Self {
            name: E::NAME,
            sharing: E::SHARING,
            computes: E::COMPUTES,
            descriptor: E::DESCRIPTOR,
            size: S::SIZE,
            info: S::INFO,
            model: Mo::MODEL,
            folio: |m, page| E::folio::<S>(&|at| Mo::load(m, at), page),
            make: |spec| Ok(Box::new(Map::<E, S, Mo>::try_new(spec)?)),
        }
    }

    /// [`Map::try_new`].
    pub(super) fn make(&self, spec: Spec) -> Result<Boxed<M>, Refusal> {
        (self.make)(spec)
    }

    /// Whether each section has a map of its own.
    pub(super) fn has_sections(&self) -> bool {
        self.model == MemoryModel::Sparsemem
    }
}

impl<M> fmt::Display for Layout<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {}", self.name, self.size, self.model.name())
    }
}

/// Calls `each` with every combination, whether it works or not.
pub(super) fn layouts<M: Machine>(each: &mut dyn FnMut(&Layout<M>)) {
    macro_rules! encoding {
        ($encoding:ident) => { encoding!($encoding: Bytes64, Bytes56, Bytes32, Bytes8); };
        ($encoding:ident: $($shape:ident),*) => { $(
            each(&Layout::of::<$encoding, $shape, Vmemmap>());
            each(&Layout::of::<$encoding, $shape, Sparsemem>());
            each(&Layout::of::<$encoding, $shape, Flatmem>());
        )* };
    }
    mm::for_each_encoding!(encoding);
}
