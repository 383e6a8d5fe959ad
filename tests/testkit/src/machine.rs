//! The machine: what it consists of, how a test sets it up and looks at it.

mod builder;
mod hardware;

use core::fmt;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use mm::addr::{NodeId, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm::machine::{FailPoint, Level};

pub use builder::Builder;

use crate::events::{Event, Events};
use crate::inject::{Injection, Injector};
use crate::interrupts::Interrupts;
use crate::memory::Memory;
use crate::sabotage::{Sabotage, Saboteur};
use crate::sync::lock;
use crate::tlb::Tlb;
use crate::violation::Violation;

thread_local! {
    /// The emulated CPU that this host thread plays.
    pub(crate) static THIS_CPU: Cell<usize> = const { Cell::new(0) };
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
    rounds: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    held_locks: AtomicU32,
}

/// CPUs that translate addresses nobody asked for, as real ones do.
#[derive(Debug)]
struct Speculation {
    range: VirtRange,
    chance: f64,
    random: fastrand::Rng,
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
    multi_hit: bool,
    hides_multi_hit: bool,
    phys_bits: u32,
    eviction: Option<(f64, Mutex<fastrand::Rng>)>,
    jitter: f64,
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
        Builder::new()
    }

    /// The RAM there is, by address.
    pub fn ram(&self) -> impl Iterator<Item = PfnRange> + '_ {
        self.memory.ranges()
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

    /// Whether `cpu` lets itself be interrupted.
    #[must_use]
    #[doc(alias = "irqs_disabled")]
    pub fn irq_is_on(&self, cpu: usize) -> bool {
        self.cpus[cpu].interrupts.are_on()
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

    /// The most steps that this CPU has made with interrupts off, since the last call: accesses,
    /// flushes, switches.
    pub fn take_most_masked(&self) -> u64 {
        self.cpu().interrupts.take_most_masked()
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
