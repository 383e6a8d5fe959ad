//! Holding a folio still while it is noted that a frame of it is broken, or is not.

use super::counters::is_free;
use super::{Backing, Hstate, HugeTlb};
use crate::addr::Pfn;
use crate::machine::Machine;
use crate::page::{self, Memmap, Page, PageType, has_hwpoisoned};
use crate::paging;

/// How often a folio may change hands before whoever wants to hold it gives up.
const TRIES: u32 = 64;

/// How often it is looked whether a folio on its way has arrived, tenths of a second in all,
/// before whoever waits gives up: where a folio was leaked it never does.
const LOOKS: u32 = 1 << 21;

/// Looks between two signs of life: a small part of any machine's limit on a wait.
const LOOKS_AT_ONCE: u32 = 1 << 10;

/// A folio that stays what it is: nobody else frees, folds, demotes or promotes it.
#[derive(Debug)]
#[must_use = "the folio is lost unless it is let go"]
pub(crate) struct Held<'a> {
    pub(crate) h: &'a Hstate,
    pub(crate) head: Page,
    /// It is off the free list for as long; else there is a reference to it.
    pub(crate) free: bool,
    /// Surplus folios of its node when it was taken off.
    surplus: u64,
}

/// What came of [`HugeTlb::hold`].
#[derive(Debug)]
pub(crate) enum Hold<'a> {
    /// The folio of the page.
    Folio(Held<'a>),
    /// The page is part of no huge page.
    NoHugePage,
    /// The page changed hands all the time, or whoever has the folio keeps it frozen.
    Moving,
}

impl HugeTlb {
    /// Returns the huge page that `pfn` is part of, which it may cease to be at once.
    ///
    /// Looks for a head of each size at the boundary below `pfn` instead of following
    /// `compound_head`: in a folio on its way from or to the allocator a struct page may be no tail
    /// yet, or no longer.
    pub(crate) fn folio_of<M: Machine>(
        &self,
        m: &M,
        memmap: Memmap,
        pfn: Pfn,
    ) -> Option<(&Hstate, Page)> {
        self.hstates.iter().find_map(|h| {
            let head = memmap.page(pfn.align_down(h.order()));
            (paging::is_mapped(m, m.root(), head.address()) && is_head_of(m, h, head))
                .then_some((h, head))
        })
    }

    /// Holds the huge page of `pfn`, if it is part of one, until it is let go.
    #[doc(alias = "get_huge_page_for_hwpoison")]
    pub(crate) fn hold<M: Machine>(&self, m: &M, memmap: Memmap, pfn: Pfn) -> Hold<'_> {
        let mut looks = 0;
        for _ in 0..TRIES {
            let Some((h, head)) = self.folio_of(m, memmap, pfn) else {
                return Hold::NoHugePage;
            };
            if let Some(held) = try_hold(m, h, head) {
                return Hold::Folio(held);
            }
            // Somebody has it, frozen, on the way from or to its pool. A few looks at a time, so
            // that the machine's own limit on waiting is never met: this one is in looks, and
            // what it ends in is "busy".
            let mut moved = false;
            while !moved && looks < LOOKS {
                let stop = looks + LOOKS_AT_ONCE;
                m.wait_until("a huge page on its way", &mut || {
                    looks += 1;
                    moved = head.ref_count(m) > 0 || is_free(m, head) || !is_head_of(m, h, head);
                    moved || looks >= stop
                });
                m.touch_watchdog();
            }
            if looks >= LOOKS {
                break;
            }
        }
        Hold::Moving
    }

    /// Lets go what [`HugeTlb::hold`] held. If all others have put it meanwhile, it goes
    /// where they would have sent it. One that was free is free again, and goes with
    /// [`HugeTlb::retry_surplus`] if its pool was made smaller.
    pub(crate) fn let_go<M: Machine>(&self, m: &M, backing: Backing<'_>, held: Held<'_>) {
        let Held {
            h,
            head,
            free,
            surplus,
        } = held;
        if !free {
            self.put(m, backing, h, head);
            return;
        }
        let node = head.node(m);
        let mut pools = h.pools.lock(m);
        pools.enqueue(m, head);
        if !has_hwpoisoned(m, head) && pools.counts(node).surplus > surplus {
            pools.count_stuck(node);
        }
    }
}

/// Holds the folio with head `head` if it still is a hugetlb folio of `h` and is free or in use.
///
/// The lock keeps folios from being handed out or freed, but for one that had left its pool before
/// the lock was taken. Such a folio has a reference count of 0 and is on no free list. So the count
/// is read first, then whether `head` is the folio that is meant, and only then the reference is
/// taken, which reads the count again.
fn try_hold<'a, M: Machine>(m: &M, h: &'a Hstate, head: Page) -> Option<Held<'a>> {
    let mut pools = h.pools.lock(m);
    let used = head.ref_count(m) > 0;
    let node = head.node(m);
    let surplus = pools.counts(node).surplus;
    let free = is_free_of(m, h, head);
    if free {
        pools.dequeue_this(m, node, head);
    } else if !(used && is_head_of(m, h, head) && page::folio_try_get(m, head)) {
        return None;
    }
    drop(pools);
    Some(Held {
        h,
        head,
        free,
        surplus,
    })
}

/// Whether a folio of `h` starts at `head`, in its pool, in use, or on its way.
fn is_head_of<M: Machine>(m: &M, h: &Hstate, head: Page) -> bool {
    head.page_type(m) == PageType::HUGETLB && page::folio_order_seen(m, head) == Some(h.order())
}

/// Whether a free folio of `h` starts at `head`. Under the lock of `h`, so that it stays.
///
/// `private` of a page that is not such a head can hold any value, the mark of a free folio
/// included, and the page can become a head at the same time. It cannot become a *free* head, which
/// needs the lock. So the mark is read before the type and after it.
pub(super) fn is_free_of<M: Machine>(m: &M, h: &Hstate, head: Page) -> bool {
    is_free(m, head) && is_head_of(m, h, head) && is_free(m, head)
}
