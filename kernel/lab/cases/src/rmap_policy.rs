//! What each policy does with allocations that are not folios.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq};
use lab::rmap::{AddressSpace, FolioFields, Gfp, Gup, PageKind, Pages, Policy, VmError};
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, VirtAddr};
use mm::machine::Machine;
use mm::page::{Flags, Page, Record};
use mm::vmemmap::HvoError;

use crate::rmap::{AT, good, span, under};
use suites::Env;

/// A compound page of four pages, as drivers make them.
const ORDER: Order = Order::of(2);

/// What the allocation is that is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// `alloc_pages(2, __GFP_COMP)`.
    Compound,
    /// `alloc_page()`.
    Bare,
}

impl Subject {
    /// Its order.
    #[must_use]
    pub const fn order(self) -> Order {
        match self {
            Self::Compound => ORDER,
            Self::Bare => Order::PAGE,
        }
    }
}

/// Names of what [`observe`] looks at, in its order.
pub const OPERATIONS: [&str; 10] = [
    "`page_kind`",
    "`page_folio`",
    "`vm_insert_pages`",
    "`folio_mapcount` then",
    "`vm_normal_page`",
    "`vm_normal_folio`",
    "`get_user_page`",
    "`pin_user_page`",
    "map count left at free",
    "`_pincount` left at free",
];

/// What it is that `policy` does with a page of `subject`, seen by doing it. The words are
/// those of the tables in [`lab::rmap`]; the machine is as before.
///
/// # Errors
/// What stopped it.
pub fn observe<M: Machine>(
    env: &Env<'_, M>,
    policy: Policy,
    subject: Subject,
) -> Result<[String; OPERATIONS.len()], Stop> {
    let m = env.m;
    let pages = Pages::new(m, env.mm, policy);
    let order = subject.order();
    let head = good(pages.alloc_pages(order, Gfp::COMP))?;
    let last = head.nth(order.pages() - 1);
    let whose = |folio: Option<Page>| match folio {
        Some(found) if found == head => "its head",
        Some(_) => "another's head",
        None => "none",
    };
    let kind = pages.kind(last).to_string();
    let folio = whose(pages.page_folio(last)).to_string();

    let all: Vec<Page> = (0..order.pages()).map(|n| head.nth(n)).collect();
    let before = records(env, head, order);
    let mut space = good(AddressSpace::new(&pages))?;
    let inserted = space.vm_insert_pages(AT, &all);
    let counted = records(env, head, order) != before;
    let insert = match inserted {
        Err(error) => error.errno().to_string(),
        Ok(()) if !counted => "not counted".to_string(),
        Ok(()) if pages.warnings() > 0 => "counted, WARN".to_string(),
        Ok(()) => "counted".to_string(),
    };
    let dash = || "-".to_string();
    let (mut mapcount, mut normal_page, mut normal_folio) = (dash(), dash(), dash());
    let (mut get, mut pin) = (dash(), dash());
    if inserted.is_ok() {
        let at = AT.offset((order.pages() - 1) * PAGE_SIZE);
        mapcount = pages
            .folio_mapcount(last)
            .map_or_else(|| "none".to_string(), |n| n.to_string());
        normal_page = match space.vm_normal_page(at) {
            Some(page) if page == last => "the page".to_string(),
            other => alloc::format!("{other:?}"),
        };
        normal_folio = whose(space.vm_normal_folio(at)).to_string();
        let refs = head.ref_count(m);
        get = match space.get_user_page(at) {
            Ok(page) => {
                let more = head.ref_count(m) - refs;
                check_eq!(pages.put_page(page), Ok(false));
                check_eq!(more, 1);
                "reference".to_string()
            }
            Err(error) => error.errno().to_string(),
        };
        let pins = pincount(env, head);
        pin = match space.pin_user_page(at) {
            Ok(page) => {
                let how = match (head.ref_count(m) - refs, pincount(env, head) - pins) {
                    (1, 1) => "`_pincount`",
                    (1, 0) => "reference",
                    (_, 0) => "1024 references",
                    _ => "both",
                };
                check_eq!(pages.unpin(page), Ok(false));
                check_eq!(head.ref_count(m), refs, "references after an unpin");
                how.to_string()
            }
            Err(error) => error.errno().to_string(),
        };
        check_eq!(space.munmap(span(AT, order.pages())), Ok(order.pages()));
    }
    drop(space);
    check_eq!(records(env, head, order), before, "after munmap");

    let leak =
        |page: u64, offset| free_with(env, &pages, head, head.nth(page).address().offset(offset));
    // The large map count of the first tail, or the page's own.
    let (leaked, again) = match subject {
        Subject::Compound => leak(1, 16),
        Subject::Bare => leak(0, 48),
    }?;
    let (pinned, again) = match subject {
        Subject::Compound => {
            let head = match again {
                Some(()) => head,
                None => good(pages.alloc_pages(order, Gfp::COMP))?,
            };
            free_with(env, &pages, head, head.nth(1).address().offset(28))?
        }
        Subject::Bare => ("-", again),
    };
    if again.is_some() {
        check_eq!(pages.put_page(head), Ok(true));
    }
    Ok([
        kind,
        folio,
        insert,
        mapcount,
        normal_page,
        normal_folio,
        get,
        pin,
        leaked.to_string(),
        pinned.to_string(),
    ])
}

