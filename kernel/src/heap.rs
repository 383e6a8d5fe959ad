//! The heap: for tests and reports. `mm` uses none of it.
//!
//! It is small. What does not fit, as the audit's bitmap of a large machine, is a block of the
//! buddy allocator, if the allocator has one.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use linked_list_allocator::Heap;
use mm::addr::{Order, PAGE_SIZE, Pfn, PhysAddr};
use mm::frames::{FrameSource as _, Placement};
use spin::Mutex;

use crate::arch::x86_64::{irq, layout};
use crate::metal::Metal;
use crate::state::MM;

/// Size in bytes: a report of 64 nodes or a list of every folio a test holds.
const BYTES: usize = 4 << 20;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; BYTES]>);

// SAFETY: only the heap touches the bytes, under its lock (H-7).
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; BYTES]));

struct IrqHeap(Mutex<Heap>);

/// The order of a block that `layout` fits into.
fn order_of(layout: Layout) -> Option<Order> {
    let bytes = u64::try_from(layout.size().max(layout.align())).ok()?;
    let pages = bytes.div_ceil(PAGE_SIZE).checked_next_power_of_two()?;
    Order::new(u8::try_from(pages.ilog2()).ok()?)
}

/// A block of the buddy allocator, by its address in the direct map.
fn block(layout: Layout) -> Option<*mut u8> {
    let order = order_of(layout)?;
    let pfn = MM.nodes.alloc(&Metal, order, Placement::local(&Metal))?;
    let at = usize::try_from(layout::DIRECT_MAP + pfn.phys().as_u64()).ok()?;
    Some(core::ptr::with_exposed_provenance_mut(at))
}

/// The frame of `at`, if it is a [`block`].
fn frame_of(at: NonNull<u8>) -> Option<Pfn> {
    let map = layout::DIRECT_MAP..layout::DIRECT_MAP + layout::DIRECT_MAP_BYTES;
    let at = at.addr().get() as u64;
    map.contains(&at)
        .then(|| PhysAddr::new(at - layout::DIRECT_MAP).pfn())
}

#[global_allocator]
static HEAP: IrqHeap = IrqHeap(Mutex::new(Heap::empty()));

/// Hands the heap its memory. To be called once.
pub(crate) fn init() {
    let mut heap = HEAP.0.lock();
    assert_eq!(heap.size(), 0, "the heap has its memory already");
    // SAFETY: the memory is static, the heap's alone, and handed over once (H-7).
    unsafe { heap.init(MEMORY.0.get().cast(), BYTES) };
}

// SAFETY: the inner heap hands out disjoint memory of the size and alignment asked
// for; the lock, taken with interrupts off, keeps it consistent (H-7).
unsafe impl GlobalAlloc for IrqHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let irq = irq::save();
        let found = self.0.lock().allocate_first_fit(layout);
        irq::restore(irq);
        match found {
            Ok(found) => found.as_ptr(),
            Err(()) => block(layout).unwrap_or_default(),
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let Some(ptr) = NonNull::new(ptr) else { return };
        if let (Some(pfn), Some(order)) = (frame_of(ptr), order_of(layout)) {
            MM.nodes.free(&Metal, pfn, order);
            return;
        }
        let irq = irq::save();
        // SAFETY: the caller had it from `alloc` with this layout (H-7).
        unsafe { self.0.lock().deallocate(ptr, layout) };
        irq::restore(irq);
    }
}
