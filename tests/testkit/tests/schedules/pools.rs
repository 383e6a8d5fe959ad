//! Pools: folios come and go, are taken and put back, while somebody scans all pages
//! as compaction would.

use mm::addr::{Order, Pfn};
use mm::machine::{Memory as _, Processors as _};
use mm::page::{self, PageType};
use testkit::World;
use testkit::schedule::{Done, Story, explore};

struct Churn;

struct Pool {
    w: World,
    /// Pages that are free or hold memmap, tables or tails, to begin with.
    owned: u64,
    done: Done,
}

/// Folios of the pool to begin with.
const FOLIOS: u64 = 3;
const MIB: u64 = 16;
/// Where the memory that is handed out begins: the machine's own lies below.
const SCANNED: std::ops::Range<u64> = 0x400..MIB << 8;

fn owned(w: &World) -> u64 {
    let t = w.vmemmap().ledger().totals();
    w.free_pages() + t.pages + t.boot_pages + t.tables + t.tails
}

impl Pool {
    fn grow(&self, count: u64) {
        let hugetlb = &self.w.mm.hugetlb;
        let h = hugetlb.hstate(Order::PMD).expect("2 MiB pages");
        hugetlb.grow(&self.w.m, self.w.mm.backing(), h, None, count);
    }

    fn shrink(&self, count: u64) {
        let hugetlb = &self.w.mm.hugetlb;
        let h = hugetlb.hstate(Order::PMD).expect("2 MiB pages");
        hugetlb.shrink(&self.w.m, self.w.mm.backing(), h, None, count);
    }

    /// Has a folio for a while and keeps something in it.
    fn own(&self, random: &mut fastrand::Rng) {
        let m = &self.w.m;
        let h = self.w.mm.hugetlb.hstate(Order::PMD).expect("2 MiB pages");
        let Some(head) = h.take(m, m.this_node()) else {
            return;
        };
        assert!(head.ref_count(m) > 0);
        let at = [0, 1 + random.u64(..63)].map(|n| head.nth(n).address().offset(24));
        for at in at {
            assert_eq!(m.load64(at), 0, "somebody else's mark");
            m.store64(at, 0x4242);
        }
        for at in at {
            assert_eq!(m.load64(at), 0x4242, "the mark is lost");
            m.store64(at, 0);
        }
        h.put(m, head);
    }

    /// Looks at some page, and takes a reference if it can.
    fn scan(&self, random: &mut fastrand::Rng) {
        let (m, memmap) = (&self.w.m, self.w.memmap());
        let pfn = Pfn::new(random.u64(SCANNED));
        let pfn = if random.bool() {
            pfn.align_down(Order::PMD)
        } else {
            pfn
        };
        let page = memmap.page(pfn);
        let head = memmap.pfn(page.compound_head(m));
        assert!(
            head == pfn || head == pfn.align_down(Order::PMD),
            "{pfn:?} has the head {head:?}"
        );
        assert_eq!(page.node(m), mm::addr::NodeId::ZERO, "{pfn:?}");
        if page::folio_try_get(m, page) {
            assert_eq!(page.page_type(m), PageType::HUGETLB, "{pfn:?}");
            let h = self.w.mm.hugetlb.hstate(Order::PMD).expect("2 MiB pages");
            h.put(m, page);
        }
    }
}

impl Story for Churn {
    type State = Pool;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> Pool {
        let w = World::builder().ram(0, 0, MIB).cpus(self.cpus()).boot();
        w.mm.hugetlb.set_optimize(true);
        let owned = owned(&w);
        let done = Done::default();
        let s = Pool { w, owned, done };
        s.grow(FOLIOS);
        s
    }

    fn act(&self, s: &Pool, cpu: usize, random: &mut fastrand::Rng) {
        match cpu {
            0 => {
                s.shrink(random.u64(1..=FOLIOS));
                s.grow(1);
                s.shrink(1);
                s.done.set();
            }
            1 => s.done.until(200, || s.own(random)),
            _ => s.done.until(2000, || s.scan(random)),
        }
    }

    fn end(&self, s: Pool) {
        s.w.check();
        s.shrink(FOLIOS + 1);
        assert_eq!(owned(&s.w), s.owned, "pages are lost");
        s.w.check();
    }
}

#[test]
fn folios_come_and_go_under_owners_and_a_scanner() {
    let name = "folios_come_and_go_under_owners_and_a_scanner";
    println!("{}", explore(name, &Churn, 200));
}
