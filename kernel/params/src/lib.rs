//! The kernel command line, in Linux's words.
//!
//! Any bytes are accepted. A word that is unknown or makes no sense is named, with
//! the reason and what would be right, and then ignored; boot goes on. Where a word
//! may be given once only, or where the order of words matters, it is as in Linux;
//! otherwise the last one counts.

#![no_std]

mod hugepages;
mod soak;
mod values;
mod words;

use core::fmt;

pub use hugepages::{Hugepages, NodeCounts, Request};
use hugepages::{HugepagesParser, LAST_NODE};
pub use soak::Soak;
use values::number;
pub use values::{memparse, strtobool};
pub use words::Word;
use words::{Words, is_space};

use mm::addr::{NodeId, Order};
use mm::machine::Level;
use mm::numa::NumaOption;
use mm::paging::FULL_FLUSH_CEILING;

/// Longest line that is read, in bytes. Linux on x86 stops at half of that.
#[doc(alias = "COMMAND_LINE_SIZE")]
pub const MAX_LINE: usize = 4096;

/// The least `mem=`, in bytes: with less there is no room for the kernel.
pub const MIN_MEM: u64 = 64 << 20;

/// What to do when boot is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Init {
    /// Take commands at the console.
    #[default]
    Shell,
    /// Stay idle, so that the memory can be looked at from outside.
    Halt,
    /// End with the self-tests' verdict.
    Poweroff,
    /// Print the cost table, then end.
    Bench,
    /// Churn on all CPUs for a while, as [`Soak`] says, then end.
    Soak,
}

/// What the command line says. Strings in it are parts of the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options<'a> {
    /// `hugepagesz=`, `hugepages=`, `default_hugepagesz=`.
    pub hugepages: Hugepages<'a>,
    /// `hugetlb_free_vmemmap=`: whether huge pages are folded. Off unless asked
    /// for, as in Linux.
    #[doc(alias = "hugetlb_optimize_vmemmap")]
    pub hugetlb_free_vmemmap: bool,
    /// `mem=`: bytes of RAM to use.
    pub mem: Option<u64>,
    /// `numa=`.
    pub numa: NumaOption,
    /// `maxcpus=`, `nosmp`: CPUs to start, at least the one that boots.
    pub max_cpus: Option<u64>,
    /// `watchdog_thresh=`: half of the seconds that a CPU may keep others waiting; 0: for ever.
    pub watchdog_thresh: u64,
    /// `tlb_single_page_flush_ceiling=`: ranges of more pages drop all translations.
    #[doc(alias = "tlb_single_page_flush_ceiling")]
    pub flush_ceiling: u64,
    /// `vmemmap_steps=`: whether folding splits a leaf, and flushes, before entries change (2), or
    /// does both at once (1).
    pub two_steps: bool,
    /// `selftest=`, as typed: `on`, `off`, `list` or patterns. Reading it is up to
    /// whoever has the tests.
    #[doc(alias = "kunit.filter_glob")]
    pub selftest: &'a str,
    /// `init=`.
    pub init: Init,
    /// `bench=`, as typed: `instructions`, `time`, `list` or patterns. Reading it is up to
    /// whoever has the benchmarks.
    pub bench: &'a str,
    /// `soak=`, `soak_seed=`: what `init=soak` does.
    pub soak: Soak,
    /// `script=`: commands that the shell runs at boot, with `;` between them.
    pub script: Option<&'a str>,
    /// `loglevel=`, `quiet`, `debug`: lines of this level and above are not shown.
    #[doc(alias = "console_loglevel")]
    pub loglevel: u8,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            hugepages: Hugepages::default(),
            hugetlb_free_vmemmap: false,
            mem: None,
            numa: NumaOption::Auto,
            max_cpus: None,
            watchdog_thresh: WATCHDOG_THRESH,
            flush_ceiling: FULL_FLUSH_CEILING,
            two_steps: false,
            selftest: "on",
            init: Init::Shell,
            script: None,
            bench: "instructions",
            soak: Soak::default(),
            loglevel: LOGLEVEL_DEFAULT,
        }
    }
}

