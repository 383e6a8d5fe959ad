//! The machines.

use std::path::Path;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::cli::Emulator;
use boot::machine::Machine;
use boot::size::Size;

use crate::Bench;

/// How long a machine may take; an idle host needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(600);

/// A machine to boot, and what must be seen there.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Name, first part of its tests' names.
    pub(crate) name: String,
    pub(crate) emulator: Emulator,
    pub(crate) firmware: Firmware,
    pub(crate) memory: Size,
    pub(crate) nodes: u32,
    /// Nodes that are no even shares, as `--numa` has them; empty for `nodes` even ones.
    pub(crate) numa: &'static str,
    pub(crate) smp: u32,
    pub(crate) cpu: &'static str,
    /// Suites to run, with `*` at the end for any ending; empty for all.
    pub(crate) suites: &'static [&'static str],
    /// More words for the command line; `None` leaves the whole line to the
    /// file `ramdisk`, which names [`Setup::suites`].
    pub(crate) words: Option<&'static str>,
    /// Cases that must not be skipped there: what the machine is for.
    pub(crate) must_run: &'static [&'static str],
    /// Parts of lines that must be in the log.
    pub(crate) must_say: &'static [&'static str],
    pub(crate) limit: Duration,
}

impl Setup {
    fn new(name: impl Into<String>, firmware: Firmware, memory: Size) -> Self {
        Self {
            name: name.into(),
            emulator: Emulator::Qemu,
            firmware,
            memory,
            nodes: 1,
            numa: "",
            smp: 1,
            cpu: "max",
            suites: &[],
            words: Some(""),
            must_run: &[],
            must_say: &["vmemmap: base=0xffffea0000000000 page_struct=64 "],
            limit: LIMIT,
        }
    }

    /// The kernel's command line; `None` if it comes with the image.
    pub(crate) fn command_line(&self) -> Option<String> {
        let globs: Vec<String> = self
            .suites
            .iter()
            .map(|suite| format!("{suite}:*"))
            .collect();
        let selftest = if globs.is_empty() {
            "on".to_owned()
        } else {
            globs.join(",")
        };
        self.words
            .map(|words| format!("selftest={selftest} init=poweroff {words}"))
    }

    /// Whether its self-tests contain `case`, given as `suite:case`.
    pub(crate) fn runs(&self, case: &str) -> bool {
        self.suites.is_empty()
            || case
                .split_once(':')
                .is_some_and(|(suite, _)| self.suites.iter().any(|name| is_named(suite, name)))
    }

    /// The machine for QEMU.
    pub(crate) fn machine(&self, bench: &Bench) -> Machine {
        let images = match self.words {
            Some(_) => &bench.images,
            None => &bench.ramdisk_images,
        };
        let mut machine = machine(bench, images.get(self.firmware), self.firmware);
        machine.memory = self.memory;
        machine.nodes = self.nodes;
        if !self.numa.is_empty() {
            machine.shape = self.numa.parse().expect("a shape as --numa has it");
        }
        machine.smp = self.smp;
        self.cpu.clone_into(&mut machine.cpu);
        machine.command_line = self.command_line();
        machine
    }
}

/// Whether `name` means `suite`.
fn is_named(suite: &str, name: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => suite.starts_with(beginning),
        None => suite == name,
    }
}

/// A PC of 1 GiB that boots `disk`.
pub(crate) fn machine(bench: &Bench, disk: &Path, firmware: Firmware) -> Machine {
    let mut machine = Machine::new(disk.to_owned(), firmware);
    machine.ovmf = bench.ovmf.clone();
    machine.accelerator = bench.accelerator;
    machine
}

/// Cases that need a 1 GiB folio, and so 4 GiB of RAM and a CPU with such pages.
const GIGANTIC: &[&str] = &[
    "gigantic:accounting_is_exact",
    "gigantic:fails_each_allocation",
    "gigantic:flags_of_every_page",
    "gigantic:keeps_8_kib",
    "gigantic:mapped_data_survives",
];

/// Cases that need 1 GiB folios on the command line.
const BOOT_FOLIOS: &[&str] = &[
    "boot_folios:goes_and_comes_back",
    "boot_folios:one_frame_is_its_own",
];

/// Cases that need more than one node.
const NUMA: &[&str] = &["hugetlb:round_robin_over_nodes"];

/// What can go another way with several CPUs.
const SMP: &[&str] = &["smp*", "hvo_faults", "paging", "vmemmap_audit"];

