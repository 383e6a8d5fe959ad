//! Every layout at once: each encoding, size of struct page and memory model as a memory
//! map of its own ([`lab::layouts`]), with the same checks for all.
//!
//! The frames that these maps describe do not exist. Only their struct pages do.

mod any;
mod crowd;
mod each;
mod large;
mod limits;
mod lookup;
mod sharing;

pub use crowd::{folios_side_by_side, readers_beside_folding};
pub use each::largest_block;
pub use large::largest_folios;
pub use limits::{
    aligned_maps_have_no_limit, bytes_56_are_never_alike, misaligned_maps_fail_at_the_next_order,
    nodes_may_start_late, refusals_are_the_expected, sections_cross,
};
pub use lookup::{every_page_finds_its_folio, misuse_is_refused};
pub use sharing::{
    bits_of_a_page_keep_it_private, failures_change_nothing, folding_changes_no_byte,
    no_memory_for_a_map,
};
