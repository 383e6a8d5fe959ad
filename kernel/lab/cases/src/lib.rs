//! The self-tests of `lab`, written once for every machine, as `suites` are those of `mm`.
#![no_std]

extern crate alloc;

pub mod layouts;
pub mod memdesc;
pub mod rmap;
pub mod rmap_policy;

/// Calls `$each! { path::suite: case, case, ... }` for every suite.
#[macro_export]
macro_rules! for_each_suite {
    ($each:ident) => {
        $each! { $crate::memdesc:
            types_are_told_apart, compound_head_is_for_bare_pages, put_redirects_to_the_folio,
            reused_descriptor_is_refused, round_trips, shared_frame_is_read_only,
            flags_break_the_sharing, free_needs_no_memory, fails_each_store,
            fails_each_allocation, refuses_what_it_must, residue_2m, residue_1g,
            broken_slab_stays_out, cpus_share_a_map }
        $each! { $crate::rmap:
            folios_are_counted, spaces_share_a_folio, cpus_share_a_folio, hugetlb_folios_by_one_entry_2m,
            hugetlb_folios_by_one_entry_1g, folded_folios_keep_their_fields,
            tables_come_and_go, walkers_meet_every_kind, bad_requests_are_named,
            leaked_counts_are_bad_pages, fails_each_allocation }
        $each! { $crate::rmap_policy:
            kinds_are_told_apart, outcomes_are_as_documented, drivers_insert_compound_pages,
            non_folios_are_not_touched, marks_keep_a_block_from_folding }
        $each! { $crate::layouts:
            every_page_finds_its_folio, misuse_is_refused, refusals_are_the_expected,
            aligned_maps_have_no_limit, misaligned_maps_fail_at_the_next_order,
            nodes_may_start_late, sections_cross, largest_folios, bytes_56_are_never_alike, folding_changes_no_byte, failures_change_nothing,
            no_memory_for_a_map, bits_of_a_page_keep_it_private, folios_side_by_side,
            readers_beside_folding }
    };
}
