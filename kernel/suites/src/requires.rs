//! What cases need of the layout that the kernel was built with.

use ktest::{Outcome, skip};
use mm::page::encoding::{Chosen, Encoding};
use mm::page::{self, STRUCT_PAGE_SIZE};

/// Suites, and `suite:case`, that are about folding.
const FOLD: &[&str] = &[
    "boot_folios",
    "compound_info:counts_load_first",
    "gigantic:accounting_is_exact",
    "gigantic:fails_each_allocation",
    "gigantic:flags_of_every_page",
    "gigantic:mapped_data_survives",
    "gigantic:order_15",
    "gigantic:order_16",
    "gigantic:order_17",
    "gigantic:order_18",
    "gigantic:order_19",
    "gigantic:order_20",
    "gigantic:order_21",
    "gigantic:order_22",
    "hugetlb:accounting_is_exact_2m",
    "hugetlb:flags_of_every_page_2m",
    "hugetlb:mapped_data_survives_2m",
    "hugetlb:restore_failure_becomes_surplus",
    "hugetlb:switch_concerns_later_folios",
    "hugetlb_events:pools",
    "hugetlb_pool:stuck_surplus_goes",
    "hvo",
    "hvo_faults",
    "hvo_orders",
    "hwpoison:cost",
    "hwpoison:every_kind_of_tail",
    "hwpoison:fails_each_allocation",
    "hwpoison:free_folio_1g",
    "hwpoison:free_folio_2m",
    "hwpoison:promised_folio_goes_with_the_promise",
    "hwpoison:soft_offline_1g",
    "hwpoison:soft_offline_2m",
    "hwpoison:soft_offline_of_a_stuck_folio",
    "hwpoison:soft_offline_switched_off",
    "hwpoison:soft_offline_without_memory",
    "hwpoison:stuck_folio_goes_to_nobody",
    "rmap:folded_folios_keep_their_fields",
    "rmap_policy:marks_keep_a_block_from_folding",
    "smp_churn",
    "smp_faults",
    "smp_readers",
    "smp_tlb:one_round_per_batch",
    "vmemmap:order_bounds",
    "vmemmap_audit:notices_damage",
];

/// Those about tails that folios share, and what follows from it: demotion in place,
/// and no tail that reads as a head.
const SHARE: &[&str] = &[
    "gigantic_demote:failures_change_nothing",
    "gigantic_demote:round_trip",
    "gigantic_demote:switch_and_demote",
    "hvo:tails_are_shared",
    "smp_churn:one_shared_tail",
    "smp_readers",
];

/// Those about leaves of 2 MiB in the vmemmap.
const LEAVES: &[&str] = &["vmemmap:is_mapped_by_leaves"];

/// Those about the alignment of the memmap.
const COMPUTE: &[&str] = &["vmemmap:misaligned_base_is_found"];

/// A skip with the reason, if this build's struct pages cannot do what `case` is about.
pub fn check(suite: &str, case: &str) -> Outcome {
    let listed = |list: &[&str]| {
        list.iter().any(|entry| match entry.split_once(':') {
            Some(both) => both == (suite, case),
            None => *entry == suite,
        })
    };
    if let (true, Err(why)) = (listed(FOLD) || listed(SHARE), page::HVO) {
        skip!("no HVO with the struct pages of this build: {why}");
    }
    if listed(SHARE) && !page::SHARES_ACROSS_NODE {
        skip!("this build's tails are shared within a folio only");
    }
    if listed(LEAVES) && !STRUCT_PAGE_SIZE.is_power_of_two() {
        skip!("a section's struct pages of {STRUCT_PAGE_SIZE} bytes do not fill a leaf");
    }
    if listed(COMPUTE) && !Chosen::COMPUTES {
        skip!("this build's tails hold their head's address, whatever the alignment");
    }
    Ok(())
}
