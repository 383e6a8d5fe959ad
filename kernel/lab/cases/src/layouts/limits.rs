//! What each layout cannot do.

use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq};
use lab::layouts::{LayoutError, Spec, Vmemmap};
use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange};
use mm::machine::Machine;
use mm::page::encoding::*;

use super::any::{AnyMap, Boxed, Layout};
use super::each::{FIRST, each_layout, map, ok, range, release, room};
use suites::Env;

/// A map, and the first order of which a folio in it failed, if one did.
type Tried<M> = (Boxed<M>, Option<Order>);

/// A map of `spec` in which a folio of each order is tried.
fn tried<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    spec: Spec,
) -> Result<Option<Tried<M>>, Stop> {
    let Some(mut map) = map(env, layout, spec)? else {
        return Ok(None);
    };
    let found = ok(map.first_failing_order(env), "trial")?;
    env.m.touch_watchdog();
    Ok(Some((map, found)))
}

/// Aligned, every folio that fits finds its head, up to 16 GiB if there is memory for
/// their struct pages; where sections have maps of their own, those up to a section, and
/// a larger one fails if heads are computed.
pub fn aligned_maps_have_no_limit<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, aligned)
}

fn aligned<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let spec = Spec::of(range(room(env, layout).get()));
    let Some((map, found)) = tried(env, layout, spec)? else {
        return Ok(());
    };
    let sections = layout.has_sections() && layout.computes;
    let expected = sections.then_some(Order::of(16));
    check_eq!(found, expected, "first failing order");
    release(env, map)
}

/// T17: a map that starts half a folio's struct pages too late fails at that folio's
/// order if heads are computed, at each order up to the largest, and what fails is
/// refused while the next smaller order is not; else it never fails.
pub fn misaligned_maps_fail_at_the_next_order<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, misaligned)
}

fn misaligned<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let skew = |order: u8| layout.size.next_power_of_two() << (order - 1);
    let (grain, lowest) = match layout.model {
        // What is mapped starts at a page.
        MemoryModel::SparsememVmemmap => (9, (1..=10).find(|order| skew(*order) >= PAGE_SIZE)),
        MemoryModel::Sparsemem => (15, None),
        MemoryModel::Flatmem => (9, None),
    };
    let highest = match layout.model {
        // Each section starts that much too late.
        MemoryModel::Sparsemem => 16,
        _ => room(env, layout).get(),
    };
    let lowest = lowest.unwrap_or(1);
    for order in lowest..=highest {
        if !layout.computes && ![lowest, 12, highest].contains(&order) {
            continue;
        }
        let spec = Spec {
            skew: skew(order),
            ..Spec::of(range(order.max(grain)))
        };
        let Some((mut map, found)) = tried(env, layout, spec)? else {
            return Ok(());
        };
        let order = Order::of(order);
        let expected = layout.computes.then_some(order);
        check_eq!(found, expected, "first failing order, {} late", spec.skew);
        if layout.computes {
            expect_limit(env, &mut *map, order)?;
        }
        release(env, map)?;
    }
    Ok(())
}

/// Whether a folio of `order` is refused, and one of the order below is made.
fn expect_limit<M: Machine>(env: &Env<'_, M>, map: &mut dyn AnyMap<M>, order: Order) -> Outcome {
    let mask = order.pages() - 1;
    let first = Pfn::new((map.spec().range.start.as_u64() + mask) & !mask);
    let refused = map.prep(env, first, order);
    check_eq!(refused, Err(LayoutError::OrderOutOfBounds(order)));
    let Some(less) = order.down().filter(|less| *less > Order::PAGE) else {
        return Ok(());
    };
    let first = map.spec().range.start;
    ok(map.prep(env, first, less), "prep of the order below")?;
    let last = first.offset(less.pages() - 1);
    check_eq!(map.folio_of(env.m, last), Some(first), "of order {less}");
    ok(map.destroy(env, first, less), "destroy")
}

/// T17: frames that start at an odd multiple of a block. One array for a node starts with
/// their struct pages, so computed heads are missed from the next order on; the vmemmap
/// starts at frame 0 wherever the node does, and sections at their own.
pub fn nodes_may_start_late<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, late)
}

fn late<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let lowest = if layout.has_sections() { 15 } else { 9 };
    // Room for a folio of the next order behind the start.
    let highest = room(env, layout).get().saturating_sub(2).max(lowest);
    for by in lowest..=highest {
        let never = !layout.computes || layout.model == MemoryModel::SparsememVmemmap;
        if never && ![lowest, highest].contains(&by) {
            continue;
        }
        let start = FIRST.offset(1 << by);
        let spec = Spec::of(PfnRange::new(start, FIRST.offset(4 << by)));
        let Some((mut map, found)) = tried(env, layout, spec)? else {
            return Ok(());
        };
        let next = Order::of(by + 1);
        let expected = match layout.model {
            MemoryModel::SparsememVmemmap => None,
            MemoryModel::Sparsemem => layout.computes.then_some(Order::of(16)),
            MemoryModel::Flatmem => layout.computes.then_some(next),
        };
        check_eq!(found, expected, "first failing order from {start:?} on");
        if expected.is_some() {
            expect_limit(env, &mut *map, next)?;
        }
        release(env, map)?;
    }
    Ok(())
}

