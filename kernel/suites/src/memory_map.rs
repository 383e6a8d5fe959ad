//! The memory map, nodes, and what is reserved.

use ktest::{Outcome, check, check_eq};
use mm::addr::MAX_NODES;
use mm::machine::Machine;
use mm::page::Flags;

use crate::Env;

/// Every page of RAM belongs to one node, and no node has more free than present.
pub fn nodes_account_for_ram<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let mut present = [0; MAX_NODES];
    for ram in env.ram {
        check!(!ram.range.is_empty(), "empty range {:?}", ram.range);
        present[ram.node.index()] += ram.range.pages();
    }
    for pair in env.ram.windows(2) {
        check!(
            pair[0].range.end <= pair[1].range.start,
            "{:?} and {:?}",
            pair[0],
            pair[1]
        );
    }
    let nodes = &env.mm.nodes;
    check_eq!(nodes.total_present(), present.iter().sum::<u64>());
    for node in nodes.online() {
        let this = nodes.get(node);
        check_eq!(
            this.present_pages(),
            present[node.index()],
            "present on {node:?}"
        );
        check!(this.free_pages(env.m) <= this.present_pages(), "{node:?}");
    }
    Ok(())
}

/// First, last and middle page of every RAM range have a struct page that names
/// the range's node.
pub fn sections_have_struct_pages<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for ram in env.ram {
        let last = ram.range.pages() - 1;
        for n in [0, last / 2, last] {
            let pfn = ram.range.start.offset(n);
            let page = env.page(pfn);
            check!(env.frame_of(page).is_some(), "{pfn:?} has no struct page");
            check_eq!(page.node(env.m), ram.node, "node of {pfn:?}");
        }
    }
    Ok(())
}

/// Frame 0 and the tables in use are reserved, count 0, and on no free list.
pub fn reserved_stays_reserved<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let root = env.page(env.m.root());
    check!(
        root.flags(env.m).contains(Flags::RESERVED),
        "the live root table is not reserved"
    );
    let misuse = env
        .mm
        .nodes
        .check_free(env.m, env.m.root(), mm::addr::Order::PAGE);
    check!(
        matches!(misuse, Err(mm::buddy::Misuse::Foreign { .. })),
        "freeing the live root table would be {misuse:?}"
    );
    Ok(())
}
