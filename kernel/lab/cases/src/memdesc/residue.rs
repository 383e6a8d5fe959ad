//! What is left of a huge page's memmap, by size of struct page.

use ktest::{Outcome, check_eq};
use lab::memdesc::{Kind, MemdescError, Page8, Page16, Page32, Page64, StructPage};
use mm::addr::Order;
use mm::machine::Machine;

use super::lookup::ok;
use super::{World, with_map};
use suites::Env;

/// KiB of struct pages without and with folding, by the ledger, in a map that is one
/// folio of `order`, and bytes of descriptors beside.
fn residue<M: Machine, L: StructPage>(
    env: &Env<'_, M>,
    order: Order,
    unfolded: u64,
    folded: u64,
) -> Outcome {
    with_map::<M, L>(env, order, |w: &World<'_, M, L>| {
        let (m, map) = (w.m, &w.map);
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let before = map.totals(m);
        check_eq!(
            before.memmap_bytes() >> 10,
            unfolded,
            "{} bytes, unfolded",
            L::SIZE
        );
        match map.fold(m, w.nodes, folio) {
            // One frame already: there is nothing to fold.
            Err(MemdescError::OrderTooSmall { .. }) if unfolded == folded => {}
            result => {
                ok(result)?;
            }
        }
        w.check()?;
        let after = map.totals(m);
        check_eq!(
            after.memmap_bytes() >> 10,
            folded,
            "{} bytes, folded",
            L::SIZE
        );
        check_eq!(after.descriptor_bytes(), Kind::Folio.size());
        check_eq!(after.descriptor_frames, 1);
        map.folio_put(m, w.nodes, folio);
        Ok(())
    })
}

/// 2 MiB: 32, 16, 8 and 4 KiB become 4 KiB.
pub fn residue_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    residue::<M, Page64>(env, Order::PMD, 32, 4)?;
    residue::<M, Page32>(env, Order::PMD, 16, 4)?;
    residue::<M, Page16>(env, Order::PMD, 8, 4)?;
    residue::<M, Page8>(env, Order::PMD, 4, 4)
}

/// 1 GiB: 16, 8, 4 and 2 MiB become 4 KiB.
pub fn residue_1g<M: Machine>(env: &Env<'_, M>) -> Outcome {
    residue::<M, Page64>(env, Order::PUD, 16 << 10, 4)?;
    residue::<M, Page32>(env, Order::PUD, 8 << 10, 4)?;
    residue::<M, Page16>(env, Order::PUD, 4 << 10, 4)?;
    residue::<M, Page8>(env, Order::PUD, 2 << 10, 4)
}
