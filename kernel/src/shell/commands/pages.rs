//! What single pages and table entries look like.

use core::fmt::{self, Write as _};

use mm::addr::{Order, PAGE_SIZE, Pfn, VirtAddr};
use mm::machine::{Memory as _, Processors as _};
use mm::page::{self, Flags, Page, PageType};
use mm::paging::{self, Level, Pte, PteFlags};
use shell::{Command, Context, Status, kstrtoul};

use super::printed;
use crate::metal::Metal;
use crate::report;
use crate::state::{self, MM};

/// Bits of `/proc/kpageflags` (Linux's `include/uapi/linux/kernel-page-flags.h`).
mod kpf {
    pub(super) const BUDDY: u32 = 10;
    pub(super) const COMPOUND_HEAD: u32 = 15;
    pub(super) const COMPOUND_TAIL: u32 = 16;
    pub(super) const HUGE: u32 = 17;
    pub(super) const HWPOISON: u32 = 19;
    pub(super) const NOPAGE: u32 = 20;
    pub(super) const PGTABLE: u32 = 26;
    pub(super) const RESERVED: u32 = 32;
}

/// The bits of `page` as Linux shows them to user space.
#[doc(alias = "stable_page_flags")]
fn stable_flags(at: Page) -> u64 {
    let head = at.compound_head(&Metal);
    let kind = at.page_type(&Metal);
    let bits = [
        (kpf::COMPOUND_HEAD, at.is_head(&Metal)),
        (kpf::COMPOUND_TAIL, at.is_tail(&Metal)),
        (kpf::HUGE, head.page_type(&Metal) == PageType::HUGETLB),
        (kpf::HWPOISON, at.flags(&Metal).contains(Flags::HWPOISON)),
        (kpf::BUDDY, kind == PageType::BUDDY),
        (kpf::PGTABLE, kind == PageType::TABLE),
        (kpf::RESERVED, at.flags(&Metal).contains(Flags::RESERVED)),
    ];
    bits.into_iter()
        .fold(0, |all, (bit, on)| all | u64::from(on) << bit)
}

/// Letters as the tool `page-types` gives them.
fn letters(flags: u64) -> impl fmt::Display {
    let names = [
        (kpf::BUDDY, "buddy"),
        (kpf::COMPOUND_HEAD, "compound_head"),
        (kpf::COMPOUND_TAIL, "compound_tail"),
        (kpf::HUGE, "huge"),
        (kpf::HWPOISON, "hwpoison"),
        (kpf::NOPAGE, "nopage"),
        (kpf::PGTABLE, "pgtable"),
        (kpf::RESERVED, "reserved"),
    ];
    fmt::from_fn(move |f| {
        let mut between = "";
        for (bit, name) in names {
            if flags >> bit & 1 != 0 {
                write!(f, "{between}{name}")?;
                between = ",";
            }
        }
        Ok(())
    })
}

/// A number in any base that C has.
fn number(word: &str) -> Option<u64> {
    kstrtoul(word, 0).ok()
}

pub(super) struct KPageFlags;

/// Most pages that are shown without being asked for more.
const MAX_PAGES: u64 = 1 << 24;

impl Command for KPageFlags {
    fn name(&self) -> &'static str {
        "kpageflags"
    }

    fn usage(&self) -> &'static str {
        "PFN [COUNT]"
    }

    fn about(&self) -> &'static str {
        "flags, count and head of struct pages"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (first, count) = match *args {
            [first] => (number(first), Some(1)),
            [first, count] => (number(first), number(count)),
            _ => (None, None),
        };
        let (Some(first), Some(count)) = (first, count) else {
            writeln!(context.io.err(), "usage: kpageflags PFN [COUNT]")?;
            return Ok(2);
        };
        let last = first.saturating_add(count.min(MAX_PAGES));
        for pfn in first..last {
            if !has_page(pfn) {
                writeln!(
                    context.io.out(),
                    "{pfn:#x} {:016x} nopage",
                    1_u64 << kpf::NOPAGE
                )?;
                continue;
            }
            let at = MM.vmemmap.memmap().page(Pfn::new(pfn));
            let flags = stable_flags(at);
            let first = at.compound_head(&Metal);
            let head = MM.vmemmap.memmap().pfn(first);
            // No order: the block changed hands between two loads.
            let order = page::folio_order_seen(&Metal, first).map_or(0, Order::get);
            writeln!(
                context.io.out(),
                "{pfn:#x} {flags:016x} node={} count={} head={:#x} order={order} {}",
                at.node(&Metal).get(),
                at.ref_count(&Metal),
                head.as_u64(),
                letters(flags)
            )?;
        }
        Ok(0)
    }
}

