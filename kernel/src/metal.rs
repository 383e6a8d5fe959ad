//! The machine that `mm` runs on, for real.
//!
//! Every access to memory is one instruction of inline assembly, most of them in `access`:
//! no Rust reference to a struct page exists (INV-1), the compiler can neither move nor
//! split nor merge an access, and loads and stores are acquires and releases by themselves
//!
#![expect(unsafe_code, reason = "loads and stores at addresses given by `mm`")]

use core::arch::asm;
use core::fmt;
use core::sync::atomic::AtomicU32;

use mm::addr::{NodeId, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use mm::machine::{
    FailPoint, Fault, IrqState, Level, Machine, Memory, Probe, Processors, Testing, TlbCounts,
};
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3};

use crate::arch::x86_64::{cpu, irq, layout, percpu};
use crate::{console, fault, smp};

/// This machine.
///
/// Whoever has it can write to any address, though the methods of [`Machine`] are safe to call:
/// which frames are whose is what `mm` keeps (INV-5), with page tables that are in memory, too, so
/// there is no smaller circle to draw. Nothing but `mm`, its suites and the files of this crate
/// that allocate by it is given a machine. Physical addresses are RAM of the direct map, where no
/// Rust object is but the kernel's image, whose frames the early allocator never had; virtual ones
/// are in the vmemmap, or in address space that `mm` has mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metal;

/// Address of `at` in the direct map.
#[doc(alias = "phys_to_virt")]
#[inline]
fn direct(at: PhysAddr) -> u64 {
    debug_assert!(at.as_u64() < layout::DIRECT_MAP_BYTES);
    layout::DIRECT_MAP + at.as_u64()
}

impl Memory for Metal {
    #[inline]
    fn read_phys(&self, at: PhysAddr) -> u64 {
        // SAFETY: as for `Metal` (INV-1).
        unsafe { access::load64(direct(at)) }
    }

