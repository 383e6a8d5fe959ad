//! The audit of everything, after everything; and that it notices.

use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq, fail, skip};
use mm::addr::{Order, Pfn, PhysAddr, VirtAddr};
use mm::audit::{self, Check, Report};
use mm::machine::Machine;
use mm::page::{Flags, Page, PageType};
use mm::paging::{self, PteFlags};

use crate::Env;

/// Runs the audit with scratch memory from the heap.
fn report<M: Machine>(env: &Env<'_, M>) -> Result<Report, Stop> {
    let end = env.ram.iter().map(|ram| ram.range.end).max();
    let words = audit::scratch_words(end.unwrap_or(Pfn::new(0)));
    let mut scratch: Vec<u64> = Vec::new();
    if scratch.try_reserve_exact(words).is_err() {
        skip!("the heap has no {} KiB for the audit", words / 128);
    }
    scratch.resize(words, 0);
    let input = audit::input(env.m, env.mm, env.ram.iter().copied());
    match audit::audit(env.m, &input, &mut scratch) {
        Ok(report) => Ok(report),
        Err(short) => fail!("{short:?}"),
    }
}

/// With blocks of several orders folded, and with none: nothing to find.
pub fn finds_nothing<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let orders = [7, 9, 9, 12, 15].map(Order::of);
    let mut heads = Vec::new();
    for order in orders {
        let head = env.compound(order)?;
        env.fold(head, order)?;
        heads.push((head, order));
    }
    let folded = report(env)?;
    for (head, order) in heads {
        env.unfold(head, order)?;
        env.free_compound(head, order);
    }
    let unfolded = report(env)?;
    check!(
        folded.is_ok(),
        "with {} blocks folded: {folded}",
        orders.len()
    );
    check!(unfolded.is_ok(), "after: {unfolded}");
    check_eq!(folded.folded, unfolded.folded + orders.len() as u64);
    check_eq!(folded.saved, unfolded.saved + 1 + 7 + 7 + 63 + 511);
    Ok(())
}

/// Every kind of damage that folding could do is done by hand, found, and undone.
pub fn notices_damage<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let (head, other) = (env.compound(order)?, env.compound(order)?);
    env.fold(head, order)?;
    let outcome = damage(env, head, other);
    env.unfold(head, order)?;
    for head in [head, other] {
        env.free_compound(head, order);
    }
    outcome?;
    let after = report(env)?;
    check!(after.is_ok(), "after: {after}");
    Ok(())
}

/// Where the entry of the `n`th frame of `head`'s memmap lies, and what it holds.
fn entry<M: Machine>(env: &Env<'_, M>, head: Page, n: u64) -> (PhysAddr, u64) {
    let at = env.memmap_frame(head, n).address();
    let entry = paging::walk(env.m, env.m.root(), at);
    (entry.at, entry.pte.raw())
}

fn damage<M: Machine>(env: &Env<'_, M>, folded: Page, plain: Page) -> Outcome {
    let m = env.m;
    let (tail_entry, tail) = entry(env, folded, 3);
    let (head_entry, head) = entry(env, folded, 0);
    let flip = |bit: PteFlags| tail ^ bit.bits();
    // Damage to a table entry: where, what to, and what must be said of it.
    let entries = [
        (
            "a writable tail",
            tail_entry,
            flip(PteFlags::WRITABLE),
            Check::TailRights,
        ),
        (
            "a dirty tail",
            tail_entry,
            flip(PteFlags::DIRTY),
            Check::TailRights,
        ),
        (
            "an executable tail",
            tail_entry,
            flip(PteFlags::NO_EXECUTE),
            Check::TailRights,
        ),
        (
            "a tail open to users",
            tail_entry,
            flip(PteFlags::USER),
            Check::TailRights,
        ),
        (
            "a tail not present",
            tail_entry,
            flip(PteFlags::PRESENT),
            Check::TailRights,
        ),
        (
            "a tail in the head's frame",
            tail_entry,
            head & !2,
            Check::WrongTail,
        ),
        (
            "a read-only head",
            head_entry,
            head & !2,
            Check::MemmapRights,
        ),
        (
            "a head in the shared page",
            head_entry,
            tail | 2,
            Check::StrayTail,
        ),
    ];
    for (name, at, value, expected) in entries {
        let before = m.read_phys(at);
        m.write_phys(at, value);
        let found = report(env);
        m.write_phys(at, before);
        expect(name, &found?, expected)?;
    }
    // Damage to a struct page: of the folded block, of the plain one, and of the
    // page that the tails share.
    let tail_page = PhysAddr::new(tail & 0x000f_ffff_ffff_f000);
    let shared = |word: u64| tail_page.offset(word * 8);
    let of = |page: Page, word: u64| {
        let at: VirtAddr = page.address().offset(word * 8);
        paging::translate(m, m.root(), at)
    };
    let folded_flag = Flags::VMEMMAP_OPTIMIZED.raw();
    let free = u64::from(PageType::TAILS.raw() ^ PageType::BUDDY.raw());
    let words = [
        (
            "a flag in the shared page",
            Some(shared(0)),
            folded_flag,
            Check::TailContent(0),
        ),
        (
            "a count in the shared page",
            Some(shared(63 * 8 + 6)),
            1 << 32,
            Check::TailContent(510),
        ),
        (
            "a block that lost its mark",
            of(folded, 0),
            folded_flag,
            Check::StrayTail,
        ),
        (
            "a block marked for nothing",
            of(plain, 0),
            folded_flag,
            Check::WrongTail,
        ),
        (
            "a tail of another order",
            of(plain.nth(64), 1),
            1 << 15,
            Check::TailMask,
        ),
        (
            "a head that lost its mark",
            of(plain, 0),
            Flags::HEAD.raw(),
            Check::OrphanTail,
        ),
        (
            "a shared page on the free list",
            of(env.page(tail_page.pfn()), 6),
            free,
            Check::FreeFrameInUse,
        ),
    ];
    for (name, at, bits, expected) in words {
        let Some(at) = at else {
            fail!("{name}: no such struct page");
        };
        let before = m.read_phys(at);
        m.write_phys(at, before ^ bits);
        let found = report(env);
        m.write_phys(at, before);
        expect(name, &found?, expected)?;
    }
    Ok(())
}

fn expect(name: &str, report: &Report, expected: Check) -> Outcome {
    let noticed = report.findings().any(|finding| finding.check == expected);
    check!(noticed, "{name}: expected \"{expected}\", got {report}");
    Ok(())
}
