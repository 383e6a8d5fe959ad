//! `/proc/vmstat`: `name value` a line.
//!
//! Linux's names where Linux has the counter: `nr_free_pages`, `nr_memmap_*`,
//! `nr_tlb_*`, `htlb_buddy_alloc_*`. The others are this kernel's own. Those that end in
//! `_fail` count what did not go as asked since start, injected faults included, once for
//! each try; it may have gone well when it was tried again.

use core::fmt::Write;

use mm::hugetlb::Event;
use mm::machine::{FailPoint, Processors as _, Testing as _, TlbCounts};
use shell::{Errno, Files};

use crate::fault;
use crate::metal::Metal;
use crate::state::MM;

pub(super) fn add_to(files: &mut Files<'static>) {
    files.read_only("/proc/vmstat", |_, mut out| {
        memory(&mut out)?;
        translations(&mut out)?;
        folding(&mut out)?;
        huge_pages(&mut out)?;
        injected(&mut out)
    });
}

type Result = core::result::Result<(), Errno>;

/// Pages of 4 KiB.
fn memory(out: &mut impl Write) -> Result {
    let ledger = MM.vmemmap.ledger().totals();
    let rows = [
        ("nr_free_pages", MM.nodes.total_free(&Metal)),
        // Struct pages: frames allocated since boot, and at boot.
        ("nr_memmap_pages", ledger.pages),
        ("nr_memmap_boot_pages", ledger.boot_pages),
        // Allocations of anything but huge pages that found no memory.
        ("pgalloc_fail", MM.nodes.alloc_failures()),
    ];
    write(out, &rows)
}

/// What translations cost, over all CPUs.
fn translations(out: &mut impl Write) -> Result {
    let tlb: TlbCounts = (0..Metal.cpus()).map(|cpu| Metal.tlb_counts(cpu)).sum();
    let rows = [
        ("nr_tlb_remote_flush", tlb.rounds),
        ("nr_tlb_remote_flush_received", tlb.received),
        ("nr_tlb_local_flush_all", tlb.all),
        ("nr_tlb_local_flush_one", tlb.pages),
        // Interrupts sent for them.
        ("nr_tlb_ipis", tlb.sent),
    ];
    write(out, &rows)
}

/// What folding saves and costs.
fn folding(out: &mut impl Write) -> Result {
    let ledger = MM.vmemmap.ledger().totals();
    let events = MM.hugetlb.events();
    let stuck: u64 = MM.hugetlb.hstates().map(|h| h.stuck(&Metal)).sum();
    let rows = [
        ("hvo_folded_blocks", ledger.folded),
        ("hvo_saved_pages", ledger.saved),
        ("hvo_table_pages", ledger.tables),
        // Of these, those that slots of tails share, and how many slots do.
        ("hvo_shared_table_pages", ledger.shared_tables),
        ("hvo_shared_table_slots", ledger.shared_slots),
        ("hvo_shared_tail_pages", ledger.tails),
        ("hvo_flushes", ledger.flushes),
        // Huge pages that are to be given back and wait for memory to be unfolded into.
        ("hvo_stuck_pages", stuck),
        // Huge pages whose folding was refused or rolled back; they are in use unfolded.
        ("hvo_fold_fail", events.get(Event::FoldFail)),
        // Tries to unfold a huge page and give it back that found no memory. It is stuck
        // then, unless it went when tried again; so are those behind it, which do not count.
        ("hvo_restore_fail", events.get(Event::RestoreFail)),
        // Tries to demote a huge page, or to promote to one, that failed.
        ("hvo_demote_fail", events.get(Event::DemoteFail)),
        ("hvo_promote_fail", events.get(Event::PromoteFail)),
    ];
    write(out, &rows)
}

/// Huge pages, of all sizes.
fn huge_pages(out: &mut impl Write) -> Result {
    let events = MM.hugetlb.events();
    let rows = [
        // Of nodes asked for memory for one, how many gave it, and did not. As in Linux,
        // gigantic ones (1 GiB) do not count.
        ("htlb_buddy_alloc_success", events.get(Event::AllocSuccess)),
        ("htlb_buddy_alloc_fail", events.get(Event::AllocFail)),
        // Mappings refused because there were too few to promise.
        ("htlb_reserve_fail", events.get(Event::ReserveFail)),
        // Touches that found none: SIGBUS in Linux.
        ("htlb_touch_fail", events.get(Event::TouchFail)),
    ];
    write(out, &rows)
}

/// Operations that were made to fail at each point of `/sys/kernel/debug/fail_*`.
fn injected(out: &mut impl Write) -> Result {
    let at = |point| fault::attributes(point).injected();
    let rows = [
        ("fail_page_alloc", at(FailPoint::PageAlloc)),
        ("fail_hugetlb_vmemmap_pte", at(FailPoint::VmemmapPte)),
        ("fail_hugetlb_vmemmap_pmd", at(FailPoint::VmemmapPmd)),
    ];
    write(out, &rows)
}

fn write(out: &mut impl Write, rows: &[(&str, u64)]) -> Result {
    for (name, value) in rows {
        writeln!(out, "{name} {value}")?;
    }
    Ok(())
}
