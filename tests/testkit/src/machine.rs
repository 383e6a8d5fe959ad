//! The machine.

use core::fmt;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mm::addr::{NodeId, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm::machine::{FailPoint, Fault, IrqState, Level, Machine, Probe};

use crate::events::{Event, Events};
use crate::inject::{Injection, Injector};
use crate::interrupts::Interrupts;
use crate::memory::Memory;
use crate::sabotage::{Late, Sabotage, Saboteur};
use crate::tlb::Tlb;
use crate::violation::{Access, Violation};
use crate::walker::{Trouble, Walker};
use crate::watch::{self, Change};

thread_local! {
    /// The emulated CPU that this host thread plays.
    static THIS_CPU: Cell<usize> = const { Cell::new(0) };
}

/// Takes a lock. That another test thread panicked while holding it is what
/// many tests are about, so it is no reason not to look.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Flush instructions that a CPU has executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlushCounts {
    /// Of one page.
    pub pages: u64,
    /// Of everything.
    pub all: u64,
}

#[derive(Debug)]
struct Cpu {
    tlb: Mutex<Tlb>,
    node: AtomicU8,
    /// CR0.WP.
    write_protect: AtomicBool,
    interrupts: Interrupts,
    page_flushes: AtomicU64,
    full_flushes: AtomicU64,
}

/// CPUs that translate addresses nobody asked for, as real ones do.
#[derive(Debug)]
struct Speculation {
    range: VirtRange,
    chance: f64,
    random: fastrand::Rng,
}

/// How a machine is put together. See [`EmulatedMachine::builder`].
#[derive(Debug)]
pub struct Builder {
    ram: Vec<PfnRange>,
    cpus: usize,
    gbpages: bool,
    phys_bits: u32,
    eviction: Option<(f64, u64)>,
}

impl Builder {
    /// Adds RAM. Ranges may come in any order and must not overlap.
    #[must_use]
    pub fn ram(mut self, range: PfnRange) -> Self {
        self.ram.push(range);
        self
    }

    /// Number of CPUs, 1 if not said. All are online, on node 0.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        assert!(cpus > 0, "a machine needs a CPU");
        self.cpus = cpus;
        self
    }

    /// Whether leaves of 1 GiB exist; they do if not said.
    #[must_use]
    pub fn gbpages(mut self, yes: bool) -> Self {
        self.gbpages = yes;
        self
    }

    /// Bits of a physical address, 46 if not said; higher ones are reserved.
    #[must_use]
    pub fn phys_bits(mut self, bits: u32) -> Self {
        assert!(
            (32..=52).contains(&bits),
            "x86_64 has 32 to 52 physical bits, not {bits}"
        );
        self.phys_bits = bits;
        self
    }

    /// Lets each lookup find, with this probability, that the entry has been
    /// evicted. Same seed, same evictions.
    #[must_use]
    pub fn eviction(mut self, chance: f64, seed: u64) -> Self {
        self.eviction = Some((chance, seed));
        self
    }

    /// Switches it on.
    #[must_use]
    pub fn build(self) -> EmulatedMachine {
        let cpu = || Cpu {
            tlb: Mutex::default(),
            node: AtomicU8::new(0),
            write_protect: AtomicBool::new(true),
            interrupts: Interrupts::default(),
            page_flushes: AtomicU64::new(0),
            full_flushes: AtomicU64::new(0),
        };
        EmulatedMachine {
            memory: Memory::new(self.ram),
            cpus: std::iter::repeat_with(cpu).take(self.cpus).collect(),
            gbpages: self.gbpages,
            phys_bits: self.phys_bits,
            eviction: self
                .eviction
                .map(|(chance, seed)| (chance, Mutex::new(fastrand::Rng::with_seed(seed)))),
            root: AtomicU64::new(NO_ROOT),
            injector: Injector::default(),
            saboteur: Saboteur::default(),
            events: Events::default(),
            speculating: AtomicBool::new(false),
            speculation: Mutex::new(None),
            watched: AtomicU64::new(NOT_WATCHED),
            lines: Mutex::default(),
            violations: Mutex::default(),
        }
    }
}

