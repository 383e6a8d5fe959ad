//! Memdesc: references on folios that are freed, and folding, under the eyes of others.

use std::sync::Mutex;

use lab::memdesc::{
    DEFAULT_BASE, Descriptor, Folio, Memdesc, MemdescMap, MemdescType, Page, Page64, StructPage,
};
use mm::addr::{Order, Pfn};
use mm::frames::Placement;
use mm::machine::{Memory as _, Processors as _};
use testkit::schedule::{Done, Story, explore, search, small};
use testkit::{Sabotage, World};

/// Reads of one reader, at most.
const READS: u32 = 2000;

type Map = MemdescMap<Page64>;

/// How a reference is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Get {
    /// As the map does.
    Map,
    /// As the map does, but the page's word was loaded long ago.
    Late,
    /// The same without another look at the page.
    Once,
    /// With interrupts on while nothing is held.
    Interrupted,
}

/// The last reference on a folio is dropped; its page becomes a bare one, its
/// descriptor another folio's, or its descriptor's frame goes back. Others try to take
/// references on the page all the while.
struct LateGet(Get);

struct OneFolio {
    w: World,
    map: Map,
    folio: Folio,
    /// Folios that fill a frame of descriptors.
    fillers: Mutex<Vec<Folio>>,
    /// Whether the descriptor's frame goes back.
    shrinks: bool,
    done: Done,
}

/// Descriptors of folios in a frame.
const PER_FRAME: usize = 50;

impl OneFolio {
    fn get(&self, how: Get, page: Page<Page64>, seen: Memdesc) -> Option<Folio> {
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let get = |folio: &Folio| {
            let at = folio.phys().offset(8);
            let counts = m.read_phys(at);
            let alive = counts & 0xffff_ffff != 0;
            alive && m.compare_exchange_phys(at, counts, counts + 1).is_ok()
        };
        match how {
            Get::Map => self.map.folio_try_get(m, nodes, page),
            Get::Late => self.map.folio_try_get_seen(m, nodes, page, seen),
            Get::Once => Some(Folio::at(seen.address())).filter(get),
            Get::Interrupted => {
                let folio = self.map.page_folio(m, page).filter(get)?;
                if self.map.page_folio(m, page) == Some(folio) {
                    return Some(folio);
                }
                self.map.folio_put(m, nodes, folio);
                None
            }
        }
    }
}

impl Story for LateGet {
    type State = OneFolio;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, random: &mut fastrand::Rng) -> OneFolio {
        let w = small(self.cpus());
        let (m, nodes) = (&w.m, &w.mm.nodes);
        let (order, placement) = (Order::of(8), Placement::local(m));
        let map = Map::new(m, nodes, w.memmap(), DEFAULT_BASE, order, placement).expect("memory");
        // Whoever looks late must still find a descriptor.
        let shrinks = random.bool() && matches!(self.0, Get::Map | Get::Interrupted);
        let fill = if shrinks { PER_FRAME } else { 0 };
        let alloc = || map.alloc_folio(m, nodes, Order::PAGE).expect("memory");
        let mut fillers: Vec<_> = (0..fill).map(|_| alloc()).collect();
        let folio = alloc();
        if let Some(filler) = fillers.pop() {
            assert!(map.folio_put(m, nodes, filler));
        }
        OneFolio {
            w,
            map,
            folio,
            fillers: Mutex::new(fillers),
            shrinks,
            done: Done::default(),
        }
    }

    fn act(&self, s: &OneFolio, cpu: usize, _: &mut fastrand::Rng) {
        let (m, nodes) = (&s.w.m, &s.w.mm.nodes);
        let pfn = s.folio_pfn();
        let page = s.map.page(pfn);
        if cpu > 0 {
            let seen = Memdesc::new(MemdescType::Anon, s.folio.phys());
            return s.done.until(READS, || {
                if let Some(folio) = s.get(self.0, page, seen) {
                    assert_eq!(folio.pfn(m), pfn, "a reference on another page's folio");
                    assert_eq!(s.map.page_folio(m, page), Some(folio));
                    s.map.folio_put(m, nodes, folio);
                }
            });
        }
        s.map.folio_put(m, nodes, s.folio);
        // The lowest free page and the descriptor used last, unless a reader has them.
        let bare = s.map.alloc_bare(m, nodes, Order::PAGE).expect("memory");
        let next = s.map.alloc_folio(m, nodes, Order::PAGE).expect("memory");
        let put = s.map.put_page(m, nodes, s.map.page(bare.pfn(m)));
        put.expect("it has a count");
        s.map.folio_put(m, nodes, next);
        s.done.set();
    }

    fn end(&self, s: OneFolio) {
        let (m, nodes) = (&s.w.m, &s.w.mm.nodes);
        for folio in s.fillers.lock().expect("the work is done").drain(..) {
            assert!(s.map.folio_put(m, nodes, folio), "references balance");
        }
        let audit = s.map.audit(m);
        assert!(audit.is_ok(), "{audit}");
        let totals = s.map.totals(m);
        assert!(!s.shrinks || totals.grace_periods > 0, "no frame went back");
        assert!(s.map.destroy(m, nodes).is_ok(), "references balance");
        s.w.check();
    }
}

