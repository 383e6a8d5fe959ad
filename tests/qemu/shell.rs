//! The shell as a person would use it: a script of what is typed, and what comes of each
//! line.

use std::sync::Arc;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::size::Size;
use boot::verdict;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::{end, hint};
use crate::machines::machine;

/// A boot, some commands, a busy host.
const LIMIT: Duration = Duration::from_secs(240);

/// Lines of `/proc/meminfo`: huge pages in all, free, promised, surplus.
macro_rules! pool {
    ($total:literal, $free:literal, $rsvd:literal, $surp:literal) => {
        &[
            concat!("HugePages_Total:       ", $total, "\n"),
            concat!("HugePages_Free:        ", $free, "\n"),
            concat!("HugePages_Rsvd:        ", $rsvd, "\n"),
            concat!("HugePages_Surp:        ", $surp, "\n"),
        ]
    };
}

/// What is run, and what each must print, in this order. Nothing stands for a line that
/// prints something else, or nothing.
const SESSION: &[(&str, &[&str])] = &[
    ("cat /sys/devices/system/node/online", &["0-1"]),
    ("cat /sys/devices/system/node/node1/cpulist", &["1"]),
    (
        "ls /sys/kernel/mm/hugepages",
        &["hugepages-1048576kB", "hugepages-2048kB"],
    ),
    ("echo 12 > /proc/sys/vm/nr_hugepages", &[]),
    ("cat /proc/sys/vm/nr_hugepages", &["12"]),
    (
        "cat /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
        &["6"],
    ),
    ("grep hvo_saved_pages /proc/vmstat", &["hvo_saved_pages 84"]),
    ("audit", &["84 saved by 12 folded blocks", ": ok"]),
    (
        "grep HugePages_Total /proc/meminfo",
        &["HugePages_Total:      12"],
    ),
    (
        "cat /proc/nope",
        &["cat: /proc/nope: No such file or directory"],
    ),
    (
        "echo abc > /proc/sys/vm/nr_hugepages",
        &["echo: write error: Invalid argument"],
    ),
    ("cat /proc/sys/vm/nr_hugepages", &["12"]),
    ("flurb", &["sh: flurb: not found"]),
    ("echo $?", &["127"]),
    // What is printed by the line goes where the line says.
    ("bench list | grep -c ^bench:.pools", &["1\n"]),
    (
        "selftest list | grep -c ^buddy:splits_and_merges$",
        &["1\n"],
    ),
    ("vmemmap | grep -c HVO", &["1\n"]),
    (
        "selftest buddy:splits_and_merges | grep -c not.ok",
        &["0\n"],
    ),
    ("cat /proc/sys/vm/nr_hugepages", &["12"]),
    (
        "echo 100 > /sys/kernel/debug/fail_hugetlb_vmemmap_pte/probability",
        &[],
    ),
    ("echo 13 > /proc/sys/vm/nr_hugepages", &[]),
    (
        "grep hvo_fold /proc/vmstat",
        &["hvo_folded_blocks 12", "hvo_fold_fail 1\n"],
    ),
    (
        "grep fail_huge /proc/vmstat",
        &["fail_hugetlb_vmemmap_pte 1\n"],
    ),
    ("grep hvo_saved_pages /proc/vmstat", &["hvo_saved_pages 84"]),
    (
        "cat /sys/kernel/debug/fail_hugetlb_vmemmap_pte/times",
        &["0"],
    ),
    ("echo 0 > /proc/sys/vm/nr_hugepages", &[]),
    ("grep hvo_saved_pages /proc/vmstat", &["hvo_saved_pages 0"]),
    (
        "cat /sys/kernel/mm/hugepages/hugepages-1048576kB/demote_size",
        &["2048kB"],
    ),
    (
        "echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
        &[],
    ),
    (
        "grep hvo_saved_pages /proc/vmstat",
        &["hvo_saved_pages 4095"],
    ),
    (
        "echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/demote",
        &[],
    ),
    (
        "cat /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages /proc/sys/vm/nr_hugepages",
        &["0\n", "512\n"],
    ),
    (
        "grep hvo_saved_pages /proc/vmstat",
        &["hvo_saved_pages 3584"],
    ),
    (
        "echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/promote",
        &[],
    ),
    (
        "grep hvo_saved_pages /proc/vmstat",
        &["hvo_saved_pages 4095"],
    ),
    ("audit", &["4095 saved by 1 folded blocks", ": ok"]),
    ("selftest buddy:splits_and_merges", &["ok 1 buddy"]),
    ("ptdump 0 0xffffffffffffffff", &["0xffff888000000000-"]),
    ("ptdump 0x800000000000 0x900000000000", &[]),
    ("kpageflags 0xffffffffffffffff 9", &[]),
    ("ptdump 0xffffea0000000000 0xffffea0000001000", &["RW"]),
    (
        "kpageflags 0",
        &["0x0 0000000100000000 node=0 count=0 head=0x0 order=0 reserved"],
    ),
    // LTP's hugemmap05: a pool of 2 and 2 more on demand, 3 mapped.
    (
        "echo 0 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
        &[],
    ),
    ("echo 2 > /proc/sys/vm/nr_hugepages", &[]),
    ("echo 2 > /proc/sys/vm/nr_overcommit_hugepages", &[]),
    ("mmap hugetlb 2M 3 shared", &["0"]),
    ("grep HugePages_ /proc/meminfo", pool!(3, 3, 3, 1)),
    ("touch -w 0", &[]),
    ("grep HugePages_ /proc/meminfo", pool!(3, 0, 0, 1)),
    ("mmap", &["0: 3 x 2.00 MiB, shared, 3 present, 0 reserved"]),
    ("mmap 2M 2", &["mmap: Cannot allocate memory"]),
    ("mmap 2M 2 private noreserve node 1", &["1"]),
    ("touch 1 1", &[]),
    ("touch 1 0", &["Bus error"]),
    ("echo $?", &["135"]),
    ("touch 1 2", &["touch: 2: the mapping has 2 places, from 0"]),
    ("grep HugePages_ /proc/meminfo", pool!(4, 0, 0, 2)),
    (
        "mmap",
        &["1: 2 x 2.00 MiB, private, 1 present, 0 reserved, node 1"],
    ),
    (
        "grep htlb_ /proc/vmstat",
        &["htlb_reserve_fail 1", "htlb_touch_fail 1"],
    ),
    // A child that writes wants a page of its own: one has to go first.
    ("fork 1", &["2"]),
    ("touch -w 2 1", &["Bus error"]),
    ("madvise 0 2", &[]),
    ("touch -w 2 1", &[]),
    (
        "munmap 0 1 2 7",
        &["munmap: 7: no such mapping; mmap lists them"],
    ),
    ("grep HugePages_ /proc/meminfo", pool!(2, 2, 0, 0)),
    (
        "mmap 3M 1",
        &["mmap: 3M: no such huge page size; there are 2M 1024M"],
    ),
    ("mmap 2M 1 node 7", &["mmap: 7: no such node"]),
    (
        "mmap 2M 99999999999 noreserve",
        &["mmap: Cannot allocate memory"],
    ),
    // More places than the heap has room for.
    (
        "mmap 2M 200000 noreserve",
        &[
            "mmap: Cannot allocate memory: all mappings together may have 65536 places, \
             0 are taken",
        ],
    ),
    ("mmap 2M 40000 noreserve", &["0"]),
    (
        "fork 0",
        &[
            "fork: Cannot allocate memory: ",
            " 65536 places, 40000 are taken",
        ],
    ),
    (
        "mmap 2M 25537 noreserve",
        &["mmap: Cannot allocate memory: ", ", 40000 are taken"],
    ),
    ("mmap 2M 25536 noreserve", &["1"]),
    (
        "mmap 2M 1 noreserve",
        &["mmap: Cannot allocate memory: ", ", 65536 are taken"],
    ),
    ("grep MemTotal /proc/meminfo", &["MemTotal:"]),
    ("munmap 0 1", &[]),
    ("mmap 2M 1 noreserve", &["0"]),
    ("munmap 0", &[]),
    (
        "memfill 64",
        &[
            "Node 0: ",
            " kB taken, 64 kB free",
            "Node 1: ",
            " kB taken, 64 kB free",
        ],
    ),
    ("grep nr_free_pages /proc/vmstat", &["nr_free_pages 32\n"]),
    ("memfill free", &[]),
    ("audit", &[": ok"]),
    ("echo 0 > /proc/sys/vm/nr_overcommit_hugepages", &[]),
    ("echo 0 > /proc/sys/vm/nr_hugepages", &[]),
    (
        "bench list",
        &[
            "bench: pools            instructions ",
            "bench: readers          time ",
        ],
    ),
    (
        "bench comp*,calls",
        &["bench: call of all CPUs", "bench: compound_head of a tail"],
    ),
    (
        "bench calls,fast",
        &["bench: fast: no such group; see bench list"],
    ),
    ("echo $?", &["2"]),
    ("poweroff", &[]),
];

