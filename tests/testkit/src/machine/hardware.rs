//! What the machine does for the kernel: `mm`'s door to hardware.

use core::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use mm::addr::{NodeId, Pfn, PhysAddr, VirtAddr};
use mm::machine::{
    FailPoint, Fault, IrqState, Level, Machine, Memory, Probe, Processors, Testing, TlbCounts,
};

use super::{Cpu, EmulatedMachine, NO_ROOT, NOT_WATCHED, Speculation, THIS_CPU, lock};
use crate::events::Event;
use crate::inject::Injection;
use crate::interrupts::LIMIT;
use crate::sabotage::Late;
use crate::schedule::{self, Point};
use crate::violation::{Access, Violation};
use crate::walker::{Trouble, Walker};
use crate::watch::{self, Change};

/// How it works.
impl EmulatedMachine {
    pub(super) fn cpu(&self) -> &Cpu {
        &self.cpus[self.this_cpu()]
    }

    pub(super) fn caught(&self, violation: Violation) -> ! {
        lock(&self.violations).push(violation);
        panic!("{violation}");
    }

    fn allowed<T>(&self, result: Result<T, Violation>) -> T {
        result.unwrap_or_else(|violation| self.caught(violation))
    }

    fn walker(&self, cpu: &Cpu) -> Walker<'_> {
        Walker {
            memory: &self.memory,
            root: self.root(),
            phys_bits: self.phys_bits,
            gbpages: self.gbpages,
            multi_hit: self.multi_hit,
            write_protect: cpu.write_protect.load(Ordering::Relaxed),
        }
    }

    /// Does `work` to the word that holds `at`, as this CPU sees it. The cache
    /// stays locked meanwhile: a flush waits for accesses in flight.
    fn access<R>(
        &self,
        at: VirtAddr,
        size: u64,
        write: bool,
        work: impl FnOnce(&AtomicU64) -> R,
    ) -> Result<R, Trouble> {
        if !at.is_aligned(size) {
            return Err(Violation::Misaligned {
                at: at.as_u64(),
                size,
            }
            .into());
        }
        let cpu = self.cpu();
        let mut tlb = lock(&cpu.tlb);
        if let Some((chance, random)) = &self.eviction
            && lock(random).f64() < *chance
        {
            tlb.forget(at);
        }
        let translation = self.walker(cpu).translate(&mut tlb, at, write)?;
        let word = translation.physical(at.align_down(8));
        Ok(work(self.memory.word(word, Access::Virtual(at))?))
    }

    /// [`EmulatedMachine::access`] that dies of a fault.
    fn must<R>(
        &self,
        at: VirtAddr,
        size: u64,
        write: bool,
        work: impl FnOnce(&AtomicU64) -> R,
    ) -> R {
        match self.access(at, size, write, work) {
            Ok(result) => result,
            Err(Trouble::Fault(fault)) => self.caught(Violation::PageFault(fault)),
            Err(Trouble::Violation(violation)) => self.caught(violation),
        }
    }

    fn word(&self, at: PhysAddr) -> &AtomicU64 {
        self.allowed(self.memory.word(at, Access::Physical))
    }

    fn flush_unless_sabotaged(&self, flush: Late) {
        if schedule::is_handler() && self.saboteur.does_not_wait() {
            self.saboteur.put_off(flush);
        } else if !self.saboteur.drops_flush(flush) {
            self.flush(flush);
        }
    }

    pub(super) fn flush(&self, flush: Late) {
        let mut tlb = lock(&self.cpus[flush.cpu].tlb);
        match flush.page {
            Some(page) => tlb.flush_page(page),
            None => tlb.flush_all(),
        }
    }

    /// Yields to the scheduler, if one is running. Returns a random number drawn from it.
    /// Flushes that were put off until this CPU gets round to them are done then.
    fn step(&self, point: Point) -> u64 {
        let random = schedule::point(point);
        self.cpu().interrupts.tick();
        let own = !schedule::is_handler() && self.cpu().interrupts.are_on();
        if own && self.saboteur.active() {
            for late in self.saboteur.due_on(self.this_cpu()) {
                self.flush(late);
            }
        }
        random
    }

    /// Stores by physical address.
    fn put(&self, at: PhysAddr, value: u64) {
        self.dawdle();
        self.events.push(Event::WritePhys { at, value });
        let value = self.saboteur.alter_store(value);
        self.word(at).store(value, Ordering::Release);
        self.speculate_now();
    }

    /// Whether nobody asked for anything to happen at a physical store, and nobody
    /// can get in between.
    fn is_plain(&self) -> bool {
        self.jitter == 0.0
            && !self.events.are_on()
            && !self.saboteur.active()
            && !self.speculating.load(Ordering::Relaxed)
            && !schedule::is_scheduled()
    }

    /// [`Memory::fill_phys`] frame by frame; `at` is a multiple of 64.
    fn fill_plain(&self, at: PhysAddr, record: &[u64; 8], count: u64) {
        let mut n = 0;
        while n < count {
            let from = at.offset(n * 64);
            let frame = self.allowed(self.memory.frame(from.pfn(), Access::Physical));
            let (records, _) = frame.as_chunks::<8>();
            for words in records.iter().skip(record_of(from)) {
                if n == count {
                    return;
                }
                n += 1;
                for (word, value) in words.iter().zip(record) {
                    word.store(*value, Ordering::Release);
                }
            }
        }
    }

    fn copy(&self, to: Pfn, from: Pfn) {
        let from = self.allowed(self.memory.frame(from, Access::Physical));
        let to = self.allowed(self.memory.frame(to, Access::Physical));
        for (to, from) in to.iter().zip(from) {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Pauses, sometimes, if that was asked for.
    fn dawdle(&self) {
        if self.jitter > 0.0 && fastrand::f64() < self.jitter {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// A round to all CPUs under the scheduler: each does its part when it gets its
    /// turn and has interrupts on, in any order, this CPU among them. Its ordinary
    /// work stands still meanwhile.
    fn scheduled_round(&self, work: &(dyn Fn() + Sync)) {
        let this = self.this_cpu();
        let mut left: Vec<usize> = (0..self.cpus.len()).collect();
        while !left.is_empty() {
            // Reduced modulo the length first: it fits.
            let first = self.step(Point::Flush) % left.len() as u64;
            left.rotate_left(usize::try_from(first).unwrap_or(0));
            let waits = !self.saboteur.does_not_wait();
            let free = |n: usize| self.cpus[n].interrupts.are_free();
            let ready = |n: &usize| *n == this || !waits || free(*n);
            let Some(at) = left.iter().position(ready) else {
                self.step(Point::Wait);
                continue;
            };
            let n = left.swap_remove(at);
            if n == this {
                work();
                continue;
            }
            self.cpus[n].received.fetch_add(1, Ordering::Relaxed);
            let _interrupted = waits.then(|| self.cpus[n].interrupts.interrupt(n));
            let _held = schedule::hold(n);
            self.on_cpu(n, work);
        }
    }

    fn speculate_now(&self) {
        if !self.speculating.load(Ordering::Relaxed) {
            return;
        }
        let (cpu, at) = {
            let mut speculation = lock(&self.speculation);
            let Some(Speculation {
                range,
                chance,
                random,
            }) = speculation.as_mut()
            else {
                return;
            };
            if random.f64() >= *chance {
                return;
            }
            let cpu = &self.cpus[random.usize(..self.cpus.len())];
            (
                cpu,
                range
                    .start
                    .offset(random.u64(..range.bytes()))
                    .align_down(8),
            )
        };
        let translated = self.walker(cpu).translate(&mut lock(&cpu.tlb), at, false);
        if let Err(Trouble::Violation(violation)) = translated {
            self.caught(violation);
        }
    }
}

/// Which 64 bytes of its frame `at` lies in.
fn record_of(at: PhysAddr) -> usize {
    usize::from((at.as_u64() / 64 % 64) as u8)
}

/// The 4 bytes of `word` that `at` names.
fn half(word: u64, at: VirtAddr) -> u32 {
    let bytes = word.to_le_bytes();
    let from = usize::from(!at.is_aligned(8)) * 4;
    u32::from_le_bytes([
        bytes[from],
        bytes[from + 1],
        bytes[from + 2],
        bytes[from + 3],
    ])
}

/// `word` with the 4 bytes that `at` names replaced.
fn with_half(word: u64, at: VirtAddr, value: u32) -> u64 {
    let shift = if at.is_aligned(8) { 0 } else { 32 };
    word & !(0xffff_ffff << shift) | u64::from(value) << shift
}

/// Replaces 4 bytes of `word` by what `new` makes of them, if anything; what
/// they were.
fn update_half(
    word: &AtomicU64,
    at: VirtAddr,
    new: impl Fn(u32) -> Option<u32>,
) -> Result<u32, u32> {
    word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
        Some(with_half(old, at, new(half(old, at))?))
    })
    .map(|old| half(old, at))
    .map_err(|old| half(old, at))
}

impl Memory for EmulatedMachine {
    fn read_phys(&self, at: PhysAddr) -> u64 {
        self.step(Point::Access);
        self.word(at).load(Ordering::Acquire)
    }

    fn write_phys(&self, at: PhysAddr, value: u64) {
        self.step(Point::Table);
        self.put(at, value);
    }

    fn fill_phys(&self, at: PhysAddr, record: &[u64], count: u64) {
        if let Ok(record) = record.try_into()
            && self.is_plain()
            && at.as_u64().is_multiple_of(64)
        {
            return self.fill_plain(at, record, count);
        }
        let words = record.len() as u64;
        for n in 0..count {
            self.step(Point::Access);
            for (word, value) in (0u64..).zip(record) {
                self.put(at.offset((n * words + word) * 8), *value);
            }
        }
    }

    fn fill_words(&self, at: PhysAddr, value: u64, count: u64) {
        for n in 0..count {
            if n % 8 == 0 {
                self.step(Point::Access);
            }
            self.put(at.offset(n * 8), value);
        }
    }

    fn compare_exchange_phys(&self, at: PhysAddr, current: u64, new: u64) -> Result<u64, u64> {
        self.step(Point::Table);
        self.dawdle();
        let new = self.saboteur.alter_store(new);
        let stored =
            self.word(at)
                .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        if stored.is_ok() {
            self.events.push(Event::WritePhys { at, value: new });
            self.speculate_now();
        }
        stored
    }

    fn copy_frame(&self, to: Pfn, from: Pfn) {
        self.step(Point::Table);
        self.events.push(Event::CopyFrame { to, from });
        if self.saboteur.skips_copy() || self.saboteur.delays_copy(to, from) {
            return;
        }
        self.copy(to, from);
    }

    fn load64(&self, at: VirtAddr) -> u64 {
        self.step(Point::Access);
        self.must(at, 8, false, |word| word.load(Ordering::Acquire))
    }

    fn load32(&self, at: VirtAddr) -> u32 {
        self.step(Point::Access);
        self.must(at, 4, false, |word| half(word.load(Ordering::Acquire), at))
    }

    fn store64(&self, at: VirtAddr, value: u64) {
        self.step(Point::Access);
        self.must(at, 8, true, |word| word.store(value, Ordering::Release));
    }

    fn store32(&self, at: VirtAddr, value: u32) {
        self.step(Point::Access);
        let old = self.must(at, 4, true, |word| {
            match update_half(word, at, |_| Some(value)) {
                Ok(old) | Err(old) => old,
            }
        });
        let base = self.watched.load(Ordering::Relaxed);
        if base == NOT_WATCHED {
            return;
        }
        let Some(change) = watch::change(at.as_u64().wrapping_sub(base), old, value) else {
            return;
        };
        let order = VirtAddr::new(at.as_u64() - watch::TYPE_TO_ORDER);
        let order = self.must(order, 8, false, |word| word.load(Ordering::Acquire));
        match change {
            Change::Freed(first) => self.mark_freed(first, 1 << order),
            Change::Allocated(first) => self.mark_allocated(first, 1 << order),
        }
    }

    fn compare_exchange32(&self, at: VirtAddr, current: u32, new: u32) -> Result<u32, u32> {
        self.step(Point::Access);
        self.must(at, 4, true, |word| {
            update_half(word, at, |old| (old == current).then_some(new))
        })
    }

    fn try_compare_exchange32(
        &self,
        at: VirtAddr,
        current: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, Fault> {
        self.step(Point::Access);
        let result = self.access(at, 4, true, |word| {
            update_half(word, at, |old| (old == current).then_some(new))
        });
        match result {
            Ok(exchanged) => Ok(exchanged),
            Err(Trouble::Fault(fault)) => Err(fault),
            Err(Trouble::Violation(violation)) => self.caught(violation),
        }
    }

    fn compare_exchange64(&self, at: VirtAddr, current: u64, new: u64) -> Result<u64, u64> {
        self.step(Point::Access);
        self.must(at, 8, true, |word| {
            word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
        })
    }

    fn fetch_add32(&self, at: VirtAddr, delta: u32) -> u32 {
        self.step(Point::Access);
        self.must(at, 4, true, |word| {
            match update_half(word, at, |old| Some(old.wrapping_add(delta))) {
                Ok(old) | Err(old) => old,
            }
        })
    }

    fn root(&self) -> Pfn {
        let root = self.root.load(Ordering::Acquire);
        assert!(
            root != NO_ROOT,
            "no top-level table was set: call set_root first"
        );
        Pfn::new(root)
    }

    fn has_gbpages(&self) -> bool {
        self.gbpages
    }

    fn page_size_may_change(&self) -> bool {
        !self.multi_hit || self.hides_multi_hit
    }
}

impl Processors for EmulatedMachine {
    fn flush_page_local(&self, at: VirtAddr) {
        self.step(Point::Flush);
        let cpu = self.this_cpu();
        self.cpus[cpu].page_flushes.fetch_add(1, Ordering::Relaxed);
        self.events.push(Event::FlushPage { cpu, at });
        self.flush_unless_sabotaged(Late {
            cpu,
            page: Some(at),
        });
    }

    fn flush_all_local(&self) {
        self.step(Point::Flush);
        let cpu = self.this_cpu();
        self.cpus[cpu].full_flushes.fetch_add(1, Ordering::Relaxed);
        self.events.push(Event::FlushAll { cpu });
        self.flush_unless_sabotaged(Late { cpu, page: None });
    }

    fn on_each_cpu(&self, work: &(dyn Fn() + Sync)) {
        let this = self.this_cpu();
        if !self.cpus[this].interrupts.are_on() {
            self.caught(Violation::WaitWithInterruptsOff { cpu: this });
        }
        if self.saboteur.active() {
            for (to, from) in self.saboteur.due_copies() {
                self.copy(to, from);
            }
        }
        if self.saboteur.drops_round() {
            return;
        }
        if self.saboteur.keeps_local() {
            return work();
        }
        if self.cpus.len() > 1 {
            let others = self.cpus.len() as u64 - 1;
            self.cpus[this].rounds.fetch_add(1, Ordering::Relaxed);
            self.cpus[this].sent.fetch_add(others, Ordering::Relaxed);
        }
        if schedule::is_scheduled() {
            return self.scheduled_round(work);
        }
        for (n, cpu) in self.cpus.iter().enumerate() {
            if n == this {
                work();
            } else {
                cpu.received.fetch_add(1, Ordering::Relaxed);
                // A CPU with interrupts off takes the interrupt when they are on.
                let _interrupted = cpu.interrupts.interrupt(n);
                self.on_cpu(n, work);
            }
        }
    }

    fn touch_watchdog(&self) {}

    fn wait_until(&self, what: &str, done: &mut dyn FnMut() -> bool) {
        while schedule::is_scheduled() {
            self.step(Point::Access);
            if done() {
                return;
            }
            self.step(Point::Wait);
        }
        let from = Instant::now();
        while !done() {
            std::thread::yield_now();
            assert!(from.elapsed() < LIMIT, "waited for {what} for {LIMIT:?}");
        }
    }

    fn cpus(&self) -> usize {
        self.cpus.len()
    }

    fn node_of_cpu(&self, cpu: usize) -> NodeId {
        NodeId::of(self.cpus[cpu].node.load(Ordering::Relaxed))
    }

    fn held_locks(&self) -> &AtomicU32 {
        &self.cpu().held_locks
    }

    fn this_cpu(&self) -> usize {
        let cpu = THIS_CPU.get();
        assert!(
            cpu < self.cpus.len(),
            "this thread plays CPU {cpu} of another machine"
        );
        cpu
    }

    fn this_node(&self) -> NodeId {
        self.node_of_cpu(self.this_cpu())
    }

    fn irq_save(&self) -> IrqState {
        self.step(Point::Irq);
        IrqState(self.cpu().interrupts.disable(self.this_cpu()))
    }

    fn irq_restore(&self, state: IrqState) {
        if state.0 {
            self.cpu().interrupts.enable();
        }
        self.step(Point::Irq);
    }
}

impl Testing for EmulatedMachine {
    fn probe(&self, at: VirtAddr, how: Probe) -> Result<(), Fault> {
        self.step(Point::Access);
        let result = match how {
            Probe::Load => self.access(at, 4, false, |word| {
                word.load(Ordering::Acquire);
            }),
            Probe::Store => self.access(at, 4, true, |word| {
                let value = half(word.load(Ordering::Acquire), at);
                let _old = update_half(word, at, |_| Some(value));
            }),
            // A locked instruction writes even when it changes nothing, so what
            // matters is that the access was for writing.
            Probe::CmpxchgFailing | Probe::XaddZero => self.access(at, 4, true, |word| {
                word.fetch_add(0, Ordering::AcqRel);
            }),
            Probe::XaddOne => self.access(at, 4, true, |word| {
                let _old = update_half(word, at, |old| Some(old.wrapping_add(1)));
            }),
            Probe::Bts => self.access(at, 4, true, |word| {
                let _old = update_half(word, at, |old| Some(old | 1));
            }),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Trouble::Fault(fault)) => Err(fault),
            Err(Trouble::Violation(violation)) => self.caught(violation),
        }
    }

    fn reload_root_local(&self) {
        lock(&self.cpu().tlb).flush_non_global();
    }

    fn run_on_each(&self, work: &(dyn Fn(usize) + Sync)) {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let on = |cpu| move || self.on_cpu(cpu, || work(cpu));
            let threads: Vec<_> = (0..self.cpus.len())
                .map(|cpu| scope.spawn(on(cpu)))
                .collect();
            threads.into_iter().map(ScopedJoinHandle::join).collect()
        });
        if let Some(panic) = outcomes.into_iter().find_map(Result::err) {
            std::panic::resume_unwind(panic);
        }
    }

    fn tlb_counts(&self, cpu: usize) -> TlbCounts {
        let cpu = &self.cpus[cpu];
        TlbCounts {
            pages: cpu.page_flushes.load(Ordering::Relaxed),
            all: cpu.full_flushes.load(Ordering::Relaxed),
            rounds: cpu.rounds.load(Ordering::Relaxed),
            sent: cpu.sent.load(Ordering::Relaxed),
            received: cpu.received.load(Ordering::Relaxed),
        }
    }

    fn inject(&self, point: FailPoint) -> bool {
        self.injector.hit(point)
    }

    fn fail_nth(&self, point: FailPoint, nth: Option<u64>) {
        self.fail(
            point,
            nth.map_or(Injection::Never, |nth| Injection::Kth(nth + 1)),
        );
    }

    fn without_write_protect(&self, work: &mut dyn FnMut()) {
        let irq = self.irq_save();
        self.set_write_protect(false);
        work();
        self.set_write_protect(true);
        self.irq_restore(irq);
    }
}

impl Machine for EmulatedMachine {
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        lock(&self.lines).push((level, line.to_string()));
    }
}