/// Seconds of `watchdog_thresh=` if it is not given.
#[doc(alias = "watchdog_thresh")]
pub const WATCHDOG_THRESH: u64 = 10;
/// Most seconds that `watchdog_thresh` takes, on the command line and in its control file.
#[doc(alias = "sixty")]
pub const WATCHDOG_THRESH_MAX: u64 = 60;

#[doc(alias = "CONSOLE_LOGLEVEL_DEFAULT")]
const LOGLEVEL_DEFAULT: u8 = 7;
#[doc(alias = "CONSOLE_LOGLEVEL_QUIET")]
const LOGLEVEL_QUIET: u8 = 4;
#[doc(alias = "CONSOLE_LOGLEVEL_DEBUG")]
const LOGLEVEL_DEBUG: u8 = 10;

/// Why a word was ignored. Displays with what would be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why<'a> {
    /// No such word.
    Unknown,
    /// The value is not UTF-8.
    NotUtf8,
    /// The line has so many bytes; from this word on nothing was read.
    LineTooLong(usize),
    /// The value is missing or none of those that there are: an example or list.
    Expected(&'static str),
    /// The word takes no value.
    NoValue,
    /// Less memory than [`MIN_MEM`].
    TooLittleMemory,
    /// Not a size of huge pages.
    BadPageSize,
    /// The CPU cannot map 1 GiB.
    NoGigabytePages,
    /// `hugepagesz=` named the size before.
    SizeTwice,
    /// `default_hugepagesz=` was there before.
    DefaultTwice,
    /// `hugepages=` behind a bad `hugepagesz=`.
    NoPageSize,
    /// A second `hugepages=` for one size.
    CountTwice,
    /// Not a number of huge pages.
    BadCount,
    /// Not `node:count`.
    BadNodeCount(&'a str),
    /// A node beyond the highest that there can be.
    NoSuchNode(&'a str),
    /// A node has two counts.
    NodeTwice(NodeId),
    /// Two counts for the default size. The word is not ignored: the one that
    /// named the size is.
    ImplicitWins {
        /// The default size.
        order: Order,
        /// The count that is ignored.
        loser: u64,
        /// The count that is used.
        winner: u64,
    },
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown, ignored"),
            Self::NotUtf8 => f.write_str("not UTF-8, ignored"),
            Self::LineTooLong(bytes) => write!(
                f,
                "the line has {bytes} bytes, more than {MAX_LINE}: cut here"
            ),
            Self::Expected(right) => write!(f, "ignored; use {right}"),
            Self::NoValue => f.write_str("takes no value, ignored"),
            Self::TooLittleMemory => {
                write!(f, "too little, ignored; use mem={}M or more", MIN_MEM >> 20)
            }
            Self::BadPageSize => f.write_str("no huge page size, ignored; use 2M or 1G"),
            Self::NoGigabytePages => f.write_str("this CPU has no 1G pages, ignored; use 2M"),
            Self::SizeTwice => f.write_str("size specified twice, ignored"),
            Self::DefaultTwice => f.write_str("default size specified before, ignored"),
            Self::NoPageSize => f.write_str("does not follow a valid hugepagesz, ignored"),
            Self::CountTwice => {
                f.write_str("specified twice without interleaving hugepagesz=, ignored")
            }
            Self::BadCount => {
                f.write_str("not a count, ignored; use hugepages=64 or hugepages=0:32,1:32")
            }
            Self::BadNodeCount(item) => {
                write!(f, "'{item}' is not node:count, ignored; use 0:32,1:32")
            }
            Self::NoSuchNode(item) => {
                write!(
                    f,
                    "no such node in '{item}', ignored; nodes are 0 to {LAST_NODE}"
                )
            }
            Self::NodeTwice(node) => write!(f, "node {node} is there twice, ignored"),
            Self::ImplicitWins {
                order,
                loser,
                winner,
            } => write!(
                f,
                "ignoring hugepages={loser} associated with {}M page size, using \
                 hugepages={winner} for number of default huge pages",
                order.bytes() >> 20
            ),
        }
    }
}

