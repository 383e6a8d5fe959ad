//! What each layout costs, computed; tests hold it against the ledgers of real maps.

use core::fmt;

use super::descriptors::PER_FRAME;
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, PUD_SIZE};
use mm::page::encoding::*;

/// log2 of the pages in a TiB.
const TIB: u32 = 28;

/// Bytes for each TiB of RAM, all of it in folios of one order, and HVO where there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Struct pages. Not the one shared tail page of each node and order.
    pub memmap: u64,
    /// Page tables of level 1 that map them. Without HVO 2 MiB leaves do.
    pub pte_tables: u64,
    /// Page tables of level 2. Sparsemem's section table is none: [`SECTION_TABLE`].
    pub pmd_tables: u64,
    /// Frames of descriptors of folios.
    pub descriptors: u64,
}

/// Bytes of sparsemem's section table for each TiB: a word for each section.
pub const SECTION_TABLE: u64 = (1 << TIB >> SECTION.get()) * 8;

/// Bytes of level-1 tables for each TiB if struct pages of `size` bytes are mapped by
/// 4 KiB entries.
const fn entries_of_pages(size: u64) -> u64 {
    (size << TIB) / PMD_SIZE * PAGE_SIZE
}

/// What a TiB in folios of `order` costs with encoding `E`, struct pages `S` and `model`.
/// Above the largest order that works: that of its parts.
///
/// # Errors
/// Why the combination does not work.
pub const fn cost<E: Encoding, S: PageShape>(
    model: MemoryModel,
    order: Order,
) -> Result<Cost, Refusal> {
    let support = match support::<E, S>(model) {
        Ok(support) => support,
        Err(refusal) => return Err(refusal),
    };
    let folios = (1u64 << TIB) >> order.get();
    let whole = S::SIZE << TIB;
    let folds = support.hvo.is_ok() && order.get() >= Support::hvo_min_order::<S>().get();
    let mapped = matches!(model, MemoryModel::SparsememVmemmap);
    Ok(Cost {
        memmap: if folds { folios * PAGE_SIZE } else { whole },
        pte_tables: if folds { entries_of_pages(S::SIZE) } else { 0 },
        pmd_tables: if mapped {
            whole.div_ceil(PUD_SIZE) * PAGE_SIZE
        } else {
            0
        },
        descriptors: if E::DESCRIPTOR {
            folios.div_ceil(PER_FRAME) * PAGE_SIZE
        } else {
            0
        },
    })
}

/// A number of bytes, exact, in the largest unit that leaves no fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = units
            .iter()
            .find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((shift, name)) => write!(f, "{} {name}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

/// The orders that the table has a column for.
const ORDERS: [Order; 3] = [Order::PAGE, Order::PMD, Order::PUD];

/// A line of the table, without its name.
type Row = Result<(Support, [Cost; 3]), Refusal>;

fn row<E: Encoding, S: PageShape>(model: MemoryModel) -> Row {
    let support = support::<E, S>(model)?;
    let [a, b, c] = ORDERS.map(|order| cost::<E, S>(model, order));
    Ok((support, [a?, b?, c?]))
}

/// Every combination of encoding, size and model, as a table in Markdown with the reasons
/// for refusals below it. Models that make no difference share a line.
///
/// # Errors
/// What `out` says.
pub fn write_table(out: &mut dyn fmt::Write) -> fmt::Result {
    out.write_str(
        "| encoding | struct page | model | folios up to | HVO shares | 4 KiB pages | 2 MiB | 1 GiB | page tables | descriptors |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    )?;
    let mut notes = Notes::default();
    macro_rules! each {
        ($encoding:ident) => {
            each!($encoding, Bytes64, Bytes56, Bytes32, Bytes8);
        };
        ($encoding:ident, $($shape:ident),*) => {
            $(write_shape::<$encoding, $shape>(out, &mut notes)?;)*
        };
    }
    mm::for_each_encoding!(each);
    out.write_char('\n')?;
    for (n, reason) in notes.0.iter().flatten().enumerate() {
        writeln!(out, "- ({}) {reason}.", n + 1)?;
    }
    let tables = Bytes(entries_of_pages(Bytes56::SIZE));
    write!(
        out,
        "\nNot in the table: sparsemem's section table, {} for each TiB. The kernel itself, built with\n\
         pointer-56, maps its memmap by 4 KiB entries: {tables} of page tables for each TiB, where a map of that\n\
         layout beside it has 2 MiB leaves.\n",
        Bytes(SECTION_TABLE)
    )
}

/// Reasons, numbered as they come up.
#[derive(Default)]
struct Notes([Option<Refusal>; 8]);

impl Notes {
    fn number(&mut self, why: Refusal) -> usize {
        for (n, note) in self.0.iter_mut().enumerate() {
            if *note.get_or_insert(why) == why {
                return n + 1;
            }
        }
        0
    }
}

fn write_shape<E: Encoding, S: PageShape>(
    out: &mut dyn fmt::Write,
    notes: &mut Notes,
) -> fmt::Result {
    let rows = MemoryModel::ALL.map(|model| (model, row::<E, S>(model)));
    for (n, (first, row)) in rows.iter().enumerate() {
        if rows[..n].iter().any(|(_, before)| before == row) {
            continue;
        }
        write!(out, "| {} | {} B | {}", E::NAME, S::SIZE, first.name())?;
        for (model, _) in rows[n + 1..].iter().filter(|(_, other)| other == row) {
            write!(out, ", {}", model.name())?;
        }
        match row {
            Ok((support, costs)) => write_row(out, support, costs, notes)?,
            Err(why) => writeln!(out, " | refused ({}) | | | | | | |", notes.number(*why))?,
        }
    }
    Ok(())
}

fn write_row(
    out: &mut dyn fmt::Write,
    support: &Support,
    costs: &[Cost; 3],
    notes: &mut Notes,
) -> fmt::Result {
    write!(out, " | {} | ", Bytes(support.max_order.bytes()))?;
    match support.hvo {
        Ok(Sharing::AcrossNode) => out.write_str("across the node")?,
        Ok(_) => out.write_str("within the folio")?,
        Err(why) => write!(out, "nothing ({})", notes.number(why))?,
    }
    for cost in costs {
        write!(out, " | {}", Bytes(cost.memmap))?;
    }
    write_three(out, costs.map(|cost| cost.pte_tables + cost.pmd_tables))?;
    write_three(out, costs.map(|cost| cost.descriptors))?;
    out.write_str(" |\n")
}

/// One number if all are the same, none if all are 0.
fn write_three(out: &mut dyn fmt::Write, [a, b, c]: [u64; 3]) -> fmt::Result {
    match (a, b, c) {
        (0, 0, 0) => out.write_str(" | none"),
        _ if a == b && b == c => write!(out, " | {}", Bytes(a)),
        _ => write!(out, " | {}, {}, {}", Bytes(a), Bytes(b), Bytes(c)),
    }
}
