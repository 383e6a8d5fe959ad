//! The command line: what words mean, and that nothing breaks it.

use mm::addr::{NodeId, Order};
use mm::machine::Level;
use mm::numa::NumaOption;
use params::{Init, MAX_LINE, Options, Request, memparse, strtobool};
use proptest::collection::vec;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Complaints as `word: why`.
fn parse_bytes(line: &[u8], gbpages: bool) -> (Options<'_>, Vec<String>) {
    let mut complaints = Vec::new();
    let options = Options::parse(line, gbpages, &mut |word, why| {
        complaints.push(format!("{word}: {why}"));
    });
    (options, complaints)
}

fn parse(line: &str) -> (Options<'_>, Vec<String>) {
    parse_bytes(line.as_bytes(), true)
}

/// The options of a line with nothing wrong.
#[track_caller]
fn good(line: &str) -> Options<'_> {
    let (options, complaints) = parse(line);
    assert_eq!(complaints, [""; 0], "{line}");
    options
}

/// The options of a line whose only complaint is `word: why`.
#[track_caller]
fn bad<'a>(line: &'a str, complaint: &str) -> Options<'a> {
    let (options, complaints) = parse(line);
    assert_eq!(complaints, [complaint], "{line}");
    options
}

/// 2 MiB and 1 GiB pages asked for in all, and the default order.
fn pages(options: &Options<'_>) -> (Option<u64>, Option<u64>, u8) {
    let total = |order| options.hugepages.get(order).map(Request::total);
    (
        total(Order::PMD),
        total(Order::PUD),
        options.hugepages.default_order().get(),
    )
}

fn nodes(request: Option<Request<'_>>) -> Vec<(u8, u64)> {
    match request {
        Some(Request::Nodes(counts)) => counts.into_iter().map(|(n, c)| (n.get(), c)).collect(),
        other => panic!("{other:?} has no nodes"),
    }
}

#[test]
fn every_word() {
    let options = good(
        "hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=128 hugetlb_free_vmemmap=on \
         mem=512M numa=fake=3 maxcpus=2 selftest=buddy*,hvo:t? init=poweroff loglevel=5 \
         watchdog_thresh=30",
    );
    assert_eq!(pages(&options), (Some(128), Some(2), 9));
    assert!(options.hugetlb_free_vmemmap);
    assert_eq!(options.mem, Some(512 * MIB));
    assert_eq!(options.numa, NumaOption::Fake(3));
    assert_eq!(options.max_cpus, Some(2));
    assert_eq!(options.watchdog_thresh, 30);
    assert_eq!(options.selftest, "buddy*,hvo:t?");
    assert_eq!(options.init, Init::Poweroff);
    assert!(options.shows(Level::Warn) && !options.shows(Level::Info));
    assert_eq!(good(""), Options::default());
    assert_eq!(good(" \t\r\n "), Options::default());
    assert!(good("").shows(Level::Info));
}

#[test]
fn soak_takes_minutes_or_seconds() {
    let soak = |line| {
        let options = good(line);
        assert_eq!(options.init, Init::Soak, "{line}");
        (options.soak.seconds, options.soak.seed)
    };
    assert_eq!(soak("init=soak"), (600, 1));
    assert_eq!(soak("init=soak soak=3"), (180, 1));
    assert_eq!(soak("init=soak soak=3m soak_seed=0x10"), (180, 16));
    assert_eq!(soak("soak=90s init=soak soak_seed=0"), (90, 0));
    for text in ["", "0", "0s", "s", "m", "1.5", "-1", "2h", "44640", "1e3"] {
        let line = format!("soak={text}");
        let complaint = format!("{line}: ignored; use minutes, or seconds: soak=10 or soak=90s");
        assert_eq!(bad(&line, &complaint), Options::default());
    }
    bad(
        "soak_seed=x",
        "soak_seed=x: ignored; use a number, as in soak_seed=1",
    );
}