/// Cases that need several CPUs.
const SMP_CASES: &[&str] = &[
    "smp:each_has_its_own",
    "smp:calls_reach_every_cpu",
    "smp:all_call_at_once",
    "smp:nmi_is_survived",
    "smp_churn:nobody_sees_freed_frames",
    "smp_churn:one_shared_tail",
    "smp_faults:unconditional_add_faults",
    "smp_locks:no_frame_has_two_owners",
    "smp_readers:blocks_of_2m",
    "smp_tlb:one_round_per_batch",
    "smp_tlb:stale_then_cured",
];

/// Several CPUs: {2, 4, 8} x {1 node, 2 nodes} with what concerns them, and the ways
/// to have fewer.
fn several_cpus() -> Vec<Setup> {
    let mut setups = Vec::new();
    for (firmware, smp, nodes) in [
        (Firmware::Bios, 8, 2),
        (Firmware::Uefi, 8, 1),
        (Firmware::Uefi, 4, 2),
        (Firmware::Bios, 4, 1),
        (Firmware::Uefi, 2, 2),
        (Firmware::Bios, 2, 1),
    ] {
        let name = format!("{}_{smp}cpus_{nodes}node", firmware.name());
        let name = if nodes > 1 { name + "s" } else { name };
        let mut setup = Setup::new(name, firmware, Size::mib(1024));
        (setup.smp, setup.nodes) = (smp, nodes);
        setup.suites = SMP;
        setup.must_run = SMP_CASES;
        setup.must_say = match (smp, nodes) {
            (8, 2) => &["smp: Brought up 2 nodes, 8 CPUs"],
            (8, _) => &["smp: Brought up 1 node, 8 CPUs"],
            (4, 2) => &["smp: Brought up 2 nodes, 4 CPUs"],
            (4, _) => &["smp: Brought up 1 node, 4 CPUs"],
            (_, 2) => &["smp: Brought up 2 nodes, 2 CPUs"],
            _ => &["smp: Brought up 1 node, 2 CPUs"],
        };
        setups.push(setup);
    }

    // All suites while three CPUs sleep: flushes have to reach them.
    let mut setup = Setup::new("bios_4cpus_2nodes_all", Firmware::Bios, Size::mib(1024));
    (setup.smp, setup.nodes) = (4, 2);
    setup.must_run = NUMA;
    setups.push(setup);

    let mut setup = Setup::new("uefi_16cpus_2nodes", Firmware::Uefi, Size::mib(1024));
    (setup.smp, setup.nodes) = (16, 2);
    setup.suites = &["smp", "vmemmap_audit"];
    setup.must_say = &["smp: Brought up 2 nodes, 16 CPUs"];
    setups.push(setup);

    // Readers of blocks of 1 GiB meet a table that two of them share: that takes room for two,
    // one beside the other.
    let mut setup = Setup::new("bios_4cpus_1node_8G", Firmware::Bios, Size::mib(8 << 10));
    setup.smp = 4;
    setup.suites = &["smp_readers"];
    setup.must_run = &["smp_readers:blocks_of_1g", "smp_readers:blocks_of_2m"];
    setups.push(setup);

    // Nodes 0 and 2 have a CPU and no memory, node 3 memory and no CPU.
    let name = "bios_3cpus_4nodes_uneven";
    let mut setup = Setup::new(name, Firmware::Bios, Size::mib(2048));
    (setup.smp, setup.nodes) = (3, 4);
    setup.numa = "cpus=0/memory=1G,cpus=1/cpus=2/memory=1G";
    setup.suites = &["memory_map", "buddy", "hugetlb*", "smp*", "vmemmap_audit"];
    setup.words = Some("hugepages=1:8,2:8,3:4");
    setup.must_run = &["smp:all_are_online", "hugetlb:round_robin_over_nodes"];
    setup.must_say = &[
        "smp: Brought up 3 nodes, 3 CPUs",
        "node   1: [mem 0x0000000000100000-",
        "HugeTLB: registered 2.00 MiB page size, pre-allocated 12 pages",
    ];
    setups.push(setup);

    let fewer: [(_, _, &[&str]); 2] = [
        (
            "bios_4cpus_maxcpus2",
            "maxcpus=2",
            &[
                "smpboot: Allowing 2 CPUs",
                "smp: Brought up 1 node, 2 CPUs",
                "smpboot: 2 CPUs left out: 2 by maxcpus= or nosmp",
            ],
        ),
        (
            "uefi_4cpus_nosmp",
            "nosmp",
            &[
                "smpboot: Allowing 1 CPUs",
                "smp: Brought up 1 node, 1 CPU",
                "smpboot: 3 CPUs left out: 3 by maxcpus= or nosmp",
            ],
        ),
    ];
    for (name, words, must_say) in fewer {
        let firmware = if name.starts_with("uefi") {
            Firmware::Uefi
        } else {
            Firmware::Bios
        };
        let mut setup = Setup::new(name, firmware, Size::mib(512));
        setup.smp = 4;
        setup.suites = &["smp", "paging"];
        setup.words = Some(words);
        setup.must_say = must_say;
        setups.push(setup);
    }
    setups
}

