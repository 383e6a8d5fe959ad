//! The memmaps that are measured are right.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lookup::{
    Bench, Chain, Host, Mapping, Measured, Pattern, Point, Population, Scenario, Spread, plot,
    spread, tables,
};

/// One test with memmaps at a time: the host's limit on mappings is a process's, and was raised for
/// one of them.
static MAPPINGS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_page_leads_to_its_folio_by_every_way() {
    let _alone = alone();
    for population in Population::ALL {
        let bench = Bench::new(population, Bench::MIN_GIB).unwrap_or_else(|why| panic!("{why}"));
        let names: Vec<_> = bench.names().collect();
        let checked = bench.check().unwrap_or_else(|why| panic!("{why}"));
        // All but the loop alone.
        assert_eq!(checked, (names.len() as u64 - 1) * (Bench::MIN_GIB << 18));
        for wanted in [
            "pointer/56",
            "mask/64",
            "order/32",
            "memdesc/8",
            "fake-head/64",
        ] {
            let is = |name: &String| name.trim_end_matches("+4k") == wanted;
            assert!(names.iter().any(is), "{names:?}");
        }
        let folds = population != Population::Single;
        let folded = names.iter().filter(|name| name.contains("+hvo")).count();
        assert_eq!(folded > 0, folds, "{population:?}: {names:?}");
        assert!(
            !names
                .iter()
                .any(|name| name.starts_with("pointer") && name.contains("hvo"))
        );
    }
}

#[test]
fn loops_read_what_they_are_given() {
    let _alone = alone();
    for population in [Population::Large, Population::Mixed] {
        let bench = Bench::new(population, Bench::MIN_GIB).unwrap_or_else(|why| panic!("{why}"));
        for (n, name) in bench.names().enumerate() {
            for pattern in [Pattern::Sequential, Pattern::Random] {
                for frames in [256, Bench::MIN_GIB << 18] {
                    let sum = bench.sum(n, pattern, frames, 1000, 5);
                    assert_ne!(sum, 0, "{name}: all folios have flags");
                    for chain in Chain::ALL {
                        let found = bench.run(n, pattern, chain, frames, 1000, 5);
                        assert_eq!(found, sum, "{name}, {pattern:?}, {chain:?}, {frames}");
                    }
                }
            }
        }
    }
}

#[test]
fn leaves_are_large_pages_of_the_hosts_or_it_is_said() {
    let _alone = alone();
    for population in Population::ALL {
        let bench = Bench::new(population, Bench::MIN_GIB).unwrap_or_else(|why| panic!("{why}"));
        let names: Vec<_> = bench.names().collect();
        if !names.iter().any(|name| name == "mask/64") {
            let text = bench.large_pages().expect_err("a host without such pages");
            assert!(text.contains("MADV_COLLAPSE"), "{text}");
            assert!(
                names.iter().any(|name| name == "pointer/64+4k"),
                "{names:?}"
            );
            continue;
        }
        assert!(names.iter().any(|name| name == "mask/64+4k"), "{names:?}");
        assert!(names.iter().any(|name| name == "memdesc/8+4k"), "{names:?}");
        let text = bench.large_pages().expect_err("nothing was looked up yet");
        assert!(text.contains("mask/64: 0 of 64 MiB"), "{text}");
        let frames = Bench::MIN_GIB << 18;
        for n in 0..names.len() {
            bench.run(
                n,
                Pattern::Sequential,
                Chain::Independent,
                frames,
                frames,
                0,
            );
        }
        assert_eq!(bench.large_pages().map(drop), Ok(()), "{population:?}");
    }
}

fn point(scenario: &Scenario, encoding: &'static str, frames: u64, median: f64) -> Point {
    Point {
        scenario: scenario.name,
        chain: Chain::Dependent,
        encoding,
        size: 64,
        mapping: Mapping::Large,
        frames,
        touched: frames * 64,
        ns: Spread {
            min: median,
            lower: median,
            median,
            upper: median,
        },
        misses: None,
    }
}

#[test]
fn reports_say_what_is_chance_and_what_maps_the_memmaps() {
    let scenario = Scenario::ALL[0];
    let mut measured = Measured {
        points: vec![
            point(&scenario, "pointer", 256, 2.0),
            point(&scenario, "pointer again", 256, 2.1),
            point(&scenario, "pointer", 512, 5.0),
            point(&scenario, "pointer again", 512, 4.0),
            point(&scenario, "mask", 512, 50.0),
        ],
        mapped: vec![
            (Population::Single, Ok(String::from("9 MiB of memmaps"))),
            (Population::Large, Err(String::from("7 of 8 MiB"))),
        ],
    };
    assert_eq!(
        spread(&measured.points, &scenario, Chain::Dependent),
        Some(1.25)
    );
    assert_eq!(
        spread(&measured.points, &scenario, Chain::Independent),
        None
    );
    let host = Host {
        model: String::from("none"),
        caches: Vec::new(),
    };
    let texts = |measured: &Measured| {
        let picture = plot(measured, &[scenario], Chain::Dependent, &host);
        [tables(measured, &[scenario]), picture]
    };
    for text in texts(&measured) {
        for wanted in [
            "two identical memmaps differ by up to 25 %",
            "Single: 9 MiB of memmaps",
            "NOT AS IN A KERNEL, Large folios: 7 of 8 MiB",
            "Descriptors lie densely in pfn order",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
    measured.points.retain(|p| p.encoding != "pointer again");
    for text in texts(&measured) {
        assert!(text.contains("no memmap was measured twice"), "{text}");
    }
}