const NO_ROOT: u64 = u64::MAX;
const NOT_WATCHED: u64 = u64::MAX;

/// A machine of the host tests: RAM, CPUs with translation caches, no devices.
///
/// A host thread plays CPU 0 unless it is inside [`EmulatedMachine::on_cpu`].
/// Whatever breaks a rule is recorded as a [`Violation`] and panics.
pub struct EmulatedMachine {
    memory: Memory,
    cpus: Box<[Cpu]>,
    gbpages: bool,
    phys_bits: u32,
    eviction: Option<(f64, Mutex<fastrand::Rng>)>,
    root: AtomicU64,
    injector: Injector,
    saboteur: Saboteur,
    events: Events,
    speculating: AtomicBool,
    speculation: Mutex<Option<Speculation>>,
    /// Base of the memmap whose free blocks are watched.
    watched: AtomicU64,
    lines: Mutex<Vec<(Level, String)>>,
    violations: Mutex<Vec<Violation>>,
}

impl fmt::Debug for EmulatedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedMachine")
            .field("ram", &self.memory.ranges().collect::<Vec<_>>())
            .field("cpus", &self.cpus.len())
            .finish_non_exhaustive()
    }
}

/// Setting up and looking at.
impl EmulatedMachine {
    /// A machine with one CPU, 1 GiB pages and, until told otherwise, no RAM.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            ram: Vec::new(),
            cpus: 1,
            gbpages: true,
            phys_bits: 46,
            eviction: None,
        }
    }

    /// The RAM there is, by address.
    pub fn ram(&self) -> impl Iterator<Item = PfnRange> + '_ {
        self.memory.ranges()
    }

    /// Number of CPUs.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Loads CR3 on every CPU: a new top-level table, and all translations gone
    /// but the global ones.
    #[doc(alias = "write_cr3")]
    pub fn set_root(&self, root: Pfn) {
        self.root.store(root.as_u64(), Ordering::Release);
        for cpu in &self.cpus {
            lock(&cpu.tlb).flush_non_global();
        }
    }

    /// Runs `work` as `cpu`.
    pub fn on_cpu<R>(&self, cpu: usize, work: impl FnOnce() -> R) -> R {
        assert!(cpu < self.cpus.len(), "CPU {cpu} of {}", self.cpus.len());
        struct Back(usize);
        impl Drop for Back {
            fn drop(&mut self) {
                THIS_CPU.set(self.0);
            }
        }
        let _back = Back(THIS_CPU.replace(cpu));
        work()
    }

    /// Moves `cpu` to `node`.
    pub fn set_node(&self, cpu: usize, node: NodeId) {
        self.cpus[cpu].node.store(node.get(), Ordering::Relaxed);
    }

    /// Sets CR0.WP of this CPU. Off, it writes to read-only pages.
    #[doc(alias = "X86_CR0_WP")]
    pub fn set_write_protect(&self, on: bool) {
        self.cpu().write_protect.store(on, Ordering::Relaxed);
    }

    /// Flush instructions that `cpu` has executed.
    #[must_use]
    pub fn flushes(&self, cpu: usize) -> FlushCounts {
        FlushCounts {
            pages: self.cpus[cpu].page_flushes.load(Ordering::Relaxed),
            all: self.cpus[cpu].full_flushes.load(Ordering::Relaxed),
        }
    }

    /// Plans failures at `point`, and starts its counts anew.
    pub fn fail(&self, point: FailPoint, plan: Injection) {
        self.injector.plan(point, plan);
    }

    /// How often `point` was reached since its plan was made, and how often it
    /// failed.
    #[must_use]
    pub fn hits(&self, point: FailPoint) -> (u64, u64) {
        self.injector.counts(point)
    }

    /// Breaks a promise from now on.
    pub fn sabotage(&self, order: Sabotage) {
        self.saboteur.order(order);
    }

    /// How often the sabotage has struck: 0 means that a test proved nothing.
    #[must_use]
    pub fn sabotaged(&self) -> u64 {
        self.saboteur.done()
    }

    /// Lets all CPUs speculate: after each physical store one of them, with this
    /// probability, caches the translation of some page in `range`, if there is
    /// one. What a stale translation needs is then always there.
    pub fn speculate(&self, range: VirtRange, chance: f64, seed: u64) {
        let random = fastrand::Rng::with_seed(seed);
        *lock(&self.speculation) = Some(Speculation {
            range,
            chance,
            random,
        });
        self.speculating.store(true, Ordering::Relaxed);
    }

    /// Empties all translation caches, as CPUs may at any time. Counts as no flush.
    pub fn evict_all(&self) {
        for cpu in &self.cpus {
            lock(&cpu.tlb).flush_all();
        }
    }

    /// Switches the record of events on or off.
    pub fn record_events(&self, on: bool) {
        self.events.switch(on);
    }

    /// What happened since the last call while events were recorded.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// The lines logged since the last call.
    pub fn take_log(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *lock(&self.lines))
    }

    /// The rules broken since the last call.
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut *lock(&self.violations))
    }

    /// Runs `work`, which must break a rule; which one.
    ///
    /// # Panics
    /// If it breaks none, or panics for another reason.
    pub fn expect_violation<R>(&self, work: impl FnOnce() -> R) -> Violation {
        let before = lock(&self.violations).len();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let after = lock(&self.violations).split_off(before);
        match (outcome.err(), after.first()) {
            (Some(_), Some(violation)) => *violation,
            (Some(other), None) => std::panic::resume_unwind(other),
            (None, _) => panic!("no rule was broken, but one should have been"),
        }
    }

    /// The 8 bytes at `at` as they are in RAM, freed or not; `None` if there is
    /// no RAM. For oracles: neither caught nor counted.
    #[must_use]
    pub fn peek(&self, at: PhysAddr) -> Option<u64> {
        self.memory.peek(at)
    }

    /// Watches the page types in the memmap at `base` from now on: the frames of a
    /// block that becomes free are marked as freed at that very moment, and those
    /// of one that stops being free as allocated.
    pub fn watch_free_blocks(&self, base: VirtAddr) {
        self.watched.store(base.as_u64(), Ordering::Relaxed);
    }

    /// Whether `pfn` is marked as freed.
    #[must_use]
    pub fn is_freed(&self, pfn: Pfn) -> bool {
        self.memory.is_freed(pfn)
    }

    /// Marks frames as freed: poisoned, and whoever touches them is caught. So is
    /// the caller, if a CPU still caches a way to them.
    pub fn mark_freed(&self, first: Pfn, pages: u64) {
        self.events.push(Event::Free { first, pages });
        if let Err(violation) = self.memory.mark_freed(first, pages) {
            self.caught(violation);
        }
        for (cpu, state) in self.cpus.iter().enumerate() {
            let tlb = lock(&state.tlb);
            let stale = tlb.reaching(first, pages);
            if stale.is_some() || tlb.walks_through(first, pages) {
                drop(tlb);
                let at = stale.map(VirtAddr::new);
                self.caught(Violation::FreedWhileCached {
                    first,
                    pages,
                    cpu,
                    at,
                });
            }
        }
        for late in self.saboteur.due() {
            self.flush(late);
        }
    }

    /// Marks frames as allocated. They still hold the poison.
    pub fn mark_allocated(&self, first: Pfn, pages: u64) {
        self.events.push(Event::Alloc { first, pages });
        if let Err(violation) = self.memory.mark_allocated(first, pages) {
            self.caught(violation);
        }
    }
}