    #[inline]
    fn write_phys(&self, at: PhysAddr, value: u64) {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::store64(direct(at), value) };
    }

    #[inline]
    fn compare_exchange_phys(&self, at: PhysAddr, current: u64, new: u64) -> Result<u64, u64> {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::compare_exchange64(direct(at), current, new) }
    }

    #[inline]
    fn copy_frame(&self, to: Pfn, from: Pfn) {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::copy(direct(to.phys()), direct(from.phys()), PAGE_SIZE / 8) };
    }

    fn fill_phys(&self, at: PhysAddr, record: &[u64], count: u64) {
        let Ok(record) = <&[u64; 8]>::try_from(record) else {
            let words = record.len() as u64;
            for n in 0..count {
                for (word, value) in (0u64..).zip(record) {
                    self.write_phys(at.offset((n * words + word) * 8), *value);
                }
            }
            return;
        };
        let (fours, rest) = if cpu::features().avx {
            (count / 4, count % 4)
        } else {
            (0, count)
        };
        let to = direct(at);
        if fours > 0 {
            fill_vectors(to, record, fours);
        }
        if rest > 0 {
            fill_scalars(to + fours * 4 * 64, record, rest);
        }
    }

    #[inline]
    fn fill_words(&self, at: PhysAddr, value: u64, count: u64) {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::fill(direct(at), value, count) };
    }

    #[inline]
    fn load64(&self, at: VirtAddr) -> u64 {
        // SAFETY: as for `Metal` (INV-1).
        unsafe { access::load64(at.as_u64()) }
    }

    #[inline]
    fn load32(&self, at: VirtAddr) -> u32 {
        // SAFETY: as for `Metal` (INV-1).
        unsafe { access::load32(at.as_u64()) }
    }

    #[inline]
    fn store64(&self, at: VirtAddr, value: u64) {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::store64(at.as_u64(), value) };
    }

    #[inline]
    fn store32(&self, at: VirtAddr, value: u32) {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::store32(at.as_u64(), value) };
    }

    #[inline]
    fn compare_exchange32(&self, at: VirtAddr, current: u32, new: u32) -> Result<u32, u32> {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::compare_exchange32(at.as_u64(), current, new) }
    }

    #[inline]
    fn try_compare_exchange32(
        &self,
        at: VirtAddr,
        current: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, Fault> {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::try_compare_exchange32(at, current, new) }
    }

    #[inline]
    fn compare_exchange64(&self, at: VirtAddr, current: u64, new: u64) -> Result<u64, u64> {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::compare_exchange64(at.as_u64(), current, new) }
    }

    #[inline]
    fn fetch_add32(&self, at: VirtAddr, delta: u32) -> u32 {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::fetch_add32(at.as_u64(), delta) }
    }

    fn store64_strided(&self, at: VirtAddr, stride: u64, count: u64, value: u64) {
        let (eights, rest) = (count / 8, count % 8);
        let mut next = at.as_u64();
        if eights > 0 {
            // Eight stores a turn: with one, counting would cost as much as storing.
            // SAFETY: `count` words, `stride` apart, as for a store (INV-1, INV-5).
            // `eights` is not 0.
            unsafe {
                asm!(
                    "2:",
                    "mov [rdi], rax",
                    "mov [rdi + {s1}], rax",
                    "mov [rdi + {s1} * 2], rax",
                    "mov [rdi + {s3}], rax",
                    "mov [rdi + {s1} * 4], rax",
                    "mov [rdi + {s5}], rax",
                    "mov [rdi + {s3} * 2], rax",
                    "mov [rdi + {s7}], rax",
                    "lea rdi, [rdi + {s1} * 8]",
                    "dec rcx",
                    "jnz 2b",
                    s1 = in(reg) stride,
                    s3 = in(reg) stride * 3,
                    s5 = in(reg) stride * 5,
                    s7 = in(reg) stride * 7,
                    in("rax") value,
                    inout("rdi") next,
                    inout("rcx") eights => _,
                    options(nostack),
                );
            }
        }
        for _ in 0..rest {
            // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
            unsafe { access::store64(next, value) };
            next += stride;
        }
    }

    #[inline]
    fn root(&self) -> Pfn {
        PhysAddr::new(Cr3::read_raw().0.start_address().as_u64()).pfn()
    }

    #[inline]
    fn has_gbpages(&self) -> bool {
        cpu::features().gbpages
    }

    #[inline]
    fn page_size_may_change(&self) -> bool {
        !cpu::features().tlb_multi_match
    }
}

impl Processors for Metal {
    #[inline]
    fn flush_page_local(&self, at: VirtAddr) {
        percpu::count(&percpu::this().flushed_pages);
        tlb::flush(x86_64::VirtAddr::new(at.as_u64()));
    }

    #[inline]
    fn flush_all_local(&self) {
        let irq = irq::save();
        percpu::count(&percpu::this().flushed_all);
        cpu::flush_tlb();
        irq::restore(irq);
    }

    #[inline]
    fn on_each_cpu(&self, work: &(dyn Fn() + Sync)) {
        smp::call::on_each_cpu(work);
    }

    #[inline]
    fn touch_watchdog(&self) {
        smp::watchdog::touch();
    }

    #[inline]
    fn wait_until(&self, what: &str, done: &mut dyn FnMut() -> bool) {
        smp::watchdog::wait_until(what, done);
    }

    #[inline]
    fn cpus(&self) -> usize {
        smp::online()
    }

    #[inline]
    fn node_of_cpu(&self, cpu: usize) -> NodeId {
        NodeId::new(percpu::area(cpu).node()).unwrap_or(NodeId::ZERO)
    }

    #[inline]
    fn held_locks(&self) -> &AtomicU32 {
        &percpu::this().held_locks
    }

    #[inline]
    fn this_cpu(&self) -> usize {
        percpu::cpu()
    }

    #[inline]
    fn this_node(&self) -> NodeId {
        NodeId::new(percpu::this().node()).unwrap_or(NodeId::ZERO)
    }

    #[inline]
    fn irq_save(&self) -> IrqState {
        IrqState(irq::save())
    }

    #[inline]
    fn irq_restore(&self, state: IrqState) {
        irq::restore(state.0);
    }
}

