//! `cargo run -- bench-linux`: what Linux's huge pages cost, in instructions, beside Tailfold's.
//!
//! Linux runs with a clock that counts instructions. Its shell, the only process, reads from
//! `/proc/PID/schedstat` how long it ran, writes to a file of a pool, and reads that again
//! (`PROGRAM`): what Linux does beside, and what it waits for, is not in the figure.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::console::{Outcome, Shell, Silence};
use super::guest::Guest;
use super::linux::Linux;
use super::{TAILFOLD_SHELL, debian, linux};
use crate::accel;
use crate::artifact::{Firmware, Profile, build_images};
use crate::cli::BenchLinuxOptions;
use crate::error::Error;
use crate::machine::Machine;
use crate::qemu::{FIRST_WORD_LIMIT, Options};
use crate::size::Size;
use crate::verdict::measured;
use crate::workspace::Workspace;

/// What the shell in Linux's guest reads before it measures. `used` sleeps first, since Linux
/// books what a process has used when another one runs. `op FILE COUNT VALUE` writes `VALUE` to
/// `FILE` and says how long the shell ran for it, in ns, which are instructions, and what
/// `COUNT` said before and after.
pub(super) const PROGRAM: &str = "\
small=/sys/kernel/mm/hugepages/hugepages-2048kB
large=/sys/kernel/mm/hugepages/hugepages-1048576kB
mkfifo /tmp/never
used() { read -t 0.02 nothing <>/tmp/never; read now nothing </proc/$$/schedstat; }
op() {
    before=$(cat $2)
    used
    start=$now
    echo $3 >$1
    used
    echo $((now - start)) $before $(cat $2)
}
sleep 8
";

/// Words for Linux that make it cheaper than Debian's are, and repeat: no mitigations, pages that
/// are not zeroed, one place for the kernel. Without `alone`, a second process would be there to
/// be killed for its memory.
const COMMAND_LINE: &str = "mitigations=off nopti init_on_alloc=0 nokaslr alone=1";

/// Words of both kernels for huge pages that are there from boot on.
const FROM_BOOT: &str = "hugepagesz=1G hugepages=4";

/// RAM, but for asking for more than fits.
const MEMORY: Size = Size::mib(8192);

/// RAM of the machine that is asked for more than fits.
const SMALL_MEMORY: Size = Size::mib(2048);

/// Pages of 2 MiB that it is asked for.
const TOO_MANY: u64 = 5000;

/// Linux's pages of 2 MiB at once: as many as half of the memory.
const SMALL_BATCH: u64 = 2048;

/// Linux's pages of 1 GiB at once.
const LARGE_BATCH: u64 = 4;

/// Longest time for a line at a shell, and for Tailfold's benchmarks.
const LIMIT: Duration = Duration::from_secs(900);

/// A write to a file of Linux's pools.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Op {
    /// Instructions, those of the measurement included.
    cost: u64,
    /// Pages before.
    before: u64,
    /// Pages after.
    after: u64,
}

impl Op {
    /// Instructions for each page that came or went.
    fn per_page(self, overhead: u64) -> Option<u64> {
        let pages = self.before.abs_diff(self.after);
        self.cost.saturating_sub(overhead).checked_div(pages)
    }
}

/// Costs of an operation per page: in the first round, if that is known, and in the best of those
/// behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Costs {
    first: Option<u64>,
    again: u64,
}

/// What becomes of a request for more than fits.
#[derive(Clone, PartialEq, Eq, Debug)]
enum OverAsked {
    /// So many pages, for so many instructions each if that is measured.
    Got(u64, Option<u64>),
    /// The kernel ended, with these last words.
    Died(String),
}

/// Operations in the order of the table.
const OPERATIONS: [&str; 5] = [
    "2 MiB alloc",
    "2 MiB free",
    "1 GiB alloc",
    "1 GiB free",
    "demote 1 GiB",
];

