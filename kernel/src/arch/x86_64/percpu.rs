//! What belongs to one CPU, found through its GS base.
#![expect(unsafe_code, reason = "writes the GS base and loads relative to it")]

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

/// The area that GS of a CPU points to. More CPUs bring an area each.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PerCpu {
    cpu: AtomicU64,
    node: AtomicU8,
}

static BOOT_CPU: PerCpu = PerCpu {
    cpu: AtomicU64::new(0),
    node: AtomicU8::new(0),
};

/// Points this CPU's GS at the area of the boot CPU.
pub(crate) fn init_boot_cpu() {
    let base = VirtAddr::from_ptr(&raw const BOOT_CPU);
    GsBase::write(base);
    KernelGsBase::write(base);
}

/// Says which node this CPU belongs to. Relaxed: a CPU only asks for its own.
pub(crate) fn set_node(node: u8) {
    BOOT_CPU.node.store(node, Ordering::Relaxed);
}

/// Number of this CPU, from 0.
#[doc(alias = "smp_processor_id")]
pub(crate) fn cpu() -> usize {
    let cpu: usize;
    // SAFETY: GS points to this CPU's `PerCpu` since `init_boot_cpu`, the first
    // thing the kernel does.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) cpu, const offset_of!(PerCpu, cpu),
             options(nostack, preserves_flags, readonly));
    }
    cpu
}

/// Node of this CPU.
#[doc(alias = "numa_node_id")]
pub(crate) fn node() -> u8 {
    let node: u8;
    // SAFETY: as in `cpu`.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg_byte) node, const offset_of!(PerCpu, node),
             options(nostack, preserves_flags, readonly));
    }
    node
}
