//! The memmaps that are measured are right.

use native::lookup::{Bench, Chain, Pattern, Population};

#[test]
fn every_page_leads_to_its_folio_by_every_way() {
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
    let bench = Bench::new(Population::Mixed, Bench::MIN_GIB).unwrap_or_else(|why| panic!("{why}"));
    for n in 0..bench.names().count() {
        for pattern in [Pattern::Sequential, Pattern::Random] {
            for chain in Chain::ALL {
                bench.run(n, pattern, chain, 256, 1000);
                bench.run(n, pattern, chain, Bench::MIN_GIB << 18, 1000);
            }
        }
    }
}

#[test]
fn leaves_are_large_pages_of_the_hosts_or_it_is_said() {
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
            bench.run(n, Pattern::Sequential, Chain::Independent, frames, frames);
        }
        assert_eq!(bench.large_pages().map(drop), Ok(()), "{population:?}");
    }
}
