//! What a reader may see of a block that is being folded and unfolded: the oracle of
//! the schedules, built from [`records`] and not from `mm`.

use mm::addr::{Order, VirtAddr};
use mm::machine::{Memory as _, Processors as _};
use mm::page::{self, Page};

use crate::machine::EmulatedMachine;
use crate::records::{self, FOLDED, HEAD, OWN_RECORDS, RECORD};

/// Where the fields of a struct page lie, in words of 8 bytes.
mod word {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const INFO: u64 = 1;
    pub(super) const PREV: u64 = 2;
    pub(super) const MAPPING: u64 = 3;
    pub(super) const INDEX: u64 = 4;
    pub(super) const PRIVATE: u64 = 5;
}

/// A frozen compound page whose tails are all written. Readers may look at any of its
/// struct pages while somebody folds and unfolds it.
#[derive(Clone, Debug)]
pub struct View {
    head: Page,
    node: u8,
    order: u8,
    mark: u64,
    /// The head's `index`, which belongs to the allocator.
    index: u64,
}

impl View {
    /// Of the block at `head`; writes `mark` where an owner keeps things.
    #[must_use]
    pub fn new(m: &EmulatedMachine, head: Page, node: u8, order: u8, mark: u64) -> Self {
        for n in [0, 2, OWN_RECORDS - 1] {
            let at = head.address().offset(n * RECORD + word::MAPPING * 8);
            m.store64(at, mark * (n + 1));
        }
        let index = m.load64(head.address().offset(word::INDEX * 8));
        Self {
            head,
            node,
            order,
            mark,
            index,
        }
    }

    /// The block's head.
    #[must_use]
    pub const fn head(&self) -> Page {
        self.head
    }

    /// Its order.
    #[must_use]
    pub const fn order(&self) -> Order {
        Order::of(self.order)
    }

    /// Struct pages of the block.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        1 << self.order
    }

    /// Whether word `at` of struct page `n` may be `found`.
    fn allows(&self, n: u64, at: u64, found: u64) -> bool {
        let marked = [0, 2, OWN_RECORDS - 1].contains(&n);
        let expected = match at {
            word::MAPPING if marked => self.mark * (n + 1),
            word::PRIVATE if n == 1 => u64::from(self.order),
            word::INDEX if n == 0 => self.index,
            // The flag comes and goes.
            word::FLAGS if n == 0 => {
                return found & !FOLDED == records::unused(self.node)[0] | HEAD;
            }
            // Links of a list of heads; what must never be is a tail's bit 0.
            word::INFO | word::PREV if n == 0 => return found.is_multiple_of(RECORD),
            _ => {
                let tail = records::tail(self.node, self.order);
                let mut words = (0..).zip(tail);
                return words.any(|(n, word)| n == at && word == found);
            }
        };
        found == expected
    }

    /// Reads word `at` of struct page `n` as this CPU sees it.
    ///
    /// # Panics
    /// If it is nothing that may be there.
    pub fn look(&self, m: &EmulatedMachine, n: u64, at: u64) {
        let found = m.load64(self.address(n).offset(at * 8));
        assert!(
            self.allows(n, at, found),
            "impossible value: CPU {} reads {found:#x} from word {at} of struct page {n} of {:?}, order {}",
            m.this_cpu(),
            self.head,
            self.order
        );
    }

    /// As the owner of an unfolded block: as every CPU, writes what is there already
    /// into each page of memmap.
    pub fn write_as_owner(&self, m: &EmulatedMachine) {
        for cpu in 0..m.cpus() {
            for frame in 0..self.pages() / OWN_RECORDS {
                let at = self.address(frame * OWN_RECORDS);
                let at = at.offset(word::MAPPING * 8);
                m.on_cpu(cpu, || m.store64(at, m.load64(at)));
            }
        }
    }

    fn address(&self, n: u64) -> VirtAddr {
        self.head.address().offset(n * RECORD)
    }

    /// Looks at some struct page the way some reader does.
    ///
    /// # Panics
    /// If it sees what may not be.
    pub fn read(&self, m: &EmulatedMachine, random: &mut fastrand::Rng) {
        let frame = random.u64(..self.pages() / OWN_RECORDS);
        let near = [0, 1, 2, random.u64(..OWN_RECORDS), OWN_RECORDS - 1];
        let n = frame * OWN_RECORDS + near[random.usize(..near.len())];
        let page = self.head.nth(n);
        let cpu = m.this_cpu();
        match random.u8(..8) {
            0 => assert_eq!(
                page.compound_head(m),
                self.head,
                "CPU {cpu}: the head of struct page {n}"
            ),
            1 => assert!(
                !page::folio_try_get(m, page),
                "CPU {cpu} got a reference on frozen page {n}"
            ),
            2 => assert_eq!(
                page::page_folio(m, page),
                Some(self.head),
                "CPU {cpu}: the folio of struct page {n}"
            ),
            3 => (0..8).for_each(|at| self.look(m, n, at)),
            _ => self.look(m, n, random.u64(..8)),
        }
    }
}
