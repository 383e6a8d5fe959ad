//! Starting CPUs: INIT, start-up interrupt, trampoline, and a place in the numbering.

use core::fmt;
use core::sync::atomic::Ordering;

use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, VirtAddr};
use mm::frames::{FrameSource as _, Placement};
use mm::machine::Memory as _;
use mm::memblock::LOW_MEMORY;
use mm::paging::{self, Level, MapError, Pte, PteFlags};
use spin::Once;

use super::{ONLINE, job, online};
use crate::arch::x86_64::lapic::{self, Ipi, MAX_XAPIC_ID};
use crate::arch::x86_64::percpu::{self, MAX_CPUS};
use crate::arch::x86_64::trampoline::{self, Start};
use crate::arch::x86_64::{cpu, gdt, idt, irq, layout, machine_check, memory_types, stack, tsc};
use crate::drivers::{io_apic, pic};
use crate::metal::Metal;
use crate::state::{self, MM};
use crate::{log, warn};

// States of a CPU's area. The starter sets STARTING, the CPU goes to ONLINE from
// there, and the starter that gives up to ABSENT: only one of the two succeeds.
const OFFLINE: u8 = 0;
const STARTING: u8 = 1;
const UP: u8 = 2;

/// How long a CPU may take to come up, in time of the one that waits. Linux allows as much.
const LIMIT_MICROS: u64 = 10_000_000;
/// How long a start-up interrupt may take before a second one is sent, as the Intel
/// SDM (volume 3, 9.4.4) has it, and a good deal more for emulators.
const SECOND_STARTUP_MICROS: u64 = 10_000;
/// How long a CPU takes to reset.
const INIT_MICROS: u64 = 10_000;

/// Why a CPU could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It did not come up in so many microseconds.
    #[error("no answer within {} ms", .0 / 1000)]
    NoAnswer(u64),
    /// Its APIC id needs x2APIC.
    #[error("ids above {MAX_XAPIC_ID:#x} need x2APIC")]
    IdTooLarge,
    /// Its stacks could not be mapped.
    #[error("no stacks: {0:?}")]
    Stacks(MapError),
}

/// Frames below 1 MiB for the way up. The rest of that memory is nobody's either.
#[derive(Clone, Copy, Debug)]
struct LowPages {
    trampoline: Pfn,
    /// Top-level table and the three below it.
    tables: [Pfn; 4],
}

impl LowPages {
    /// Above what a BIOS keeps in the first frames.
    const FIRST: u64 = 0x1_0000;

    /// The highest frames of RAM below 640 KiB, if there are as many.
    fn find() -> Option<Self> {
        const END: u64 = 0xa_0000;
        const { assert!(END <= LOW_MEMORY) };
        let mut frames = (Self::FIRST / PAGE_SIZE..END / PAGE_SIZE)
            .rev()
            .map(Pfn::new)
            .filter(|pfn| state::ram().iter().any(|ram| ram.range.contains(*pfn)));
        Some(Self {
            trampoline: frames.next()?,
            tables: [
                frames.next()?,
                frames.next()?,
                frames.next()?,
                frames.next()?,
            ],
        })
    }

    /// Makes the tables: what the kernel's map now, and the trampoline at its own
    /// address.
    fn build(&self) {
        let [root, ..] = self.tables;
        for entry in (0..PAGE_SIZE).step_by(8) {
            let kernel = Metal.read_phys(Metal.root().phys().offset(entry));
            Metal.write_phys(root.phys().offset(entry), kernel);
        }
        let at = VirtAddr::new(self.trampoline.phys().as_u64());
        let levels = [Level::Pgd, Level::Pud, Level::Pmd];
        for (n, level) in levels.into_iter().enumerate() {
            let (above, below) = (self.tables[n], self.tables[n + 1]);
            for entry in (0..PAGE_SIZE).step_by(8) {
                Metal.write_phys(below.phys().offset(entry), 0);
            }
            let entry = paging::slot(above, level, at);
            Metal.write_phys(entry, Pte::new(below, PteFlags::TABLE).raw());
        }
        let [.., last] = self.tables;
        let flags = PteFlags::KERNEL_ROX.difference(PteFlags::GLOBAL);
        let entry = paging::slot(last, Level::Pte, at);
        Metal.write_phys(entry, Pte::new(self.trampoline, flags).raw());
    }
}

