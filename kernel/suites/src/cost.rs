//! What things cost, for `init=bench`.
//!
//! The clock is the machine's: under `-icount shift=0` one tick of it is one
//! instruction, and QEMU counts each round of a `rep` instruction as one. Figures
//! are whole operations, bookkeeping of the pools included, as
//! `echo N > nr_hugepages` is for Linux.

use alloc::vec::Vec;
use core::fmt;
use core::hint::black_box;

use mm::addr::Order;
use mm::hugetlb::Hstate;
use mm::machine::Machine;

use crate::Env;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub what: &'static str,
    /// Folios, or calls.
    pub count: u64,
    /// Ticks for all of them.
    pub ticks: u64,
}

impl Row {
    /// Ticks for one, rounded to the nearest.
    #[must_use]
    pub fn each(&self) -> u64 {
        (self.ticks + self.count / 2) / self.count.max(1)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bench: {:<44} {:>6} x {:>12}",
            self.what,
            self.count,
            self.each()
        )
    }
}

/// Runs everything and returns the table. A size that the machine has no room
/// for is left out.
pub fn table<M: Machine>(env: &Env<'_, M>, clock: &dyn Fn() -> u64) -> Vec<Row> {
    let mut bench = Bench {
        env,
        clock,
        rows: Vec::new(),
    };
    let was = env.mm.hugetlb.optimizes();
    if let Some(h) = env.mm.hugetlb.hstate(Order::PMD) {
        // The first fold of a section splits a leaf and makes the shared tail.
        bench.pool(
            h,
            true,
            512,
            [
                "2M alloc, HVO on, 512, first touch",
                "2M free, HVO on, 512, first",
            ],
        );
        bench.pool(
            h,
            false,
            1,
            ["2M alloc, HVO off, single", "2M free, HVO off, single"],
        );
        bench.pool(
            h,
            true,
            1,
            ["2M alloc, HVO on, single", "2M free, HVO on, single"],
        );
        bench.pool(
            h,
            false,
            512,
            ["2M alloc, HVO off, 512", "2M free, HVO off, 512"],
        );
        bench.pool(
            h,
            true,
            512,
            ["2M alloc, HVO on, 512", "2M free, HVO on, 512"],
        );
        bench.over_ask(h, false, "2M alloc, HVO off, ask for all memory + 1000");
        bench.over_ask(h, true, "2M alloc, HVO on, ask for all memory + 1000");
    }
    if let Some(h) = env.mm.hugetlb.hstate(Order::PUD) {
        bench.pool(
            h,
            true,
            1,
            [
                "1G alloc, HVO on, single, first touch",
                "1G free, HVO on, single, first",
            ],
        );
        bench.pool(
            h,
            false,
            1,
            ["1G alloc, HVO off, single", "1G free, HVO off, single"],
        );
        bench.pool(
            h,
            true,
            1,
            ["1G alloc, HVO on, single", "1G free, HVO on, single"],
        );
        bench.pool(h, false, 4, ["1G alloc, HVO off, 4", "1G free, HVO off, 4"]);
        bench.pool(h, true, 4, ["1G alloc, HVO on, 4", "1G free, HVO on, 4"]);
    }
    bench.compound_head(false, "compound_head of a tail, HVO off");
    bench.compound_head(true, "compound_head of a tail, HVO on");
    env.mm.hugetlb.set_optimize(was);
    bench.rows
}

struct Bench<'a, 'e, M: Machine> {
    env: &'a Env<'e, M>,
    clock: &'a dyn Fn() -> u64,
    rows: Vec<Row>,
}

impl<M: Machine> Bench<'_, '_, M> {
    fn row(&mut self, what: &'static str, count: u64, work: impl FnOnce() -> u64) -> u64 {
        let start = (self.clock)();
        let done = work();
        let ticks = (self.clock)() - start;
        if done == count {
            self.rows.push(Row { what, count, ticks });
        }
        done
    }

    /// `count` folios into the pool and out again.
    fn pool(&mut self, h: &Hstate, hvo: bool, count: u64, [alloc, free]: [&'static str; 2]) {
        let env = self.env;
        env.mm.hugetlb.set_optimize(hvo);
        let (m, backing) = (env.m, env.backing());
        let added = self.row(alloc, count, || {
            env.mm.hugetlb.grow(m, backing, h, None, count)
        });
        self.row(free, added.min(count), || {
            env.mm.hugetlb.shrink(m, backing, h, None, added)
        });
        if added < count {
            self.rows.pop();
        }
    }

    /// More than fits; the figure is for each folio that did.
    fn over_ask(&mut self, h: &Hstate, hvo: bool, what: &'static str) {
        let env = self.env;
        env.mm.hugetlb.set_optimize(hvo);
        let ask = env.mm.nodes.total_present() / h.order().pages() + 1000;
        let start = (self.clock)();
        let count = env.mm.hugetlb.grow(env.m, env.backing(), h, None, ask);
        let ticks = (self.clock)() - start;
        self.rows.push(Row { what, count, ticks });
        env.mm.hugetlb.shrink(env.m, env.backing(), h, None, count);
    }

    /// A call for each tail of a 2 MiB folio, less what the bare loop takes.
    fn compound_head(&mut self, hvo: bool, what: &'static str) {
        let env = self.env;
        let order = Order::PMD;
        env.mm.hugetlb.set_optimize(hvo);
        let Some(h) = env.mm.hugetlb.hstate(order) else {
            return;
        };
        if env.mm.hugetlb.grow(env.m, env.backing(), h, None, 1) == 0 {
            return;
        }
        if let Some(head) = env.mm.nodes.online().find_map(|node| h.take(env.m, node)) {
            let time = |body: &dyn Fn()| {
                let start = (self.clock)();
                body();
                (self.clock)() - start
            };
            let bare = time(&|| {
                for n in 1..order.pages() {
                    black_box(head.nth(black_box(n)));
                }
            });
            let called = time(&|| {
                for n in 1..order.pages() {
                    black_box(head.nth(black_box(n)).compound_head(env.m));
                }
            });
            let count = order.pages() - 1;
            self.rows.push(Row {
                what,
                count,
                ticks: called.saturating_sub(bare),
            });
            h.put(env.m, head);
        }
        env.mm.hugetlb.shrink(env.m, env.backing(), h, None, 1);
    }
}
