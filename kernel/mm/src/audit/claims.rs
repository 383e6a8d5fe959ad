//! Who owns what, in memory that the caller lends.

use super::layout::{MAX_ORDER, MIN_FOLDED};
use crate::addr::{MAX_NODES, NodeId, Order, Pfn};

/// Foldable orders.
const ORDERS: usize = (MAX_ORDER - MIN_FOLDED + 1) as usize;
/// Words of a row: a frame and a count of entries, for the shared tail page and for the
/// shared table.
const ROW: usize = 4;
/// Words for the rows of all nodes and orders.
const ROW_WORDS: usize = MAX_NODES * ORDERS * ROW;

/// Words of scratch memory that [`super::audit`] needs if RAM ends at `end`: one
/// bit a frame and a table by node and order; 2 MiB for 64 GiB.
#[must_use]
pub fn scratch_words(end: Pfn) -> usize {
    ROW_WORDS + bitmap_words(end)
}

fn bitmap_words(end: Pfn) -> usize {
    usize::try_from(end.as_u64().div_ceil(64))
        .expect("the address space holds a bit for each frame")
}

/// Both parts of the scratch memory, cleared.
pub(super) fn split(scratch: &mut [u64], end: Pfn) -> (Claims<'_>, Rows<'_>) {
    scratch.fill(0);
    let (rows, bits) = scratch.split_at_mut(ROW_WORDS);
    (Claims { bits, end }, Rows { rows })
}

/// One bit a frame: somebody owns it.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    bits: &'a mut [u64],
    end: Pfn,
}

impl Claims<'_> {
    /// Whether `pfn` is below the end of RAM.
    #[inline]
    pub(super) fn covers(&self, pfn: Pfn) -> bool {
        pfn < self.end
    }

    /// Claims `pfn`; whether it was there to be claimed.
    pub(super) fn claim(&mut self, pfn: Pfn) -> bool {
        let mask = 1 << (pfn.as_u64() % 64);
        let word = usize::try_from(pfn.as_u64() / 64).ok();
        let Some(word) = word.and_then(|word| self.bits.get_mut(word)) else {
            return false;
        };
        let free = *word & mask == 0;
        *word |= mask;
        free
    }

    /// Claims the block of `order` at `block`; the first frame somebody had.
    pub(super) fn claim_block(&mut self, block: Pfn, order: Order) -> Option<Pfn> {
        let words = order.pages() / 64;
        let first = block.as_u64() / 64;
        let whole = usize::try_from(first)
            .ok()
            .zip(usize::try_from(first + words).ok());
        if words > 0
            && let Some(bits) = whole.and_then(|(start, end)| self.bits.get_mut(start..end))
            && bits.iter().all(|word| *word == 0)
        {
            bits.fill(u64::MAX);
            return None;
        }
        block.block(order).iter().fold(None, |taken, pfn| {
            if self.claim(pfn) {
                taken
            } else {
                taken.or(Some(pfn))
            }
        })
    }
}

/// By node and order: the shared tail page and the shared table, and the entries that
/// point to each.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    rows: &'a mut [u64],
}

impl Rows<'_> {
    #[inline]
    fn index(node: NodeId, order: Order) -> Option<usize> {
        let order = order.index().checked_sub(usize::from(MIN_FOLDED))?;
        Some((node.index() * ORDERS + order) * ROW)
    }

    /// Notes a shared tail page; `false` if the order has none or had one.
    #[inline]
    pub(super) fn set_tail(&mut self, node: NodeId, order: Order, frame: Pfn) -> bool {
        let Some(index) = Self::index(node, order).filter(|index| self.rows[*index] == 0) else {
            return false;
        };
        self.rows[index] = frame.as_u64() + 1;
        true
    }

    /// The shared tail page of `order` on `node`.
    #[inline]
    pub(super) fn tail(&self, node: NodeId, order: Order) -> Option<Pfn> {
        self.rows[Self::index(node, order)?]
            .checked_sub(1)
            .map(Pfn::new)
    }

    /// Whether `frame` is one of them.
    #[inline]
    pub(super) fn is_tail(&self, frame: Pfn) -> bool {
        self.rows
            .iter()
            .step_by(ROW)
            .any(|row| *row == frame.as_u64() + 1)
    }

    /// Counts an entry for the shared tail page of `order` on `node`.
    #[inline]
    pub(super) fn count(&mut self, node: NodeId, order: Order) {
        if let Some(index) = Self::index(node, order) {
            self.rows[index + 1] += 1;
        }
    }

    /// Entries counted.
    #[inline]
    pub(super) fn entries(&self, node: NodeId, order: Order) -> u64 {
        Self::index(node, order).map_or(0, |index| self.rows[index + 1])
    }

    /// Notes the shared table of `order` on `node`, which have a shared tail page.
    #[inline]
    pub(super) fn set_table(&mut self, node: NodeId, order: Order, frame: Pfn) {
        if let Some(index) = Self::index(node, order) {
            self.rows[index + 2] = frame.as_u64() + 1;
        }
    }

    /// The shared table of `order` on `node`.
    #[inline]
    pub(super) fn table(&self, node: NodeId, order: Order) -> Option<Pfn> {
        self.rows[Self::index(node, order)? + 2]
            .checked_sub(1)
            .map(Pfn::new)
    }

    /// Whether `frame` is a shared table.
    #[inline]
    pub(super) fn is_table(&self, frame: Pfn) -> bool {
        let mut tables = self.rows.iter().skip(2).step_by(ROW);
        tables.any(|row| *row == frame.as_u64() + 1)
    }

    /// Counts an entry for the shared table `frame`; whether it is one.
    pub(super) fn count_table(&mut self, frame: Pfn) -> bool {
        let mut rows = self.rows.chunks_exact_mut(ROW);
        let row = rows.find(|row| row[2] == frame.as_u64() + 1);
        if let Some(row) = row {
            row[3] += 1;
            return true;
        }
        false
    }

    /// Entries counted for the shared table of `order` on `node`.
    #[inline]
    pub(super) fn slots(&self, node: NodeId, order: Order) -> u64 {
        Self::index(node, order).map_or(0, |index| self.rows[index + 3])
    }
}
