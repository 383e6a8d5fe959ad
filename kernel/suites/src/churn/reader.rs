//! Reading struct pages whose owners are at work on them.

use ktest::{Outcome, check, fail};
use mm::addr::{Order, Pfn};
use mm::machine::Machine;
use mm::page::{self, CompoundInfo, Flags, Page, PageType};
use mm::vmemmap::RamRange;

use super::{Churn, Cpu};

/// Pages that one step reads.
const PAGES: u64 = 32;

/// What `page_type` can be.
const TYPES: [PageType; 6] = [
    PageType::NONE,
    PageType::BUDDY,
    PageType::TABLE,
    PageType::HUGETLB,
    PageType::MEMMAP,
    PageType::TAILS,
];

impl<M: Machine> Churn<'_, M> {
    /// Reads random pages, as a walker over pfns does, and takes a reference where one
    /// is to be had.
    pub(super) fn read(&self, cpu: &mut Cpu) -> Outcome {
        for _ in 0..PAGES {
            let Some((pfn, ram)) = self.anywhere(cpu) else {
                return Ok(());
            };
            let page = self.env.page(pfn);
            self.check_fields(page, ram)?;
            if page::folio_try_get(self.env.m, page) {
                self.visit(cpu, page)?;
            }
        }
        Ok(())
    }

    /// A page of RAM; every second time one where a folio may begin.
    fn anywhere(&self, cpu: &mut Cpu) -> Option<(Pfn, RamRange)> {
        let ranges = self.env.ram;
        let which = usize::try_from(cpu.random.below(ranges.len().max(1) as u64)).ok()?;
        let ram = *ranges.get(which)?;
        let n = cpu.random.below(ram.range.pages().max(1));
        let pfn = ram.range.start.offset(n);
        let first = Pfn::new(pfn.as_u64() / Order::PMD.pages() * Order::PMD.pages());
        let at_folio = cpu.random.below(2) == 0 && ram.range.contains(first);
        Some((if at_folio { first } else { pfn }, ram))
    }

    /// Fields that must make sense at every moment, whoever owns the page: each is one
    /// load, and no two of them are of the same moment.
    fn check_fields(&self, page: Page, ram: RamRange) -> Outcome {
        let m = self.env.m;
        let flags = page.flags(m);
        let known = Flags::RESERVED
            .with(Flags::HEAD)
            .with(Flags::VMEMMAP_OPTIMIZED)
            .with(Flags::HWPOISON);
        check!(
            flags.node() == ram.node && flags.bits() & !known.bits() == 0,
            "{page:?} of node {} has flags {:#x}",
            ram.node,
            flags.raw()
        );
        let info = page.compound_info(m);
        let memmap = self.env.mm.vmemmap.memmap();
        let head = |order| memmap.page(memmap.pfn(page).align_down(order));
        let tail = |order| info == head(order).tail_info(order);
        let good = if info.is_tail() {
            Order::range_inclusive(Order::of(1), Order::MAX).any(tail)
        } else {
            // In a list, its place holds the link.
            info == CompoundInfo::NONE || self.is_link(info.raw())
        };
        check!(good, "{page:?} has compound_info {:#x}", info.raw());
        let page_type = page.page_type(m);
        check!(
            TYPES.contains(&page_type),
            "{page:?} has type {:#x}",
            page_type.raw()
        );
        let count = page.ref_count(m);
        let most = m.cpus() + 1;
        check!(
            usize::try_from(count).is_ok_and(|count| count <= most),
            "{page:?} has {count} references on a machine of {most} takers"
        );
        Ok(())
    }

    /// Whether `raw` is the address of a struct page of RAM.
    fn is_link(&self, raw: u64) -> bool {
        let memmap = self.env.mm.vmemmap.memmap();
        let page = memmap.page_at(mm::addr::VirtAddr::new(raw));
        page.is_some_and(|page| {
            let pfn = memmap.pfn(page);
            self.env.ram.iter().any(|ram| ram.range.contains(pfn))
        })
    }

    /// With a reference on `head`: it is a folio and stays one.
    fn visit(&self, cpu: &mut Cpu, head: Page) -> Outcome {
        let m = self.env.m;
        let page_type = head.page_type(m);
        check!(
            page_type == PageType::HUGETLB,
            "{head:?} has a reference and is of type {:#x}",
            page_type.raw()
        );
        let order = page::folio_order(m, head);
        self.check_folio(cpu, head, order)?;
        self.env.hstate(order)?.put(m, head);
        Ok(())
    }

    /// Some pages of a folio that this CPU has a reference on.
    pub(super) fn check_folio(&self, cpu: &mut Cpu, head: Page, order: Order) -> Outcome {
        let m = self.env.m;
        if page::folio_order(m, head) != order || !head.is_head(m) {
            fail!("{head:?} was taken as a folio of order {order}");
        }
        let node = head.node(m);
        for _ in 0..8 {
            let n = 1 + cpu.random.below(order.pages() - 1);
            let tail = head.nth(n);
            let good = tail.is_tail(m)
                && !tail.is_head(m)
                && tail.compound_head(m) == head
                && tail.ref_count(m) == 0
                && !page::folio_try_get(m, tail)
                && tail.node(m) == node;
            check!(
                good,
                "tail {n} of {head:?}, order {order}: {:x?}",
                tail.record(m)
            );
        }
        Ok(())
    }
}