/// Drops the last reference with 1 more in the four bytes at `at`; what became of the
/// page, and whether the caller still has it, mended.
fn free_with<M: Machine>(
    env: &Env<'_, M>,
    pages: &Pages<'_, M>,
    head: Page,
    at: VirtAddr,
) -> Result<(&'static str, Option<()>), Stop> {
    let was = env.m.fetch_add32(at, 1);
    match pages.put_page(head) {
        Ok(true) => Ok(("freed", None)),
        Err(VmError::Bad(_)) => {
            env.m.store32(at, was);
            head.set_ref_count(env.m, 1);
            Ok(("bad page", Some(())))
        }
        other => ktest::fail!("the last reference: {other:?}"),
    }
}

/// `_pincount` of a compound page; a single page has none.
fn pincount<M: Machine>(env: &Env<'_, M>, head: Page) -> u32 {
    if head.is_head(env.m) {
        FolioFields::of(env.m, head).pincount
    } else {
        0
    }
}

/// Every byte of the struct pages of an allocation, but for the head's reference count.
fn records<M: Machine>(env: &Env<'_, M>, head: Page, order: Order) -> Vec<Record> {
    let record = |n| {
        let mut record = head.nth(n).record(env.m);
        if n == 0 {
            record[6] &= u64::from(u32::MAX);
        }
        record
    };
    (0..order.pages()).map(record).collect()
}

const fn knows_compound(policy: Policy) -> bool {
    !matches!(policy, Policy::Today)
}

const fn knows_bare(policy: Policy) -> bool {
    matches!(policy, Policy::NotRmappable | Policy::NotAFolio(_))
}

