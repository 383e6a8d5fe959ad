//! The only door from this crate to hardware.
//!
//! Three implementations exist: bare metal, the emulated machine of the host tests, which
//! keeps a stale TLB per CPU, and an ordinary process on the host's processor. Code in this crate
//! therefore never dereferences an address: it asks the machine to.
//!
#![doc = include_str!("../../../docs/machine.md")]

use core::fmt;
use core::sync::atomic::AtomicU32;

use crate::addr::{NodeId, Pfn, PhysAddr, VirtAddr};

/// How a [`Testing::probe`] touches memory. Only [`Probe::XaddOne`] and [`Probe::Bts`]
/// can change a value when they succeed; what differs is what hardware does to a
/// read-only page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// A plain 4-byte load.
    Load,
    /// A plain 4-byte store of the value just read.
    Store,
    /// `lock cmpxchg` whose comparison fails.
    CmpxchgFailing,
    /// `lock xadd` of zero.
    XaddZero,
    /// `lock xadd` of one: a reference taken without a look at the count.
    XaddOne,
    /// `lock bts` of bit 0.
    Bts,
}

/// A page fault that a [`Testing::probe`] ran into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The address that was touched (CR2).
    pub at: VirtAddr,
    /// The error code as x86 pushes it: bit 0 present, bit 1 write, bit 2 user.
    pub code: u64,
}

impl Fault {
    /// Error code of a supervisor write to a present read-only page.
    pub const WRITE_TO_READ_ONLY: u64 = 0b11;
}

/// Where a failure can be injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailPoint {
    /// An allocation from the buddy or early allocator.
    #[doc(alias = "fail_page_alloc")]
    PageAlloc,
    /// The store of one vmemmap PTE.
    #[doc(alias = "fail_hugetlb_vmemmap_pte")]
    VmemmapPte,
    /// The store of one vmemmap PMD.
    #[doc(alias = "fail_hugetlb_vmemmap_pmd")]
    VmemmapPmd,
}

impl FailPoint {
    /// Every point there is.
    pub const ALL: [Self; 3] = [Self::PageAlloc, Self::VmemmapPte, Self::VmemmapPmd];
}

/// How urgent a log line is, by the names of `printk`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Something is wrong but the machine goes on.
    #[doc(alias = "KERN_WARNING")]
    Warn,
    /// Normal.
    #[doc(alias = "KERN_INFO")]
    Info,
}

/// Interrupt state as [`Processors::irq_save`] found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqState(pub bool);

/// What one CPU has done to keep translations true, since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlbCounts {
    /// Translations dropped one page at a time.
    #[doc(alias = "NR_TLB_LOCAL_FLUSH_ONE")]
    pub pages: u64,
    /// All translations dropped at once.
    #[doc(alias = "NR_TLB_LOCAL_FLUSH_ALL")]
    pub all: u64,
    /// Rounds of [`Processors::on_each_cpu`] that this CPU started and others had to
    /// take part in.
    pub rounds: u64,
    /// Interrupts that it sent for them.
    #[doc(alias = "NR_TLB_REMOTE_FLUSH")]
    pub sent: u64,
    /// Rounds of others that it took part in.
    #[doc(alias = "NR_TLB_REMOTE_FLUSH_RECEIVED")]
    pub received: u64,
}

impl TlbCounts {
    /// What was done between `earlier` and `self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            pages: self.pages - earlier.pages,
            all: self.all - earlier.all,
            rounds: self.rounds - earlier.rounds,
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
        }
    }
}

impl core::iter::Sum for TlbCounts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            pages: sum.pages + one.pages,
            all: sum.all + one.all,
            rounds: sum.rounds + one.rounds,
            sent: sum.sent + one.sent,
            received: sum.received + one.received,
        })
    }
}

/// What `mm` needs of the machine that it runs on: [`Memory`], [`Processors`], and a log.
/// [`Testing`] is for self-tests and benchmarks; an implementation that has none of them writes
/// `impl Testing for` its type and nothing in it.
pub trait Machine: Memory + Processors + Testing {
    /// Writes one line to the kernel log.
    #[doc(alias = "printk")]
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let _ = (level, line);
    }
}