#[test]
fn bench_and_flush_ceiling() {
    assert_eq!(good("init=bench").bench, "instructions");
    assert_eq!(good("init=bench bench=time").bench, "time");
    // Which groups there are, the kernel's benchmarks know.
    assert_eq!(good("bench=pools,t*").bench, "pools,t*");
    bad(
        "bench",
        "bench: ignored; use bench=instructions, bench=time or bench=GLOB",
    );
    for (line, two_steps) in [
        ("", false),
        ("vmemmap_steps=1", false),
        ("vmemmap_steps=2", true),
    ] {
        assert_eq!(good(line).two_steps, two_steps);
    }
    for text in ["", "0", "3", "two"] {
        let line = format!("vmemmap_steps={text}");
        let complaint = format!("{line}: ignored; use vmemmap_steps=1 or vmemmap_steps=2");
        bad(&line, &complaint);
    }
    assert_eq!(good("").flush_ceiling, 33);
    for (line, pages) in [
        ("tlb_single_page_flush_ceiling=0", 0),
        ("tlb-single-page-flush-ceiling=0x200", 512),
    ] {
        assert_eq!(good(line).flush_ceiling, pages);
    }
    for text in ["", "-1", "many", "1M"] {
        let line = format!("tlb_single_page_flush_ceiling={text}");
        let complaint = format!(
            "{line}: ignored; use a number of pages, as in tlb_single_page_flush_ceiling=33"
        );
        bad(&line, &complaint);
    }
}

#[test]
fn requests_come_largest_first() {
    let options = good("hugepages=5 hugepagesz=1G hugepages=2");
    let sizes: Vec<_> = options.hugepages.iter().collect();
    assert_eq!(
        sizes,
        [
            (Order::PUD, Request::Total(2)),
            (Order::PMD, Request::Total(5))
        ]
    );
}

#[test]
fn counts_go_where_linux_puts_them() {
    for (line, expected) in [
        ("hugepages=7", (Some(7), None, 9)),
        ("hugepages=7 default_hugepagesz=1G", (None, Some(7), 18)),
        ("default_hugepagesz=1G hugepages=3", (None, Some(3), 18)),
        (
            "default_hugepagesz=1G hugepagesz=1G hugepages=3",
            (None, Some(3), 18),
        ),
        (
            "hugepages=7 hugepagesz=1G hugepages=1",
            (Some(7), Some(1), 9),
        ),
        (
            "hugepagesz=1G hugepages=1 default_hugepagesz=2M hugepages=4",
            (Some(4), Some(1), 9),
        ),
        ("hugepagesz=1073741824 hugepages=1", (None, Some(1), 9)),
        ("hugepagesz=2048k hugepages=0", (Some(0), None, 9)),
        ("hugepagesz=1G", (None, None, 9)),
        ("hugepages=7 hugepagesz=2M", (Some(7), None, 9)),
    ] {
        assert_eq!(pages(&good(line)), expected, "{line}");
    }
}

#[test]
fn huge_page_words_that_are_ignored() {
    const TWICE: &str = "specified twice without interleaving hugepagesz=, ignored";
    const SIZE_TWICE: &str = "size specified twice, ignored";
    const NO_SIZE: &str = "does not follow a valid hugepagesz, ignored";
    const NOT_A_SIZE: &str = "no huge page size, ignored; use 2M or 1G";
    for (line, complaints, expected) in [
        (
            "hugepages=1 hugepages=2",
            vec![("hugepages=2", TWICE)],
            (Some(1), None, 9),
        ),
        (
            "hugepagesz=1G hugepages=1 hugepages=2",
            vec![("hugepages=2", TWICE)],
            (None, Some(1), 9),
        ),
        (
            "hugepagesz=1G hugepages=1 hugepagesz=1G hugepages=2",
            vec![("hugepagesz=1G", SIZE_TWICE), ("hugepages=2", NO_SIZE)],
            (None, Some(1), 9),
        ),
        (
            "default_hugepagesz=1G hugepages=1 hugepagesz=1G hugepages=2",
            vec![("hugepagesz=1G", SIZE_TWICE), ("hugepages=2", NO_SIZE)],
            (None, Some(1), 18),
        ),
        (
            "hugepagesz=2M hugepages=6 hugepagesz=1G hugepages=1 default_hugepagesz=2M hugepages=7",
            vec![("hugepages=7", TWICE)],
            (Some(6), Some(1), 9),
        ),
        (
            "hugepagesz=3M hugepages=2 hugepages=5",
            vec![("hugepagesz=3M", NOT_A_SIZE), ("hugepages=2", NO_SIZE)],
            (Some(5), None, 9),
        ),
        (
            "default_hugepagesz=2M default_hugepagesz=1G hugepagesz=1G hugepages=1",
            vec![(
                "default_hugepagesz=1G",
                "default size specified before, ignored",
            )],
            (None, Some(1), 9),
        ),
        (
            "default_hugepagesz=junk hugepagesz=1G hugepages=1",
            vec![("default_hugepagesz=junk", NOT_A_SIZE)],
            (None, Some(1), 9),
        ),
        (
            "hugepagesz",
            vec![("hugepagesz", NOT_A_SIZE)],
            (None, None, 9),
        ),
    ] {
        let (options, got) = parse(line);
        let expected_text: Vec<_> = complaints
            .iter()
            .map(|(w, y)| format!("{w}: {y}"))
            .collect();
        assert_eq!(got, expected_text, "{line}");
        assert_eq!(pages(&options), expected, "{line}");
    }
}

