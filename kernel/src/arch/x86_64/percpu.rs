//! What belongs to one CPU, found through its GS base.
#![expect(unsafe_code, reason = "writes the GS base and loads relative to it")]

use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

/// Most CPUs that are started: a bit each in a word.
#[doc(alias = "NR_CPUS")]
pub(crate) const MAX_CPUS: usize = 64;

/// The area that GS of a CPU points to. Fields that only their own CPU writes are
/// relaxed unless said otherwise.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct PerCpu {
    /// Address of this area.
    this: AtomicPtr<PerCpu>,
    /// Number of this CPU.
    cpu: AtomicU64,
    node: AtomicU8,
    apic_id: AtomicU32,
    /// How far it is: see [`crate::smp`].
    pub(crate) state: AtomicU8,
    /// [`mm::machine::Machine::held_locks`].
    pub(crate) held_locks: AtomicU32,
    /// Calls that other CPUs have made and this one has not taken, a bit each caller.
    /// Set with release by the caller, taken with acquire.
    pub(crate) calls: AtomicU64,
    /// What this CPU calls the others for: a pointer to a reference to a closure.
    pub(crate) work: AtomicPtr<()>,
    /// CPUs that have not finished it.
    pub(crate) left: AtomicU32,
    /// The last job that it has finished.
    pub(crate) job: AtomicU64,
    /// When it last said that it gets on, in cycles.
    pub(crate) touched: AtomicU64,
    /// Single translations dropped.
    pub(crate) flushed_pages: AtomicU64,
    /// Times that all were dropped.
    pub(crate) flushed_all: AtomicU64,
    /// Rounds of calls started.
    pub(crate) rounds: AtomicU64,
    /// Interrupts sent for them.
    pub(crate) sent: AtomicU64,
    /// Calls of others taken.
    pub(crate) received: AtomicU64,
    /// Non-maskable interrupts that nobody knows the reason of.
    pub(crate) nmis: AtomicU64,
    /// Interrupts with a vector nobody sends.
    pub(crate) spurious: AtomicU64,
    /// Where it was when a panic stopped it; 0 while it runs. Released by the stopped
    /// CPU, acquired by the one that panics.
    pub(crate) stopped_at: AtomicU64,
}

impl PerCpu {
    const fn new() -> Self {
        Self {
            this: AtomicPtr::new(ptr::null_mut()),
            cpu: AtomicU64::new(0),
            node: AtomicU8::new(0),
            apic_id: AtomicU32::new(0),
            state: AtomicU8::new(0),
            held_locks: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            work: AtomicPtr::new(ptr::null_mut()),
            left: AtomicU32::new(0),
            job: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            flushed_pages: AtomicU64::new(0),
            flushed_all: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            nmis: AtomicU64::new(0),
            spurious: AtomicU64::new(0),
            stopped_at: AtomicU64::new(0),
        }
    }

    /// Its node.
    pub(crate) fn node(&self) -> u8 {
        self.node.load(Ordering::Relaxed)
    }

    /// Its local APIC's id.
    pub(crate) fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Says which node and which local APIC it has.
    pub(crate) fn describe(&self, node: u8, apic_id: u32) {
        self.node.store(node, Ordering::Relaxed);
        self.apic_id.store(apic_id, Ordering::Relaxed);
    }
}

static AREAS: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Points this CPU's GS at the area of CPU `cpu`, which is this one from now on.
pub(crate) fn init(cpu: usize) {
    let area = &AREAS[cpu];
    area.this
        .store(ptr::from_ref(area).cast_mut(), Ordering::Relaxed);
    area.cpu.store(cpu as u64, Ordering::Relaxed);
    let base = VirtAddr::from_ptr(area);
    GsBase::write(base);
    KernelGsBase::write(base);
}

/// The area of CPU `cpu`.
#[doc(alias = "per_cpu_ptr")]
pub(crate) fn area(cpu: usize) -> &'static PerCpu {
    &AREAS[cpu]
}

/// The area of this CPU.
#[doc(alias = "this_cpu_ptr")]
pub(crate) fn this() -> &'static PerCpu {
    let area: *const PerCpu;
    // SAFETY: GS points to this CPU's `PerCpu` since `init`, the first thing a CPU
    // does (H-3).
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) area, const offset_of!(PerCpu, this),
             options(nostack, preserves_flags, readonly));
    }
    // SAFETY: `init` stored the address of a static there (H-3).
    unsafe { &*area }
}

/// Number of this CPU, from 0.
#[doc(alias = "smp_processor_id")]
pub(crate) fn cpu() -> usize {
    let cpu: usize;
    // SAFETY: as in `this` (H-3).
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) cpu, const offset_of!(PerCpu, cpu),
             options(nostack, preserves_flags, readonly));
    }
    cpu
}