/// What is measured of a kernel, with HVO off and on where there are two.
#[derive(Clone, Debug)]
struct Figures {
    /// By [`OPERATIONS`].
    costs: [[Costs; OPERATIONS.len()]; 2],
    /// Pages of memmap: of memory without huge pages, and with those of [`FROM_BOOT`].
    memmap: Option<[u64; 2]>,
    /// [`TOO_MANY`] pages asked of [`SMALL_MEMORY`].
    over_asked: [OverAsked; 2],
}

/// Measures Linux and Tailfold, and prints a table.
///
/// # Errors
/// [`Error::NoLinux`], [`Error::NoShell`], [`Error::IncompletePlan`] for figures that do not
/// come; those of building and QEMU.
pub fn bench(options: &BenchLinuxOptions) -> Result<(), Error> {
    accel::use_qemu(options.qemu.as_deref());
    let workspace = Workspace::find()?;
    let linux = linux::prepare(debian::fetch(&workspace, &options.linux)?)?;
    let images = build_images(&workspace, Profile::Bench, None, None, "run-bench")?;
    let version = linux.package.version.clone();
    let logs = workspace.target_dir("bench-linux")?;
    let bench = Bench {
        linux,
        image: images.get(Firmware::Bios).to_owned(),
        logs,
    };
    let text = table(&version, &bench.of_linux()?, &bench.of_tailfold()?);
    print!("{text}");
    if let Some(path) = &options.output {
        std::fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

/// What is booted.
struct Bench {
    linux: Linux,
    image: PathBuf,
    logs: PathBuf,
}

impl Bench {
    fn of_linux(&self) -> Result<Figures, Error> {
        let [off, on] = [false, true].map(|hvo| self.costs_of_linux(hvo));
        let memmap = |words| self.linux(true, MEMORY, words)?.memmap();
        Ok(Figures {
            costs: [off?, on?],
            memmap: memmap("")?.zip(memmap(FROM_BOOT)?).map(|(a, b)| [a, b]),
            over_asked: [self.linux_over_asked(false)?, self.linux_over_asked(true)?],
        })
    }

    /// Each size in a machine of its own, so that nothing was folded there before.
    fn costs_of_linux(&self, hvo: bool) -> Result<[Costs; OPERATIONS.len()], Error> {
        let pool = |directory, count| {
            let file = format!("${directory}/nr_hugepages");
            format!("op {file} {file} {count}; op {file} {file} 0")
        };
        let demote = "echo 1 >$large/nr_hugepages; op $large/demote $large/nr_hugepages 1; \
                      echo 0 >$small/nr_hugepages";
        let measure = |round: &str| -> Result<_, Error> {
            let mut guest = self.linux(hvo, MEMORY, "")?;
            guest.rounds(round)
        };
        let small = measure(&pool("small", SMALL_BATCH))?;
        let large = measure(&pool("large", LARGE_BATCH))?;
        let demoted = measure(demote)?;
        let all: Vec<Costs> = [small, large, demoted].concat();
        all.try_into()
            .map_err(|all| no_figures(format!("Linux has no five operations: {all:?}")))
    }

    fn linux_over_asked(&self, hvo: bool) -> Result<OverAsked, Error> {
        let mut typist = self.linux(hvo, SMALL_MEMORY, "")?;
        let overhead = typist.overhead()?;
        let file = "$small/nr_hugepages";
        let outcome = typist.line(&format!("op {file} {file} {TOO_MANY}"));
        match outcome {
            Outcome::Done { output, .. } => {
                let ops = ops(&output);
                let op = ops.first().filter(|_| ops.len() == 1);
                let op = op.ok_or_else(|| no_figures(format!("Linux wrote: {output}")))?;
                Ok(OverAsked::Got(op.after, op.per_page(overhead)))
            }
            Outcome::NoPrompt(Silence::Ended, said) => {
                let mut log = typist.guest.console.take_log();
                log.push(said);
                Ok(OverAsked::Died(last_words(&log)))
            }
            other => Err(no_figures(format!("Linux: {other:?}"))),
        }
    }

    fn of_tailfold(&self) -> Result<Figures, Error> {
        let pools = self.rows(MEMORY, "pools")?;
        let demoted = self.rows(MEMORY, "demote")?;
        let small = self.rows(SMALL_MEMORY, "overask")?;
        let costs = |hvo| -> Result<[Costs; OPERATIONS.len()], Error> {
            Ok([
                rounds(&pools, "2.00 MiB", "alloc", hvo)?,
                rounds(&pools, "2.00 MiB", "free", hvo)?,
                rounds(&pools, "1.00 GiB", "alloc", hvo)?,
                rounds(&pools, "1.00 GiB", "free", hvo)?,
                rounds(&demoted, "1.00 GiB", "demote", hvo)?,
            ])
        };
        let memmap = |words| self.tailfold(MEMORY, words)?.memmap();
        // What was asked for there is not this number, but it is more than fits.
        let over_asked = |hvo| -> Result<OverAsked, Error> {
            let on = if hvo { "on" } else { "off" };
            let mut typist = self.tailfold(SMALL_MEMORY, &format!("hugetlb_free_vmemmap={on}"))?;
            typist.say(&format!("echo {TOO_MANY} > /proc/sys/vm/nr_hugepages"))?;
            let got = typist.say("cat /proc/sys/vm/nr_hugepages")?;
            let each = figure(&small, "2.00 MiB,", "got", hvo)?;
            match numbers(&got)[..] {
                [got] => Ok(OverAsked::Got(got, Some(each))),
                _ => Err(no_figures(format!("Tailfold wrote: {got}"))),
            }
        };
        Ok(Figures {
            costs: [costs(false)?, costs(true)?],
            memmap: memmap("")?.zip(memmap(FROM_BOOT)?).map(|(a, b)| [a, b]),
            over_asked: [over_asked(false)?, over_asked(true)?],
        })
    }

    /// The rows of groups of Tailfold's own benchmarks.
    fn rows(&self, memory: Size, groups: &str) -> Result<String, Error> {
        let mut machine = Machine::new(self.image.clone(), Firmware::Bios);
        (machine.memory, machine.icount) = (memory, true);
        machine.command_line = Some(format!("selftest=off init=bench bench={groups}"));
        let log = self.logs.join(format!("tailfold.{groups}.log"));
        let options = Options {
            limit: Some(LIMIT),
            first_word: Some(FIRST_WORD_LIMIT),
            log: Some(&log),
            ..Options::default()
        };
        eprintln!("measuring Tailfold: {groups}");
        Ok(measured(&machine, &options)?.serial)
    }

    fn linux(&self, hvo: bool, memory: Size, words: &str) -> Result<Typist, Error> {
        let mut machine = Machine::new(PathBuf::new(), Firmware::Bios);
        (machine.memory, machine.icount) = (memory, true);
        "max,-rdrand,-rdseed".clone_into(&mut machine.cpu);
        let mut boot = self.linux.boot.clone();
        let hvo = if hvo { "on" } else { "off" };
        // Of a word that stands there twice Linux takes the last one.
        let words = format!(" {COMMAND_LINE} hugetlb_free_vmemmap={hvo} {words}");
        boot.command_line.push_str(&words);
        machine.direct = Some(boot);
        eprintln!("measuring Linux:{words}");
        let mut typist = Typist::new(&machine, linux::SHELL, &self.logs)?;
        typist.say(". /bench")?;
        Ok(typist)
    }

    fn tailfold(&self, memory: Size, words: &str) -> Result<Typist, Error> {
        let mut machine = Machine::new(self.image.clone(), Firmware::Bios);
        (machine.memory, machine.icount) = (memory, true);
        let words = format!("hugetlb_free_vmemmap=on selftest=off init=shell {words}");
        machine.command_line = Some(words);
        Typist::new(&machine, TAILFOLD_SHELL, &self.logs)
    }
}

/// A guest whose lines have to go well.
struct Typist {
    guest: Guest,
    name: &'static str,
}

impl Typist {
    fn new(machine: &Machine, shell: Shell, logs: &Path) -> Result<Self, Error> {
        let log = logs.join(format!("{}.log", shell.name.to_lowercase()));
        Ok(Self {
            guest: Guest::boot(machine, shell, &log)?,
            name: shell.name,
        })
    }

    fn line(&mut self, line: &str) -> Outcome {
        self.guest.console.run(line, LIMIT)
    }

    /// What a line writes that has to end well.
    fn say(&mut self, line: &str) -> Result<String, Error> {
        match self.line(line) {
            Outcome::Done { output, status: 0 } => Ok(output),
            other => Err(no_figures(format!("{}: `{line}`: {other:?}", self.name))),
        }
    }

    /// What the measurement itself takes in Linux: a write that does nothing.
    fn overhead(&mut self) -> Result<u64, Error> {
        let nothing = ["op /dev/null /dev/null 0"; 4].join("; ");
        let numbers = numbers(&self.say(&nothing)?);
        let least = numbers.into_iter().min();
        least.ok_or_else(|| no_figures("Linux says no cost of nothing".to_owned()))
    }

    /// What each operation of `round` costs in Linux per page.
    fn rounds(&mut self, round: &str) -> Result<Vec<Costs>, Error> {
        let overhead = self.overhead()?;
        let said = self.say(&format!("for n in 1 2 3 4; do {round}; done"))?;
        costs(&ops(&said), overhead)
            .ok_or_else(|| no_figures(format!("Linux, `{round}` wrote: {said}")))
    }

    /// Pages of memmap, if the kernel counts them.
    fn memmap(&mut self) -> Result<Option<u64>, Error> {
        let said = match self.line("grep nr_memmap /proc/vmstat") {
            Outcome::Done { output, .. } => output,
            other => return Err(no_figures(format!("{}: {other:?}", self.name))),
        };
        let counts = numbers(&said);
        Ok((!counts.is_empty()).then(|| counts.iter().sum()))
    }
}

fn no_figures(problem: String) -> Error {
    Error::IncompletePlan {
        problems: vec![problem],
    }
}

fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The lines of `op`.
fn ops(text: &str) -> Vec<Op> {
    let lines = text.lines().filter_map(|line| match numbers(line)[..] {
        [cost, before, after] => Some(Op {
            cost,
            before,
            after,
        }),
        _ => None,
    });
    lines.collect()
}

/// Costs of the operations of a round that was done four times.
fn costs(ops: &[Op], overhead: u64) -> Option<Vec<Costs>> {
    let length = ops.len() / 4;
    if length == 0 || ops.len() != length * 4 {
        return None;
    }
    let operations = (0..length).map(|n| {
        let rounds: Option<Vec<u64>> = (0..4)
            .map(|round| ops[round * length + n].per_page(overhead))
            .collect();
        let (first, rest) = rounds.as_ref()?.split_first()?;
        let again = rest.iter().min()?;
        Some(Costs {
            first: Some(*first),
            again: *again,
        })
    });
    operations.collect()
}

/// Why the kernel ended: what it says of its panic, or the last line.
fn last_words(log: &[String]) -> String {
    const PANIC: &str = "Kernel panic - not syncing: ";
    let lines = || log.iter().flat_map(|text| text.lines());
    let panic = lines().find_map(|line| line.split_once(PANIC));
    match panic {
        Some((_, why)) => format!("panic: {why}"),
        None => lines().last().unwrap_or("not a word").to_owned(),
    }
}

/// The first round and the best of the rest of `what` in rows of Tailfold's benchmarks.
fn rounds(rows: &str, size: &str, what: &str, hvo: bool) -> Result<Costs, Error> {
    let again = figure(rows, size, what, hvo)?;
    // The first time that pages are given back has no row.
    let first = figure(rows, size, &format!("first {what}"), hvo).ok();
    Ok(Costs { first, again })
}

/// The last row for pages of `size` with the words `what`: the one of the greatest batch.
fn figure(rows: &str, size: &str, what: &str, hvo: bool) -> Result<u64, Error> {
    let ending = if hvo { ", HVO on" } else { ", HVO off" };
    let mut rows = rows.lines().filter_map(|line| {
        let (name, figure) = line.strip_prefix("bench: ")?.split_once("  ")?;
        let about = name.strip_prefix(size)?.strip_suffix(ending)?;
        let about = about.split(',').map(str::trim);
        let is_it = |part: &str| part == what || part.ends_with(&format!(" {what}"));
        let first = |part: &str| part.starts_with("first ") && !what.starts_with("first ");
        let mut about = about.filter(|part| is_it(part) && !first(part));
        about.next()?;
        figure.split_whitespace().next()?.parse().ok()
    });
    rows.next_back()
        .ok_or_else(|| no_figures(format!("Tailfold has no row `{size} {what}{ending}`")))
}

/// `figure` for people: with commas, or millions.
fn shown(figure: u64) -> String {
    match figure {
        0..1_000 => figure.to_string(),
        1_000..1_000_000 => format!("{},{:03}", figure / 1_000, figure % 1_000),
        _ => {
            let hundredths = (figure + 5_000) / 10_000;
            format!("{}.{:02} M", hundredths / 100, hundredths % 100)
        }
    }
}

impl OverAsked {
    fn shown(&self) -> String {
        match self {
            Self::Got(pages, Some(each)) => {
                format!("{} pages, {} each", shown(*pages), shown(*each))
            }
            Self::Got(pages, None) => format!("{} pages", shown(*pages)),
            Self::Died(why) => why.clone(),
        }
    }
}

/// Everything, in Markdown.
fn table(version: &str, linux: &Figures, tailfold: &Figures) -> String {
    let mut text = String::new();
    let mut row = |cells: &[String]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let linux_name = format!("Linux {version}");
    let sides = [(&*linux_name, linux), ("Tailfold", tailfold)];
    let mut heading = vec!["instructions per page".to_owned()];
    for (name, _) in sides {
        for column in ["HVO off", "HVO on, first time", "HVO on, again"] {
            heading.push(format!("{name}, {column}"));
        }
    }
    let line = |columns| vec!["---".to_owned(); columns];
    row(&heading);
    row(&line(heading.len()));
    for (n, operation) in OPERATIONS.iter().enumerate() {
        let mut cells = vec![(*operation).to_owned()];
        for (_, figures) in sides {
            let [off, on] = [0, 1].map(|hvo| figures.costs[hvo][n]);
            let figures = [Some(off.again), on.first, Some(on.again)];
            cells.extend(figures.map(|figure| figure.map_or_else(String::new, shown)));
        }
        row(&cells);
    }
    text.push('\n');
    let mut row = |cells: [&str; 3]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    row(["", &linux_name, "Tailfold"]);
    row(["---"; 3]);
    for (n, what) in ["no huge pages", FROM_BOOT].into_iter().enumerate() {
        let what = format!("pages of memmap at boot, {MEMORY}, HVO on, {what}");
        let [linux, tailfold] = [linux, tailfold].map(|figures| {
            let pages = figures.memmap.map(|pages| pages[n].to_string());
            pages.unwrap_or_else(|| "not counted".to_owned())
        });
        row([&what, &linux, &tailfold]);
    }
    for (n, hvo) in ["off", "on"].into_iter().enumerate() {
        let what = format!("{TOO_MANY} pages of 2 MiB asked of {SMALL_MEMORY}, HVO {hvo}");
        let [linux, tailfold] = [linux, tailfold].map(|figures| figures.over_asked[n].shown());
        row([&what, &linux, &tailfold]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        Costs, Figures, Op, OverAsked, costs, figure, last_words, ops, rounds, shown, table,
    };

    const ROWS: &str = "bench: a tick is 999 ps\n\
        bench: 2.00 MiB first alloc, 1 at once, HVO on            7791 per page\n\
        bench: 2.00 MiB first alloc, 512 at once, HVO on          3514 per page\n\
        bench: 2.00 MiB alloc, 512 at once, HVO on                3307 per page\n\
        bench: 2.00 MiB alloc, 512 at once, HVO on: flushes          1 per call\n\
        bench: 2.00 MiB free, 512 at once, HVO on                 4605 per page\n\
        bench: 2.00 MiB, 2024 asked, 980 got, HVO on              3340 per page got\n";

    #[test]
    fn rows_of_the_greatest_batch_count() {
        let (first, again) = (Some(3514), 3307);
        let costs = Costs { first, again };
        assert_eq!(rounds(ROWS, "2.00 MiB", "alloc", true).unwrap(), costs);
        assert_eq!(rounds(ROWS, "2.00 MiB", "free", true).unwrap().first, None);
        assert_eq!(figure(ROWS, "2.00 MiB,", "got", true).unwrap(), 3340);
        for (size, what, hvo) in [
            ("2.00 MiB", "alloc", false),
            ("1.00 GiB", "alloc", true),
            ("2.00 MiB", "demote", true),
        ] {
            let why = figure(ROWS, size, what, hvo).unwrap_err().to_string();
            assert!(why.contains(&format!("no row `{size} {what}")), "{why}");
        }
    }

    #[test]
    fn the_first_round_is_told_from_the_best() {
        let text =
            "1100 0 10\n600 10 0\n800 0 10\n500 10 0\n700 0 10\n400 10 0\n900 0 10\n800 10 0\n";
        let ops = ops(text);
        let costs_of = |first, again| Costs {
            first: Some(first),
            again,
        };
        let expected = vec![costs_of(100, 60), costs_of(50, 30)];
        assert_eq!(costs(&ops, 100), Some(expected));
        assert_eq!(costs(&ops[..7], 100), None);
        assert_eq!(costs(&[], 0), None);
        let (cost, before, after) = (7, 3, 3);
        let nothing = Op {
            cost,
            before,
            after,
        };
        assert_eq!(costs(&[nothing; 4], 0), None);
    }

    #[test]
    fn a_panic_is_quoted() {
        let log = ["[    1.000000] Kernel panic - not syncing: no memory\n[    1.1] Call Trace:"];
        let log = log.map(str::to_owned);
        assert_eq!(last_words(&log), "panic: no memory");
        assert_eq!(last_words(&["one\ntwo".to_owned()]), "two");
        assert_eq!(last_words(&[]), "not a word");
    }

    #[test]
    fn figures_are_for_people() {
        let texts = [7, 12_034, 999_999, 6_870_123, 42_440_000].map(shown);
        assert_eq!(texts, ["7", "12,034", "999,999", "6.87 M", "42.44 M"]);
    }

    #[test]
    fn a_kernel_has_its_columns() {
        let figures = |n: u64, memmap, over_asked| Figures {
            costs: [n, n + 10].map(|n| {
                [Costs {
                    first: (n > 100).then_some(n + 1),
                    again: n,
                }; 5]
            }),
            memmap,
            over_asked,
        };
        let died = OverAsked::Died("panic: no memory".to_owned());
        let linux = figures(100, None, [OverAsked::Got(9, None), died]);
        let got = OverAsked::Got(980, Some(3340));
        let tailfold = figures(200, Some([30, 20]), [got.clone(), got]);
        let text = table("7", &linux, &tailfold);
        for line in [
            "| 2 MiB alloc | 100 | 111 | 110 | 200 | 211 | 210 |",
            "| pages of memmap at boot, 8G, HVO on, no huge pages | not counted | 30 |",
            "| 5000 pages of 2 MiB asked of 2G, HVO on | panic: no memory | 980 pages, 3,340 each |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
