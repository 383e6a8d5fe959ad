//! The audit: whether the live tables say what the ledger says (INV-6).
//!
//! It walks the tables and the struct pages by itself, by physical address, with
//! constants of its own: it shares no code with `paging`, `page`, `vmemmap` or
//! `buddy`, so a mistake there cannot hide here. What it takes from them is plain
//! data: where the memmap lies, what RAM there is, and what the ledger claims.
//!
//! It counts what it finds and claims each frame once for whoever uses it, free
//! blocks included: a frame with two owners is a finding (INV-5). It expects that
//! nothing is being allocated, folded or unfolded meanwhile.

mod claims;
mod layout;
mod memmap;
mod report;
mod tables;

pub use claims::scratch_words;
use claims::{Claims, Rows};
use layout::{Entry, Reader};
use memmap::Walk;
pub use report::{At, Check, Finding, MAX_FINDINGS, Report};

use crate::addr::{NodeId, Order, PAGE_SIZE, Pfn, VirtAddr};
use crate::machine::Machine;
use crate::system::Mm;
use crate::vmemmap::{RamRange, Totals};

/// What the ledger claims of one shared tail page, and of the table that slots of
/// nothing but entries for it share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailClaim {
    /// Whose struct pages it stands for.
    pub node: NodeId,
    /// Of what order the blocks are.
    pub order: Order,
    /// The page.
    pub frame: Pfn,
    /// Table entries that point to it, a shared table's once for each slot.
    pub entries: u64,
    /// The shared table, if there is one.
    pub table: Option<Pfn>,
    /// Level-2 entries that point to the table.
    pub slots: u64,
}

/// What the audit is told. `R` yields RAM, sorted and free of overlaps, as it was
/// populated; `T` yields the shared tail pages.
#[derive(Clone, Debug)]
pub struct Input<R, T> {
    /// Address of the struct page of frame 0.
    pub base: VirtAddr,
    /// The RAM that has struct pages.
    pub ram: R,
    /// The shared tail pages there are.
    pub tails: T,
    /// The ledger.
    pub totals: Totals,
    /// Free pages, as the allocators count them.
    pub free_pages: u64,
    /// Broken frames of which it is known which they are.
    pub poisoned: u64,
}

/// The scratch memory is too small: words needed, words given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScratchTooSmall {
    /// [`scratch_words`] of the end of RAM.
    pub needed: usize,
    /// Length of the slice.
    pub given: usize,
}

/// What `mm` claims of itself, for [`audit`].
pub fn input<'a, M: Machine, R: Iterator<Item = RamRange> + Clone>(
    m: &M,
    mm: &'a Mm,
    ram: R,
) -> Input<R, impl Iterator<Item = TailClaim> + Clone + use<'a, M, R>> {
    let vmemmap = &mm.vmemmap;
    let tails = mm.nodes.online().flat_map(move |node| {
        (0..=layout::MAX_ORDER).filter_map(move |order| {
            let order = Order::new(order)?;
            Some(TailClaim {
                node,
                order,
                frame: vmemmap.existing_tail(node, order)?,
                entries: vmemmap.ledger().tail_entries(node, order),
                table: vmemmap.existing_table(node, order),
                slots: vmemmap.ledger().shared_slots(node, order),
            })
        })
    });
    Input {
        base: vmemmap.memmap().base(),
        ram,
        tails,
        totals: vmemmap.ledger().totals(),
        free_pages: mm.nodes.total_free(m),
        poisoned: mm.hwpoison.known(),
    }
}

/// Checks the live tables of `m` against `input`. `scratch` is overwritten; it
/// needs [`scratch_words`] words, which need not come from anywhere special as
/// long as they are allocated before.
///
/// # Errors
/// [`ScratchTooSmall`].
pub fn audit<M, R, T>(
    m: &M,
    input: &Input<R, T>,
    scratch: &mut [u64],
) -> Result<Report, ScratchTooSmall>
where
    M: Machine,
    R: Iterator<Item = RamRange> + Clone,
    T: Iterator<Item = TailClaim> + Clone,
{
    let end = input.ram.clone().map(|ram| ram.range.end).max();
    let end = end.unwrap_or(Pfn::new(0));
    let needed = scratch_words(end);
    let given = scratch.len();
    let Some(scratch) = scratch.get_mut(..needed) else {
        return Err(ScratchTooSmall { needed, given });
    };
    let (claims, rows) = claims::split(scratch, end);
    let mut audit = Audit {
        reader: Reader::new(m, input.base),
        claims,
        rows,
        report: Report::default(),
    };
    audit.tails(input.tails.clone());
    Walk::over(&mut audit, input);
    tables::walk(&mut audit, input.base, input.ram.clone());
    audit.entries(input.tails.clone());
    audit.sums(&input.totals, input.free_pages, input.poisoned);
    Ok(audit.report)
}

/// An audit under way.
struct Audit<'a, M> {
    reader: Reader<'a, M>,
    claims: Claims<'a>,
    rows: Rows<'a>,
    report: Report,
}

