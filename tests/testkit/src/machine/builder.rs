//! Putting a machine together.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use mm::addr::PfnRange;

use super::{Cpu, EmulatedMachine, NO_ROOT, NOT_WATCHED};
use crate::events::Events;
use crate::inject::Injector;
use crate::interrupts::Interrupts;
use crate::memory::Memory;
use crate::sabotage::Saboteur;

/// How a machine is put together. See [`EmulatedMachine::builder`].
#[derive(Debug)]
pub struct Builder {
    ram: Vec<PfnRange>,
    cpus: usize,
    gbpages: bool,
    multi_hit: bool,
    hides_multi_hit: bool,
    phys_bits: u32,
    eviction: Option<(f64, u64)>,
    jitter: f64,
}

impl Builder {
    pub(super) const fn new() -> Self {
        Self {
            ram: Vec::new(),
            cpus: 1,
            gbpages: true,
            multi_hit: false,
            hides_multi_hit: false,
            phys_bits: 46,
            eviction: None,
            jitter: 0.0,
        }
    }

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

    /// Makes it a machine check to use an address that is cached as part of a page of one size
    /// and mapped by one of another (erratum 383 of AMD's family 10h). With `hidden` the
    /// machine says that sizes may change all the same.
    #[must_use]
    pub fn multi_hit(mut self, hidden: bool) -> Self {
        self.multi_hit = true;
        self.hides_multi_hit = hidden;
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

    /// Lets a CPU pause before a physical store, with this probability, so that
    /// others get in between. For tests with threads.
    #[must_use]
    pub fn jitter(mut self, chance: f64) -> Self {
        self.jitter = chance;
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
            rounds: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            held_locks: AtomicU32::new(0),
        };
        EmulatedMachine {
            memory: Memory::new(self.ram),
            cpus: std::iter::repeat_with(cpu).take(self.cpus).collect(),
            gbpages: self.gbpages,
            multi_hit: self.multi_hit,
            hides_multi_hit: self.hides_multi_hit,
            phys_bits: self.phys_bits,
            eviction: self
                .eviction
                .map(|(chance, seed)| (chance, Mutex::new(fastrand::Rng::with_seed(seed)))),
            jitter: self.jitter,
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
