//! Segments and the task state: where the processor finds stacks for exceptions
//! that cannot trust the current one.
#![expect(unsafe_code, reason = "loads segment and task registers")]

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment as _};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::percpu;
use super::stack::Tops;

/// Index of the double fault stack in the interrupt stack table.
pub(crate) const IST_DOUBLE_FAULT: u16 = 0;
/// Index of the NMI stack.
pub(crate) const IST_NMI: u16 = 1;
/// Index of the machine check stack.
pub(crate) const IST_MACHINE_CHECK: u16 = 2;
/// Index of the debug exception stack.
pub(crate) const IST_DEBUG: u16 = 3;

/// A CPU's segments, and its task state behind one of them.
#[derive(Debug)]
pub(crate) struct Segments {
    table: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

// The boot CPU's, which needs them before there is a heap.
static BOOT_TSS: Once<TaskStateSegment> = Once::new();
static BOOT_SEGMENTS: Once<Segments> = Once::new();

/// Loads segments and task state on the boot CPU; exceptions that need a stack of
/// their own use those of `stacks`. GS and FS bases are zeroed by it: the per-CPU area
/// comes after.
pub(crate) fn init_boot_cpu(stacks: &Tops) {
    let tss = BOOT_TSS.call_once(|| task_state(stacks));
    load(BOOT_SEGMENTS.call_once(|| segments(tss)));
}

/// Makes the segments of CPU `cpu`, another than the boot CPU, whose stacks are `stacks`, for
/// [`load_own`]. Called by the CPU that starts it: one that comes up late may be stopped at any
/// instruction, and must not hold a lock then, not even the heap's. They are made anew each
/// time, since a CPU that was given up has marked its task state as busy; what was made for
/// that one stays, for it may be on it still.
pub(crate) fn prepare(cpu: usize, stacks: &Tops) {
    let tss = Box::leak(Box::new(task_state(stacks)));
    let segments = Box::into_raw(Box::new(segments(tss)));
    // Release: pairs with `load_own`.
    percpu::area(cpu)
        .segments
        .store(segments, Ordering::Release);
}

/// Loads on CPU `cpu`, this one, what [`prepare`] has made. Takes no lock, and no memory.
///
/// # Panics
/// If nothing has been made.
pub(crate) fn load_own(cpu: usize) {
    let segments = percpu::area(cpu).segments.load(Ordering::Acquire);
    // SAFETY: null, or a box that `prepare` has leaked: nothing changes it but the processor,
    // which marks the task state as busy in its own way (H-3).
    let segments = unsafe { segments.as_ref() };
    load(segments.expect("prepared by the CPU that starts this one"));
}

fn task_state(stacks: &Tops) -> TaskStateSegment {
    let mut tss = TaskStateSegment::new();
    for (index, top) in [
        (IST_DOUBLE_FAULT, stacks.double_fault),
        (IST_NMI, stacks.nmi),
        (IST_MACHINE_CHECK, stacks.machine_check),
        (IST_DEBUG, stacks.debug),
    ] {
        tss.interrupt_stack_table[usize::from(index)] = VirtAddr::new(top);
    }
    tss
}

fn segments(tss: &'static TaskStateSegment) -> Segments {
    let mut table = GlobalDescriptorTable::new();
    let code = table.append(Descriptor::kernel_code_segment());
    let data = table.append(Descriptor::kernel_data_segment());
    let tss = table.append(Descriptor::tss_segment(tss));
    Segments {
        table,
        code,
        data,
        tss,
    }
}

fn load(segments: &'static Segments) {
    segments.table.load();
    // SAFETY: the selector names the 64-bit code segment of the table just loaded (H-3).
    unsafe { CS::set_reg(segments.code) };
    // SAFETY: the selector names a writable data segment of that table (H-3).
    unsafe { SS::set_reg(segments.data) };
    for set in [DS::set_reg, ES::set_reg, FS::set_reg, GS::set_reg] {
        // SAFETY: a null selector is valid there in 64-bit mode (H-3).
        unsafe { set(SegmentSelector::NULL) };
    }
    // SAFETY: the selector names the task state in that table, which is static (H-3).
    unsafe { load_tss(segments.tss) };
}
