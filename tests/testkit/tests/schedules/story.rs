//! What the stories share: a small machine, a block, and those who read it.

use mm::addr::Order;
use mm::vmemmap::Fill;
use testkit::schedule::{Done, Story, View, small};
use testkit::{Sabotage, World};

/// A frozen compound page of `order` with all tails, and what is in it.
pub(crate) fn view(w: &World, order: u8, mark: u64) -> View {
    let head = w.compound(0, Order::of(order), true);
    View::new(&w.m, head.expect("an empty machine"), 0, order, mark)
}

pub(crate) fn fold(w: &World, view: &View) {
    w.fold(view.head(), view.order()).expect("memory");
}

pub(crate) fn unfold(w: &World, view: &View) {
    let filled = w.unfold(view.head(), view.order(), Fill::Tails);
    filled.expect("memory");
}

/// Reads of one reader, at most, of a block that shares its slot.
pub(crate) const READS: u32 = 2000;

/// One CPU folds and unfolds a block, two others read it.
pub(crate) struct UnderReaders {
    pub(crate) order: u8,
    /// Whether a table maps the block's memmap from the start.
    pub(crate) split: bool,
    /// `Some` if two sizes of one address in a TLB are a machine check: whether that is hidden
    /// from the kernel.
    pub(crate) multi_hit: Option<bool>,
    /// What the machine does wrong from the first step on.
    pub(crate) sabotage: Sabotage,
}

pub(crate) struct OneBlock {
    pub(crate) w: World,
    pub(crate) view: View,
    pub(crate) done: Done,
}

impl OneBlock {
    pub(crate) fn begin(w: World, order: u8) -> Self {
        let view = view(&w, order, 0x1234);
        let done = Done::default();
        Self { w, view, done }
    }

    /// Whoever folds looks, too.
    pub(crate) fn fold_and_unfold(&self, random: &mut fastrand::Rng) {
        fold(&self.w, &self.view);
        for _ in 0..8 {
            self.view.read(&self.w.m, random);
        }
        unfold(&self.w, &self.view);
    }
}

impl Story for UnderReaders {
    type State = OneBlock;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, random: &mut fastrand::Rng) -> OneBlock {
        let w = match self.multi_hit {
            None => small(self.cpus()),
            Some(hidden) => {
                let builder = World::builder().ram(0, 0, 8).cpus(self.cpus());
                builder.multi_hit(hidden).boot()
            }
        };
        let s = OneBlock::begin(w, self.order);
        if self.split {
            s.fold_and_unfold(random);
        }
        s.w.m.sabotage(self.sabotage);
        s
    }

    fn act(&self, s: &OneBlock, cpu: usize, random: &mut fastrand::Rng) {
        if cpu == 0 {
            s.fold_and_unfold(random);
            s.done.set();
        } else {
            s.done.until(READS, || s.view.read(&s.w.m, random));
        }
    }

    fn end(&self, s: OneBlock) {
        if self.sabotage == Sabotage::NoWait {
            // What a CPU has not flushed by now is no longer the schedule's doing.
            s.w.m.evict_all();
        }
        s.view.write_as_owner(&s.w.m);
        s.w.check();
    }
}
