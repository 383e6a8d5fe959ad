//! Page tables: mapping, splitting, flushing.

use ktest::{Outcome, check, check_eq, skip};
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn};
use mm::frames::{FrameSource, Placement};
use mm::machine::{Machine, Probe};
use mm::paging::{self, Level, MapError, PteFlags};

use crate::Env;

/// A frame for a page table.
pub(crate) fn table<M: Machine>(env: &Env<'_, M>) -> Option<Pfn> {
    env.mm
        .nodes
        .alloc(env.m, Order::PAGE, Placement::local(env.m))
}

/// A page mapped at an address is what is read and written there, and nothing is
/// there once it is unmapped and flushed.
pub fn maps_and_unmaps<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let frame = env.block(Order::PAGE)?;
    let (m, root, at) = (env.m, env.m.root(), env.scratch);
    let mut alloc = || table(env);
    check_eq!(
        paging::map(m, root, at, frame, Level::Pte, PteFlags::KERNEL, &mut alloc),
        Ok(())
    );
    m.store64(at.offset(8), 0x1234_5678_9abc_def0);
    let through_frame = m.read_phys(frame.phys().offset(8));
    m.write_phys(frame.phys().offset(16), 42);
    let through_map = m.load64(at.offset(16));
    let unmapped = paging::unmap(m, root, at, Level::Pte);
    let Ok((pte, flush)) = unmapped else {
        ktest::fail!("unmap: {unmapped:?}")
    };
    flush.flush(m);
    check_eq!(through_frame, 0x1234_5678_9abc_def0);
    check_eq!(through_map, 42);
    check_eq!(pte.pfn(), frame);
    let fault = m.probe(at, Probe::Load);
    check!(
        matches!(fault, Err(fault) if fault.code & 1 == 0),
        "load of nothing: {fault:?}"
    );
    env.free(frame, Order::PAGE);
    Ok(())
}

/// Misaligned, occupied and absent are errors, and change nothing.
pub fn refuses_bad_requests<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let frame = env.block(Order::PAGE)?;
    let (m, root, at) = (env.m, env.m.root(), env.scratch);
    let mut alloc = || table(env);
    let mut map =
        |at, frame, level| paging::map(m, root, at, frame, level, PteFlags::KERNEL, &mut alloc);
    let misaligned = map(
        at.offset(PAGE_SIZE),
        frame.align_down(Order::PMD),
        Level::Pmd,
    );
    let too_large = map(at, Pfn::new(0), Level::Pgd);
    let first = map(at, frame, Level::Pte);
    let second = map(at, frame, Level::Pte);
    let absent = paging::unmap(m, root, at.offset(PAGE_SIZE), Level::Pte).map(|_| ());
    let wrong_size = paging::unmap(m, root, at, Level::Pmd).map(|_| ());
    if let Ok((_, flush)) = paging::unmap(m, root, at, Level::Pte) {
        flush.flush(m);
    }
    env.free(frame, Order::PAGE);
    check_eq!(misaligned, Err(MapError::Misaligned));
    check_eq!(too_large, Err(MapError::NoSuchLeaf));
    check_eq!(first, Ok(()));
    check!(
        matches!(second, Err(MapError::AlreadyMapped(_))),
        "mapped twice: {second:?}"
    );
    check_eq!(absent, Err(MapError::NotMapped));
    check_eq!(wrong_size, Err(MapError::NotMapped));
    Ok(())
}

/// A 2 MiB leaf split into 512 pages maps the same frames with the same rights.
pub fn splits_leaves<M: Machine>(env: &Env<'_, M>) -> Outcome {
    if !env.m.page_size_may_change() {
        skip!("the size of a page may not change in use on this processor (A-8)");
    }
    let block = env.block(Order::PMD)?;
    let (m, root) = (env.m, env.m.root());
    let at = env.scratch.offset(PUD_SIZE);
    let mut alloc = || table(env);
    let mapped = paging::map(m, root, at, block, Level::Pmd, PteFlags::KERNEL, &mut alloc);
    check_eq!(mapped, Ok(()));
    m.store64(at.offset(PMD_SIZE - 8), 7);
    let Some(new) = table(env) else {
        skip!("no frame for a table")
    };
    let leaf = paging::walk(m, root, at);
    paging::split(m, leaf, at, new).flush(m);
    let survived = m.load64(at.offset(PMD_SIZE - 8));
    let mut wrong = None;
    for n in 0..512 {
        let entry = paging::walk(m, root, at.offset(n * PAGE_SIZE));
        let right = entry.level == Level::Pte
            && entry.pte.pfn() == block.offset(n)
            && entry.pte.flags() | PteFlags::DIRTY == PteFlags::KERNEL;
        if !right {
            wrong = Some((n, entry));
        }
        if let Ok((_, flush)) = paging::unmap(m, root, at.offset(n * PAGE_SIZE), Level::Pte) {
            flush.ignore("one full flush follows");
        }
    }
    m.on_each_cpu(&|| m.flush_all_local());
    env.free(block, Order::PMD);
    check_eq!(survived, 7);
    check!(wrong.is_none(), "entry {wrong:?}");
    Ok(())
}

/// After a remap and its flush the new frame is read, not the old.
pub fn flush_makes_visible<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (a, b) = (env.block(Order::PAGE)?, env.block(Order::PAGE)?);
    let (m, root) = (env.m, env.m.root());
    let at = env.scratch.offset(2 * PUD_SIZE);
    m.write_phys(a.phys(), 1);
    m.write_phys(b.phys(), 2);
    let mut alloc = || table(env);
    let mut map = |frame| paging::map(m, root, at, frame, Level::Pte, PteFlags::KERNEL, &mut alloc);
    let (first, before) = (map(a), m.load64(at));
    let unmapped = paging::unmap(m, root, at, Level::Pte);
    let second = map(b);
    if let Ok((_, flush)) = unmapped {
        flush.flush(m);
    }
    let after = m.load64(at);
    if let Ok((_, flush)) = paging::unmap(m, root, at, Level::Pte) {
        flush.flush(m);
    }
    env.free(a, Order::PAGE);
    env.free(b, Order::PAGE);
    check_eq!((first, before), (Ok(()), 1));
    check_eq!((second, after), (Ok(()), 2));
    Ok(())
}

/// No flush that was owed has been forgotten since boot.
pub fn every_flush_is_spent<M: Machine>(_env: &Env<'_, M>) -> Outcome {
    check_eq!(paging::unspent_flushes(), 0);
    Ok(())
}
