//! A frame breaks, and is repaired, while its huge page is put, and while its pool is made
//! smaller and larger.

use std::sync::atomic::{AtomicBool, Ordering};

use mm::addr::{Order, Pfn};
use mm::hugetlb::Hstate;
use mm::hwpoison::{Handled, PoisonError, PoisonPolicy};
use mm::page::{Flags, Page};
use mm::vmemmap::{Fill, HvoError};
use testkit::World;
use testkit::schedule::{Story, explore};

#[derive(Clone, Copy, PartialEq)]
enum What {
    /// It breaks.
    Fails,
    /// It breaks and turns out to be whole, all beside the others.
    FailsAndIsRepaired,
    /// It is taken out before it breaks.
    GoesBefore,
}

struct Breaks {
    policy: PoisonPolicy,
    what: What,
}

struct Pool {
    w: World,
    owned: u64,
    /// In use to begin with; another one is free.
    head: Page,
    broken: Pfn,
    /// Whether the frame is out of use in the end.
    out: AtomicBool,
}

fn h(w: &World) -> &Hstate {
    w.mm.hugetlb.hstate(Order::PMD).expect("2 MiB pages")
}

/// Free frames and those of the memmap, its tables and shared tails.
fn owned(w: &World) -> u64 {
    let t = w.vmemmap().ledger().totals();
    w.free_pages() + t.pages + t.boot_pages + t.tables + t.tails
}

fn shrink(w: &World) {
    let mm = &w.mm;
    mm.hugetlb.shrink(&w.m, mm.backing(), h(w), None, 2);
}

impl Story for Breaks {
    type State = Pool;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, random: &mut fastrand::Rng) -> Pool {
        let w = World::builder().ram(0, 0, 16).cpus(self.cpus()).boot();
        w.mm.hugetlb.set_optimize(true);
        w.mm.hwpoison.set_policy(self.policy);
        let owned = owned(&w);
        let mm = &w.mm;
        mm.hugetlb.grow(&w.m, mm.backing(), h(&w), None, 2);
        let head = h(&w).take_near(&w.m, &mm.nodes).expect("a free folio");
        let page = [0, 5, 300][random.usize(..3)];
        let broken = w.memmap().pfn(head).offset(page);
        Pool {
            w,
            owned,
            head,
            broken,
            out: AtomicBool::new(false),
        }
    }

    fn act(&self, s: &Pool, cpu: usize, _: &mut fastrand::Rng) {
        let (m, mm) = (&s.w.m, &s.w.mm);
        match cpu {
            0 if self.what == What::GoesBefore => {
                let gone = mm.soft_offline_page(m, s.broken);
                let known = [Ok(Handled::Recovered), Err(PoisonError::Busy(s.broken))];
                assert!(known.contains(&gone), "{gone:?}");
                s.out.store(gone.is_ok(), Ordering::Relaxed);
            }
            0 => {
                let handled = mm.memory_failure(m, s.broken);
                let known = [Ok(Handled::Recovered), Ok(Handled::Delayed)];
                assert!(known.contains(&handled), "{handled:?}");
                if self.what == What::FailsAndIsRepaired {
                    assert_eq!(mm.unpoison_memory(m, s.broken), Ok(()));
                }
                s.out.store(self.what == What::Fails, Ordering::Relaxed);
            }
            1 => mm.hugetlb.put(m, mm.backing(), h(&s.w), s.head),
            _ => {
                shrink(&s.w);
                mm.hugetlb.grow(m, mm.backing(), h(&s.w), None, 1);
                shrink(&s.w);
            }
        }
    }

    fn end(&self, s: Pool) {
        s.w.check();
        shrink(&s.w);
        s.w.check();
        assert_eq!(h(&s.w).total(&s.w.m).nr, 0, "folios left");
        let out = s.out.into_inner();
        let page = s.w.memmap().page(s.broken);
        assert_eq!(page.flags(&s.w.m).contains(Flags::HWPOISON), out);
        assert_eq!(owned(&s.w) + u64::from(out), s.owned, "frames are lost");
        assert_eq!(s.w.mm.hwpoison.pages(), u64::from(out));
        if out {
            let repaired = s.w.mm.unpoison_memory(&s.w.m, s.broken);
            assert_eq!(repaired, Ok(()));
            assert_eq!(owned(&s.w), s.owned);
        }
    }
}

