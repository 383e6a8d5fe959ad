//! Which encoding goes with which size of struct page and memory model, known when the
//! program is compiled: every function here is `const`.

use core::fmt;

use super::{Encoding, PageShape, Sharing};
use crate::addr::{Order, PAGE_SIZE};

/// How a pfn becomes the address of a struct page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryModel {
    /// One virtual array, mapped where there is RAM.
    #[doc(alias = "CONFIG_SPARSEMEM_VMEMMAP")]
    SparsememVmemmap,
    /// An array for each section, aligned to its own size, in the direct map.
    #[doc(alias = "CONFIG_SPARSEMEM")]
    Sparsemem,
    /// One aligned array for a node, holes included, in the direct map.
    #[doc(alias = "CONFIG_FLATMEM")]
    #[doc(alias = "mem_map")]
    Flatmem,
}

impl MemoryModel {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::SparsememVmemmap, Self::Sparsemem, Self::Flatmem];

    /// As reports and `TAILFOLD_LAYOUT` spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SparsememVmemmap => "vmemmap",
            Self::Sparsemem => "sparsemem",
            Self::Flatmem => "flatmem",
        }
    }
}

/// Frames of a section: what Sparsemem has one array for.
pub const SECTION: Order = Order::of(15);

/// Why a combination, or HVO with it, is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The head is computed from the tail's address by clearing low bits.
    NotPowerOfTwo,
    /// The struct page has a word for the descriptor and nothing else.
    NoRoomForFolio,
    /// HVO: a frame mapped again starts with a second head that nobody tells from the first.
    FakeHeads,
    /// HVO: struct pages straddle frames, so a frame of tails differs from the next.
    Straddles,
    /// HVO: the memmap is in the direct map, where nothing can be remapped.
    NotRemappable,
}

impl Refusal {
    /// One sentence.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotPowerOfTwo => {
                "the way to the head clears low bits of the tail's address, which needs a struct page size that is a power of two"
            }
            Self::NoRoomForFolio => {
                "a struct page of one word has no room for the fields of a folio; only a descriptor has"
            }
            Self::FakeHeads => {
                "a frame mapped again would start with a second head, and this encoding does not tell it from the first"
            }
            Self::Straddles => {
                "struct pages lie across the borders of frames, so one frame of tails cannot stand for the next"
            }
            Self::NotRemappable => {
                "the memmap lies in the direct map, which has no entries of its own to point elsewhere"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// What a combination that works can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Support {
    /// The largest folio whose tails find their head.
    pub max_order: Order,
    /// What HVO shares, or why there is no HVO.
    pub hvo: Result<Sharing, Refusal>,
}

impl Support {
    /// The lowest order of which HVO frees a frame, if there is HVO: one whose memmap
    /// fills two frames.
    #[must_use]
    pub const fn hvo_min_order<S: PageShape>() -> Order {
        Order::clamped((2 * PAGE_SIZE / S::SIZE).ilog2())
    }
}

/// Whether encoding `E` works with struct pages `S` under `model`, aligned as it asks.
///
/// # Errors
/// Why not.
pub const fn support<E: Encoding, S: PageShape>(model: MemoryModel) -> Result<Support, Refusal> {
    if E::COMPUTES && !S::SIZE.is_power_of_two() {
        return Err(Refusal::NotPowerOfTwo);
    }
    if !E::DESCRIPTOR && S::FLAGS.is_none() {
        return Err(Refusal::NoRoomForFolio);
    }
    let max_order = match model {
        MemoryModel::Sparsemem if E::COMPUTES => SECTION,
        _ => Order::MAX,
    };
    let hvo = match (E::SHARING, model) {
        (_, _) if !S::SIZE.is_power_of_two() => Err(Refusal::Straddles),
        (Sharing::Nothing, _) => Err(Refusal::FakeHeads),
        (sharing, MemoryModel::SparsememVmemmap) => Ok(sharing),
        (_, _) => Err(Refusal::NotRemappable),
    };
    Ok(Support { max_order, hvo })
}
