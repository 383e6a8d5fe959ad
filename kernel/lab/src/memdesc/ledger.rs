//! The ledger of a memdesc map: what it owns and what folding saved.

use super::descriptor::Kind;
use mm::addr::PAGE_SIZE;

/// The ledger at one moment. Kept under the map's lock, so always whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Frames that hold struct pages.
    #[doc(alias = "nr_memmap_pages")]
    pub frames: u64,
    /// Frames of struct pages that folded blocks do without.
    pub saved: u64,
    /// Blocks, in use or free, whose memmap is folded.
    pub folded: u64,
    /// Page tables of the window.
    pub tables: u64,
    /// Frames that hold descriptors.
    pub descriptor_frames: u64,
    /// Descriptors in use, by [`Kind`].
    pub descriptors: [u64; 4],
    /// Frames taken out of the sharing so far because one page of theirs differs. It only
    /// grows.
    pub unshared: u64,
    /// TLB flushes for folding and its reverse.
    pub flushes: u64,
    /// Rounds waited for before frames of descriptors were given back.
    #[doc(alias = "synchronize_rcu")]
    pub grace_periods: u64,
}

impl Totals {
    pub(crate) const EMPTY: Self = Self {
        frames: 0,
        saved: 0,
        folded: 0,
        tables: 0,
        descriptor_frames: 0,
        descriptors: [0; 4],
        unshared: 0,
        flushes: 0,
        grace_periods: 0,
    };

    /// Bytes that the struct pages take.
    #[must_use]
    pub const fn memmap_bytes(&self) -> u64 {
        self.frames * PAGE_SIZE
    }

    /// Bytes of the descriptors in use.
    #[must_use]
    pub fn descriptor_bytes(&self) -> u64 {
        let size = |(kind, used): (&Kind, &u64)| kind.size() * used;
        Kind::ALL.iter().zip(&self.descriptors).map(size).sum()
    }
}
