//! References: a late `try_get` against free, reuse and fold.

use std::sync::Mutex;

use mm::addr::{NodeId, Order};
use mm::frames::{FrameSource, Placement};
use mm::machine::Memory as _;
use mm::page::{self, Page};
use testkit::World;
use testkit::schedule::{Done, Story, View, explore, search, small};

use crate::story::{READS, fold, unfold, view};

/// How a reference is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Get {
    /// As the kernel does.
    Kernel,
    /// The count is loaded first, but the exchange that follows dies of its fault.
    Deadly,
    /// A locked add, whatever the count is.
    Unconditional,
}

/// The last page in use of a block is freed by its owner, who makes a huge page of the
/// whole block and folds it, while others try to take references on the page.
struct LateGet(Get);

struct OnePage {
    w: World,
    page: Page,
    /// The block that was folded.
    huge: Mutex<Option<View>>,
    done: Done,
}

const ORDER: Order = Order::of(7);
/// The page, in its block: behind the first frame of the memmap.
const NTH: u64 = 100;

impl OnePage {
    /// Drops a reference; the last one frees the page.
    fn put(&self) {
        if page::folio_put(&self.w.m, self.page) {
            let pfn = self.w.memmap().pfn(self.page);
            self.w.mm.nodes.free(&self.w.m, pfn, Order::PAGE);
        }
    }

    fn get(&self, how: Get) -> bool {
        let (m, at) = (&self.w.m, self.page.ref_count_address());
        match how {
            Get::Kernel => page::folio_try_get(m, self.page),
            Get::Deadly => {
                let seen = self.page.ref_count(m);
                seen != 0 && m.compare_exchange32(at, seen, seen + 1).is_ok()
            }
            Get::Unconditional => {
                let had = m.fetch_add32(at, 1) != 0;
                if !had {
                    m.fetch_add32(at, u32::MAX);
                }
                had
            }
        }
    }
}

impl Story for LateGet {
    type State = OnePage;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> OnePage {
        let w = small(self.cpus());
        let (m, nodes) = (&w.m, &w.mm.nodes);
        let block = nodes.alloc(m, ORDER, Placement::Only(NodeId::ZERO));
        let block = block.expect("an empty machine");
        nodes.split(m, block, ORDER);
        let page = w.memmap().page(block.offset(NTH));
        page.set_ref_count(m, 1);
        for n in (0..ORDER.pages()).filter(|n| *n != NTH) {
            nodes.free(m, block.offset(n), Order::PAGE);
        }
        OnePage {
            w,
            page,
            huge: Mutex::default(),
            done: Done::default(),
        }
    }

    fn act(&self, s: &OnePage, cpu: usize, _: &mut fastrand::Rng) {
        if cpu > 0 {
            return s.done.until(READS, || {
                if s.get(self.0) {
                    assert!(!s.page.is_tail(&s.w.m), "a reference on a tail");
                    s.put();
                }
            });
        }
        s.put();
        // The same block again, unless somebody has a reference still.
        let huge = view(&s.w, ORDER.get(), 0x77);
        fold(&s.w, &huge);
        *s.huge.lock().expect("nobody else locks it") = Some(huge);
        s.done.set();
    }

    fn end(&self, s: OnePage) {
        let huge = s.huge.lock().expect("the work is done").take();
        unfold(&s.w, &huge.expect("CPU 0 has folded one"));
        assert_eq!(s.page.ref_count(&s.w.m), 0, "references balance");
        s.w.check();
    }
}

#[test]
fn a_late_reference_is_refused() {
    let name = "a_late_reference_is_refused";
    println!("{}", explore(name, &LateGet(Get::Kernel), 1500));
}

/// The window is there, and the schedules find it.
#[test]
fn a_fault_that_is_not_caught_is_found() {
    let found = search(&LateGet(Get::Deadly), 2000).expect_err("too few schedules");
    println!("the exchange may fault: {found}");
    assert!(found.text.contains("page fault: write"), "{found}");
}

#[test]
fn a_locked_add_on_any_count_is_found() {
    let found = search(&LateGet(Get::Unconditional), 300).expect_err("too few schedules");
    println!("an unconditional add: {found}");
}
