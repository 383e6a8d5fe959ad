//! The machine: what it consists of.
#![expect(unsafe_code, reason = "loads from the machine's memory")]

mod builder;
mod door;

use std::cell::Cell;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mm::addr::{NodeId, Pfn, PhysAddr, VirtAddr, VirtRange};
use mm::machine::{FailPoint, Level};
use mm::paging::{self, Entry, Pte};

pub use builder::Builder;

use crate::fault;
use crate::host::HostError;
use crate::interrupts::{Interrupts, lock};
use crate::ram::Ram;
use crate::shadow::{Place, Shadow, Touch, Walk};
use crate::window::Window;

thread_local! {
    /// The CPU that this thread plays.
    static THIS_CPU: Cell<usize> = const { Cell::new(0) };
}

/// A CPU. Its counts are statistics, and its flags its own: relaxed throughout.
#[derive(Debug)]
struct Cpu {
    node: AtomicU8,
    interrupts: Interrupts,
    /// CR0.WP.
    write_protect: AtomicBool,
    held_locks: AtomicU32,
    page_flushes: AtomicU64,
    full_flushes: AtomicU64,
    rounds: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Cpu {
    fn new() -> Self {
        Self {
            node: AtomicU8::new(0),
            interrupts: Interrupts::default(),
            write_protect: AtomicBool::new(true),
            held_locks: AtomicU32::new(0),
            page_flushes: AtomicU64::new(0),
            full_flushes: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }
}

/// Address space, and what of it is mapped.
#[derive(Debug)]
struct Mapped {
    window: Window,
    shadow: Mutex<Shadow>,
}

impl Mapped {
    fn new(window: Window) -> Self {
        Self {
            window,
            shadow: Mutex::default(),
        }
    }
}

/// For each [`FailPoint`] how many operations go well before one fails.
#[derive(Debug)]
struct FailPlans([AtomicU64; 3]);

const NEVER: u64 = u64::MAX;

impl Default for FailPlans {
    fn default() -> Self {
        Self([const { AtomicU64::new(NEVER) }; 3])
    }
}

impl FailPlans {
    const fn of(&self, point: FailPoint) -> &AtomicU64 {
        match point {
            FailPoint::PageAlloc => &self.0[0],
            FailPoint::VmemmapPte => &self.0[1],
            FailPoint::VmemmapPmd => &self.0[2],
        }
    }

    fn plan(&self, point: FailPoint, nth: Option<u64>) {
        self.of(point)
            .store(nth.unwrap_or(NEVER), Ordering::Relaxed);
    }

    fn hit(&self, point: FailPoint) -> bool {
        let plan = self.of(point);
        if plan.load(Ordering::Relaxed) == NEVER {
            return false;
        }
        // 0 becomes NEVER: it is this one, and only this one.
        let next = |left: u64| (left != NEVER).then(|| left.wrapping_sub(1));
        plan.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) == Ok(0)
    }
}

/// What the handler of faults needs to know.
pub(crate) struct Shared {
    ram: Ram,
    root: Pfn,
    vmemmap: Mapped,
    scratch: Mapped,
    /// Where `mm` puts maps of its own at fixed addresses.
    kernel: Mapped,
    cpus: Box<[Cpu]>,
    failures: FailPlans,
    lines: Mutex<Vec<(Level, String)>>,
    echo: bool,
}

impl Shared {
    fn windows(&self) -> [&Mapped; 3] {
        [&self.vmemmap, &self.scratch, &self.kernel]
    }

    /// The process's address of `at`.
    #[inline]
    fn host(&self, at: VirtAddr) -> u64 {
        match at.as_u64() {
            user @ 0..0x8000_0000_0000 => user,
            kernel => self.kernel.window.host(kernel),
        }
    }

    fn mapped(&self, at: u64) -> Option<&Mapped> {
        self.windows()
            .into_iter()
            .find(|mapped| mapped.window.contains(at))
    }

    /// `mm`'s address for the process's `host`, if that is in one of the windows.
    pub(crate) fn guest(&self, host: u64) -> Option<u64> {
        self.windows()
            .into_iter()
            .find_map(|mapped| mapped.window.guest(host))
    }

    fn cpu(&self) -> &Cpu {
        &self.cpus[THIS_CPU.get()]
    }