/// Memory, by physical addresses and through the page tables.
///
/// Orderings: every load is an acquire, every store a release, every read-modify-write both. On x86
/// that is what plain `mov` and locked instructions do; an implementation must also keep the
/// compiler from moving accesses across. A release store of a table entry pairs with the hardware
/// walker and with the acquire load of any software walk.
pub trait Memory: Sync {
    /// Loads 8 bytes of physical memory; `at` is a multiple of 8 and RAM.
    fn read_phys(&self, at: PhysAddr) -> u64;

    /// Stores 8 bytes of physical memory; `at` is a multiple of 8 and RAM.
    fn write_phys(&self, at: PhysAddr, value: u64);

    /// Stores `new` if `at` holds `current`; the value found, as `Ok` if stored.
    ///
    /// # Errors
    /// The value found, when it was not `current`.
    fn compare_exchange_phys(&self, at: PhysAddr, current: u64, new: u64) -> Result<u64, u64>;

    /// Copies a whole frame. No other CPU writes either meanwhile.
    fn copy_frame(&self, to: Pfn, from: Pfn);

    /// Writes the words of `record` `count` times from `at` on: how struct pages are
    /// filled in. Nothing else touches that memory meanwhile.
    fn fill_phys(&self, at: PhysAddr, record: &[u64], count: u64) {
        let words = record.len() as u64;
        for n in 0..count {
            for (word, value) in (0u64..).zip(record) {
                self.write_phys(at.offset((n * words + word) * 8), *value);
            }
        }
    }

    /// Stores `value` to `count` consecutive 8-byte words from `at` on.
    fn fill_words(&self, at: PhysAddr, value: u64, count: u64) {
        for n in 0..count {
            self.write_phys(at.offset(n * 8), value);
        }
    }

    /// Loads 8 bytes through the page tables.
    fn load64(&self, at: VirtAddr) -> u64;

    /// Loads 4 bytes through the page tables.
    fn load32(&self, at: VirtAddr) -> u32;

    /// Stores 8 bytes through the page tables.
    fn store64(&self, at: VirtAddr, value: u64);

    /// Stores 4 bytes through the page tables.
    fn store32(&self, at: VirtAddr, value: u32);

    /// Locked 4-byte compare-and-exchange through the page tables. Needs a
    /// writable mapping even when the comparison fails.
    ///
    /// # Errors
    /// The value found, when it was not `current`.
    fn compare_exchange32(&self, at: VirtAddr, current: u32, new: u32) -> Result<u32, u32>;

    /// [`Memory::compare_exchange32`] that survives a read-only mapping.
    ///
    /// # Errors
    /// The fault, with nothing changed; inside, the value found, when it was not
    /// `current`.
    fn try_compare_exchange32(
        &self,
        at: VirtAddr,
        current: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, Fault>;

    /// Locked 8-byte compare-and-exchange through the page tables.
    ///
    /// # Errors
    /// The value found, when it was not `current`.
    fn compare_exchange64(&self, at: VirtAddr, current: u64, new: u64) -> Result<u64, u64>;

    /// Locked 4-byte add through the page tables; the value before.
    fn fetch_add32(&self, at: VirtAddr, delta: u32) -> u32;

    /// Stores `value` to `count` words that lie `stride` bytes apart, from `at`
    /// on: how the tails of a compound page get their `compound_info`.
    fn store64_strided(&self, at: VirtAddr, stride: u64, count: u64, value: u64) {
        for n in 0..count {
            self.store64(at.offset(n * stride), value);
        }
    }

    /// Frame of the live top-level page table.
    fn root(&self) -> Pfn;

    /// Whether a leaf can map 1 GiB.
    #[doc(alias = "pdpe1gb")]
    fn has_gbpages(&self) -> bool;

    /// Whether the size of a page may change while CPUs use the mapping. Where it may
    /// not, the memmap is mapped by 4 KiB pages and stays so.
    #[doc(alias = "X86_BUG_AMD_TLB_MMATCH")]
    fn page_size_may_change(&self) -> bool {
        true
    }
}

/// CPUs: their translations, calls from one to others, waits, and which one this is.
pub trait Processors: Sync {
    /// Drops this CPU's translation of the page at `at`, global or not.
    #[doc(alias = "invlpg")]
    fn flush_page_local(&self, at: VirtAddr);