#[test]
fn an_implicit_count_wins() {
    let why = |loser: u64, size: &str, winner: u64| {
        format!(
            "ignoring hugepages={loser} associated with {size} page size, \
             using hugepages={winner} for number of default huge pages"
        )
    };
    let options = bad(
        "hugepages=7 hugepagesz=2M hugepages=3",
        &format!("hugepages=7: {}", why(3, "2M", 7)),
    );
    assert_eq!(pages(&options), (Some(7), None, 9));
    let options = bad(
        "hugepages=7 hugepagesz=1G hugepages=3 default_hugepagesz=1G",
        &format!("default_hugepagesz=1G: {}", why(3, "1024M", 7)),
    );
    assert_eq!(pages(&options), (None, Some(7), 18));
}

#[test]
fn no_gigabyte_pages() {
    let (options, complaints) = parse_bytes(b"hugepagesz=1G hugepages=1 hugepages=2", false);
    assert_eq!(
        complaints,
        [
            "hugepagesz=1G: this CPU has no 1G pages, ignored; use 2M",
            "hugepages=1: does not follow a valid hugepagesz, ignored",
        ]
    );
    assert_eq!(pages(&options), (Some(2), None, 9));
}

#[test]
fn node_form() {
    let options = good("hugepages=0:1,63:4 hugepagesz=1G hugepages=2:5,");
    assert_eq!(nodes(options.hugepages.get(Order::PMD)), [(0, 1), (63, 4)]);
    assert_eq!(nodes(options.hugepages.get(Order::PUD)), [(2, 5)]);
    assert_eq!(pages(&options), (Some(5), Some(5), 9));

    for (value, why) in [
        (
            "0:1,64:1",
            "no such node in '64:1', ignored; nodes are 0 to 63",
        ),
        (
            "0:1,256:1",
            "no such node in '256:1', ignored; nodes are 0 to 63",
        ),
        ("0:1,5", "'5' is not node:count, ignored; use 0:32,1:32"),
        ("0:", "'0:' is not node:count, ignored; use 0:32,1:32"),
        (":1", "':1' is not node:count, ignored; use 0:32,1:32"),
        ("0:1,,1:1", "'' is not node:count, ignored; use 0:32,1:32"),
        ("3:1,3:2", "node 3 is there twice, ignored"),
        (
            "5,0",
            "not a count, ignored; use hugepages=64 or hugepages=0:32,1:32",
        ),
        (
            "-1",
            "not a count, ignored; use hugepages=64 or hugepages=0:32,1:32",
        ),
        (
            "",
            "not a count, ignored; use hugepages=64 or hugepages=0:32,1:32",
        ),
        (
            "64x",
            "not a count, ignored; use hugepages=64 or hugepages=0:32,1:32",
        ),
    ] {
        let line = format!("hugepages={value}");
        let options = bad(&line, &format!("{line}: {why}"));
        assert_eq!(pages(&options), (None, None, 9));
    }
}

