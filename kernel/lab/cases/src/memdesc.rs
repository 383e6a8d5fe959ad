//! The memdesc world beside the kernel's memmap: maps of all four sizes of struct page.

mod fold;
mod lookup;
mod residue;
mod smp;

use ktest::{Outcome, Stop, check_eq, skip};
use lab::memdesc::{
    DEFAULT_BASE, Descriptor as _, MemdescError, MemdescMap, Page8, Page16, Page32, Page64,
    StructPage,
};
use mm::addr::Order;
use mm::frames::Placement;
use mm::machine::Machine;
use mm::node::Nodes;

use alloc::vec;
use suites::{Env, hwpoison};

pub use fold::{
    fails_each_allocation, fails_each_store, flags_break_the_sharing, free_needs_no_memory,
    round_trips, shared_frame_is_read_only,
};
pub use lookup::{
    compound_head_is_for_bare_pages, put_redirects_to_the_folio, reused_descriptor_is_refused,
    types_are_told_apart,
};
pub use residue::{residue_1g, residue_2m};
pub use smp::cpus_share_a_map;

/// A map under test.
pub(crate) struct World<'a, M: Machine, L: StructPage> {
    pub(crate) m: &'a M,
    pub(crate) nodes: &'a Nodes,
    pub(crate) map: MemdescMap<L>,
}

impl<M: Machine, L: StructPage> World<'_, M, L> {
    /// Fails unless the audit finds nothing.
    pub(crate) fn check(&self) -> Outcome {
        let audit = self.map.audit(self.m);
        if !audit.is_ok() {
            ktest::fail!("{} bytes: {audit}", L::SIZE);
        }
        Ok(())
    }
}

/// Runs `case` on a map of `order`, empty before and after, and takes care that not a
/// frame is missing.
pub(crate) fn with_map<M: Machine, L: StructPage>(
    env: &Env<'_, M>,
    order: Order,
    case: impl FnOnce(&World<'_, M, L>) -> Outcome,
) -> Outcome {
    let (m, nodes) = (env.m, &env.mm.nodes);
    let before = env.snapshot();
    let placement = Placement::local(m);
    let map = match MemdescMap::new(m, nodes, nodes.memmap(), DEFAULT_BASE, order, placement) {
        Ok(map) => map,
        Err(MemdescError::NoMemory) => skip!("no memory for a map of order {order}"),
        Err(error) => ktest::fail!("map of order {order}: {error}"),
    };
    let world = World { m, nodes, map };
    let outcome = world
        .check()
        .and_then(|()| case(&world))
        .and_then(|()| world.check());
    match world.map.destroy(m, nodes) {
        Ok(()) => {}
        Err((error, _)) => return outcome.and_then(|()| Err(failure(&error))),
    }
    outcome?;
    env.same_as(&before)
}

fn failure(error: &MemdescError) -> Stop {
    Stop::failed(file!(), line!(), format_args!("the map cannot go: {error}"))
}

/// Runs a case for each size of struct page.
macro_rules! each_size {
    ($env:expr, $order:expr, $case:ident) => {{
        $crate::memdesc::with_map::<M, lab::memdesc::Page64>($env, $order, $case)?;
        $crate::memdesc::with_map::<M, lab::memdesc::Page32>($env, $order, $case)?;
        $crate::memdesc::with_map::<M, lab::memdesc::Page16>($env, $order, $case)?;
        $crate::memdesc::with_map::<M, lab::memdesc::Page8>($env, $order, $case)
    }};
}
pub(crate) use each_size;

/// A slab's frame breaks while a descriptor lies in it, and is given back with the map.
pub fn broken_slab_stays_out<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (m, nodes) = (env.m, &env.mm.nodes);
    hwpoison::stays_out(env, || {
        let (order, placement) = (Order::of(12), Placement::local(m));
        let map =
            MemdescMap::<Page32>::new(m, nodes, nodes.memmap(), DEFAULT_BASE, order, placement);
        let Ok(map) = map else {
            skip!("no memory for a map of order {order}");
        };
        let folio = lookup::ok(map.alloc_folio(m, nodes, Order::PMD))?;
        let frame = folio.phys().pfn();
        hwpoison::breaks_in_use(env, frame)?;
        check_eq!(map.page_folio(m, map.page(folio.pfn(m))), Some(folio));
        map.folio_put(m, nodes, folio);
        if let Err((error, _)) = map.destroy(m, nodes) {
            return Err(failure(&error));
        }
        Ok(vec![frame])
    })
}

/// A block too small for one frame of struct pages and a window in use are refused, and
/// a map that is used does not go.
pub fn refuses_what_it_must<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn too_small<M: Machine, L: StructPage>(env: &Env<'_, M>, least: u8) -> Outcome {
        let (m, nodes) = (env.m, &env.mm.nodes);
        let order = Order::of(least - 1);
        let least = Order::of(least);
        let new = |base, order| {
            let placement = Placement::local(m);
            MemdescMap::<L>::new(m, nodes, nodes.memmap(), base, order, placement).err()
        };
        let error = MemdescError::TooSmall { order, least };
        check_eq!(new(DEFAULT_BASE, order), Some(error));
        for base in [nodes.memmap().base(), DEFAULT_BASE.offset(1 << 30)] {
            check_eq!(new(base, least), Some(MemdescError::BadWindow(base)));
        }
        Ok(())
    }
    let before = env.snapshot();
    too_small::<M, Page64>(env, 6)?;
    too_small::<M, Page32>(env, 7)?;
    too_small::<M, Page16>(env, 8)?;
    too_small::<M, Page8>(env, 9)?;
    env.same_as(&before)
}