    /// Drops all of this CPU's translations, global ones included.
    #[doc(alias = "__flush_tlb_all")]
    fn flush_all_local(&self);

    /// Interrupts every online CPU to run `work`, runs it here, too, and waits for
    /// all: when this returns, each has run it, after everything that came before
    /// the call. `work` takes no lock and does not wait. The caller holds no lock
    /// (INV-9).
    fn on_each_cpu(&self, work: &(dyn Fn() + Sync));

    /// Tells the watchdog that this CPU is making progress.
    #[doc(alias = "touch_softlockup_watchdog")]
    fn touch_watchdog(&self);

    /// Spins until `done` returns true. After the watchdog's limit (see [`Testing::run_on_each`])
    /// the machine ends with a report that names `what`.
    #[doc(alias = "cpu_relax")]
    fn wait_until(&self, what: &str, done: &mut dyn FnMut() -> bool);

    /// Online CPUs; they are numbered from 0 without gaps.
    #[doc(alias = "num_online_cpus")]
    fn cpus(&self) -> usize;

    /// The node of `cpu`.
    #[doc(alias = "cpu_to_node")]
    fn node_of_cpu(&self, cpu: usize) -> NodeId;

    /// The locks that this CPU holds, one bit each class ([`crate::sync::LockClass`]).
    /// Only this CPU changes it, with interrupts off: relaxed.
    #[doc(alias = "lockdep")]
    fn held_locks(&self) -> &AtomicU32;

    /// The CPU that runs this.
    #[doc(alias = "smp_processor_id")]
    fn this_cpu(&self) -> usize;

    /// The node of the CPU that runs this.
    #[doc(alias = "numa_node_id")]
    fn this_node(&self) -> NodeId;

    /// Switches interrupts off on this CPU; the state before.
    #[doc(alias = "local_irq_save")]
    fn irq_save(&self) -> IrqState;

    /// Puts back what [`Processors::irq_save`] returned.
    #[doc(alias = "local_irq_restore")]
    fn irq_restore(&self, state: IrqState);
}

/// What only self-tests and benchmarks use. Every method has a default, for machines that have no
/// use for them: nothing is injected and nothing counted, and what cannot be done panics.
pub trait Testing: Memory + Processors {
    /// Touches the 4 bytes at `at` and reports the fault instead of dying of it.
    ///
    /// # Errors
    /// The fault.
    fn probe(&self, at: VirtAddr, how: Probe) -> Result<(), Fault> {
        panic!("this machine cannot probe {at:?} by {how:?}")
    }

    /// Loads CR3 with the value it has on this CPU: what that drops is up to the
    /// processor, but no global translation. For tests.
    #[doc(alias = "write_cr3")]
    fn reload_root_local(&self) {}

    /// Runs `work(cpu)` on every online CPU at once, as ordinary code that can be
    /// interrupted, and waits for all. For tests and benchmarks; one at a time. A CPU
    /// that does not call [`Processors::touch_watchdog`] within the watchdog's limit counts as
    /// stuck: twice `watchdog_thresh`, counted in time that the waiting CPU runs itself.
    #[doc(alias = "stop_machine")]
    fn run_on_each(&self, work: &(dyn Fn(usize) + Sync)) {
        assert_eq!(self.cpus(), 1, "this machine runs work on one CPU only");
        work(self.this_cpu());
    }

    /// What `cpu` has done to keep translations true.
    fn tlb_counts(&self, cpu: usize) -> TlbCounts {
        let _ = cpu;
        TlbCounts::default()
    }

    /// Whether the operation at `point` is to fail now.
    #[doc(alias = "should_fail")]
    fn inject(&self, point: FailPoint) -> bool {
        let _ = point;
        false
    }

    /// Makes the `nth` operation at `point` from now on fail, counted from 0, and
    /// only that one; `None` makes none fail. For tests.
    fn fail_nth(&self, point: FailPoint, nth: Option<u64>) {
        let _ = (point, nth);
    }

    /// Runs `work` on this CPU with CR0.WP clear, interrupts off: the negative
    /// control for tests of read-only mappings.
    fn without_write_protect(&self, work: &mut dyn FnMut()) {
        let _ = work;
        panic!("this machine always protects what is read-only")
    }
}