impl<'a> Options<'a> {
    /// Reads `line`: up to a NUL, words with white space between them, `"` around
    /// spaces; what follows `--` is not for the kernel. `gbpages` says whether the
    /// CPU has 1 GiB pages. Bad words go to `complain`.
    #[must_use]
    #[doc(alias = "parse_args")]
    pub fn parse(
        line: &'a [u8],
        gbpages: bool,
        complain: &mut dyn FnMut(Word<'_>, Why<'_>),
    ) -> Self {
        let mut parser = Parser {
            options: Self::default(),
            hugepages: HugepagesParser::new(gbpages),
        };
        let (line, cut) = usable_part(line);
        for word in Words::new(line).take_while(|word| word.text() != b"--") {
            if let Err(why) = parser.word(word) {
                complain(word, why);
            }
        }
        if let Some((word, why)) = cut {
            complain(word, why);
        }
        Self {
            hugepages: parser.hugepages.finish(complain),
            ..parser.options
        }
    }

    /// Whether log lines of `level` are to be shown.
    #[must_use]
    pub const fn shows(&self, level: Level) -> bool {
        let level = match level {
            Level::Warn => 4,
            Level::Info => 6,
        };
        level < self.loglevel
    }
}

/// The line without what editors put before it and what is too much of it; the
/// first word that had to go.
fn usable_part(line: &[u8]) -> (&[u8], Option<(Word<'_>, Why<'_>)>) {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let end = line.iter().position(|byte| *byte == 0);
    let line = &line[..end.unwrap_or(line.len())];
    if line.len() <= MAX_LINE {
        return (line, None);
    }
    // Not in the middle of a word.
    let space = line[..=MAX_LINE].iter().rposition(|byte| is_space(*byte));
    let (kept, gone) = line.split_at(space.unwrap_or(0));
    let first = Words::new(gone).next();
    (kept, first.map(|word| (word, Why::LineTooLong(line.len()))))
}

struct Parser<'a> {
    options: Options<'a>,
    hugepages: HugepagesParser<'a>,
}

/// What a word with its value does.
type Handler = for<'a> fn(&mut Parser<'a>, Word<'a>, Option<&'a str>) -> Result<(), Why<'a>>;