fn has_page(pfn: u64) -> bool {
    let Some(end) = state::ram().last().map(|ram| ram.range.end) else {
        return false;
    };
    let memmap = MM.vmemmap.memmap();
    // The walk beside folding on other CPUs: see `Machine::on_each_cpu`.
    pfn < end.as_u64().next_multiple_of(1 << 15)
        && without_interrupts(|| {
            let at = memmap.page(Pfn::new(pfn)).address();
            paging::leaf(&Metal, Metal.root(), at).is_some()
        })
}

/// Runs `look` so that a table it walks through is not freed under it: whoever frees one
/// first waits for this CPU to take an interrupt (INV-3).
fn without_interrupts<R>(look: impl FnOnce() -> R) -> R {
    let irq = Metal.irq_save();
    let result = look();
    Metal.irq_restore(irq);
    result
}

pub(super) struct PtDump;

/// The first address behind those that are none.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;

/// Leaves next to each other in both address spaces, alike in size and rights.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    level: Level,
    flags: PteFlags,
}

impl Command for PtDump {
    fn name(&self) -> &'static str {
        "ptdump"
    }

    fn usage(&self) -> &'static str {
        "[START END]"
    }

    fn about(&self) -> &'static str {
        "the kernel's page tables, ranges merged: size of leaf, flags"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (start, end) = match *args {
            [] => (Some(UPPER_HALF), Some(u64::MAX)),
            [start, end] => (number(start), number(end)),
            _ => (None, None),
        };
        let (Some(start), Some(end)) = (start, end) else {
            writeln!(context.io.err(), "usage: ptdump [START END]")?;
            return Ok(2);
        };
        let mut open: Option<Run> = None;
        let mut at = start & !(PAGE_SIZE - 1);
        while at < end {
            if !matches!(at >> 47, 0 | 0x1_ffff) {
                // No address: the upper half comes next.
                at = UPPER_HALF;
                continue;
            }
            let (level, pte) = without_interrupts(|| {
                let entry = paging::walk(&Metal, Metal.root(), VirtAddr::new(at));
                (entry.level, entry.pte)
            });
            let next = (at | (level.span() - 1)).checked_add(1);
            let run = leaf(level, pte).map(|flags| Run {
                start: at,
                end: next.unwrap_or(u64::MAX),
                level,
                flags,
            });
            match (&mut open, run) {
                (Some(open), Some(run)) if run.start == open.end && alike(open, &run) => {
                    open.end = run.end;
                }
                _ => {
                    if let Some(done) = core::mem::replace(&mut open, run) {
                        show(&done, context)?;
                    }
                }
            }
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        if let Some(last) = open {
            show(&last, context)?;
        }
        Ok(0)
    }
}

fn leaf(level: Level, pte: Pte) -> Option<PteFlags> {
    let ignored = PteFlags::ACCESSED | PteFlags::DIRTY | PteFlags::LEAF;
    (pte.is_present() && (level == Level::Pte || pte.is_leaf(level)))
        .then(|| pte.flags().difference(ignored))
}

fn alike(a: &Run, b: &Run) -> bool {
    a.level == b.level && a.flags == b.flags
}

/// As Linux's `/sys/kernel/debug/page_tables/kernel` has it.
fn show(run: &Run, context: &mut Context<'_>) -> fmt::Result {
    let bytes = run.end.wrapping_sub(run.start);
    let (size, unit) = match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => (b >> 30, 'G'),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => (b >> 20, 'M'),
        b => (b >> 10, 'K'),
    };
    let flag = |on: bool, name: &'static str| if on { name } else { "" };
    let f = run.flags;
    let level = match run.level {
        Level::Pgd => "pgd",
        Level::Pud => "pud",
        Level::Pmd => "pmd",
        Level::Pte => "pte",
    };
    writeln!(
        context.io.out(),
        "{:#018x}-{:#018x} {size:>11}{unit} {:2} {:3} {:3} {:3} {:3} {:2} {level}",
        run.start,
        run.end,
        if f.contains(PteFlags::WRITABLE) {
            "RW"
        } else {
            "ro"
        },
        flag(f.contains(PteFlags::WRITE_THROUGH), "PWT"),
        flag(f.contains(PteFlags::NO_CACHE), "PCD"),
        flag(run.level != Level::Pte, "PSE"),
        flag(f.contains(PteFlags::GLOBAL), "GLB"),
        if f.contains(PteFlags::NO_EXECUTE) {
            "NX"
        } else {
            "x"
        },
    )
}

pub(super) struct Vmemmap;

impl Command for Vmemmap {
    fn name(&self) -> &'static str {
        "vmemmap"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "what memory is spent on, and a picture of the vmemmap"
    }

    fn run(&self, _: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        printed(context, report::print)?;
        Ok(0)
    }
}