/// Cases for which Bochs is there beside QEMU: software emulation there keeps no global
/// translation.
const BOCHS_CASES: &[&str] = &[
    "smp_tlb:global_survives_reload",
    "machine:nothing_is_left_to_the_processor",
    "memory_types:caches_are_on",
];

/// Cases for several CPUs that Bochs always runs. Whether one keeps a translation long enough for
/// `smp_tlb:stale_then_cured` depends on where it lies in Bochs's TLB.
const BOCHS_SMP_CASES: &[&str] = &[
    "smp:each_has_its_own",
    "smp:calls_reach_every_cpu",
    "smp:all_call_at_once",
    "smp:nmi_is_survived",
    "smp:protections_are_on_everywhere",
    "smp_churn:nobody_sees_freed_frames",
    "smp_faults:unconditional_add_faults",
    "smp_locks:no_frame_has_two_owners",
    "smp_readers:blocks_of_2m",
    "smp_tlb:global_survives_reload",
    "smp_tlb:one_round_per_batch",
];

/// Bochs, the second opinion on the processor: all suites on one CPU, what concerns several on 2
/// and 4, and an old processor. Docs: README, "Support".
fn second_opinion() -> Vec<Setup> {
    let machine = |name: &str, cpu, smp| {
        let mut setup = Setup::new(name, Firmware::Bios, Size::mib(1024));
        setup.emulator = Emulator::Bochs;
        (setup.cpu, setup.smp) = (cpu, smp);
        setup.limit = Duration::from_secs(900);
        setup
    };
    // The longest first.
    let mut one = machine("bochs_1cpu", "corei7_skylake_x", 1);
    one.must_run = BOCHS_CASES;
    one.must_say = &["APIC: x2APIC", "+pdpe1gb", "+smep", "+avx"];
    let mut four = machine("bochs_4cpus", "corei7_icelake_u", 4);
    four.suites = SMP;
    four.must_run = BOCHS_SMP_CASES;
    four.must_say = &["APIC: x2APIC", "smp: Brought up 1 node, 4 CPUs"];
    let mut two = machine("bochs_2cpus_ryzen", "ryzen", 2);
    two.suites = SMP;
    two.must_run = BOCHS_SMP_CASES;
    two.must_say = &["smp: Brought up 1 node, 2 CPUs"];
    let mut old = machine("bochs_2cpus_core2", "core2_penryn_t9600", 2);
    old.suites = &[
        "smp",
        "smp_tlb",
        "machine*",
        "memory_types",
        "paging",
        "vmemmap*",
        "hvo*",
        "hugetlb",
    ];
    old.must_run = &[
        "smp_tlb:global_survives_reload",
        "hvo_faults:tail_writes_fault",
    ];
    old.must_say = &["APIC: xAPIC", "-smep -smap", "-avx -pdpe1gb"];
    vec![one, four, two, old]
}

/// {BIOS, UEFI} x {1 node, 2 nodes, numa=fake=3} x {512 MiB, 4 GiB}, and one
/// machine for each thing that these have not. The longest first: two run at once.
pub(crate) fn all() -> Vec<Setup> {
    let mut setups = second_opinion();
    setups.extend(extremes());
    setups.extend(several_cpus());
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        for (memory, gigantic) in [(Size::mib(4096), true), (Size::mib(512), false)] {
            for (nodes, count, words) in [
                ("1node", 1, ""),
                ("2nodes", 2, ""),
                ("fake3", 1, "numa=fake=3"),
            ] {
                let name = format!("{}_{nodes}_{memory}", firmware.name());
                let mut setup = Setup::new(name, firmware, memory);
                setup.nodes = count;
                setup.words = Some(words);
                setup.must_run = match (gigantic, nodes) {
                    (true, "1node") => GIGANTIC,
                    (_, "1node") => &[],
                    _ => NUMA,
                };
                setups.push(setup);
            }
        }
    }
    setups
}

