//! What belongs to one CPU, found through its GS base.
#![expect(unsafe_code, reason = "writes the GS base and loads relative to it")]

use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use super::gdt::Segments;

/// Most CPUs that are started.
#[doc(alias = "NR_CPUS")]
pub(crate) const MAX_CPUS: usize = 512;

/// A bit for each CPU.
#[derive(Debug)]
#[doc(alias = "cpumask_t")]
pub(crate) struct CpuMask([AtomicU64; MAX_CPUS / 64]);

impl CpuMask {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; MAX_CPUS / 64])
    }

    /// Sets the bit of `cpu`, with release.
    pub(crate) fn set(&self, cpu: usize) {
        self.0[cpu / 64].fetch_or(1 << (cpu % 64), Ordering::Release);
    }

    /// Whether the bit of `cpu` is set. Relaxed.
    pub(crate) fn contains(&self, cpu: usize) -> bool {
        self.0[cpu / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0
    }

    /// Takes the bits of CPUs below `cpus` out, with acquire, and calls `each` with their
    /// numbers. A bit that is set meanwhile may be left for the next time.
    pub(crate) fn take(&self, cpus: usize, each: &mut dyn FnMut(usize)) {
        for (n, word) in self.0.iter().enumerate().take(cpus.div_ceil(64)) {
            // A look first: most words of a large machine are empty, and an exchange
            // takes the line away from whoever is about to write it.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::Acquire);
            while bits != 0 {
                each(n * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

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
    /// [`mm::machine::Processors::held_locks`].
    pub(crate) held_locks: AtomicU32,
    /// CPUs whose call this one has not taken.
    pub(crate) callers: CpuMask,
    /// Whether an interrupt is on its way that makes this CPU look at `callers`.
    pub(crate) called: AtomicBool,
    /// What this CPU calls the others for: a pointer to a reference to a closure.
    pub(crate) work: AtomicPtr<()>,
    /// CPUs that have not finished it.
    pub(crate) left: AtomicU32,
    /// The last job that it has finished.
    pub(crate) job: AtomicU64,
    /// How often it has said that it gets on.
    pub(crate) touched: AtomicU64,
    /// Its segments, made by the CPU that starts it; null for the boot CPU.
    pub(crate) segments: AtomicPtr<Segments>,
    /// Whether it came with other MTRRs than the boot CPU's.
    pub(crate) mtrrs_set: AtomicBool,
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
    /// Whether another CPU asks, by an NMI, for a sign of life.
    pub(crate) probed: AtomicBool,
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
            callers: CpuMask::new(),
            called: AtomicBool::new(false),
            work: AtomicPtr::new(ptr::null_mut()),
            left: AtomicU32::new(0),
            job: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            segments: AtomicPtr::new(ptr::null_mut()),
            mtrrs_set: AtomicBool::new(false),
            flushed_pages: AtomicU64::new(0),
            flushed_all: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            nmis: AtomicU64::new(0),
            spurious: AtomicU64::new(0),
            probed: AtomicBool::new(false),
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
