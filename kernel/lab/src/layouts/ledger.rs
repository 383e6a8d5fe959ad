//! What a map has taken, saved and spent, in frames. The audit counts again by walking
//! the tables.

use mm::addr::Order;

/// Numbers of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ledger {
    /// Frames that hold struct pages.
    pub frames: u64,
    /// Frames that folded folios do without.
    pub saved: u64,
    /// Shared tail pages, each a frame.
    pub tails: u64,
    /// Tables of level 1 of the window.
    pub pte_tables: u64,
    /// Tables above them, but the top one.
    pub upper_tables: u64,
    /// Section tables, each a frame.
    pub section_tables: u64,
    /// Frames that hold descriptors.
    pub descriptors: u64,
    /// TLB flushes.
    pub flushes: u64,
    /// Folded folios by order.
    pub folded: [u64; Order::COUNT],
}

impl Ledger {
    pub(super) const EMPTY: Self = Self {
        frames: 0,
        saved: 0,
        tails: 0,
        pte_tables: 0,
        upper_tables: 0,
        section_tables: 0,
        descriptors: 0,
        flushes: 0,
        folded: [0; Order::COUNT],
    };

    /// Frames that the map has from its allocator.
    #[must_use]
    pub const fn owned(&self) -> u64 {
        self.frames
            + self.tails
            + self.pte_tables
            + self.upper_tables
            + self.section_tables
            + self.descriptors
    }
}