fn extremes() -> Vec<Setup> {
    let mut setups = Vec::new();

    // 16 GiB blocks, the greatest there are, on one node and on each of two.
    let mut setup = Setup::new("bios_1node_64G", Firmware::Bios, Size::mib(64 << 10));
    setup.must_run = &["gigantic:order_21", "gigantic:order_22"];
    setups.push(setup);

    let mut setup = Setup::new("uefi_2nodes_64G", Firmware::Uefi, Size::mib(64 << 10));
    setup.nodes = 2;
    setup.suites = &["gigantic", "memory_map", "vmemmap"];
    setup.must_run = &["gigantic:order_21"];
    setups.push(setup);

    // Half a terabyte: addresses above 2^39, a memmap of 8 GiB.
    let mut setup = Setup::new("uefi_1node_512G", Firmware::Uefi, Size::mib(512 << 10));
    setup.suites = &["memory_map", "vmemmap"];
    setups.push(setup);

    let mut setup = Setup::new("bios_1node_4G_qemu64", Firmware::Bios, Size::mib(4096));
    setup.cpu = "qemu64";
    setup.must_say = &["vmemmap: base=", "HugeTLB: registered 2.00 MiB page size"];
    setups.push(setup);

    // AMD's family 10h, where no page of the memmap may change its size.
    let name = "bios_2cpus_2nodes_phenom";
    let mut setup = Setup::new(name, Firmware::Bios, Size::mib(1024));
    (setup.cpu, setup.smp, setup.nodes) = ("phenom", 2, 2);
    setup.must_run = &[
        "vmemmap:is_mapped_by_leaves",
        "hvo:batch_is_one_flush",
        "hvo_orders:order_14",
        "layouts:failures_change_nothing",
        "smp_readers:blocks_of_2m",
    ];
    setup.must_say = &[
        "vmemmap: mapped by 4 KiB pages, since this processor has AMD's erratum 383",
        "SKIP the size of a page may not change in use on this processor (A-8)",
    ];
    setups.push(setup);

    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let name = format!("{}_1node_128M", firmware.name());
        setups.push(Setup::new(name, firmware, Size::mib(128)));

        let name = format!("{}_ramdisk_1G", firmware.name());
        let mut setup = Setup::new(name, firmware, Size::mib(1024));
        setup.words = None;
        setup.suites = &["buddy", "paging"];
        setup.must_say = &["Command line is from: ramdisk file"];
        setups.push(setup);
    }

    // Each bad word is named, and the rest of the line still counts.
    let mut setup = Setup::new("bios_bad_words_1G", Firmware::Bios, Size::mib(1024));
    setup.suites = &["buddy"];
    setup.words = Some(
        "flurb=7 hugepages=many numa=fake=none mem=3 hugepagesz=3M init=bash \
         hugetlb_free_vmemmap=perhaps mem=768M init=poweroff",
    );
    setup.must_say = &[
        "flurb=7: ",
        "hugepages=many: ",
        "numa=fake=none: ",
        "mem=3: ",
        "hugepagesz=3M: ",
        "init=bash: ",
        "hugetlb_free_vmemmap=perhaps: ",
        "mem=786432K: ",
    ];
    setups.push(setup);

    // A thousand 1 GiB pages: their struct pages alone would be 16 GiB, which neither
    // the guest's other memory nor this host has (T28).
    let mut setup = Setup::new("bios_1node_1T", Firmware::Bios, Size::mib(1 << 20));
    setup.suites = &["memory_map", "vmemmap", "boot_folios"];
    setup.must_run = BOOT_FOLIOS;
    setup.words = Some("hugetlb_free_vmemmap=on hugepagesz=1G hugepages=1000");
    setup.must_say = &[
        "HugeTLB: page size 1.00 GiB: 1000 of 1024 aligned blocks taken before the memmap",
        "HugeTLB: registered 1.00 GiB page size, pre-allocated 1000 pages",
        "Never built: 16380000 KiB of struct pages of 1000 blocks, 97.63 % of all",
        "in full 16777216 KiB: 2.39 %",
    ];
    setup.limit = Duration::from_secs(240);
    setups.push(setup);

    // Pages of both sizes, per node, folded at boot: what the report shows.
    let mut setup = Setup::new(
        "uefi_2nodes_8G_hugepages",
        Firmware::Uefi,
        Size::mib(8 << 10),
    );
    setup.must_run = BOOT_FOLIOS;
    setup.nodes = 2;
    setup.words = Some(
        "hugetlb_free_vmemmap=on hugepagesz=1G hugepages=0:1,1:2 hugepagesz=2M hugepages=0:64,1:32",
    );
    setup.must_say = &[
        "HugeTLB: registered 2.00 MiB page size, pre-allocated 96 pages",
        "HugeTLB: registered 1.00 GiB page size, pre-allocated 3 pages",
        "HugeTLB: 28 KiB vmemmap can be freed for a 2.00 MiB page",
        "HugeTLB: 16380 KiB vmemmap can be freed for a 1.00 GiB page",
        "Never built: 49140 KiB of struct pages of 3 blocks, ",
    ];
    setups.push(setup);
    setups
}