/// Prepares this CPU, the boot CPU, to be interrupted, and starts the others.
#[doc(alias = "smp_init")]
pub(crate) fn all() {
    pic::mask();
    io_apic::mask_all(&state::madt().io_apics, &mut || frame(NodeId::ZERO));
    let left = lapic::left_by_firmware();
    if let Some(at) = lapic::detect()
        && let Err(why) = map_lapic(at)
    {
        panic!("no local APIC: {why:?}");
    }
    lapic::enable(true);
    cpu::be_the_model();
    let boot = lapic::id();
    log!(
        "APIC: {}, firmware left it {left}; this CPU has id {boot:#x}",
        lapic::mode_name().unwrap_or("none")
    );
    let node = state::node_of_cpu(boot, 0);
    percpu::this().describe(node.get(), boot);
    percpu::this().state.store(UP, Ordering::Relaxed);
    machine_check::enable();
    irq::restore(true);

    let madt = state::madt();
    let enabled = madt.cpus.iter().filter(|cpu| cpu.enabled);
    let wanted = enabled
        .clone()
        .map(|cpu| cpu.apic_id)
        .filter(|&id| id != boot);
    let present = wanted.clone().count() + 1;
    let allowed = state::options()
        .max_cpus
        .map_or(MAX_CPUS, |max| usize::try_from(max).unwrap_or(MAX_CPUS))
        .clamp(1, MAX_CPUS);
    let disabled = madt.cpus.len() - enabled.count();
    log!(
        "smpboot: Allowing {} CPUs, {disabled} hotplug CPUs",
        present.min(allowed)
    );
    let mut left_out = LeftOut {
        no_room: madt.dropped,
        ..LeftOut::default()
    };
    if present > 1 {
        match LowPages::find() {
            Some(low) => {
                log!("smp: Bringing up secondary CPUs ...");
                bring_up(&low, wanted, allowed, &mut left_out);
            }
            None => {
                left_out.failed += present - 1;
                warn!("smpboot: no RAM below 640 KiB for a trampoline: one CPU");
            }
        }
    }
    LEFT_OUT.call_once(|| left_out);
    report();
}

/// Enabled CPUs of the firmware's list that do not run, by reason.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct LeftOut {
    /// `maxcpus=` or `nosmp`.
    not_allowed: usize,
    /// There are [`MAX_CPUS`], or the firmware's list is longer than the kernel's.
    no_room: usize,
    /// Their ids need x2APIC.
    large_id: usize,
    /// They did not come up; each was named.
    failed: usize,
}

static LEFT_OUT: Once<LeftOut> = Once::new();

/// CPUs that are there and do not run.
pub(crate) fn left_out() -> LeftOut {
    LEFT_OUT.get().copied().unwrap_or_default()
}

impl LeftOut {
    /// All of them.
    pub(crate) fn count(&self) -> usize {
        self.not_allowed + self.no_room + self.large_id + self.failed
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPUs left out", self.count())?;
        let mut before = ": ";
        for (count, why) in [
            (self.not_allowed, "by maxcpus= or nosmp"),
            (self.no_room, "beyond the most that there may be"),
            (self.large_id, "with an id that needs x2APIC"),
            (self.failed, "did not come up"),
        ] {
            if count > 0 {
                write!(f, "{before}{count} {why}")?;
                before = ", ";
            }
        }
        Ok(())
    }
}

fn bring_up(
    low: &LowPages,
    wanted: impl Iterator<Item = u32>,
    allowed: usize,
    left_out: &mut LeftOut,
) {
    for apic_id in wanted {
        if online() == allowed {
            let count = if allowed == MAX_CPUS {
                &mut left_out.no_room
            } else {
                &mut left_out.not_allowed
            };
            *count += 1;
            continue;
        }
        match one(low, apic_id, LIMIT_MICROS) {
            Ok(()) => {}
            Err(Failed::IdTooLarge) => left_out.large_id += 1,
            Err(why) => {
                left_out.failed += 1;
                warn!("smpboot: CPU with APIC id {apic_id:#x} is left out: {why}");
            }
        }
    }
}

/// As Linux tells it.
fn report() {
    let nodes = (0..online()).fold(0_u64, |nodes, cpu| nodes | 1 << percpu::area(cpu).node());
    let plural = |n: usize, one: &'static str, many: &'static str| if n == 1 { one } else { many };
    let (nodes, cpus) = (nodes.count_ones() as usize, online());
    log!(
        "smp: Brought up {nodes} {}, {cpus} {}",
        plural(nodes, "node", "nodes"),
        plural(cpus, "CPU", "CPUs")
    );
    let left_out = left_out();
    if left_out.count() > 0 {
        log!("smpboot: {left_out}");
    }
    memory_types::report_differences(online());
}

fn map_lapic(at: u64) -> Result<(), MapError> {
    let mut alloc = || frame(NodeId::ZERO);
    let flags = PteFlags::KERNEL | PteFlags::NO_CACHE | PteFlags::WRITE_THROUGH;
    let (virt, pfn) = (
        VirtAddr::new(layout::LAPIC as u64),
        Pfn::new(at / PAGE_SIZE),
    );
    paging::map(
        &Metal,
        Metal.root(),
        virt,
        pfn,
        Level::Pte,
        flags,
        &mut alloc,
    )
}

fn frame(node: NodeId) -> Option<Pfn> {
    MM.nodes.alloc(&Metal, Order::PAGE, Placement::Prefer(node))
}

