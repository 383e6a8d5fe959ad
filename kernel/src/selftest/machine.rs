//! The machine itself, as the rest relies on it: protections, tables, faults.

use alloc::boxed::Box;

use ktest::{Outcome, check, check_eq, fail, ktest, skip};
use mm::addr::{NodeId, Order, VirtAddr};
use mm::frames::{FrameSource as _, Placement};
use mm::hwpoison::Handled;
use mm::machine::{Memory as _, Probe, Testing as _};
use mm::paging::{self, Level, Pte, PteFlags};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

use crate::arch::x86_64::{cpu, layout, stack, trampoline, trap};
use crate::metal::Metal;
use crate::state::MM;

/// Calls `each` with every leaf of the live tables.
fn for_each_leaf(each: &mut dyn FnMut(VirtAddr, Level, Pte) -> Outcome) -> Outcome {
    table_leaves(Metal.root(), Level::Pgd, 0, each)
}

fn table_leaves(
    table: mm::addr::Pfn,
    level: Level,
    start: u64,
    each: &mut dyn FnMut(VirtAddr, Level, Pte) -> Outcome,
) -> Outcome {
    for index in 0..512 {
        let pte = Pte::from_raw(Metal.read_phys(table.phys().offset(index * 8)));
        let mut at = start + index * level.span();
        if at >> 47 & 1 != 0 {
            at |= 0xffff << 48;
        }
        match level.down() {
            _ if !pte.is_present() => {}
            Some(down) if !pte.is_leaf(level) => table_leaves(pte.pfn(), down, at, each)?,
            _ => each(VirtAddr::new(at), level, pte)?,
        }
    }
    Ok(())
}

