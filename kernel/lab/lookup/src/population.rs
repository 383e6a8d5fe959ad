//! What the described memory is made of, and which of its pages are looked up.

use mm::addr::{Order, Pfn, PfnRange};

/// Which folios there are, and how their pages are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Population {
    /// Folios of one page.
    Single,
    /// Folios of 2 MiB.
    Large,
    /// Folios of 1 GiB.
    Gigantic,
    /// A quarter folios of 1 GiB, a quarter of 2 MiB, the rest of one page; as many pages
    /// of each quarter are looked up, so half of them are heads.
    Mixed,
}

impl Population {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Single, Self::Large, Self::Gigantic, Self::Mixed];

    fn order_in(self, quarter: u64) -> Order {
        match (self, quarter) {
            (Self::Gigantic, _) | (Self::Mixed, 0) => Order::PUD,
            (Self::Large, _) | (Self::Mixed, 1) => Order::PMD,
            (Self::Single | Self::Mixed, _) => Order::PAGE,
        }
    }

    /// The folios of `frames` frames, a power of two, lowest first.
    pub(super) fn folios(self, frames: u64) -> impl Iterator<Item = (Pfn, Order)> {
        let quarter = frames / 4;
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = Pfn::new(next);
            let order = self.order_in(next / quarter);
            next += order.pages();
            (next <= frames).then_some((first, order))
        })
    }

    /// How many folios have pages in the span.
    pub(super) fn folios_in(self, span: Span) -> u64 {
        let quarter = span.described() / 4;
        let count = |range: PfnRange| {
            let order = self.order_in(range.start.as_u64() / quarter);
            range.pages().div_ceil(order.pages())
        };
        self.ranges(span).map(count).sum()
    }

    /// The frames whose pages are looked up.
    pub(super) fn ranges(self, span: Span) -> impl Iterator<Item = PfnRange> {
        let (parts, frames) = match self {
            Self::Mixed => (4, span.frames / 4),
            _ => (1, span.frames),
        };
        (0..parts).map(move |part| {
            let first = part * (span.described() / 4);
            PfnRange::new(Pfn::new(first), Pfn::new(first + frames))
        })
    }
}

/// How many of the described frames are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// A power of two, at least 4.
    pub(super) frames: u64,
    /// log2 of a quarter of the frames that are described.
    pub(super) quarter_shift: u32,
}

impl Span {
    pub(super) const fn described(self) -> u64 {
        4 << self.quarter_shift
    }

    /// The `n`th page if all quarters take turns.
    #[inline(always)]
    pub(super) const fn in_quarters(self, n: u64) -> u64 {
        ((n & 3) << self.quarter_shift) + (n >> 2)
    }
}