/// Maps the stacks of CPU `cpu`, if that has not been done, with frames of `node`.
fn map_stacks(cpu: usize, node: NodeId) -> Result<(), MapError> {
    for at in stack::pages_of(cpu) {
        let at = VirtAddr::new(at);
        let pfn = frame(node).ok_or(MapError::NoMemory)?;
        let flags = PteFlags::KERNEL;
        let mut alloc = || frame(node);
        let root = Metal.root();
        if let Err(why) = paging::map(&Metal, root, at, pfn, Level::Pte, flags, &mut alloc) {
            MM.nodes.free(&Metal, pfn, Order::PAGE);
            return Err(why);
        }
    }
    Ok(())
}

/// Takes the stacks of CPU `cpu` back, mapped as far as they are. Their tables stay.
fn unmap_stacks(cpu: usize) {
    for at in stack::pages_of(cpu) {
        let unmapped = paging::unmap(&Metal, Metal.root(), VirtAddr::new(at), Level::Pte);
        if let Ok((pte, flush)) = unmapped {
            flush.flush(&Metal);
            MM.nodes.free(&Metal, pte.pfn(), Order::PAGE);
        }
    }
}

/// Starts the CPU with `apic_id`; it gets the next number.
///
/// # Errors
/// [`Failed`]. The CPU, should it be there, waits for a start-up interrupt again.
#[doc(alias = "do_boot_cpu")]
fn one(low: &LowPages, apic_id: u32, limit_micros: u64) -> Result<(), Failed> {
    if !lapic::is_x2apic() && apic_id > MAX_XAPIC_ID {
        return Err(Failed::IdTooLarge);
    }
    let cpu = online();
    let node = state::node_of_cpu(apic_id, cpu);
    if let Err(why) = map_stacks(cpu, node) {
        unmap_stacks(cpu);
        return Err(Failed::Stacks(why));
    }
    low.build();
    gdt::prepare(cpu, &stack::tops_of(cpu));
    let start = Start {
        root: Metal.root(),
        low_root: low.tables[0],
        stack: stack::tops_of(cpu).normal,
        cpu,
        entry: on_other_cpu,
    };
    trampoline::install(&Metal, low.trampoline, &start);
    let area = percpu::area(cpu);
    area.describe(node.get(), apic_id);
    area.state.store(STARTING, Ordering::Release);

    let page = low.trampoline.as_u64();
    let page = u8::try_from(page).expect("below 1 MiB");
    // Acquire: pairs with the CPU's release when it is up.
    let is_up = || area.state.load(Ordering::Acquire) == UP;
    lapic::send(apic_id, Ipi::Init);
    tsc::wait_until(INIT_MICROS, &|| false);
    lapic::send(apic_id, Ipi::Startup(page));
    if !tsc::wait_until(SECOND_STARTUP_MICROS.min(limit_micros), &is_up) {
        lapic::send(apic_id, Ipi::Startup(page));
    }
    if !tsc::wait_until(limit_micros, &is_up) && !give_up(cpu, apic_id) {
        return Err(Failed::NoAnswer(limit_micros));
    }
    ONLINE.store(cpu + 1, Ordering::Release);
    Ok(())
}

/// Makes sure that a CPU which did not come up in time never does. Whether it came up
/// at the last moment.
fn give_up(cpu: usize, apic_id: u32) -> bool {
    let area = percpu::area(cpu);
    let gone = area
        .state
        .compare_exchange(STARTING, OFFLINE, Ordering::AcqRel, Ordering::Acquire);
    if gone.is_err() {
        return true;
    }
    // Wherever it is, it starts over, and waits: its stack is the next CPU's.
    lapic::send(apic_id, Ipi::Init);
    tsc::wait_until(INIT_MICROS, &|| false);
    unmap_stacks(cpu);
    false
}

/// On CPU `cpu`, on its own stack and the kernel's tables. Until it has said that it is up, an
/// INIT may hit it between any two instructions: it takes no lock and allocates nothing.
extern "C" fn on_other_cpu(cpu: usize) -> ! {
    gdt::load_own(cpu);
    percpu::init(cpu);
    idt::init();
    // WP before anything else: INV-4.
    cpu::follow_the_model();
    lapic::enable(false);
    let area = percpu::this();
    machine_check::enable();
    job::join();
    // Release: pairs with the starter, which counts this CPU as online.
    let came = area
        .state
        .compare_exchange(STARTING, UP, Ordering::AcqRel, Ordering::Acquire);
    if came.is_err() {
        irq::halt_forever();
    }
    job::idle()
}

/// Tries to start a CPU that is not there, for the self-tests.
pub(crate) fn absent(apic_id: u32, limit_micros: u64) -> Result<(), Failed> {
    let low = LowPages::find().ok_or(Failed::Stacks(MapError::NoMemory))?;
    one(&low, apic_id, limit_micros)
}