/// Broken frames: numbers that are none, and a frame in the middle of the RAM above 4 GiB,
/// which is free.
const BROKEN_FRAMES: &[(&str, &[&str])] = &[
    (
        "echo 0x10000000000 > /sys/kernel/debug/hwpoison/corrupt-pfn",
        &["echo: write error: No such device or address"],
    ),
    (
        "echo 0xffffffffffffffff > /sys/kernel/debug/hwpoison/unpoison-pfn",
        &["echo: write error: No such device or address"],
    ),
    (
        "echo 0x1ffffffffffffffff > /sys/kernel/debug/hwpoison/corrupt-pfn",
        &["echo: write error: Numerical result out of range"],
    ),
    (
        "echo 0xffffffffffffffff > /sys/devices/system/memory/soft_offline_page",
        &["echo: write error: No such device or address"],
    ),
    (
        "echo 0xffffffffffffffff > /sys/devices/system/memory/hard_offline_page",
        &["echo: write error: No such device or address"],
    ),
    (
        "echo 0x1ffffffffffffffff > /sys/devices/system/memory/soft_offline_page",
        &["echo: write error: Invalid argument"],
    ),
    (
        "echo here > /sys/devices/system/memory/hard_offline_page",
        &["echo: write error: Invalid argument"],
    ),
    ("echo 0 > /proc/sys/vm/enable_soft_offline", &[]),
    (
        "echo 0x150000000 > /sys/devices/system/memory/soft_offline_page",
        &["echo: write error: Operation not supported"],
    ),
    (
        "echo 2 > /proc/sys/vm/enable_soft_offline",
        &["echo: write error: Invalid argument"],
    ),
    ("echo 1 > /proc/sys/vm/enable_soft_offline", &[]),
    (
        "echo 0x150000000 > /sys/devices/system/memory/soft_offline_page",
        &[],
    ),
    ("echo $?", &["0\n"]),
    (
        "grep HardwareCorrupted /proc/meminfo",
        &["HardwareCorrupted:     4 kB\n"],
    ),
    (
        "kpageflags 0x150000",
        &["0x150000 0000000000080000 node=1 ", "hwpoison\n"],
    ),
    (
        "echo 0x150000 > /sys/kernel/debug/hwpoison/corrupt-pfn",
        &["echo: write error: Memory page has hardware error"],
    ),
    (
        "echo 0x150000000 > /sys/devices/system/memory/hard_offline_page",
        &["echo: write error: Memory page has hardware error"],
    ),
    (
        "echo 0x150000 > /sys/kernel/debug/hwpoison/unpoison-pfn",
        &[],
    ),
    ("echo $?", &["0\n"]),
    (
        "grep HardwareCorrupted /proc/meminfo",
        &["HardwareCorrupted:     0 kB\n"],
    ),
    (
        "echo 0x150000 > /sys/kernel/debug/hwpoison/unpoison-pfn",
        &["echo: write error: Device or resource busy"],
    ),
    ("audit", &[": ok"]),
    ("poweroff", &[]),
];

