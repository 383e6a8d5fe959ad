//! What the machine does for the kernel: `mm`'s door to hardware.
#![expect(unsafe_code, reason = "loads and stores in the machine's memory")]

use core::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use mm::addr::{NodeId, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use mm::machine::{
    FailPoint, Fault, IrqState, Level, Machine as Door, Memory, Probe, Processors, Testing,
    TlbCounts,
};

use super::{Machine, THIS_CPU};
use crate::host::HostError;
use crate::interrupts::{LIMIT, lock};

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A flush that cannot be done leaves translations that lead to the wrong frames.
fn flushed(result: Result<(), HostError>) {
    if let Err(why) = result {
        panic!("a flush could not be done: {why}");
    }
}

/// Runs `work` as `cpu`.
fn on_cpu<R>(cpu: usize, work: impl FnOnce() -> R) -> R {
    struct Back(usize);
    impl Drop for Back {
        fn drop(&mut self) {
            THIS_CPU.set(self.0);
        }
    }
    let _back = Back(THIS_CPU.replace(cpu));
    work()
}

impl Memory for Machine {
    #[inline]
    fn read_phys(&self, at: PhysAddr) -> u64 {
        self.0.read_phys(at)
    }

    #[inline]
    fn write_phys(&self, at: PhysAddr, value: u64) {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::store64(self.0.ram.direct(at, 8), value) };
    }

    fn compare_exchange_phys(&self, at: PhysAddr, current: u64, new: u64) -> Result<u64, u64> {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::compare_exchange64(self.0.ram.direct(at, 8), current, new) }
    }

    fn copy_frame(&self, to: Pfn, from: Pfn) {
        let direct = |pfn: Pfn| self.0.ram.direct(pfn.phys(), PAGE_SIZE);
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::copy(direct(to), direct(from), PAGE_SIZE / 8) };
    }

    fn fill_phys(&self, at: PhysAddr, record: &[u64], count: u64) {
        let bytes = 8 * record.len() as u64;
        let to = self.0.ram.direct(at, count * bytes);
        for n in 0..count {
            for (word, value) in (0u64..).zip(record) {
                // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
                unsafe { access::store64(to + n * bytes + word * 8, *value) };
            }
        }
    }

    fn fill_words(&self, at: PhysAddr, value: u64, count: u64) {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::fill(self.0.ram.direct(at, count * 8), value, count) };
    }

    #[inline]
    fn load64(&self, at: VirtAddr) -> u64 {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::load64(self.0.host(at)) }
    }

    #[inline]
    fn load32(&self, at: VirtAddr) -> u32 {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::load32(self.0.host(at)) }
    }

    #[inline]
    fn store64(&self, at: VirtAddr, value: u64) {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::store64(self.0.host(at), value) };
    }

    #[inline]
    fn store32(&self, at: VirtAddr, value: u32) {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::store32(self.0.host(at), value) };
    }

    #[inline]
    fn compare_exchange32(&self, at: VirtAddr, current: u32, new: u32) -> Result<u32, u32> {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::compare_exchange32(self.0.host(at), current, new) }
    }

    fn try_compare_exchange32(
        &self,
        at: VirtAddr,
        current: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, Fault> {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::try_compare_exchange32(VirtAddr::new(self.0.host(at)), current, new) }
    }

    fn compare_exchange64(&self, at: VirtAddr, current: u64, new: u64) -> Result<u64, u64> {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::compare_exchange64(self.0.host(at), current, new) }
    }

    fn fetch_add32(&self, at: VirtAddr, delta: u32) -> u32 {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::fetch_add32(self.0.host(at), delta) }
    }

    fn root(&self) -> Pfn {
        self.0.root
    }

    fn has_gbpages(&self) -> bool {
        true
    }
}

impl Processors for Machine {
    fn flush_page_local(&self, at: VirtAddr) {
        count(&self.0.cpu().page_flushes);
        flushed(self.0.flush_page(at.as_u64()));
    }