#[test]
fn requests_for_missing_nodes_go_whole() {
    let mut options = good("hugepages=0:1,1:4,2:9 hugepagesz=1G hugepages=1:5");
    let mut gone = Vec::new();
    options.hugepages.retain_nodes(
        |node| node.get() < 2,
        |order, node, total| gone.push((order.get(), node.get(), total)),
    );
    assert_eq!(gone, [(9, 2, 14)]);
    assert_eq!(pages(&options), (None, Some(5), 9));
}

#[test]
fn switches_and_numbers() {
    for (value, on) in [
        ("1", true),
        ("y", true),
        ("on", true),
        ("0", false),
        ("off", false),
    ] {
        let line = format!("hugetlb_free_vmemmap=on hugetlb_free_vmemmap={value}");
        assert_eq!(good(&line).hugetlb_free_vmemmap, on);
    }
    assert!(good("hugetlb_free_vmemmap").hugetlb_free_vmemmap);
    assert!(good("hugetlb-free-vmemmap=y").hugetlb_free_vmemmap);
    let options = bad(
        "hugetlb_free_vmemmap=on hugetlb_free_vmemmap=maybe",
        "hugetlb_free_vmemmap=maybe: ignored; use hugetlb_free_vmemmap=on or =off",
    );
    assert!(options.hugetlb_free_vmemmap);

    for (value, bytes) in [
        ("1G", GIB),
        ("0x40000000", GIB),
        ("2g", 2 * GIB),
        ("1048576K", GIB),
    ] {
        assert_eq!(good(&format!("mem={value}")).mem, Some(bytes));
    }
    // Linux: each takes away what lies above it.
    assert_eq!(good("mem=1G mem=2G").mem, Some(GIB));
    assert_eq!(
        bad("mem=4K", "mem=4K: too little, ignored; use mem=64M or more").mem,
        None
    );
    for value in [
        "mem",
        "mem=",
        "mem=lots",
        "mem=1GB",
        "mem=-1G",
        "mem=99999999999T",
    ] {
        bad(
            value,
            &format!("{value}: ignored; use a size, as in mem=512M"),
        );
    }

    assert_eq!(good("nosmp").max_cpus, Some(1));
    assert_eq!(good("maxcpus=0").max_cpus, Some(1));
    assert_eq!(good("maxcpus=8 maxcpus=3").max_cpus, Some(3));
    bad("maxcpus=", "maxcpus=: ignored; use maxcpus=4");
    assert_eq!(good("watchdog_thresh=0").watchdog_thresh, 0);
    for word in [
        "watchdog_thresh",
        "watchdog_thresh=61",
        "watchdog_thresh=-1",
    ] {
        let why = "ignored; use watchdog_thresh=0 (off) to watchdog_thresh=60";
        assert_eq!(bad(word, &format!("{word}: {why}")).watchdog_thresh, 10);
    }
    assert_eq!(
        bad("nosmp=1", "nosmp=1: takes no value, ignored").max_cpus,
        None
    );
}

#[test]
fn numa_words() {
    assert_eq!(good("numa=off").numa, NumaOption::Off);
    assert_eq!(good("numa=fake=0x10").numa, NumaOption::Fake(16));
    assert_eq!(good("numa=off numa=fake=2").numa, NumaOption::Fake(2));
    assert_eq!(good("numa=fake=2 numa=off").numa, NumaOption::Fake(2));
    for value in [
        "numa",
        "numa=fake",
        "numa=fake=0",
        "numa=fake=4G",
        "numa=on",
        "numa=fake=-1",
        "numa=fake=4294967296",
    ] {
        let why = "ignored; use numa=off, or numa=fake=4 for four nodes";
        assert_eq!(
            bad(value, &format!("{value}: {why}")).numa,
            NumaOption::Auto
        );
    }
}

#[test]
fn init_and_loglevel() {
    assert_eq!(good("init=poweroff init=bench").init, Init::Bench);
    assert_eq!(good("").init, Init::Shell);
    assert_eq!(good("init=poweroff init=shell").init, Init::Shell);
    let script = good("script=\"cat /proc/meminfo; audit\"").script;
    assert_eq!(script, Some("cat /proc/meminfo; audit"));
    bad(
        "script",
        "script: ignored; use script=\"cat /proc/meminfo\"",
    );
    bad(
        "init=/sbin/init",
        "init=/sbin/init: ignored; use init=shell, init=halt, init=poweroff, init=bench or init=soak",
    );
    assert!(!good("quiet").shows(Level::Warn));
    assert!(good("quiet debug").shows(Level::Info));
    for value in ["loglevel=11", "loglevel=x", "loglevel"] {
        bad(
            value,
            &format!("{value}: ignored; use loglevel=0 to loglevel=10"),
        );
    }
    assert_eq!(good("selftest").selftest, "on");
}

