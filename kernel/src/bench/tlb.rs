//! What it costs to drop translations: here, and on all CPUs.

use mm::addr::{Order, PAGE_SIZE, Pfn, VirtAddr};
use mm::frames::{FrameSource as _, Placement};
use mm::machine::{Memory as _, Processors as _};
use mm::paging::{self, Level, MapError, PteFlags};

use super::{Name, complain, overhead, ratio, row, timed};
use crate::console::raw_line;
use crate::metal::Metal;
use crate::state::{self, MM};

/// Calls, of which the cheapest counts.
const CALLS: usize = 32;

/// A call of all CPUs that does nothing: what a flush costs on top of its work.
pub(super) fn call() {
    let overhead = overhead();
    let calls = || (0..CALLS).map(|_| timed(|| Metal.on_each_cpu(&|| ())).0);
    let best = calls().min().unwrap_or(0);
    row(
        "call of all CPUs, empty",
        "call",
        best.saturating_sub(overhead),
    );
}

/// Pages in the working sets: as many as a first and as a second level TLB may hold.
const WORKING_SETS: [u64; 2] = [64, 512];

/// Most of them.
const WINDOW: u64 = 512;

/// Numbers of pages to flush.
const PAGES: [u64; 12] = [1, 2, 4, 8, 16, 24, 33, 48, 64, 128, 256, 512];

/// Measurements of each; the cheapest counts.
const ROUNDS: usize = 64;

/// From how many pages on it is cheaper to drop all translations than one by one, the
/// reading of a working set behind it included: what `tlb_single_page_flush_ceiling=`
/// should be for it.
pub(super) fn crossing() {
    let window = match Window::map() {
        Ok(window) => window,
        Err(why) => return complain(format_args!("no pages to flush: {why}")),
    };
    for working_set in WORKING_SETS {
        crossing_for(&window, working_set);
    }
    window.unmap();
}

fn crossing_for(window: &Window, working_set: u64) {
    let mut crossing = None;
    for pages in PAGES {
        // In turns, so that what disturbs one disturbs the other.
        let (mut single, mut full) = (u64::MAX, u64::MAX);
        for _ in 0..ROUNDS {
            single = single.min(window.after(working_set, || {
                for n in 0..pages {
                    Metal.flush_page_local(window.page(n));
                }
            }));
            full = full.min(window.after(working_set, || Metal.flush_all_local()));
        }
        let what = Name::of(format_args!(
            "{pages} INVLPGs, {working_set} pages read; to a full flush"
        ));
        ratio(what.as_str(), single, full);
        crossing = crossing.or((single >= full).then_some(pages));
    }
    match crossing {
        Some(pages) => raw_line(format_args!(
            "bench: {working_set} pages in use: a full flush is cheaper from {pages} pages on"
        )),
        None => complain(format_args!(
            "{working_set} pages in use: single flushes are cheaper for {WINDOW} pages, too"
        )),
    }
}

/// Pages mapped for this one by one.
struct Window {
    at: VirtAddr,
    block: Pfn,
    mapped: u64,
}

impl Window {
    fn map() -> Result<Self, &'static str> {
        let alloc = |order| {
            MM.nodes
                .alloc(&Metal, order, Placement::Prefer(Metal.this_node()))
        };
        let mut window = Self {
            at: state::env().scratch,
            block: alloc(Order::PMD).ok_or("no memory")?,
            mapped: 0,
        };
        for n in 0..WINDOW {
            // Tables of the scratch window stay for whoever uses it next.
            let mapped = paging::map(
                &Metal,
                Metal.root(),
                window.page(n),
                window.block.offset(n),
                Level::Pte,
                PteFlags::KERNEL,
                &mut || alloc(Order::PAGE),
            );
            match mapped {
                Ok(()) => window.mapped += 1,
                Err(why) => {
                    window.unmap();
                    return Err(match why {
                        MapError::NoMemory => "no memory for a table",
                        _ => "the window is in use",
                    });
                }
            }
        }
        Ok(window)
    }

    const fn page(&self, n: u64) -> VirtAddr {
        self.at.offset(n * PAGE_SIZE)
    }

    /// Ticks of `flush` and of reading the first `pages` behind it. Interrupts are off.
    fn after(&self, pages: u64, flush: impl FnOnce()) -> u64 {
        self.read(WINDOW);
        let irq = Metal.irq_save();
        let (ticks, ()) = timed(|| {
            flush();
            self.read(pages);
        });
        Metal.irq_restore(irq);
        ticks
    }

    fn read(&self, pages: u64) {
        for n in 0..pages {
            Metal.load64(self.page(n));
        }
    }

    fn unmap(&self) {
        for n in 0..self.mapped {
            match paging::unmap(&Metal, Metal.root(), self.page(n), Level::Pte) {
                Ok((_, flush)) => flush.ignore("one full flush follows"),
                Err(why) => complain(format_args!("page {n} of the window: {why:?}")),
            }
        }
        Metal.on_each_cpu(&|| Metal.flush_all_local());
        MM.nodes.free(&Metal, self.block, Order::PMD);
    }
}
