//! The kernel's own page tables.
#![expect(unsafe_code, reason = "loads CR3 and changes to another stack")]

use core::arch::asm;
use core::fmt;

use mm::addr::{NodeId, Order, Pfn, PhysAddr, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Memory as _;
use mm::memblock::Kind;
use mm::paging::{self, Level, MapError, PteFlags};

use super::handoff::Handoff;
use super::image;
use crate::arch::x86_64::{cpu, layout, stack};
use crate::metal::Metal;

/// What was mapped, in leaves by size.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Leaves {
    gib: u64,
    mib2: u64,
    kib4: u64,
}

impl Leaves {
    fn add(&mut self, level: Level) {
        match level {
            Level::Pud => self.gib += 1,
            Level::Pmd => self.mib2 += 1,
            _ => self.kib4 += 1,
        }
    }
}

impl fmt::Display for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gib, mib2, kib4 } = self;
        write!(f, "{gib} x 1G, {mib2} x 2M, {kib4} x 4K")
    }
}

/// Why the tables could not be built: what was being mapped, and the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed(&'static str, MapError);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mapping {}: {:?}", self.0, self.1)
    }
}

/// The tables, ready to be loaded, and what is in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelMap {
    root: Pfn,
    /// The direct map.
    pub(crate) direct: Leaves,
    /// The kernel image.
    pub(crate) image: Leaves,
    /// The framebuffer.
    pub(crate) framebuffer: Leaves,
    /// Frames that the tables themselves take.
    pub(crate) tables: u64,
}

/// Tables being built.
struct Builder<'a, F> {
    frames: &'a F,
    root: Pfn,
    tables: u64,
}

impl<F: FrameSource<Metal>> Builder<'_, F> {
    fn map(&mut self, at: u64, pfn: Pfn, level: Level, flags: PteFlags) -> Result<(), MapError> {
        let Self { frames, tables, .. } = self;
        let mut alloc = || {
            let near = Placement::Prefer(NodeId::ZERO);
            let table = frames.alloc(&Metal, Order::PAGE, near)?;
            *tables += 1;
            Some(table)
        };
        let at = VirtAddr::new(at);
        paging::map(&Metal, self.root, at, pfn, level, flags, &mut alloc)
    }

    /// Maps physical `from..to` at `virt`, which is congruent to it, by the largest
    /// leaves that fit.
    fn map_range(
        &mut self,
        virt: u64,
        from: u64,
        to: u64,
        flags: PteFlags,
        leaves: &mut Leaves,
    ) -> Result<(), MapError> {
        let mut at = from;
        while at < to {
            let here = virt + (at - from);
            let fits = |level: &Level| {
                let span = level.span();
                (here | at).is_multiple_of(span) && span <= to - at
            };
            let level = [Level::Pud, Level::Pmd]
                .into_iter()
                .filter(|&level| level != Level::Pud || Metal.has_gbpages())
                .find(fits)
                .unwrap_or(Level::Pte);
            self.map(here, PhysAddr::new(at).pfn(), level, flags)?;
            leaves.add(level);
            at += level.span();
        }
        Ok(())
    }
}

const PAGE: u64 = 4096;

impl KernelMap {
    /// Builds the tables with frames from `frames`: all memory that is RAM, the
    /// image where it is, and the framebuffer where it is. They are not in use yet.
    ///
    /// # Errors
    /// [`Failed`], above all for want of frames.
    pub(crate) fn build(
        handoff: &Handoff,
        framebuffer: Option<(u64, u64)>,
        frames: &impl FrameSource<Metal>,
    ) -> Result<Self, Failed> {
        let near = Placement::Prefer(NodeId::ZERO);
        let mut alloc = || frames.alloc(&Metal, Order::PAGE, near);
        let root = paging::new_table(&Metal, &mut alloc)
            .ok_or(Failed("the top-level table", MapError::NoMemory))?;
        let mut builder = Builder {
            frames,
            root,
            tables: 1,
        };
        let direct = direct_map(&mut builder, handoff).map_err(|e| Failed("RAM", e))?;
        let image = kernel_image(&mut builder).map_err(|e| Failed("the kernel", e))?;
        let framebuffer = device(&mut builder, framebuffer).map_err(|e| Failed("the screen", e))?;
        Ok(Self {
            root,
            direct,
            image,
            framebuffer,
            tables: builder.tables,
        })
    }

    /// Goes over to these tables and to a stack in the image, and calls `then`. The
    /// loader's mappings, and whatever was on its stack, are gone.
    pub(crate) fn enter(&self, then: extern "C" fn() -> !) -> ! {
        // SAFETY: the new tables map the image, and with it this code, the new stack,
        // the GDT and IDT, at the same addresses (INV-7); the direct map too. Nothing
        // on the old stack is used again. `then` finds the stack as after a call.
        unsafe {
            asm!(
                "mov cr3, {root}",
                "mov rsp, {stack}",
                "xor ebp, ebp",
                "call {then}",
                root = in(reg) self.root.phys().as_u64(),
                stack = in(reg) stack::BOOT.top(),
                then = in(reg) then,
                options(noreturn),
            );
        }
    }
}

/// All RAM, free or taken, in whole pages: data, never code.
fn direct_map<F: FrameSource<Metal>>(
    builder: &mut Builder<'_, F>,
    handoff: &Handoff,
) -> Result<Leaves, MapError> {
    let mut leaves = Leaves::default();
    // Regions need not start or end at pages, so two may share one.
    let mut mapped = 0;
    let spans = handoff.reachable.regions();
    for span in spans.filter(|span| span.kind == Kind::Usable) {
        let from = (span.start / PAGE * PAGE).max(mapped);
        let to = (span.start + span.length).next_multiple_of(PAGE);
        if from < to {
            let virt = layout::DIRECT_MAP + from;
            builder.map_range(virt, from, to, PteFlags::KERNEL, &mut leaves)?;
            mapped = to;
        }
    }
    Ok(leaves)
}

/// The image, page by page from where the loader put it.
fn kernel_image<F: FrameSource<Metal>>(builder: &mut Builder<'_, F>) -> Result<Leaves, MapError> {
    let mut leaves = Leaves::default();
    let loader = Metal.root();
    for (at, flags) in image::pages() {
        let from = paging::translate(&Metal, loader, VirtAddr::new(at));
        let from = from.ok_or(MapError::NotMapped)?;
        builder.map(at, from.pfn(), Level::Pte, flags)?;
        leaves.add(Level::Pte);
    }
    Ok(leaves)
}

/// A device's memory, in one piece, at the address the loader gave it.
fn device<F: FrameSource<Metal>>(
    builder: &mut Builder<'_, F>,
    memory: Option<(u64, u64)>,
) -> Result<Leaves, MapError> {
    let mut leaves = Leaves::default();
    let Some((virt, bytes)) = memory else {
        return Ok(leaves);
    };
    let start = paging::translate(&Metal, Metal.root(), VirtAddr::new(virt));
    let start = start.ok_or(MapError::NotMapped)?.as_u64();
    // Type 1 is write-combining once the PAT says so: pixels are only ever written.
    let flags = if cpu::features().pat {
        PteFlags::KERNEL | PteFlags::WRITE_THROUGH
    } else {
        PteFlags::KERNEL
    };
    let end = (start + bytes).next_multiple_of(PAGE);
    let start = start / PAGE * PAGE;
    builder.map_range(virt / PAGE * PAGE, start, end, flags, &mut leaves)?;
    Ok(leaves)
}
