//! Four-level page tables: entries, walks, mappings, and what a change owes to
//! the TLB.
//!
//! Tables are reached by physical address only. Every change of a present entry
//! yields a [`Flush`], which must be spent before the frame that was mapped may
//! be reused (INV-3).

mod entry;
mod flush;
mod map;
mod walk;

pub use entry::{Level, Pte, PteFlags};
pub use flush::{
    FULL_FLUSH_CEILING, Flush, full_flush_ceiling, set_full_flush_ceiling, unspent_flushes,
};
pub(crate) use map::fill_split;
pub use map::{MapError, map, new_table, split, table_entry, unmap};
pub use walk::{Entry, is_mapped, leaf, slot, translate, walk};
