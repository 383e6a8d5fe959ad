//! What struct pages should hold: the data oracle.
//!
//! Built from the design (offsets, bits, the mask), not from `mm`'s constants.

use mm::addr::VirtAddr;
use mm::machine::{Memory as _, Processors as _};

use crate::machine::EmulatedMachine;

/// Bytes of a struct page.
pub const RECORD: u64 = 64;
/// Struct pages in the first frame of a block's memmap, which stays its own.
pub const OWN_RECORDS: u64 = 64;
/// Bit of a head's flags.
pub const HEAD: u64 = 1 << 1;
/// Bit of a folded head's flags.
pub const FOLDED: u64 = 1 << 2;
/// `_mapcount` -1 and `_refcount` 0.
pub const UNUSED_COUNTS: u64 = 0xffff_ffff;

/// The record of a tail of a block of `order` on `node`.
#[must_use]
pub fn tail(node: u8, order: u8) -> [u64; 8] {
    let mask = !0u64 >> (6 + order) << (6 + order);
    [
        u64::from(node) << 58,
        mask | 1,
        0,
        0,
        0,
        0,
        UNUSED_COUNTS,
        0,
    ]
}

/// The record of a page of `node` that nothing uses.
#[must_use]
pub fn unused(node: u8) -> [u64; 8] {
    [u64::from(node) << 58, 0, 0, 0, 0, 0, UNUSED_COUNTS, 0]
}

/// The struct page at `at` as this CPU sees it.
#[must_use]
pub fn read(m: &EmulatedMachine, at: VirtAddr) -> [u64; 8] {
    std::array::from_fn(|word| m.load64(at.offset(word as u64 * 8)))
}

/// A compound page and what was written into its struct pages.
#[derive(Clone, Debug)]
pub struct Folio {
    /// Address of the head's struct page.
    pub head: VirtAddr,
    /// The node.
    pub node: u8,
    /// The order.
    pub order: u8,
    /// Whether its memmap should be folded.
    pub folded: bool,
    /// Whether its tails behind the first frame of memmap have been written.
    pub tails: bool,
    /// Written into `mapping` of the head and of tails 2 and 63; 0 for nothing.
    pub mark: u64,
}

impl Folio {
    /// Writes `mark` where a folio's owner keeps things.
    pub fn write_mark(&mut self, m: &EmulatedMachine, mark: u64) {
        self.mark = mark;
        for n in [0, 2, OWN_RECORDS - 1] {
            m.store64(self.at(n).offset(24), mark.wrapping_mul(n + 1));
        }
    }

    fn at(&self, n: u64) -> VirtAddr {
        self.head.offset(n * RECORD)
    }

    /// Compares every `step`th struct page behind the first frame, and all in it,
    /// as this CPU sees them, with what they should be.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn compare(&self, m: &EmulatedMachine, step: usize) -> Result<(), String> {
        let end = 1 << self.order;
        let others = if self.tails { end } else { 0 };
        let own = 0..OWN_RECORDS.min(end);
        for n in own.chain((OWN_RECORDS..others).step_by(step)) {
            let mut expected = tail(self.node, self.order);
            let mut found = read(m, self.at(n));
            if n == 0 {
                let folded = if self.folded { FOLDED } else { 0 };
                expected[0] |= HEAD | folded;
                // `compound_info` and `lru.prev` are links, `index` the allocator's.
                (expected[1], expected[2], expected[4]) = (0, 0, 0);
                (found[2], found[4]) = (0, 0);
                found[1] &= 1;
            }
            if n == 1 {
                expected[5] = u64::from(self.order);
            }
            if [0, 2, OWN_RECORDS - 1].contains(&n) {
                expected[3] = self.mark.wrapping_mul(n + 1);
            }
            if found != expected {
                return Err(format!(
                    "CPU {}: struct page {n} of {self:x?} is {found:x?}, should be {expected:x?}",
                    m.this_cpu()
                ));
            }
        }
        Ok(())
    }

    /// [`Folio::compare`] as every CPU.
    ///
    /// # Panics
    /// At the first difference.
    pub fn check(&self, m: &EmulatedMachine, step: usize) {
        for cpu in 0..m.cpus() {
            if let Err(difference) = m.on_cpu(cpu, || self.compare(m, step)) {
                panic!("{difference}");
            }
        }
    }
}