/// Under each policy each page of each kind of allocation is seen as what the policy can
/// tell it to be, and a folio always as a folio.
pub fn kinds_are_told_apart<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for policy in Policy::ALL {
        under(env, policy, |pages| {
            let bare = good(pages.alloc_pages(Order::PAGE, Gfp::COMP))?;
            let run = good(pages.alloc_pages(ORDER, Gfp::empty()))?;
            let compound = good(pages.alloc_pages(ORDER, Gfp::COMP))?;
            let small = good(pages.folio_alloc(Order::PAGE))?;
            let large = good(pages.folio_alloc(ORDER))?;
            let slab = good(pages.slab_alloc(ORDER))?;
            let bare_is = if knows_bare(policy) {
                PageKind::Bare
            } else {
                PageKind::Folio
            };
            let compound_is = if knows_compound(policy) {
                PageKind::Compound
            } else {
                PageKind::Folio
            };
            let expected = [
                (bare, Order::PAGE, bare_is),
                (run, Order::PAGE, bare_is),
                (compound, ORDER, compound_is),
                (small, Order::PAGE, PageKind::Folio),
                (large, ORDER, PageKind::Folio),
                (slab, ORDER, PageKind::Slab),
            ];
            for (head, order, kind) in expected {
                for n in 0..order.pages() {
                    let found = pages.kind(head.nth(n));
                    check_eq!(found, kind, "page {n} of order {order} under {policy}");
                }
            }
            // Nobody has a reference on the rest of a run that was not split.
            check_eq!(pages.kind(run.nth(1)), PageKind::Unreferenced);
            good(pages.split_page(run))?;
            for n in 0..ORDER.pages() {
                check_eq!(pages.kind(run.nth(n)), bare_is, "page {n} of a split run");
                check_eq!(pages.put_page(run.nth(n)), Ok(true));
            }
            for head in [bare, compound, small, large, slab] {
                check_eq!(pages.put_page(head), Ok(true), "{head:?} under {policy}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What the policies differ in, seen by doing it. `tests/rmap.rs` on the host compares
/// the same with the tables in the documentation, word by word.
pub fn outcomes_are_as_documented<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = env.snapshot();
    for policy in Policy::ALL {
        let seen = observe(env, policy, Subject::Compound)?;
        let [_, folio, insert, _, page, normal, _, pin, leaked, pinned] = &seen;
        let none = matches!(policy, Policy::NotAFolio(_));
        check_eq!(folio, if none { "none" } else { "its head" }, "{policy}");
        let (inserted, pins) = match policy {
            Policy::Today => ("counted", "`_pincount`"),
            Policy::Rfc => ("counted, WARN", "`_pincount`"),
            Policy::SubClass => ("not counted", "`_pincount`"),
            Policy::NotAFolio(Gup::PlainReference) => ("not counted", "reference"),
            Policy::NotRmappable | Policy::NotAFolio(Gup::Fail) => ("not counted", "EFAULT"),
            Policy::OrderZeroOnly => ("EINVAL", "-"),
        };
        check_eq!(
            (insert.as_str(), pin.as_str()),
            (inserted, pins),
            "{policy}"
        );
        let mapped = policy != Policy::OrderZeroOnly;
        check_eq!(page, if mapped { "the page" } else { "-" }, "{policy}");
        let folio = if mapped { folio.as_str() } else { "-" };
        check_eq!(normal, folio, "vm_normal_folio, {policy}");
        let bad = |yes| if yes { "bad page" } else { "freed" };
        check_eq!(leaked, bad(policy == Policy::Today), "{policy}");
        let has = matches!(policy, Policy::Today | Policy::SubClass);
        check_eq!(pinned, bad(has), "{policy}");
    }
    env.same_as(&before)
}

/// A driver that lets user mode see what it allocated.
struct Driver {
    name: &'static str,
    /// Orders of its compound pages.
    orders: &'static [u8],
    /// All pages in one call, or each in one of its own.
    in_one_call: bool,
    /// Drops its own references before user mode unmaps.
    lets_go_first: bool,
}

const DRIVERS: [Driver; 3] = [
    // A ring of blocks; packet_mmap inserts page after page.
    Driver {
        name: "af_packet",
        orders: &[3, 3, 3],
        in_one_call: false,
        lets_go_first: false,
    },
    // One region; io_region_mmap inserts an array.
    Driver {
        name: "io_uring",
        orders: &[4],
        in_one_call: true,
        lets_go_first: false,
    },
    // A scatter list; sg_vma_fault maps a page at a time, the file may be closed before.
    Driver {
        name: "sg",
        orders: &[5, 2, 0],
        in_one_call: false,
        lets_go_first: true,
    },
];

/// Blocks of a driver, mapped, looked at by GUP, unmapped and freed.
fn drive<M: Machine>(
    pages: &Pages<'_, M>,
    driver: &Driver,
    ported: bool,
) -> Result<Result<(), VmError>, Stop> {
    let mut all: Vec<Page> = Vec::new();
    let mut heads: Vec<Page> = Vec::new();
    for order in driver.orders {
        let order = Order::of(*order);
        let gfp = if ported { Gfp::empty() } else { Gfp::COMP };
        let first = good(pages.alloc_pages(order, gfp))?;
        let block = (0..order.pages()).map(|n| first.nth(n));
        all.extend(block.clone());
        if ported {
            good(pages.split_page(first))?;
            heads.extend(block);
        } else {
            heads.push(first);
        }
    }
    let mut space = good(AddressSpace::new(pages))?;
    let inserted = if driver.in_one_call {
        space.vm_insert_pages(AT, &all)
    } else {
        let mut each = all.iter().zip(0..);
        each.try_for_each(|(page, n)| space.vm_insert_pages(AT.offset(n * PAGE_SIZE), &[*page]))
    };
    if inserted.is_ok() {
        for (page, n) in all.iter().zip(0..) {
            let at = AT.offset(n * PAGE_SIZE);
            check_eq!(space.vm_normal_page(at), Some(*page), "{}", driver.name);
        }
        if let Ok(page) = space.pin_user_page(AT) {
            check_eq!(pages.unpin(page), Ok(false));
        }
    }
    if driver.lets_go_first {
        let alone = inserted.is_err();
        let freed: Result<Vec<bool>, VmError> =
            heads.iter().map(|head| pages.put_page(*head)).collect();
        // sg of which a part is mapped: what is not mapped goes at once.
        check!(
            freed.is_ok_and(|freed| alone || freed.iter().all(|gone| !gone)),
            "{}",
            driver.name
        );
        drop(space);
    } else {
        drop(space);
        for head in heads {
            check_eq!(pages.put_page(head), Ok(true), "{}", driver.name);
        }
    }
    Ok(inserted)
}

/// af_packet, io_uring and sg, each under each policy: `__GFP_COMP`, inserted into user
/// mode, unmapped, freed. Under one of them the rmap warns, under one they must be ported.
pub fn drivers_insert_compound_pages<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for policy in Policy::ALL {
        for driver in &DRIVERS {
            under(env, policy, |pages| {
                let name = driver.name;
                let inserted = drive(pages, driver, false)?;
                let warned = pages.warnings() > 0;
                check_eq!(warned, policy == Policy::Rfc, "{name} under {policy}: WARN");
                if policy == Policy::OrderZeroOnly {
                    check!(
                        matches!(inserted, Err(VmError::CompoundRefused(_))),
                        "{name}: {inserted:?}"
                    );
                } else {
                    check_eq!(inserted, Ok(()), "{name} under {policy}");
                }
                // Split pages are taken everywhere.
                let warnings = pages.warnings();
                check_eq!(
                    drive(pages, driver, true)?,
                    Ok(()),
                    "{name} split, {policy}"
                );
                check_eq!(pages.warnings(), warnings, "{name} split, {policy}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Where the rmap leaves non-folios alone it does so to the byte: only the head's
/// reference count differs while they are mapped. What the owner keeps where a folio has
/// its fields is still there.
pub fn non_folios_are_not_touched<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for policy in Policy::ALL {
        let counts = matches!(policy, Policy::Today | Policy::Rfc | Policy::OrderZeroOnly);
        under(env, policy, |pages| {
            let m = env.m;
            let head = good(pages.alloc_pages(ORDER, Gfp::COMP))?;
            let own = head.nth(1).address().offset(16);
            if policy != Policy::Today {
                // `_pincount` is not the owner's under every policy.
                m.store64(own, 0x0123_4567_89ab_cdef);
            }
            let before = records(env, head, ORDER);
            let mut space = good(AddressSpace::new(pages))?;
            let all: Vec<Page> = (0..ORDER.pages()).map(|n| head.nth(n)).collect();
            let inserted = [AT, AT.offset(PMD_SIZE)].map(|at| space.vm_insert_pages(at, &all));
            if policy == Policy::OrderZeroOnly {
                check_eq!(inserted, [Err(VmError::CompoundRefused(head)); 2]);
            } else {
                check_eq!(inserted, [Ok(()); 2], "{policy}");
                check_eq!(head.ref_count(m), 9, "references under {policy}");
                let same = records(env, head, ORDER) == before;
                check_eq!(same, !counts, "bytes while mapped under {policy}");
            }
            drop(space);
            check_eq!(records(env, head, ORDER), before, "{policy}");
            check_eq!(head.ref_count(m), 1, "{policy}");
            check_eq!(pages.put_page(head), Ok(true), "{policy}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A mark in every page is in the way of a fold, which wants all tails alike (INV-2); a
/// mark in the head is not.
pub fn marks_keep_a_block_from_folding<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    for policy in [Policy::NotRmappable, Policy::NotAFolio(Gup::Fail)] {
        let pages = Pages::new(env.m, env.mm, policy);
        let head = good(pages.alloc_pages(order, Gfp::COMP))?;
        let types = (0..order.pages()).filter(|n| {
            let page = head.nth(*n);
            page.page_type(env.m) == mm::page::PageType::NOT_RMAPPABLE
        });
        let marked = types.count() as u64;
        head.set_ref_count(env.m, 0);
        let nodes = &env.mm.nodes;
        let folded = env.mm.vmemmap.optimize_folio(env.m, nodes, head, order);
        if folded.is_ok() {
            env.unfold(head, order)?;
        }
        head.set_ref_count(env.m, 1);
        let flags = head.flags(env.m).contains(Flags::HEAD);
        check_eq!(pages.put_page(head), Ok(true), "{policy}");
        check!(flags, "still compound");
        if policy != Policy::NotRmappable {
            check_eq!((marked, folded), (0, Ok(())), "{policy}");
            continue;
        }
        check_eq!(marked, order.pages(), "{policy}");
        // Builds without page checks fold it all the same and lose the marks.
        if mm::page::PAGE_CHECKS {
            check_eq!(folded, Err(HvoError::TailInUse(head.nth(64))));
        }
    }
    Ok(())
}
