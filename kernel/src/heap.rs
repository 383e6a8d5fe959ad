//! The heap: for tests and reports. `mm` uses none of it.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use linked_list_allocator::Heap;
use spin::Mutex;

use crate::arch::x86_64::irq;

/// Size in bytes: a report of 64 nodes or a list of every folio a test holds.
const BYTES: usize = 4 << 20;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; BYTES]>);

// SAFETY: only the heap touches the bytes, under its lock (H-7).
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; BYTES]));

struct IrqHeap(Mutex<Heap>);

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
        let block = self.0.lock().allocate_first_fit(layout);
        irq::restore(irq);
        block.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let Some(ptr) = NonNull::new(ptr) else { return };
        let irq = irq::save();
        // SAFETY: the caller had it from `alloc` with this layout (H-7).
        unsafe { self.0.lock().deallocate(ptr, layout) };
        irq::restore(irq);
    }
}