    /// What the processor's walker would find. It may run while another CPU takes a table
    /// out: the shadow is locked meanwhile, and a flush, which comes before the table is
    /// freed (INV-3), waits for that lock.
    fn walk(&self, at: VirtAddr) -> Entry {
        let mut table = self.root;
        let mut level = paging::Level::Pgd;
        loop {
            let slot = paging::slot(table, level, at);
            let pte = Pte::from_raw(self.read_phys(slot));
            match level.down() {
                Some(down) if pte.is_present() && !pte.is_leaf(level) => {
                    table = pte.pfn();
                    level = down;
                }
                _ => {
                    let at = slot;
                    return Entry { at, level, pte };
                }
            }
        }
    }

    #[inline]
    fn read_phys(&self, at: PhysAddr) -> u64 {
        // SAFETY: `direct` and `host` give addresses of the machine's RAM and windows only (INV-1).
        unsafe { access::load64(self.ram.direct(at, 8)) }
    }

    /// Does `work` to the translations that `at` belongs to, if it belongs to any.
    fn translations<R>(
        &self,
        mapped: &Mapped,
        work: impl FnOnce(&mut Shadow, Place<'_>, Walk<'_>) -> R,
    ) -> R {
        let place = Place {
            window: &mapped.window,
            ram: self.ram.fd().as_fd(),
        };
        work(&mut lock(&mapped.shadow), place, &|at| self.walk(at))
    }

    /// The host refused an access to `at`, which is in a window.
    pub(crate) fn page_fault(&self, at: u64, write: bool) -> Result<Touch, HostError> {
        let Some(mapped) = self.mapped(at) else {
            return Ok(Touch::NotPresent);
        };
        let protect = self.cpu().write_protect.load(Ordering::Relaxed);
        self.translations(mapped, |shadow, place, walk| {
            shadow.touch(place, walk, at, write, protect)
        })
    }

    fn flush_page(&self, at: u64) -> Result<(), HostError> {
        let Some(mapped) = self.mapped(at) else {
            return Ok(());
        };
        self.translations(mapped, |shadow, place, walk| {
            shadow.flush_page(place, walk, at)
        })
    }

    fn flush_all(&self, global: bool) -> Result<(), HostError> {
        self.windows().into_iter().try_for_each(|mapped| {
            self.translations(mapped, |shadow, place, walk| {
                shadow.flush_all(place, walk, global)
            })
        })
    }

    fn close(&self) -> Result<(), HostError> {
        self.windows().into_iter().try_for_each(|mapped| {
            self.translations(mapped, |shadow, place, _| shadow.close(place))
        })
    }
}

/// A machine that is this process.
///
/// A thread plays CPU 0 unless [`mm::machine::Testing::run_on_each`] started it.
pub struct Machine(Arc<Shared>);

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("ram", &self.0.ram)
            .field("cpus", &self.0.cpus.len())
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine with one CPU and 1 GiB of RAM, until told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Where its vmemmap is: the address of the struct page of frame 0, a multiple of
    /// 256 MiB in the user half.
    #[must_use]
    pub fn memmap_base(&self) -> VirtAddr {
        self.0.vmemmap.window.range().start
    }

    /// 512 GiB of address space, aligned to that, with nothing in it.
    #[must_use]
    pub fn scratch(&self) -> VirtRange {
        self.0.scratch.window.range()
    }

    /// Where `at` is in the direct map.
    ///
    /// # Panics
    /// If it is no RAM.
    #[must_use]
    #[doc(alias = "phys_to_virt")]
    pub fn direct_map(&self, at: PhysAddr) -> VirtAddr {
        VirtAddr::new(self.0.ram.direct(at, 1))
    }

    /// Has the host put each 2 MiB of the `bytes` from `at` on, which must all have been
    /// written, on a page of that size: a leaf that maps it is one translation of the
    /// processor's, too.
    ///
    /// # Errors
    /// [`HostError`] if it does not do that, or has no such page left.
    ///
    /// # Panics
    /// If they are no RAM.
    #[doc(alias = "MADV_COLLAPSE")]
    pub fn collapse(&self, at: PhysAddr, bytes: u64) -> Result<(), HostError> {
        self.0.ram.collapse(at, bytes)
    }

    /// Moves `cpu` to `node`.
    pub fn set_node(&self, cpu: usize, node: NodeId) {
        self.0.cpus[cpu].node.store(node.get(), Ordering::Relaxed);
    }

    /// The lines logged since the last call.
    pub fn take_log(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *lock(&self.0.lines))
    }

    /// Translations cached now, in the vmemmap, the scratch window and elsewhere.
    #[must_use]
    pub fn cached(&self) -> [usize; 3] {
        self.0.windows().map(|mapped| lock(&mapped.shadow).len())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fault::unregister(&self.0);
    }
}