    fn flush_all_local(&self) {
        count(&self.0.cpu().full_flushes);
        flushed(self.0.flush_all(true));
    }

    fn on_each_cpu(&self, work: &(dyn Fn() + Sync)) {
        let this = self.this_cpu();
        let own = self.0.cpu();
        assert!(
            own.interrupts.are_on(),
            "CPU {this} waits for others with interrupts off"
        );
        if self.cpus() > 1 {
            count(&own.rounds);
            own.sent
                .fetch_add(self.cpus() as u64 - 1, Ordering::Relaxed);
        }
        for (n, cpu) in self.0.cpus.iter().enumerate() {
            if n == this {
                work();
            } else {
                count(&cpu.received);
                cpu.interrupts.interrupt(|| on_cpu(n, work));
            }
        }
    }

    fn touch_watchdog(&self) {}

    fn wait_until(&self, what: &str, done: &mut dyn FnMut() -> bool) {
        let from = Instant::now();
        while !done() {
            std::thread::yield_now();
            assert!(from.elapsed() < LIMIT, "waited for {what} for {LIMIT:?}");
        }
    }

    fn cpus(&self) -> usize {
        self.0.cpus.len()
    }

    fn node_of_cpu(&self, cpu: usize) -> NodeId {
        NodeId::of(self.0.cpus[cpu].node.load(Ordering::Relaxed))
    }

    fn held_locks(&self) -> &AtomicU32 {
        &self.0.cpu().held_locks
    }

    fn this_cpu(&self) -> usize {
        THIS_CPU.get()
    }

    fn this_node(&self) -> NodeId {
        self.node_of_cpu(self.this_cpu())
    }

    fn irq_save(&self) -> IrqState {
        IrqState(self.0.cpu().interrupts.disable())
    }

    fn irq_restore(&self, state: IrqState) {
        if state.0 {
            self.0.cpu().interrupts.enable();
        }
    }
}

impl Testing for Machine {
    fn probe(&self, at: VirtAddr, how: Probe) -> Result<(), Fault> {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::probe(VirtAddr::new(self.0.host(at)), how) }
    }

    /// Drops what is not global.
    fn reload_root_local(&self) {
        flushed(self.0.flush_all(false));
    }

    fn run_on_each(&self, work: &(dyn Fn(usize) + Sync)) {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let on = |cpu| move || on_cpu(cpu, || work(cpu));
            let threads: Vec<_> = (0..self.cpus()).map(|cpu| scope.spawn(on(cpu))).collect();
            threads.into_iter().map(ScopedJoinHandle::join).collect()
        });
        if let Some(panic) = outcomes.into_iter().find_map(Result::err) {
            std::panic::resume_unwind(panic);
        }
    }

    fn tlb_counts(&self, cpu: usize) -> TlbCounts {
        let cpu = &self.0.cpus[cpu];
        TlbCounts {
            pages: cpu.page_flushes.load(Ordering::Relaxed),
            all: cpu.full_flushes.load(Ordering::Relaxed),
            rounds: cpu.rounds.load(Ordering::Relaxed),
            sent: cpu.sent.load(Ordering::Relaxed),
            received: cpu.received.load(Ordering::Relaxed),
        }
    }

    fn inject(&self, point: FailPoint) -> bool {
        self.0.failures.hit(point)
    }

    fn fail_nth(&self, point: FailPoint, nth: Option<u64>) {
        self.0.failures.plan(point, nth);
    }

    /// While it lasts the handler of faults maps what is written to writable, for all CPUs.
    fn without_write_protect(&self, work: &mut dyn FnMut()) {
        let irq = self.irq_save();
        let wp = &self.0.cpu().write_protect;
        wp.store(false, Ordering::Relaxed);
        work();
        wp.store(true, Ordering::Relaxed);
        flushed(self.0.close());
        self.irq_restore(irq);
    }
}

impl Door for Machine {
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let line = line.to_string();
        if self.0.echo {
            eprintln!("{line}");
        }
        lock(&self.0.lines).push((level, line));
    }
}
