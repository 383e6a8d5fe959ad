//! The rmap: one folio mapped, pinned and unmapped by several CPUs, no count of which
//! is lost.

use lab::rmap::{AddressSpace, FolioFields, Pages, Policy, page_mapcount};
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, VirtAddr};
use mm::page::Page;
use testkit::World;
use testkit::schedule::{Story, explore, small};

struct Share;

struct Shared {
    w: World,
    folio: Page,
}

const ORDER: Order = Order::PMD;
const AT: VirtAddr = VirtAddr::new(PMD_SIZE);

impl Shared {
    fn pages(&self) -> Pages<'_, testkit::EmulatedMachine> {
        Pages::new(&self.w.m, &self.w.mm, Policy::Today)
    }
}

impl Story for Share {
    type State = Shared;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> Shared {
        let w = small(self.cpus());
        let pages = Pages::new(&w.m, &w.mm, Policy::Today);
        let folio = pages.folio_alloc(ORDER).expect("an empty machine");
        Shared { w, folio }
    }

    fn act(&self, s: &Shared, _: usize, random: &mut fastrand::Rng) {
        let pages = s.pages();
        let mut space = AddressSpace::new(&pages).expect("memory");
        let mut pinned = Vec::new();
        for _ in 0..3 {
            let first = random.u64(0..4);
            space
                .map_folio_pages(AT, s.folio, first, 2)
                .expect("memory");
            pinned.push(space.pin_user_page(AT).expect("a folio"));
            space
                .map_folio(AT.offset(PMD_SIZE), s.folio)
                .expect("memory");
            space.munmap(AT.range(2 * PAGE_SIZE)).expect("mapped");
            let whole = AT.offset(PMD_SIZE).range(PMD_SIZE);
            space.munmap(whole).expect("mapped");
        }
        for page in pinned {
            pages.unpin(page).expect("pinned");
        }
    }

    fn end(&self, s: Shared) {
        let (m, folio) = (&s.w.m, s.folio);
        let expected = FolioFields {
            nr_pages: 1 << ORDER.get(),
            ..FolioFields::default()
        };
        assert_eq!(FolioFields::of(m, folio), expected, "counts of the folio");
        for n in 0..8 {
            assert_eq!(page_mapcount(m, folio.nth(n)), 0, "map count of page {n}");
        }
        assert_eq!(folio.ref_count(m), 1, "references");
        assert_eq!(s.pages().put_page(folio), Ok(true));
        s.w.check();
    }
}

#[test]
fn no_count_of_a_shared_folio_is_lost() {
    println!(
        "{}",
        explore("no_count_of_a_shared_folio_is_lost", &Share, 200)
    );
}