impl<M: Machine> Audit<'_, M> {
    /// Claims `pfn` for its only owner; whether nobody had it yet.
    fn claim(&mut self, pfn: Pfn, at: At) -> bool {
        let first = self.claims.claim(pfn);
        if !first {
            let check = self.owner(pfn);
            self.report.find(check, at, 1, pfn.as_u64());
        }
        first
    }

    /// What is wrong with using `pfn`, which is claimed already or no RAM.
    fn owner(&self, pfn: Pfn) -> Check {
        if !self.claims.covers(pfn) {
            Check::NotRam
        } else if self.reader.is_free(pfn) {
            Check::FreeFrameInUse
        } else if self.rows.is_tail(pfn) {
            Check::StrayTail
        } else {
            Check::SecondOwner
        }
    }

    /// The shared tail pages themselves: 64 equal records, exactly these.
    fn tails(&mut self, tails: impl Iterator<Item = TailClaim>) {
        for tail in tails {
            let TailClaim {
                node, order, frame, ..
            } = tail;
            let at = At::Frame(frame);
            self.report.tails += 1;
            if !self.claim(frame, at) || !self.rows.set_tail(node, order, frame) {
                self.report
                    .find(Check::TailClaim, at, 0, u64::from(order.get()));
                continue;
            }
            let expected = layout::tail_record(node, order);
            for (word, expected) in (0..PAGE_SIZE / 8).zip(expected.iter().cycle()) {
                let found = self.reader.word(frame.phys().offset(word * 8));
                if found != *expected {
                    let check = Check::TailContent(word);
                    self.report.find(check, at, *expected, found);
                    break;
                }
            }
            let page_type = self.reader.record(frame).map(|record| record.page_type());
            if page_type != Some(layout::TYPE_TAILS) {
                let found = page_type.map_or(0, u64::from);
                self.report
                    .find(Check::TailType, at, layout::TYPE_TAILS.into(), found);
            }
            if let Some(table) = tail.table {
                self.shared_table(table, node, order, frame);
            }
        }
    }

    /// The shared table of `order` on `node`: 512 equal entries, for the shared tail page
    /// `tail`. Claimed once here, however many entries point to it.
    fn shared_table(&mut self, table: Pfn, node: NodeId, order: Order, tail: Pfn) {
        let at = At::Frame(table);
        self.report.tables += 1;
        self.report.shared_tables += 1;
        self.report.page_tables += 1;
        if !self.claim(table, at) {
            return;
        }
        self.rows.set_table(node, order, table);
        let expected = Entry::tail(tail);
        for index in 0..layout::ENTRIES {
            let found = self.reader.entry(table, index).but_accessed();
            if found != expected {
                let check = Check::TableContent(index);
                self.report.find(check, at, expected, found);
                break;
            }
        }
        let page_type = self.reader.record(table).map(|record| record.page_type());
        if page_type != Some(layout::TYPE_TABLE) {
            let found = page_type.map_or(0, u64::from);
            self.report
                .find(Check::TableType, at, layout::TYPE_TABLE.into(), found);
        }
    }

    /// Entries found against entries claimed, for each shared tail page and table.
    fn entries(&mut self, tails: impl Iterator<Item = TailClaim>) {
        for TailClaim {
            node,
            order,
            frame,
            entries,
            table,
            slots,
        } in tails
        {
            let found = self.rows.entries(node, order);
            if found != entries {
                self.report
                    .find(Check::TailEntries, At::Frame(frame), entries, found);
            }
            let found = self.rows.slots(node, order);
            self.report.shared_slots += found;
            if found != slots {
                let at = At::Frame(table.unwrap_or(frame));
                self.report.find(Check::TableSlots, at, slots, found);
            }
        }
    }

    /// The ledger, to the frame.
    fn sums(&mut self, totals: &Totals, free_pages: u64, poisoned: u64) {
        let report = &self.report;
        let sums = [
            ("sections", totals.sections, report.sections),
            (
                "frames of memmap",
                totals.boot_pages + totals.pages,
                report.memmap_pages,
            ),
            ("frames saved", totals.saved, report.saved),
            (
                "last-level tables of the vmemmap",
                totals.tables,
                report.tables,
            ),
            ("shared tables", totals.shared_tables, report.shared_tables),
            (
                "slots with a shared table",
                totals.shared_slots,
                report.shared_slots,
            ),
            ("shared tail pages", totals.tails, report.tails),
            ("folded blocks", totals.folded, report.folded),
            ("free pages", free_pages, report.free_pages),
            ("broken frames", poisoned, report.poisoned),
            (
                "pages of memmap of folded blocks that are not shared",
                totals.unshared,
                report.unshared,
            ),
            (
                "pages of memmap per section, saved ones included",
                report.sections * layout::SECTION_FRAMES,
                report.memmap_pages + report.saved,
            ),
        ];
        for (name, expected, found) in sums {
            if expected != found {
                self.report
                    .find(Check::Sum(name), At::Ledger, expected, found);
            }
        }
    }
}