/// How it works.
impl EmulatedMachine {
    fn cpu(&self) -> &Cpu {
        &self.cpus[self.this_cpu()]
    }

    fn caught(&self, violation: Violation) -> ! {
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

    fn flush(&self, flush: Late) {
        let mut tlb = lock(&self.cpus[flush.cpu].tlb);
        match flush.page {
            Some(page) => tlb.flush_page(page),
            None => tlb.flush_all(),
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

impl Machine for EmulatedMachine {
    fn read_phys(&self, at: PhysAddr) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    fn write_phys(&self, at: PhysAddr, value: u64) {
        self.events.push(Event::WritePhys { at, value });
        let value = self.saboteur.alter_store(value);
        self.word(at).store(value, Ordering::Release);
        self.speculate_now();
    }

    fn compare_exchange_phys(&self, at: PhysAddr, current: u64, new: u64) -> Result<u64, u64> {
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
        self.events.push(Event::CopyFrame { to, from });
        if self.saboteur.skips_copy() {
            return;
        }
        let from = self.allowed(self.memory.frame(from, Access::Physical));
        let to = self.allowed(self.memory.frame(to, Access::Physical));
        for (to, from) in to.iter().zip(from) {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
    }

    fn load64(&self, at: VirtAddr) -> u64 {
        self.must(at, 8, false, |word| word.load(Ordering::Acquire))
    }

    fn load32(&self, at: VirtAddr) -> u32 {
        self.must(at, 4, false, |word| half(word.load(Ordering::Acquire), at))
    }

    fn store64(&self, at: VirtAddr, value: u64) {
        self.must(at, 8, true, |word| word.store(value, Ordering::Release));
    }

    fn store32(&self, at: VirtAddr, value: u32) {
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
        let order = self.load64(VirtAddr::new(at.as_u64() - watch::TYPE_TO_ORDER));
        match change {
            Change::Freed(first) => self.mark_freed(first, 1 << order),
            Change::Allocated(first) => self.mark_allocated(first, 1 << order),
        }
    }

    fn compare_exchange32(&self, at: VirtAddr, current: u32, new: u32) -> Result<u32, u32> {
        self.must(at, 4, true, |word| {
            update_half(word, at, |old| (old == current).then_some(new))
        })
    }

    fn compare_exchange64(&self, at: VirtAddr, current: u64, new: u64) -> Result<u64, u64> {
        self.must(at, 8, true, |word| {
            word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
        })
    }

    fn fetch_add32(&self, at: VirtAddr, delta: u32) -> u32 {
        self.must(at, 4, true, |word| {
            match update_half(word, at, |old| Some(old.wrapping_add(delta))) {
                Ok(old) | Err(old) => old,
            }
        })
    }

    fn probe(&self, at: VirtAddr, how: Probe) -> Result<(), Fault> {
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

    fn flush_page_local(&self, at: VirtAddr) {
        let cpu = self.this_cpu();
        self.cpus[cpu].page_flushes.fetch_add(1, Ordering::Relaxed);
        self.events.push(Event::FlushPage { cpu, at });
        let flush = Late {
            cpu,
            page: Some(at),
        };
        if !self.saboteur.drops_flush(flush) {
            self.flush(flush);
        }
    }

    fn flush_all_local(&self) {
        let cpu = self.this_cpu();
        self.cpus[cpu].full_flushes.fetch_add(1, Ordering::Relaxed);
        self.events.push(Event::FlushAll { cpu });
        let flush = Late { cpu, page: None };
        if !self.saboteur.drops_flush(flush) {
            self.flush(flush);
        }
    }

    fn on_each_cpu(&self, work: &(dyn Fn() + Sync)) {
        let this = self.this_cpu();
        if !self.cpus[this].interrupts.are_on() {
            self.caught(Violation::WaitWithInterruptsOff { cpu: this });
        }
        if self.saboteur.drops_round() {
            return;
        }
        if self.saboteur.keeps_local() {
            return work();
        }
        for (n, cpu) in self.cpus.iter().enumerate() {
            if n == this {
                work();
            } else {
                // A CPU with interrupts off takes the interrupt when they are on.
                let _interrupted = cpu.interrupts.interrupt(n);
                self.on_cpu(n, work);
            }
        }
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
        NodeId::of(self.cpu().node.load(Ordering::Relaxed))
    }

    fn irq_save(&self) -> IrqState {
        IrqState(self.cpu().interrupts.disable(self.this_cpu()))
    }

    fn irq_restore(&self, state: IrqState) {
        if state.0 {
            self.cpu().interrupts.enable();
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

    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        lock(&self.lines).push((level, line.to_string()));
    }
}
