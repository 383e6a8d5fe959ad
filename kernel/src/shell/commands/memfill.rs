//! `memfill`: memory that is full, on purpose.

use core::cell::RefCell;
use core::fmt::{self, Write as _};

use mm::addr::{NodeId, Order};
use mm::frames::{FrameSource as _, Placement};
use mm::page::PageList;
use shell::{Command, Context, Status, kstrtoul};

use crate::metal::Metal;
use crate::state::MM;

const KIB_PER_PAGE: u64 = 4;
/// Pages between two looks for Ctrl-C.
const STRIDE: u64 = 4096;

/// The pages that were taken, linked by their struct pages: that costs no memory.
#[derive(Default)]
pub(super) struct MemFill(RefCell<PageList>);

impl Command for MemFill {
    fn name(&self) -> &'static str {
        "memfill"
    }

    fn usage(&self) -> &'static str {
        "[KIB_LEFT | free]"
    }

    fn about(&self) -> &'static str {
        "take single pages until each node has KIB_LEFT free, 0 if not said; or free them"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let left = match *args {
            [] => Some(0),
            ["free"] => {
                self.free();
                return Ok(0);
            }
            [left] => kstrtoul(left, 10).ok(),
            _ => None,
        };
        let Some(left) = left else {
            writeln!(context.io.err(), "usage: memfill {}", self.usage())?;
            return Ok(2);
        };
        for node in MM.nodes.online() {
            let taken = self.fill(node, left / KIB_PER_PAGE, context)?;
            writeln!(
                context.io.out(),
                "Node {node}: {} kB taken, {} kB free",
                taken * KIB_PER_PAGE,
                MM.nodes.get(node).free_pages(&Metal) * KIB_PER_PAGE
            )?;
        }
        Ok(0)
    }
}

impl MemFill {
    /// Takes pages of `node` until `left` are free, or Ctrl-C; how many.
    fn fill(&self, node: NodeId, left: u64, context: &mut Context<'_>) -> Result<u64, fmt::Error> {
        let mut pages = self.0.borrow_mut();
        let want = MM.nodes.get(node).free_pages(&Metal).saturating_sub(left);
        for taken in 0..want {
            if taken.is_multiple_of(STRIDE) && context.io.interrupted() {
                return Err(fmt::Error);
            }
            let place = Placement::Only(node);
            let Some(page) = MM.nodes.alloc(&Metal, Order::PAGE, place) else {
                return Ok(taken);
            };
            pages.push(&Metal, MM.vmemmap.memmap().page(page));
        }
        Ok(want)
    }

    /// Gives all of them back.
    fn free(&self) {
        let mut pages = self.0.borrow_mut();
        while let Some(page) = pages.pop(&Metal) {
            let frame = MM.vmemmap.memmap().pfn(page);
            MM.nodes.free(&Metal, frame, Order::PAGE);
        }
    }
}