#[test]
fn words_are_cut_as_linux_cuts_them() {
    assert_eq!(good(r#"selftest="a b" mem=1G"#).selftest, "a b");
    assert_eq!(good(r#""selftest=a b" mem=1G"#).selftest, "a b");
    assert_eq!(good(r#"selftest="open mem=1G"#).selftest, "open mem=1G");
    assert_eq!(good(r#"selftest=a"b c"d"#).selftest, r#"a"b c"d"#);
    assert_eq!(good("selftest=a=b").selftest, "a=b");
    assert_eq!(good("\u{feff}quiet\r\n\tmem=1G\x0bnosmp").mem, Some(GIB));
    // Not for the kernel, or not there at all.
    assert_eq!(good("mem=1G -- mem=2G junk").mem, Some(GIB));
    assert_eq!(good("mem=1G\0 junk").mem, Some(GIB));
    bad("memory=1G", "memory=1G: unknown, ignored");
    bad("=", "=: unknown, ignored");
    bad("\"", "\": unknown, ignored");
}

#[test]
fn strange_bytes_are_shown_escaped() {
    let (_, complaints) = parse_bytes(b"selftest=\xff\x1b b\x07d\xc3\xa4", true);
    assert_eq!(
        complaints,
        [
            "selftest=\\xff\\u{1b}: not UTF-8, ignored",
            "b\\u{7}d\u{e4}: unknown, ignored"
        ]
    );
    let long = "x".repeat(100);
    bad(&long, &format!("{}...: unknown, ignored", "x".repeat(64)));
}

#[test]
fn a_line_too_long_is_cut_between_words() {
    let line = format!("{:pad$}mem=1G", "quiet", pad = MAX_LINE - 6);
    assert_eq!(line.len(), MAX_LINE);
    assert_eq!(good(&line).mem, Some(GIB));
    let line = format!("{line}B nosmp");
    let why = format!(
        "the line has {} bytes, more than {MAX_LINE}: cut here",
        line.len()
    );
    let options = parse(&line).0;
    assert_eq!((options.mem, options.max_cpus), (None, None));
    let complaints = parse(&line).1;
    assert_eq!(complaints.last(), Some(&format!("mem=1GB: {why}")));

    let one_word = "y".repeat(MAX_LINE + 1);
    assert_eq!(parse(&one_word).1.len(), 1);
}

/// Words that mean something, and some that do not.
fn any_word() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "hugepages",
        "hugepagesz",
        "default_hugepagesz",
        "hugetlb_free_vmemmap",
        "mem",
        "numa",
        "maxcpus",
        "nosmp",
        "watchdog_thresh",
        "selftest",
        "init",
        "loglevel",
        "quiet",
        "junk",
    ]);
    let value = prop::sample::select(vec![
        "",
        "0",
        "1",
        "7",
        "2M",
        "1G",
        "0:1",
        "0:1,1:2",
        "fake=3",
        "off",
        "on",
        "\"a b\"",
        "\"",
        "--",
        "99999999999999999999",
        "0:18446744073709551615,1:1",
        "é",
    ]);
    (name, any::<bool>(), value)
        .prop_map(|(n, eq, v)| if eq { format!("{n}={v}") } else { n.to_owned() })
}

/// The rules for huge pages, as a second, plainer reading of them: sizes are kept
/// as text and everything as it comes.
fn model_totals(words: &[(usize, u64)]) -> [u64; 2] {
    // 0: hugepages=n, 1: hugepagesz=2M, 2: hugepagesz=1G,
    // 3: default_hugepagesz=2M, 4: default_hugepagesz=1G
    let mut count = [0u64; 2];
    let mut registered = Vec::new();
    let mut default = None;
    let mut implicit = None;
    let mut last = None;
    let mut ok = true;
    for &(word, n) in words {
        match word {
            0 if !ok => ok = true,
            0 => match registered.last() {
                None if last.is_none() => {
                    implicit = Some(n);
                    last = Some(9);
                }
                None => {}
                Some(&size) if last == Some(size) || count[size] > 0 => {}
                Some(&size) => {
                    count[size] = n;
                    last = Some(size);
                }
            },
            1 | 2 => {
                let size = word - 1;
                ok = !registered.contains(&size) || (default == Some(size) && count[size] == 0);
                if ok {
                    registered.push(size);
                }
            }
            _ => {
                let size = word - 3;
                ok = default.is_none();
                if ok {
                    registered.push(size);
                    default = Some(size);
                    count[size] = implicit.take().unwrap_or(count[size]);
                }
            }
        }
    }
    let size = default.unwrap_or(0);
    count[size] = implicit.unwrap_or(count[size]);
    count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(line in vec(any::<u8>(), 0..200), gbpages: bool) {
        let (options, complaints) = parse_bytes(&line, gbpages);
        prop_assert!(complaints.iter().all(|c| !c.contains(|c: char| c.is_control())));
        prop_assert!(complaints.len() <= line.len());
        let _ = options.hugepages.iter().count();
    }

    /// Either a word had an effect or there is a complaint that starts with it.
    #[test]
    fn any_words_are_survived(words in vec(any_word(), 0..12)) {
        let line = words.join(" ");
        let (options, complaints) = parse(&line);
        for complaint in &complaints {
            let word = complaint.split(": ").next().unwrap();
            prop_assert!(line.contains(word.trim_end_matches("...")), "{complaint}");
        }
        for (order, request) in options.hugepages.iter() {
            prop_assert!(order == Order::PMD || order == Order::PUD);
            if let Request::Nodes(counts) = request {
                prop_assert!(counts.into_iter().count() > 0);
                prop_assert!(counts.into_iter().all(|(node, _)| NodeId::new(node.get()).is_some()));
            }
        }
        if !line.contains('"') && !line.contains("--") {
            let junk = words.iter().filter(|w| w.split('=').next() == Some("junk")).count();
            let named = complaints.iter().filter(|c| c.ends_with("unknown, ignored")).count();
            prop_assert_eq!(named, junk);
        }
    }

    #[test]
    fn huge_page_rules(words in vec((0..5usize, 0..9u64), 0..10)) {
        let text: Vec<_> = words.iter().map(|(word, n)| match word {
            0 => format!("hugepages={n}"),
            1 => "hugepagesz=2M".to_owned(),
            2 => "hugepagesz=1G".to_owned(),
            3 => "default_hugepagesz=2M".to_owned(),
            _ => "default_hugepagesz=1G".to_owned(),
        }).collect();
        let line = text.join(" ");
        let (options, _) = parse(&line);
        let total = |order| options.hugepages.get(order).map_or(0, Request::total);
        prop_assert_eq!([total(Order::PMD), total(Order::PUD)], model_totals(&words), "{}", line);
    }

    #[test]
    fn memparse_reads_what_is_printed(n: u64, shift in 0..7u32) {
        let suffix = ["", "k", "M", "g", "T", "P", "e"][shift as usize];
        let expected = n.checked_mul(1 << (10 * shift));
        prop_assert_eq!(memparse(&format!("{n}{suffix}")), expected);
        if shift < 6 {
            prop_assert_eq!(memparse(&format!("{n:#x}{suffix}")), expected);
        }
        prop_assert_eq!(memparse(&format!("0{n:o}{suffix}")), expected);
        prop_assert_eq!(memparse(&format!("+{n}{suffix}")), None);
        prop_assert_eq!(memparse(&format!("{n}{suffix}.")), None);
    }
}

#[test]
fn switches() {
    for on in ["y", "Y", "yes", "t", "1", "on", "oN", "enable"] {
        assert_eq!(strtobool(on), Some(true), "{on}");
    }
    for off in ["n", "No", "f", "0", "off", "OF", "disable"] {
        assert_eq!(strtobool(off), Some(false), "{off}");
    }
    for neither in ["", "o", "2", "x", " 1"] {
        assert_eq!(strtobool(neither), None, "{neither}");
    }
}