impl Testing for Metal {
    #[inline]
    fn probe(&self, at: VirtAddr, how: Probe) -> Result<(), Fault> {
        // SAFETY: as for `Metal`; what is written is `mm`'s (INV-5).
        unsafe { access::probe(at, how) }
    }

    #[inline]
    fn reload_root_local(&self) {
        tlb::flush_all();
    }

    #[inline]
    fn run_on_each(&self, work: &(dyn Fn(usize) + Sync)) {
        smp::job::run_on_each(work);
    }

    #[inline]
    fn tlb_counts(&self, cpu: usize) -> TlbCounts {
        smp::tlb_counts(cpu)
    }

    #[inline]
    fn inject(&self, point: FailPoint) -> bool {
        fault::attributes(point).should_fail()
    }

    #[inline]
    fn fail_nth(&self, point: FailPoint, nth: Option<u64>) {
        fault::attributes(point).fail_nth(nth);
    }

    fn without_write_protect(&self, work: &mut dyn FnMut()) {
        let irq = irq::save();
        let cr0 = Cr0::read();
        // SAFETY: CR0 keeps its other bits. INV-4 rests on `work` alone until it is put
        // back: with interrupts off nothing else runs, and `work` is a test's.
        unsafe { Cr0::write(cr0 - Cr0Flags::WRITE_PROTECT) };
        work();
        // SAFETY: the value that was there (H-2).
        unsafe { Cr0::write(cr0) };
        irq::restore(irq);
    }
}

impl Machine for Metal {
    #[inline]
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let level = match level {
            Level::Warn => console::Level::Warn,
            Level::Info => console::Level::Info,
        };
        console::log(level, line);
    }
}

/// Writes `record` `fours` times four times from `at` on, by stores of 32 bytes.
fn fill_vectors(at: u64, record: &[u64; 8], fours: u64) {
    // SAFETY: `4 * fours` records of 64 bytes of RAM that nothing else touches
    // meanwhile (INV-5), in the direct map, at a multiple of 64. `fours` is not 0. AVX is on
    // (`cpu::enable_vectors`); no other code uses its registers, interrupt handlers
    // included, because the target is soft-float.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{record}]",
            "vmovdqu ymm1, [{record} + 32]",
            "2:",
            "vmovdqa [rdi], ymm0",
            "vmovdqa [rdi + 32], ymm1",
            "vmovdqa [rdi + 64], ymm0",
            "vmovdqa [rdi + 96], ymm1",
            "vmovdqa [rdi + 128], ymm0",
            "vmovdqa [rdi + 160], ymm1",
            "vmovdqa [rdi + 192], ymm0",
            "vmovdqa [rdi + 224], ymm1",
            "add rdi, 256",
            "dec rcx",
            "jnz 2b",
            "vzeroupper",
            record = in(reg) record.as_ptr(),
            inout("rdi") at => _,
            inout("rcx") fours => _,
            options(nostack),
        );
    }
}

/// Writes `record` `count` times from `at` on, by stores of 8 bytes.
fn fill_scalars(at: u64, record: &[u64; 8], count: u64) {
    let [w0, w1, w2, w3, w4, w5, w6, w7] = *record;
    // SAFETY: `count` records of 64 bytes of RAM that nothing else touches
    // meanwhile (INV-5), in the direct map. `count` is not 0.
    unsafe {
        asm!(
            "2:",
            "mov [rdi], {w0}",
            "mov [rdi + 8], {w1}",
            "mov [rdi + 16], {w2}",
            "mov [rdi + 24], {w3}",
            "mov [rdi + 32], {w4}",
            "mov [rdi + 40], {w5}",
            "mov [rdi + 48], {w6}",
            "mov [rdi + 56], {w7}",
            "add rdi, 64",
            "dec rcx",
            "jnz 2b",
            w0 = in(reg) w0, w1 = in(reg) w1, w2 = in(reg) w2, w3 = in(reg) w3,
            w4 = in(reg) w4, w5 = in(reg) w5, w6 = in(reg) w6, w7 = in(reg) w7,
            inout("rdi") at => _,
            inout("rcx") count => _,
            options(nostack),
        );
    }
}
