extern crate std;

use std::collections::BTreeMap;
use std::string::String;

use super::*;
use crate::page::Flags;

/// Struct pages at addresses of their own, zero where nothing was stored.
#[derive(Default)]
struct Memory(BTreeMap<u64, u64>);

impl Memory {
    fn load(&self) -> impl Fn(VirtAddr) -> u64 + '_ {
        |at| self.0.get(&at.as_u64()).copied().unwrap_or(0)
    }

    /// A folio of `order` whose head's struct page is at `head`, nothing shared.
    fn folio<E: Encoding, S: PageShape>(&mut self, head: u64, order: Order, descriptor: u64) {
        let block = BlockInfo {
            head: VirtAddr::new(head),
            order,
            descriptor: Some(VirtAddr::new(descriptor)),
        };
        if let Some(flags) = S::FLAGS {
            self.0.insert(head + flags, Flags::HEAD.raw());
        }
        for n in 0..order.pages() {
            let word = if n == 0 {
                E::head::<S>(&block)
            } else {
                E::tail::<S>(&block)
            };
            self.0.insert(head + n * S::SIZE + S::INFO, word);
        }
    }
}

const BASE: u64 = 0xffff_ea00_0000_0000;
const DESCRIPTOR: u64 = 0xffff_8880_0012_3450;

/// Finds the folio of all its pages, and nothing of the neighbours.
fn leads_home<E: Encoding, S: PageShape>() {
    for order in [1, 2, 7, 9, 12].map(Order::of) {
        let Ok(support) = support::<E, S>(MemoryModel::SparsememVmemmap) else {
            return;
        };
        assert!(order <= support.max_order);
        let mut memory = Memory::default();
        let head = BASE + 3 * order.pages() * S::SIZE;
        memory.folio::<E, S>(head, order, DESCRIPTOR);
        let load = memory.load();
        let home = if E::DESCRIPTOR { DESCRIPTOR } else { head };
        for n in 0..order.pages() {
            let page = VirtAddr::new(head + n * S::SIZE);
            assert_eq!(
                E::folio::<S>(&load, page).as_u64(),
                home,
                "{} order {order} page {n}",
                E::NAME
            );
            assert_eq!(E::is_tail::<S>(&load, page), n > 0 && !E::DESCRIPTOR);
        }
        for outside in [head - S::SIZE, head + order.pages() * S::SIZE] {
            let own = if E::DESCRIPTOR { 0 } else { outside };
            let page = VirtAddr::new(outside);
            assert_eq!(E::folio::<S>(&load, page).as_u64(), own);
            assert!(!E::is_tail::<S>(&load, page));
        }
    }
}

#[test]
fn every_page_finds_its_folio() {
    macro_rules! each {
        ($encoding:ident) => {
            leads_home::<$encoding, Bytes64>();
            leads_home::<$encoding, Bytes56>();
            leads_home::<$encoding, Bytes32>();
            leads_home::<$encoding, Bytes8>();
        };
    }
    for_each_encoding!(each);
}

/// The head's frame mapped again: only fake-head knows that its first page is no head.
#[test]
fn a_fake_head_is_told_from_the_head() {
    let order = Order::of(9);
    let mut memory = Memory::default();
    memory.folio::<FakeHead, Bytes64>(BASE, order, DESCRIPTOR);
    let real = memory.load();
    // What a walk through folded tables reads.
    let folded = |at: VirtAddr| {
        let offset = at.as_u64() - BASE;
        real(VirtAddr::new(BASE + offset % 4096))
    };
    for n in 0..order.pages() {
        let page = VirtAddr::new(BASE + n * 64);
        assert_eq!(FakeHead::folio::<Bytes64>(&folded, page).as_u64(), BASE);
        assert_eq!(FakeHead::is_tail::<Bytes64>(&folded, page), n > 0);
        let plain = Pointer::folio::<Bytes64>(&folded, page).as_u64();
        assert_eq!(
            plain == BASE,
            n == 0 || n % 64 != 0,
            "why Pointer refuses HVO"
        );
    }
}