/// Three nodes that are not equally far apart, the shell on the first: its pages come from the
/// nearest.
const DISTANCES: &[(&str, &[&str])] = &[
    (
        "cat /sys/devices/system/node/node0/distance",
        &["10 31 15\n"],
    ),
    (
        "cat /sys/devices/system/node/node1/distance",
        &["13 10 21\n"],
    ),
    (
        "cat /sys/devices/system/node/node2/distance",
        &["14 16 10\n"],
    ),
    (
        "echo 2 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
        &[],
    ),
    (
        "echo 2 > /sys/devices/system/node/node2/hugepages/hugepages-2048kB/nr_hugepages",
        &[],
    ),
    ("mmap 2M 3", &["0"]),
    ("touch 0", &[]),
    (
        "cat /sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages",
        &["1\n"],
    ),
    (
        "cat /sys/devices/system/node/node2/hugepages/hugepages-2048kB/free_hugepages",
        &["0\n"],
    ),
    ("poweroff", &[]),
];

/// The nodes of [`DISTANCES`], as `--numa` has them.
const FAR_APART: &str = "cpus=0,memory=512M,to1=31,to2=15/cpus=1,memory=512M,to0=13,to2=21/\
                         memory=512M,to0=14,to1=16";

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let sessions = [
        ("a_session", "", SESSION),
        ("broken_frames", "", BROKEN_FRAMES),
        ("distances", FAR_APART, DISTANCES),
    ];
    let trial = |(name, numa, lines)| {
        let bench = Arc::clone(bench);
        Trial::test(format!("shell::{name}"), move || {
            session(&bench, name, numa, lines)
        })
    };
    sessions.into_iter().map(trial).collect()
}

/// On two even nodes, or on those of `numa`.
fn session(bench: &Bench, name: &str, numa: &str, lines: &[(&str, &[&str])]) -> Result<(), Failed> {
    let firmware = Firmware::Uefi;
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    (machine.smp, machine.nodes) = (2, 2);
    machine.memory = Size::mib(4096);
    if !numa.is_empty() {
        machine.shape = numa.parse().expect("a shape as --numa has it");
    }
    let script: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    machine.command_line = Some(format!(
        "selftest=off hugetlb_free_vmemmap=on script=\"{}\"",
        script.join(";")
    ));
    let log = bench.log(&format!("shell-{name}"))?;
    let ended = end(&machine, LIMIT, &log)?;
    let hint = hint(&ended.serial, &log);
    let status = verdict::finished(&ended).map_err(|error| format!("{error}\n{hint}"))?;
    if status.code() != Some(verdict::PASS) {
        return Err(Failed::from(format!("{status}\n{hint}")));
    }
    let mut rest = ended.serial.as_str();
    for (line, expected) in lines {
        let typed = format!("tailfold# {line}\n");
        let (_, behind) = rest
            .split_once(&typed)
            .ok_or_else(|| format!("`{line}` was not run\n{hint}"))?;
        rest = behind;
        let printed = behind.split("tailfold# ").next().unwrap_or("");
        let mut left = printed;
        for text in *expected {
            let Some((_, after)) = left.split_once(text) else {
                return Err(Failed::from(format!(
                    "`{line}`: `{text}` is not in\n{printed}\n{hint}"
                )));
            };
            left = after;
        }
    }
    Ok(())
}