impl OneFolio {
    /// Of the page that all is about: behind those of the fillers.
    fn folio_pfn(&self) -> Pfn {
        let fill = if self.shrinks { PER_FRAME } else { 0 };
        self.map.range().start.offset(fill as u64)
    }
}

#[test]
fn a_memdesc_reference_is_looked_at_again() {
    let name = "a_memdesc_reference_is_looked_at_again";
    println!("{}", explore(name, &LateGet(Get::Map), 1000));
}

#[test]
fn a_late_memdesc_reference_is_looked_at_again() {
    let name = "a_late_memdesc_reference_is_looked_at_again";
    println!("{}", explore(name, &LateGet(Get::Late), 600));
}

#[test]
fn a_memdesc_reference_without_a_second_look_is_found() {
    let found = search(&LateGet(Get::Once), 1500).expect_err("too few schedules");
    println!("no second look: {found}");
}

#[test]
fn a_memdesc_reader_that_can_be_interrupted_is_found() {
    let found = search(&LateGet(Get::Interrupted), 3000).expect_err("too few schedules");
    println!("interrupts on: {found}");
    assert!(found.text.contains("use after free"), "{found}");
}

/// A folio is folded, one page becomes exclusive and is again as the others, is folded
/// again, unfolded, folded, freed and allocated anew, while others read every page and
/// take references.
struct Folding(Sabotage);

struct OneMap {
    w: World,
    map: Map,
    /// The first folio; a later one has the same descriptor.
    folio: Folio,
    done: Done,
}

const FOLDED: Order = Order::of(7);

impl Story for Folding {
    type State = OneMap;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> OneMap {
        let w = small(self.cpus());
        let (m, nodes) = (&w.m, &w.mm.nodes);
        let (order, placement) = (Order::of(8), Placement::local(m));
        let map = Map::new(m, nodes, w.memmap(), DEFAULT_BASE, order, placement).expect("memory");
        let folio = map.alloc_folio(m, nodes, FOLDED).expect("memory");
        w.m.sabotage(self.0);
        OneMap {
            w,
            map,
            folio,
            done: Done::default(),
        }
    }

    fn act(&self, s: &OneMap, cpu: usize, random: &mut fastrand::Rng) {
        let (m, nodes, map) = (&s.w.m, &s.w.mm.nodes, &s.map);
        let first = map.range().start;
        if cpu > 0 {
            return s.done.until(READS, || {
                let page = map.page(first.offset(random.u64(..FOLDED.pages())));
                let word = map.page_memdesc(m, page);
                let known = word.is(MemdescType::Free) || word.address() == s.folio.address();
                assert!(known, "{word:?}");
                if let Some(folio) = map.folio_try_get(m, nodes, page) {
                    assert_eq!((folio.pfn(m), folio.order(m)), (first, FOLDED));
                    map.folio_put(m, nodes, folio);
                }
            });
        }
        let page = map.page(first.offset(Page64::PER_FRAME + 5));
        let mut folio = s.folio;
        for _ in 0..2 {
            assert_eq!(map.fold(m, nodes, folio), Ok(1));
            map.set_anon_exclusive(m, nodes, page, true)
                .expect("memory");
            map.set_anon_exclusive(m, nodes, page, false)
                .expect("memory");
            assert_eq!(map.fold(m, nodes, folio), Ok(1));
            map.unfold(m, nodes, folio).expect("memory");
            assert_eq!(map.fold(m, nodes, folio), Ok(1));
            if map.folio_put(m, nodes, folio) {
                folio = map
                    .alloc_folio(m, nodes, FOLDED)
                    .expect("nobody else has it");
            } else {
                // A reader frees it.
                m.wait_until("a reader", &mut || map.page_folio(m, page).is_none());
                folio = map
                    .alloc_folio(m, nodes, FOLDED)
                    .expect("nobody else has it");
            }
            map.unfold(m, nodes, folio).expect("memory");
        }
        s.done.set();
        map.folio_put(m, nodes, folio);
    }

    fn end(&self, s: OneMap) {
        if self.0 == Sabotage::NoWait {
            s.w.m.evict_all();
        }
        let audit = s.map.audit(&s.w.m);
        assert!(audit.is_ok(), "{audit}");
        let gone = s.map.destroy(&s.w.m, &s.w.mm.nodes);
        assert!(gone.is_ok(), "references balance");
        s.w.check();
    }
}

#[test]
fn memdesc_folding_is_seen_by_nobody() {
    let name = "memdesc_folding_is_seen_by_nobody";
    println!("{}", explore(name, &Folding(Sabotage::None), 400));
}

#[test]
fn a_memdesc_flush_that_stays_local_or_does_not_wait_is_found() {
    for sabotage in [
        Sabotage::LocalRoundsOnly,
        Sabotage::NoWait,
        Sabotage::DropRound { nth: 1 },
    ] {
        let found = search(&Folding(sabotage), 300).expect_err("too few schedules");
        println!("{sabotage:?}: {found}");
    }
}