/// A layout is refused exactly when heads are computed from a size that is no power of
/// two, or when there is no room for the folio's data; folding, when frames of tails are
/// not alike, a fake head would not be known, or nothing can be remapped.
pub fn refusals_are_the_expected<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, refusals)
}

fn refusals<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let expected = if layout.size == 56 && layout.computes {
        Some(Refusal::NotPowerOfTwo)
    } else if layout.size == 8 && !layout.descriptor {
        Some(Refusal::NoRoomForFolio)
    } else {
        None
    };
    let made = layout.make(Spec::of(range(15)));
    check_eq!(made.as_ref().err().copied(), expected);
    let Some(mut map) = map(env, layout, Spec::of(range(15)))? else {
        return Ok(());
    };
    let hinder = if layout.size == 56 {
        Refusal::Straddles
    } else if layout.sharing == Sharing::Nothing {
        Refusal::FakeHeads
    } else if layout.model != MemoryModel::SparsememVmemmap {
        Refusal::NotRemappable
    } else {
        return release(env, map);
    };
    let order = Order::of(12);
    ok(map.prep(env, FIRST, order), "prep")?;
    let before = *map.ledger();
    let refused = map.fold(env, FIRST, order);
    check_eq!(refused, Err(LayoutError::Refused(hinder)));
    check_eq!(*map.ledger(), before, "ledger after the refusal");
    release(env, map)
}

/// Section maps are aligned, follow each other in no useful order, and pages are found
/// across their borders in both directions.
pub fn sections_cross<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, sections)
}

fn sections<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let sections = 4u64;
    let Some(map) = map(env, layout, Spec::of(range(17)))? else {
        return Ok(());
    };
    let own = layout.has_sections();
    let start = |n: u64| FIRST.offset(n << 15);
    for n in 1..sections {
        let last = Pfn::new(start(n).as_u64() - 1);
        let (a, b) = (map.page(env.m, last), map.page(env.m, start(n)));
        check_eq!(
            map.nth_page(env.m, a, 1),
            b,
            "behind the last page of section {}",
            n - 1
        );
        check_eq!(
            b == a.offset(layout.size),
            !own,
            "struct pages of sections are neighbours"
        );
        check_eq!((map.pfn(env.m, a), map.pfn(env.m, b)), (last, start(n)));
        let aligned = b.is_aligned((layout.size << 15).next_power_of_two());
        check!(aligned || !own, "map of section {n} at {b:?}");
    }
    let taken = map.ledger().section_tables;
    check_eq!(taken, u64::from(own), "section tables");
    release(env, map)
}

/// T29: with 56 bytes no two frames of tails of a 2 MiB folio are the same bytes, and of
/// a larger one only every seventh is; with sizes that are powers of two all are.
pub fn bytes_56_are_never_alike<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = env.snapshot();
    for order in [Order::PMD, Order::of(12)] {
        let odd = frames_of_tails(env, &Layout::of::<Pointer, Bytes56, Vmemmap>(), order)?;
        for (i, a) in odd.iter().enumerate() {
            for (j, b) in odd.iter().enumerate() {
                check_eq!(
                    a == b,
                    i % 7 == j % 7,
                    "frames {i} and {j} of order {order}"
                );
            }
        }
        check_eq!(odd.len() as u64, order.pages() * 56 / PAGE_SIZE - 1);
        let even = frames_of_tails(env, &Layout::of::<Pointer, Bytes64, Vmemmap>(), order)?;
        check!(
            even.windows(2).all(|pair| pair[0] == pair[1]),
            "64 bytes, order {order}"
        );
    }
    env.same_as(&before)
}

/// The words of all frames of memmap of a folio, that of the head left out.
fn frames_of_tails<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    order: Order,
) -> Result<Vec<Vec<u64>>, Stop> {
    let Some(mut map) = map(env, layout, Spec::of(range(12)))? else {
        ktest::fail!("{layout} is refused");
    };
    ok(map.prep(env, FIRST, order), "prep")?;
    let head = map.page(env.m, FIRST);
    let words = |frame: u64| (0..PAGE_SIZE / 8).map(move |n| frame * PAGE_SIZE + n * 8);
    let frames = (1..order.pages() * layout.size / PAGE_SIZE)
        .map(|frame| {
            words(frame)
                .map(|at| env.m.load64(head.offset(at)))
                .collect()
        })
        .collect();
    release(env, map)?;
    Ok(frames)
}