ktest! { suite = machine;
    /// What the processor can forbid, it forbids.
    fn protections_are_on() {
        check!(Cr0::read().contains(Cr0Flags::WRITE_PROTECT));
        check!(Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE));
        let f = cpu::features();
        let cr4 = Cr4::read();
        check_eq!(cr4.contains(Cr4Flags::PAGE_GLOBAL), f.pge);
        check_eq!(cr4.contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION), f.smep);
        check_eq!(cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION), f.smap);
    }

    /// INV-7: no leaf is writable and executable, none is user's, all are in the
    /// upper half, and something is executable.
    fn write_xor_execute() {
        let (mut leaves, mut executable) = (0_u64, 0_u64);
        for_each_leaf(&mut |at, level, pte| {
            let flags = pte.flags();
            let can_execute = !flags.contains(PteFlags::NO_EXECUTE);
            leaves += 1;
            executable += u64::from(can_execute);
            check!(
                !(can_execute && flags.contains(PteFlags::WRITABLE)),
                "{at:?}: {level:?} {flags:?}"
            );
            check!(!flags.contains(PteFlags::USER), "{at:?}: {level:?} {flags:?}");
            check!(at.as_u64() >= layout::DIRECT_MAP, "{at:?} is the loader's");
            check!(
                !can_execute || at.as_u64() >= layout::KERNEL_IMAGE,
                "{at:?} is executable"
            );
            Ok(())
        })?;
        check!(leaves > 0 && executable > 0, "{leaves} leaves, {executable} executable");
    }

    /// What the processor would write by itself is written beforehand (W-1, W-2): the accessed
    /// bits of the descriptors on another CPU's way, which it takes from a page that is read-only
    /// by then, and the accessed and dirty bits of all entries, used or not.
    fn nothing_is_left_to_the_processor() {
        const ACCESSED: u64 = 1 << 40;
        let descriptors = || trampoline::descriptors().filter(|&descriptor| descriptor != 0);
        check_eq!(descriptors().count(), 3);
        check!(descriptors().all(|descriptor| descriptor & ACCESSED != 0));
        for_each_leaf(&mut |at, level, pte| {
            let flags = pte.flags();
            check!(flags.contains(PteFlags::ACCESSED), "{at:?}: {level:?} {flags:?}");
            check!(
                flags.contains(PteFlags::DIRTY) == flags.contains(PteFlags::WRITABLE),
                "{at:?}: {level:?} {flags:?}"
            );
            Ok(())
        })?;
    }

    /// Frames of a stack, of the heap, of the kernel's code and of its tables break: each is marked,
    /// counted, used as before, and nobody else's when it is repaired.
    fn frames_of_the_kernel_break() {
        let heap = Box::new(0_u8);
        let local = 0_u8;
        let at = |address: u64| paging::translate(&Metal, Metal.root(), VirtAddr::new(address));
        let frames = [
            ("a stack", at(&raw const local as u64)),
            ("the heap", at(&raw const *heap as u64)),
            ("code", at(table_leaves as *const () as u64)),
            ("a table", Some(Metal.root().phys())),
        ];
        let (known, free) = (MM.hwpoison.known(), MM.nodes.total_free(&Metal));
        for (what, found) in frames {
            let Some(found) = found else { fail!("{what} is not mapped") };
            let pfn = found.pfn();
            check_eq!(MM.memory_failure(&Metal, pfn), Ok(Handled::Ignored), "{what}");
            check_eq!(MM.hwpoison.known(), known + 1, "{what}");
            check_eq!(MM.unpoison_memory(&Metal, pfn), Ok(()), "{what}");
        }
        check_eq!((MM.hwpoison.known(), MM.nodes.total_free(&Metal)), (known, free));
    }

    /// Below every stack is a page that nothing maps.
    fn stacks_have_guards() {
        for (name, guard) in stack::guards() {
            let at = VirtAddr::new(guard.start);
            check!(paging::leaf(&Metal, Metal.root(), at).is_none(), "{name}: guard page mapped");
            let below = VirtAddr::new(guard.end);
            check!(paging::leaf(&Metal, Metal.root(), below).is_some(), "{name}: not mapped");
        }
        let here = 0_u8;
        let here = (&raw const here).addr() as u64;
        let (_, guard) = &stack::guards()[0];
        check!(
            (guard.end..stack::BOOT.top()).contains(&here),
            "this runs on another stack, at {here:#x}"
        );
    }

    /// Faults that the exception table knows are reported, with address and code.
    fn faults_are_caught() {
        let nowhere = VirtAddr::new(0x1234_5000);
        let code = VirtAddr::new(trap::stub(0));
        for how in [Probe::Load, Probe::Store, Probe::CmpxchgFailing, Probe::XaddZero, Probe::Bts] {
            let Err(fault) = Metal.probe(nowhere, how) else {
                ktest::fail!("{how:?} of an address that is not mapped");
            };
            check_eq!((fault.at, fault.code), (nowhere, 0), "{how:?}");
            let on_code = Metal.probe(code, how);
            match (how, on_code) {
                (Probe::Load, Ok(())) => {}
                (Probe::Load, Err(fault)) => ktest::fail!("code cannot be read: {fault:?}"),
                (_, Ok(())) => ktest::fail!("{how:?}: code can be written"),
                (_, Err(fault)) => check_eq!((fault.at, fault.code), (code, 3), "{how:?}"),
            }
        }
    }

    /// A probe of memory that may be written goes through, and only `Bts` changes it.
    fn probes_go_through() {
        for (how, after) in [
            (Probe::Load, 6_u32),
            (Probe::Store, 6),
            (Probe::CmpxchgFailing, 6),
            (Probe::XaddZero, 6),
            (Probe::Bts, 7),
        ] {
            let word = core::sync::atomic::AtomicU32::new(6);
            let at = VirtAddr::new(word.as_ptr().addr() as u64);
            check_eq!(Metal.probe(at, how), Ok(()), "{how:?}");
            check_eq!(word.load(core::sync::atomic::Ordering::Relaxed), after, "{how:?}");
        }
    }

    /// Records are stored as often as asked, and nothing beside them.
    fn records_are_filled() {
        // Counts around the four records that vector registers store at once.
        let record = [1, 2, 3, 4, 5, 6, 7, 8];
        let frame = MM.nodes.alloc(&Metal, Order::PAGE, Placement::Prefer(NodeId::ZERO));
        let Some(frame) = frame else { skip!("no free frame") };
        let mut wrong = None;
        for count in [0_u64, 1, 3, 4, 5, 8, 62] {
            Metal.fill_words(frame.phys(), u64::MAX, 512);
            Metal.fill_phys(frame.phys().offset(64), &record, count);
            for n in 0..512 {
                let inside = (8..8 + 8 * count).contains(&n);
                let expected = if inside { n % 8 + 1 } else { u64::MAX };
                let found = Metal.read_phys(frame.phys().offset(n * 8));
                if found != expected {
                    wrong = Some((count, n, found));
                }
            }
        }
        MM.nodes.free(&Metal, frame, Order::PAGE);
        check_eq!(wrong, None, "count, word, found");
    }

    /// Strided stores store what and where they say.
    fn bulk_stores() {
        for count in [0_u64, 1, 7, 8, 9, 16, 23] {
            let words = alloc::vec![1_u64; 8 * 24];
            let at = VirtAddr::new(words.as_ptr().expose_provenance() as u64);
            Metal.store64_strided(at, 64, count, 5);
            for (n, word) in (0_u64..).zip(core::hint::black_box(&words)) {
                let hit = n % 8 == 0 && n / 8 < count;
                check_eq!(*word, if hit { 5 } else { 1 }, "word {n}, count {count}");
            }
        }
    }
}
