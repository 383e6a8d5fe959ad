//! Tailfold, the kernel: boot as a story, from power-on to a folded vmemmap.
//!
//! This file is the order of events. What each step does lies in its module:
//! `boot` leaves the loader's world, `arch` is the processor, `drivers` the few
//! devices, `metal` the machine as the library `mm` sees it. The subject itself is
//! in `mm`.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod bench;
mod boot;
mod console;
mod drivers;
mod ending;
mod fault;
mod heap;
mod metal;
mod panic;
mod report;
mod selftest;
mod shell;
mod smp;
mod soak;
mod state;

use arch::x86_64::{cpu, gdt, idt, memory_types, percpu, stack, tsc};
use boot::handoff::{self, Handoff};
use boot::kernel_map::KernelMap;
use boot::{cmdline, cpus, numa, script};
use bootloader_api::{BootInfo, entry_point};
use console::Screen;
use drivers::framebuffer::Surface;
use drivers::serial::Serial;
use metal::Metal;
use mm::memblock::{Early, EarlyFrames, MemoryMap};
use mm::vmemmap::BOOT_ORDER;
use params::{Options, Request};
use state::MM;

entry_point!(start, config = &handoff::CONFIG);

/// On the loader's page tables and stack, with its view of the machine.
fn start(info: &'static mut BootInfo) -> ! {
    tsc::start();
    gdt::init_boot_cpu(&stack::boot_tops());
    // Before any handler can run: they look for the per-CPU area.
    percpu::init(0);
    idt::init();
    heap::init();

    let checked = if cfg!(debug_assertions) {
        ", with page checks and assertions"
    } else {
        ""
    };
    log!("Tailfold {}{checked}", boot::version::version());
    let framebuffer = early_console(info);
    let handoff = Handoff::take(info);
    let source = command_line(info);
    state::set_booted(handoff.firmware, source);

    cpu::enable_protections();
    cpu::enable_vectors();
    cpu::report();
    clock();

    memory_map(&handoff);
    paging(&handoff, framebuffer)
}

/// Serial port and screen, if there are any; where the framebuffer is.
fn early_console(info: &mut BootInfo) -> Option<(u64, u64)> {
    if let Some(serial) = Serial::detect() {
        console::add_serial(serial);
    }
    let surface = info.framebuffer.take().and_then(Surface::new);
    let memory = surface.as_ref().map(Surface::memory);
    let (width, height) = surface.as_ref().map_or((0, 0), Surface::size);
    if let Some(screen) = surface.and_then(Screen::new) {
        console::add_screen(screen);
    }
    let (serial, screen) = console::outputs();
    let serial = if serial {
        "COM1, 115200 baud"
    } else {
        "no serial port"
    };
    match screen {
        Some((columns, rows)) => {
            log!("console: {serial}; screen {width}x{height}, {columns}x{rows} characters");
        }
        None => log!("console: {serial}; no screen ({width}x{height} pixels)"),
    }
    memory
}

/// Reads the command line; bad words are named and skipped. Returns where it came from.
fn command_line(info: &BootInfo) -> cmdline::Source {
    let ramdisk = handoff::ramdisk(info);
    let (line, source) = cmdline::get(ramdisk);
    state::set_command_line(line);
    log!("Command line: {}", line.escape_ascii());
    log!("Command line is from: {source}");
    if source == cmdline::Source::BuiltIn {
        let why = if ramdisk.is_some() {
            "the file `ramdisk` has no words"
        } else {
            "the boot loader found no file `ramdisk`; under BIOS it misses one that an editor has \
             replaced"
        };
        warn!("{why}: `cargo run -- cmdline STICK-OR-IMAGE \"WORDS\"` writes one that is found");
    }
    let gbpages = cpu::features().gbpages;
    let options = Options::parse(line, gbpages, &mut |word, why| warn!("{word}: {why}"));
    let options = state::set_options(options);
    if let Some(script) = script::get(options.script, ramdisk) {
        state::set_script(script);
    }
    mm::paging::set_full_flush_ceiling(options.flush_ceiling);
    MM.vmemmap.set_two_steps(options.two_steps);
    smp::watchdog::set_thresh(options.watchdog_thresh);
    if !options.shows(mm::machine::Level::Warn) {
        console::show_up_to(console::Level::Emerg);
    } else if !options.shows(mm::machine::Level::Info) {
        console::show_up_to(console::Level::Warn);
    }
    source
}

fn clock() {
    let (hz, source) = tsc::calibrate();
    let (mhz, khz) = (hz / 1_000_000, hz / 1000 % 1000);
    match source {
        tsc::Source::Cpuid => log!("tsc: {mhz}.{khz:03} MHz, as CPUID says"),
        tsc::Source::Pit => log!("tsc: Detected {mhz}.{khz:03} MHz, by the 8254 timer"),
        tsc::Source::Unknown => {
            warn!("tsc: frequency unknown; a second of the time stamps is 2^30 cycles");
        }
    }
}

