//! What each layout cannot do.

use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::layouts::{LayoutError, Spec, Vmemmap};
use mm::machine::Machine;
use mm::page::encoding::*;

use super::any::Layout;
use super::each::{FIRST, each_layout, map, ok, range, release};
use crate::Env;

/// The first failing order of a map that starts `skew` bytes too late.
fn tried<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    skew: u64,
) -> Result<Option<Option<Order>>, Stop> {
    let spec = Spec {
        skew,
        // 1 GiB, or two sections where a folio ends at one.
        ..Spec::of(range(if layout.has_sections() { 16 } else { 18 }))
    };
    let Some(mut map) = map(env, layout, spec)? else {
        return Ok(None);
    };
    let found = ok(map.first_failing_order(env), "trial")?;
    release(env, map)?;
    Ok(Some(found))
}

/// Aligned, every folio that fits finds its head; where sections have maps of their own,
/// those up to a section, and a larger one fails if heads are computed.
pub fn aligned_maps_have_no_limit<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, aligned)
}

fn aligned<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let Some(found) = tried(env, layout, 0)? else {
        return Ok(());
    };
    let sections = layout.has_sections() && layout.computes;
    check_eq!(
        found,
        sections.then_some(Order::of(16)),
        "first failing order"
    );
    Ok(())
}

/// T17: a map that starts 4 KiB, 128 KiB or 2 MiB too late fails at the order whose
/// struct pages take twice that, if heads are computed; else never.
pub fn misaligned_maps_fail_at_the_next_order<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, misaligned)
}

fn misaligned<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    // The order that fails: of 64 bytes, and of 32.
    for (skew, of_64, of_32) in [(4 << 10, 7, 8), (128 << 10, 12, 13), (2 << 20, 16, 17)] {
        let Some(found) = tried(env, layout, skew)? else {
            return Ok(());
        };
        let order = if layout.size == 64 { of_64 } else { of_32 };
        let order = order.min(if layout.has_sections() { 16 } else { 22 });
        let expected = layout.computes.then_some(Order::of(order));
        check_eq!(
            found,
            expected,
            "first failing order with an offset of {skew} bytes"
        );
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
