//! The self-tests of `mm`, written once for every machine.
//!
//! Bodies are generic over [`mm::machine::Machine`]: the kernel registers them
//! for bare metal, the host tests for the emulated machine. [`for_each_suite!`]
//! is the list of all; a case is a function here and a word there.
//!
//! A case leaves the machine as it found it, also when it is skipped or fails: [`tidy`] gives back
//! what is left.
#![no_std]

extern crate alloc;

mod env;

pub mod boot_folios;
pub mod buddy;
pub mod churn;
pub mod compound_info;
pub mod gigantic;
pub mod gigantic_demote;
pub mod hugetlb;
pub mod hugetlb_events;
pub mod hugetlb_pool;
pub mod hvo;
pub mod hvo_faults;
pub mod hvo_orders;
pub mod hwpoison;
pub mod layout;
pub mod memory_map;
pub mod paging;
pub mod requires;
mod smp;
mod sweep;
pub mod vmemmap;
pub mod vmemmap_audit;

pub use env::{Env, Held, Random, tidy};
pub use smp::{
    broken as smp_hwpoison, churn as smp_churn, faults as smp_faults, locks as smp_locks,
    readers as smp_readers, tlb as smp_tlb,
};
pub use sweep::Kept;

/// Calls `$each! { $crate::suite: case, case, ... }` for every suite.
#[macro_export]
macro_rules! for_each_suite {
    ($each:ident) => {
        $each! { $crate::memory_map: nodes_account_for_ram, sections_have_struct_pages, reserved_stays_reserved }
        $each! { $crate::boot_folios: one_frame_is_its_own, goes_and_comes_back }
        $each! { $crate::buddy:
            splits_and_merges, keeps_orders_apart, exhausts_and_recovers, names_misuse,
            freed_ranges_merge }
        $each! { $crate::paging: maps_and_unmaps, refuses_bad_requests, splits_leaves, flush_makes_visible,
            every_flush_is_spent }
        $each! { $crate::vmemmap: base_is_aligned, round_trips, holes_are_not_mapped, misaligned_base_is_found,
            order_bounds, is_mapped_by_leaves }
        $each! { $crate::compound_info: matches_the_table, leads_to_the_head, head_of_every_page, counts_load_first, folio_size }
        $each! { $crate::layout: frames_are_alike_where_it_says, folds_or_refuses, tails_show_the_head_or_not }
        $each! { $crate::gigantic:
            accounting_is_exact, fails_each_allocation, flags_of_every_page, mapped_data_survives,
            keeps_8_kib, order_15, order_16, order_17, order_18, order_19, order_20, order_21, order_22 }
        $each! { $crate::gigantic_demote:
            no_bad_page_is_left, round_trip, switch_and_demote, promised_folios_stay,
            failures_change_nothing }
        $each! { $crate::hvo_orders:
            order_07, order_08, order_09, order_10, order_11, order_12, order_13, order_14 }
        $each! { $crate::hvo:
            tails_are_shared, head_data_survives, thousand_round_trips, out_of_order_restore,
            twice_is_refused, freed_frames_are_usable, batch_is_one_flush, refuses_what_it_must,
            fails_each_allocation_2m, fails_head_frame,
            fails_each_store, fails_each_restore_allocation }
        $each! { $crate::hvo_faults: tail_writes_fault, late_try_get_is_refused, write_protect_off_control, head_is_writable,
            restored_tails_are_writable }
        $each! { $crate::hugetlb:
            flags_of_every_page_2m, accounting_is_exact_2m, mapped_data_survives_2m,
            switch_concerns_later_folios,
            asks_for_more_than_fits, restore_failure_becomes_surplus, mixed_churn_until_full,
            round_robin_over_nodes }
        $each! { $crate::hugetlb_pool:
            counters_follow_the_model, overcommit_fills_up, second_chunk_is_all_or_nothing,
            copy_on_write_without_a_folio, stuck_surplus_goes, promises_are_kept,
            surplus_is_made_where_bound, targets_by_node }
        $each! { $crate::hugetlb_events: pools, demote }
        $each! { $crate::hwpoison:
            free_page, soft_offline_2m, soft_offline_1g, soft_offline_switched_off,
            soft_offline_without_memory, soft_offline_of_a_stuck_folio, free_folio_2m, free_folio_1g,
            every_kind_of_tail, promised_folio_goes_with_the_promise,
            read_around_a_broken_page, mappings_get_no_broken_page, stuck_folio_goes_to_nobody,
            fails_each_allocation, cost, compound_page, compound_page_is_not_folded, page_table,
            memmap_frame, frame_of_a_list }
        $crate::for_each_smp_suite! { $each }
        $each! { $crate::vmemmap_audit: finds_nothing, notices_damage }
    };
}

/// [`for_each_suite!`] for the suites that are about several CPUs.
#[macro_export]
macro_rules! for_each_smp_suite {
    ($each:ident) => {
        $each! { $crate::smp_churn: one_shared_tail, one_table, nobody_sees_freed_frames,
        every_node_from_every_cpu }
        $each! { $crate::smp_hwpoison: frames_break_under_users }
        $each! { $crate::smp_locks: no_frame_has_two_owners, no_folio_has_two_owners, blocks_are_local,
        folios_are_local }
        $each! { $crate::smp_faults: tail_writes_fault, unconditional_add_faults }
        $each! { $crate::smp_readers: blocks_of_2m, blocks_of_1g }
        $each! { $crate::smp_tlb: stale_then_cured, permission_stale_then_cured, flushes_drop_global,
        reload_drops_non_global, global_survives_reload, one_round_per_batch,
        ranges_by_page_or_all }
    };
}
