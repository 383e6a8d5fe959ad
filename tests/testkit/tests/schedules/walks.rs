//! Software walks of the vmemmap's tables, beside a fold that takes a table away.

use mm::machine::Memory as _;
use mm::paging::{self, Level};
use mm::report;
use testkit::World;
use testkit::schedule::{Story, explore};

use crate::story::{OneBlock, fold, unfold};

/// How the tables are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// To one leaf.
    Leaf,
    /// To a table, all of whose entries are then read.
    Picture,
}

/// One CPU gives a whole slot its leaf back, and with it frees its table; the others
/// walk to the slot's struct pages by hand.
struct BesideTheTable(Walk);

impl Story for BesideTheTable {
    type State = OneBlock;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> OneBlock {
        let w = World::builder().ram(0, 112, 256).cpus(self.cpus()).boot();
        let s = OneBlock::begin(w, 15);
        fold(&s.w, &s.view);
        s
    }

    fn act(&self, s: &OneBlock, cpu: usize, random: &mut fastrand::Rng) {
        let (m, memmap) = (&s.w.m, s.w.memmap());
        if cpu == 0 {
            unfold(&s.w, &s.view);
            return s.done.set();
        }
        let times = if self.0 == Walk::Picture { 100 } else { 10_000 };
        s.done.until(times, || {
            let n = random.u64(..s.view.pages());
            let page = s.view.head().nth(n);
            match self.0 {
                Walk::Leaf => {
                    let leaf = paging::leaf(m, m.root(), page.address());
                    let leaf = leaf.expect("populated");
                    assert!(leaf.level <= Level::Pmd, "{leaf:?}");
                }
                Walk::Picture => {
                    let end = memmap.pfn(s.view.head()).offset(s.view.pages());
                    let picture = report::slots(m, memmap, end);
                    let slot = (picture.slot)(picture.slots - 1);
                    assert_ne!(slot, report::Slot::Hole);
                }
            }
        });
    }

    fn end(&self, s: OneBlock) {
        s.view.write_as_owner(&s.w.m);
        s.w.check();
    }
}

fn beside(name: &str, walk: Walk, schedules: u64) {
    println!("{}", explore(name, &BesideTheTable(walk), schedules));
}

#[test]
fn walks_to_a_leaf_beside_a_table_that_goes() {
    let name = "walks_to_a_leaf_beside_a_table_that_goes";
    beside(name, Walk::Leaf, 60);
}

#[test]
fn pictures_of_a_table_that_goes() {
    beside("pictures_of_a_table_that_goes", Walk::Picture, 30);
}