/// Another CPU folds or unfolds between any two loads of a lookup: the answer is the same.
#[test]
fn lookups_survive_folding_between_loads() {
    use core::cell::Cell;
    let order = Order::of(9);
    let mut memory = Memory::default();
    memory.folio::<FakeHead, Bytes64>(BASE, order, DESCRIPTOR);
    let unfolded = memory.load();
    let folded = |at: VirtAddr| unfolded(VirtAddr::new(BASE + (at.as_u64() - BASE) % 4096));
    for n in 0..order.pages() {
        let page = VirtAddr::new(BASE + n * 64);
        for (switch, folds) in (0..5).flat_map(|at| [(at, false), (at, true)]) {
            let loads = Cell::new(0);
            let load = |at| {
                loads.set(loads.get() + 1);
                if (loads.get() > switch) == folds {
                    folded(at)
                } else {
                    unfolded(at)
                }
            };
            let found = FakeHead::folio::<Bytes64>(&load, page).as_u64();
            assert_eq!(found, BASE, "page {n}, change after load {switch}");
        }
    }
}

/// A list link in the word is no tail for any encoding that shares the bytes.
#[test]
fn a_link_is_no_tail() {
    let mut memory = Memory::default();
    memory.0.insert(BASE + 8, BASE + 0x1240);
    let load = memory.load();
    let page = VirtAddr::new(BASE);
    assert_eq!(Pointer::folio::<Bytes64>(&load, page), page);
    assert_eq!(FakeHead::folio::<Bytes64>(&load, page), page);
    assert_eq!(Mask::folio::<Bytes64>(&load, page), page);
    assert_eq!(OrderInField::folio::<Bytes64>(&load, page), page);
}

#[test]
fn what_goes_with_what() {
    use MemoryModel::{Flatmem, Sparsemem, SparsememVmemmap as Vmemmap};
    let hvo = |support: Result<Support, Refusal>| support.unwrap().hvo;
    assert_eq!(
        support::<Mask, Bytes56>(Vmemmap),
        Err(Refusal::NotPowerOfTwo)
    );
    assert_eq!(
        support::<OrderInField, Bytes56>(Flatmem),
        Err(Refusal::NotPowerOfTwo)
    );
    assert_eq!(
        support::<Mask, Bytes8>(Vmemmap),
        Err(Refusal::NoRoomForFolio)
    );
    assert_eq!(
        hvo(support::<Mask, Bytes64>(Vmemmap)),
        Ok(Sharing::AcrossNode)
    );
    assert_eq!(
        hvo(support::<FakeHead, Bytes32>(Vmemmap)),
        Ok(Sharing::WithinFolio)
    );
    assert_eq!(
        hvo(support::<FakeHead, Bytes56>(Vmemmap)),
        Err(Refusal::Straddles)
    );
    assert_eq!(
        hvo(support::<Pointer, Bytes64>(Vmemmap)),
        Err(Refusal::FakeHeads)
    );
    assert_eq!(
        hvo(support::<Memdesc, Bytes8>(Vmemmap)),
        Ok(Sharing::WithinFolio)
    );
    assert_eq!(
        hvo(support::<Mask, Bytes64>(Flatmem)),
        Err(Refusal::NotRemappable)
    );
    assert_eq!(
        support::<Mask, Bytes64>(Sparsemem).unwrap().max_order,
        SECTION
    );
    assert_eq!(
        support::<Pointer, Bytes64>(Sparsemem).unwrap().max_order,
        Order::MAX
    );
    assert_eq!(Support::hvo_min_order::<Bytes64>(), Order::of(7));
    assert_eq!(Support::hvo_min_order::<Bytes32>(), Order::of(8));
    assert_eq!(Support::hvo_min_order::<Bytes8>(), Order::of(10));
    let reasons: String = [Refusal::FakeHeads, Refusal::Straddles]
        .map(Refusal::reason)
        .concat();
    assert!(reasons.contains("head") && reasons.contains("frames"));
}