/// What RAM there is, and on which node.
fn memory_map(handoff: &Handoff) {
    state::set_memory_map(handoff.map);
    log!("BIOS-provided physical RAM map:");
    for region in handoff.map.regions() {
        log!("BIOS-e820: {region}");
    }
    for warning in handoff.map.warnings() {
        warn!("memory map: {warning}");
    }
    let options = state::options();
    let mut ram = handoff.map.build();
    if let Some(bytes) = options.mem {
        let gone = ram.limit(bytes);
        log!("mem={}K: {}K of RAM left out", bytes >> 10, gone * 4);
    }
    let mut topology = numa::detect(options.numa, handoff, &ram);
    let madt = state::set_madt(cpus::detect(handoff));
    topology.add_cpus(madt.cpus.iter().map(|cpu| cpu.apic_id));
    numa::set_distances(handoff, &topology);
    topology.apply(&mut ram);
    if let Some(warning) = ram.warning() {
        warn!("memory map: {warning}");
    }
    let ram = state::set_ram(ram);
    for range in ram.iter() {
        log!("  {range}");
    }
    memory_types::report(ram.as_slice(), console::outputs().1.is_some());
    state::set_topology(topology);
    let early = state::set_early(EarlyFrames::new(Early::new(ram)));
    gigantic_pages(early, ram);
}

/// Takes the 1 GiB pages that the command line asks for before anything lies in their
/// way: with HVO on their memmap is never built in full.
fn gigantic_pages(early: &EarlyFrames<'static>, ram: &MemoryMap) {
    let mut wanted = state::options().hugepages;
    let present = ram.pages_by_node();
    // What is wrong with a node is said later, when the pools are filled.
    wanted.retain_nodes(|node| present[node.index()] > 0, |_, _, _| ());
    MM.hugetlb
        .set_optimize(state::options().hugetlb_free_vmemmap);
    if let Some(request) = wanted.get(BOOT_ORDER) {
        let blocks = MM.hugetlb.take_early(&Metal, early, &MM.vmemmap, request);
        if MM.hugetlb.optimizes() {
            log!("HugeTLB: page size 1.00 GiB: {blocks}");
        }
    }
}

/// Builds the kernel's own page tables and goes over to them.
fn paging(handoff: &Handoff, framebuffer: Option<(u64, u64)>) -> ! {
    let map = match KernelMap::build(handoff, framebuffer, state::early()) {
        Ok(map) => map,
        Err(failed) => panic!("no page tables: {failed}"),
    };
    log!("Direct map: {}", map.direct);
    log!("Kernel image: {}; screen: {}", map.image, map.framebuffer);
    log!("Page tables: {} KiB", map.tables * 4);
    map.enter(on_own_tables)
}

/// On the kernel's own page tables and stack; nothing of the loader is left.
extern "C" fn on_own_tables() -> ! {
    cpu::flush_tlb();
    vmemmap();
    buddy();
    smp::start::all();
    report::remember_before();
    hugetlb();
    report::print();
    let selection = ktest::Selection::parse(state::options().selftest);
    let tested = selftest::run(selection);
    ending::end(state::options(), tested)
}

/// A struct page for every page of RAM.
fn vmemmap() {
    let ram = state::ram().iter().copied();
    let built = bench::memmap_build(|| MM.build_memmap(&Metal, state::early(), ram));
    if let Err(why) = built {
        panic!("no memory for the struct pages: {why:?}");
    }
}

/// What the early allocator did not use goes to the buddy allocators.
fn buddy() {
    let early = state::early().lock(&Metal).clone();
    MM.hand_over(
        &Metal,
        state::ram().iter().copied(),
        early.reserved_ranges().map(|ram| ram.range),
        early.free_ranges(),
    );
    // Those that have CPUs only: online, with all their files, and empty.
    for node in state::topology()
        .nodes()
        .filter(|node| !MM.nodes.is_online(*node))
    {
        MM.nodes.set_online(node, 0);
    }
    let pages = MM.nodes.total_present();
    let free = MM.nodes.total_free(&Metal);
    state::set_managed_pages(free);
    log!("Memory: {}K/{}K available", free * 4, pages * 4);
}

/// The huge pages that the command line asks for.
fn hugetlb() {
    let mut wanted = state::options().hugepages;
    wanted.retain_nodes(
        |node| MM.nodes.is_online(node),
        |order, node, total| {
            warn!(
                "hugepages: there is no node {node}; {total} of {} KiB ignored",
                order.bytes() >> 10
            );
        },
    );
    for (order, request) in wanted.iter() {
        let Some(h) = MM.hugetlb.hstate(order) else {
            continue;
        };
        if order == BOOT_ORDER && MM.hugetlb.optimizes() {
            MM.hugetlb.add_boot_folios(&Metal, MM.backing(), h, request);
            continue;
        }
        let grow = |node, count| MM.hugetlb.grow(&Metal, MM.backing(), h, node, count);
        match request {
            Request::Total(count) => {
                grow(None, count);
            }
            Request::Nodes(counts) => counts.into_iter().for_each(|(node, count)| {
                grow(Some(node), count);
            }),
        }
    }
    MM.hugetlb.report(&Metal);
}
