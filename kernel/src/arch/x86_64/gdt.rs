//! Segments and the task state: where the processor finds stacks for exceptions
//! that cannot trust the current one.
#![expect(unsafe_code, reason = "loads segment and task registers")]

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment as _};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::stack;

/// Index of the double fault stack in the interrupt stack table.
pub(crate) const IST_DOUBLE_FAULT: u16 = 0;
/// Index of the NMI stack.
pub(crate) const IST_NMI: u16 = 1;
/// Index of the machine check stack.
pub(crate) const IST_MACHINE_CHECK: u16 = 2;
/// Index of the debug exception stack.
pub(crate) const IST_DEBUG: u16 = 3;

struct Tables {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

// Of the boot CPU; another CPU brings its own pair.
static TSS: Once<TaskStateSegment> = Once::new();
static TABLES: Once<Tables> = Once::new();

/// Loads this kernel's segments and task state on the boot CPU. GS and FS bases
/// are zeroed by it: per-CPU areas come after.
pub(crate) fn init() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        for (index, top) in [
            (IST_DOUBLE_FAULT, stack::DOUBLE_FAULT.top()),
            (IST_NMI, stack::NMI.top()),
            (IST_MACHINE_CHECK, stack::MACHINE_CHECK.top()),
            (IST_DEBUG, stack::DEBUG.top()),
        ] {
            tss.interrupt_stack_table[usize::from(index)] = VirtAddr::new(top);
        }
        tss
    });
    let tables = TABLES.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let tss = gdt.append(Descriptor::tss_segment(tss));
        Tables {
            gdt,
            code,
            data,
            tss,
        }
    });
    tables.gdt.load();
    // SAFETY: the selector names the 64-bit code segment of the table just loaded.
    unsafe { CS::set_reg(tables.code) };
    // SAFETY: the selector names a writable data segment of that table.
    unsafe { SS::set_reg(tables.data) };
    for set in [DS::set_reg, ES::set_reg, FS::set_reg, GS::set_reg] {
        // SAFETY: a null selector is valid there in 64-bit mode.
        unsafe { set(SegmentSelector::NULL) };
    }
    // SAFETY: the selector names the task state in that table, which is static.
    unsafe { load_tss(tables.tss) };
}