impl<'a> Parser<'a> {
    const WORDS: [(&'static str, Handler); 20] = [
        ("hugepagesz", |p, _, value| {
            p.hugepages.size_word(value.unwrap_or_default())
        }),
        ("hugepages", |p, word, value| {
            p.hugepages.count_word(word, value.unwrap_or_default())
        }),
        ("default_hugepagesz", |p, _, value| {
            p.hugepages.default_word(value.unwrap_or_default())
        }),
        ("hugetlb_free_vmemmap", |p, _, value| {
            // Without a value a switch is on.
            p.options.hugetlb_free_vmemmap = strtobool(value.unwrap_or("1"))
                .ok_or(Why::Expected("hugetlb_free_vmemmap=on or =off"))?;
            Ok(())
        }),
        ("mem", |p, _, value| p.mem(value)),
        ("numa", |p, _, value| p.numa(value)),
        ("maxcpus", |p, _, value| {
            let cpus = value.and_then(number).ok_or(Why::Expected("maxcpus=4"))?;
            p.options.max_cpus = Some(cpus.max(1));
            Ok(())
        }),
        ("nosmp", |p, _, value| {
            no_value(value)?;
            p.options.max_cpus = Some(1);
            Ok(())
        }),
        ("watchdog_thresh", |p, _, value| {
            p.options.watchdog_thresh = value
                .and_then(number)
                .filter(|seconds| *seconds <= WATCHDOG_THRESH_MAX)
                .ok_or(Why::Expected(
                    "watchdog_thresh=0 (off) to watchdog_thresh=60",
                ))?;
            Ok(())
        }),
        ("selftest", |p, _, value| {
            p.options.selftest = value.unwrap_or("on");
            Ok(())
        }),
        ("init", |p, _, value| p.init(value)),
        ("bench", |p, _, value| {
            p.options.bench = value.ok_or(Why::Expected(
                "bench=instructions, bench=time or bench=GLOB",
            ))?;
            Ok(())
        }),
        // Linux has it in debugfs.
        ("tlb_single_page_flush_ceiling", |p, _, value| {
            p.options.flush_ceiling = value.and_then(number).ok_or(Why::Expected(
                "a number of pages, as in tlb_single_page_flush_ceiling=33",
            ))?;
            Ok(())
        }),
        ("vmemmap_steps", |p, _, value| {
            p.options.two_steps = match value {
                Some("1") => false,
                Some("2") => true,
                _ => return Err(Why::Expected("vmemmap_steps=1 or vmemmap_steps=2")),
            };
            Ok(())
        }),
        ("soak", |p, _, value| {
            p.options.soak.seconds = value
                .and_then(soak::seconds)
                .ok_or(Why::Expected("minutes, or seconds: soak=10 or soak=90s"))?;
            Ok(())
        }),
        ("soak_seed", |p, _, value| {
            p.options.soak.seed = value
                .and_then(number)
                .ok_or(Why::Expected("a number, as in soak_seed=1"))?;
            Ok(())
        }),
        ("script", |p, _, value| {
            let script = value.ok_or(Why::Expected("script=\"cat /proc/meminfo\""))?;
            p.options.script = Some(script);
            Ok(())
        }),
        ("loglevel", |p, _, value| {
            let level = value
                .and_then(number)
                .and_then(|level| u8::try_from(level).ok());
            p.options.loglevel = level
                .filter(|level| *level <= LOGLEVEL_DEBUG)
                .ok_or(Why::Expected("loglevel=0 to loglevel=10"))?;
            Ok(())
        }),
        ("quiet", |p, _, value| {
            no_value(value)?;
            p.options.loglevel = LOGLEVEL_QUIET;
            Ok(())
        }),
        ("debug", |p, _, value| {
            no_value(value)?;
            p.options.loglevel = LOGLEVEL_DEBUG;
            Ok(())
        }),
    ];

    fn word(&mut self, word: Word<'a>) -> Result<(), Why<'a>> {
        let known = Self::WORDS.iter().find(|(name, _)| word.is(name));
        let (_, handler) = known.ok_or(Why::Unknown)?;
        let value = word.value().map(core::str::from_utf8).transpose();
        handler(self, word, value.map_err(|_| Why::NotUtf8)?)
    }

    /// Twice means the smaller, as each takes away what is above it.
    #[doc(alias = "parse_memopt")]
    fn mem(&mut self, value: Option<&'a str>) -> Result<(), Why<'a>> {
        let bytes = value.and_then(memparse);
        let bytes = bytes.ok_or(Why::Expected("a size, as in mem=512M"))?;
        if bytes < MIN_MEM {
            return Err(Why::TooLittleMemory);
        }
        self.options.mem = Some(self.options.mem.map_or(bytes, |mem| mem.min(bytes)));
        Ok(())
    }

    /// As in Linux, nodes can be faked although those of the firmware are off.
    #[doc(alias = "numa_setup")]
    fn numa(&mut self, value: Option<&'a str>) -> Result<(), Why<'a>> {
        let value = value.unwrap_or_default();
        let fake = value.strip_prefix("fake=").and_then(number);
        let fake = fake.and_then(|nodes| u32::try_from(nodes).ok());
        match fake {
            Some(nodes) if nodes > 0 => self.options.numa = NumaOption::Fake(nodes),
            None if value == "off" => {
                if self.options.numa == NumaOption::Auto {
                    self.options.numa = NumaOption::Off;
                }
            }
            _ => return Err(Why::Expected("numa=off, or numa=fake=4 for four nodes")),
        }
        Ok(())
    }

    fn init(&mut self, value: Option<&'a str>) -> Result<(), Why<'a>> {
        self.options.init = match value.unwrap_or_default() {
            "halt" => Init::Halt,
            "poweroff" => Init::Poweroff,
            "bench" => Init::Bench,
            "soak" => Init::Soak,
            "shell" => Init::Shell,
            _ => {
                return Err(Why::Expected(
                    "init=shell, init=halt, init=poweroff, init=bench or init=soak",
                ));
            }
        };
        Ok(())
    }
}

fn no_value<'a>(value: Option<&str>) -> Result<(), Why<'a>> {
    value.map_or(Ok(()), |_| Err(Why::NoValue))
}