fn tell(name: &str, what: What, schedules: u64) {
    for policy in [PoisonPolicy::List, PoisonPolicy::CopyOnWrite] {
        println!("{}", explore(name, &Breaks { policy, what }, schedules));
    }
}

#[test]
fn a_frame_breaks_while_its_folio_is_put() {
    tell("a_frame_breaks_while_its_folio_is_put", What::Fails, 150);
}

#[test]
fn a_frame_is_repaired_while_its_folio_is_put() {
    let name = "a_frame_is_repaired_while_its_folio_is_put";
    tell(name, What::FailsAndIsRepaired, 150);
}

#[test]
fn a_frame_is_taken_out_while_its_folio_is_put() {
    let name = "a_frame_is_taken_out_while_its_folio_is_put";
    tell(name, What::GoesBefore, 100);
}

/// A frame of a compound page that is no huge page breaks while the page is folded, unfolded and
/// freed.
struct Compound;

struct Made {
    w: World,
    owned: u64,
    head: Page,
    broken: Pfn,
    marked: AtomicBool,
}

impl Story for Compound {
    type State = Made;

    fn cpus(&self) -> usize {
        2
    }

    fn begin(&self, random: &mut fastrand::Rng) -> Made {
        let w = World::builder().ram(0, 0, 16).cpus(self.cpus()).boot();
        let owned = owned(&w);
        let head = w.env().compound(Order::PMD).expect("memory");
        let page = [0, 5, 300][random.usize(..3)];
        let broken = w.memmap().pfn(head).offset(page);
        Made {
            w,
            owned,
            head,
            broken,
            marked: AtomicBool::new(false),
        }
    }

    fn act(&self, s: &Made, cpu: usize, _: &mut fastrand::Rng) {
        let (m, mm, order) = (&s.w.m, &s.w.mm, Order::PMD);
        if cpu == 0 {
            let handled = mm.memory_failure(m, s.broken);
            let known = [
                Ok(Handled::Ignored),
                Ok(Handled::Recovered),
                Err(PoisonError::Busy(s.broken)),
            ];
            assert!(known.contains(&handled), "{handled:?}");
            s.marked.store(handled.is_ok(), Ordering::Relaxed);
            return;
        }
        let folded = mm.vmemmap.optimize_folio(m, &mm.nodes, s.head, order);
        // The mark on the head, or what is behind it, seen before.
        let tail = s.w.memmap().page(s.broken);
        let known = [
            Ok(()),
            Err(HvoError::Poisoned(s.head)),
            Err(HvoError::TailInUse(tail)),
        ];
        assert!(known.contains(&folded), "{folded:?}");
        let env = s.w.env();
        let unfolded = mm
            .vmemmap
            .restore_folio(m, &mm.nodes, s.head, order, Fill::Tails);
        assert_eq!(unfolded, Ok(()));
        env.free_compound(s.head, order);
    }

    fn end(&self, s: Made) {
        s.w.check();
        let marked = s.marked.into_inner();
        let page = s.w.memmap().page(s.broken);
        assert_eq!(page.flags(&s.w.m).contains(Flags::HWPOISON), marked);
        assert_eq!(owned(&s.w) + u64::from(marked), s.owned, "frames are lost");
        assert_eq!(s.w.mm.hwpoison.pages(), u64::from(marked));
        if marked {
            assert_eq!(s.w.mm.unpoison_memory(&s.w.m, s.broken), Ok(()));
            assert_eq!(owned(&s.w), s.owned);
        }
    }
}

#[test]
fn a_frame_breaks_while_its_compound_page_is_folded() {
    let name = "a_frame_breaks_while_its_compound_page_is_folded";
    println!("{}", explore(name, &Compound, 600));
}
