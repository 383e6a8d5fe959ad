//! The audit of everything (INV-6), and whether it would notice.
//!
//! By its name the last suite, so that it audits what all others left behind.

use alloc::vec::Vec;

use ktest::{Outcome, check, fail, skip};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::audit::{self, Check, Report};
use mm::machine::{Level, Machine};
use mm::page::{self, Flags};
use mm::paging::{self, Pte, PteFlags};

use crate::Env;

/// Audits the machine; a skip if there is no scratch memory for it.
pub fn run<M: Machine>(env: &Env<'_, M>) -> Result<Report, ktest::Stop> {
    let end = env.ram.last().map_or(Pfn::new(0), |ram| ram.range.end);
    let words = audit::scratch_words(end);
    let mut scratch = Vec::new();
    if scratch.try_reserve_exact(words).is_err() {
        skip!("no {} KiB of heap for the audit's bitmap", words >> 7);
    }
    scratch.resize(words, 0);
    let input = audit::input(env.m, env.mm, env.ram.iter().copied());
    match audit::audit(env.m, &input, &mut scratch) {
        Ok(report) => Ok(report),
        Err(error) => fail!("{error:?}"),
    }
}

/// Tables, struct pages, free lists and the ledger agree, whatever the cases
/// before left behind, and with some compound pages, folded if this build can.
pub fn finds_nothing<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let report = run(env)?;
    check!(report.is_ok(), "{report}");
    let mut heads = Vec::new();
    for order in [Order::of(7), Order::PMD, Order::of(16), Order::PUD] {
        let Ok(head) = env.compound(order) else {
            continue;
        };
        if page::HVO.is_ok() {
            env.fold(head, order)?;
        }
        heads.push((head, order));
    }
    let report = run(env);
    for (head, order) in heads {
        env.unfold(head, order)?;
        env.free_compound(head, order);
    }
    let report = report?;
    check!(report.is_ok(), "{report}");
    let after = run(env)?;
    check!(after.is_ok(), "{after}");
    env.m.log(Level::Info, format_args!("{after}"));
    Ok(())
}

/// A tail made writable, a tail given a frame of its own and a flag without a
/// fold are each found.
pub fn notices_damage<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    let at = head.address().offset(3 * PAGE_SIZE);
    let entry = paging::walk(env.m, env.m.root(), at);
    let spare = env.block(Order::PAGE)?;

    let with = |pte: Pte| {
        env.m.write_phys(entry.at, pte.raw());
        let report = run(env);
        env.m.write_phys(entry.at, entry.pte.raw());
        env.m.on_each_cpu(&|| env.m.flush_all_local());
        report
    };
    let writable = with(Pte::new(entry.pte.pfn(), PteFlags::KERNEL));
    let stray = with(Pte::new(spare, PteFlags::KERNEL_RO));
    env.unfold(head, order)?;
    head.set_flags(env.m, head.flags(env.m).with(Flags::VMEMMAP_OPTIMIZED));
    let flag = run(env);
    head.set_flags(env.m, head.flags(env.m).without(Flags::VMEMMAP_OPTIMIZED));
    env.free(spare, Order::PAGE);
    env.free_compound(head, order);

    let (writable, stray, flag) = (writable?, stray?, flag?);
    let found = |report: &Report, check| report.findings().any(|f| f.check == check);
    check!(
        found(&writable, Check::TailRights),
        "writable tail: {writable}"
    );
    check!(found(&stray, Check::WrongTail), "private tail: {stray}");
    check!(!flag.is_ok(), "flag without a fold: {flag}");
    let after = run(env)?;
    check!(after.is_ok(), "{after}");
    Ok(())
}
