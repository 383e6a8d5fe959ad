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
            assert!(names.iter().any(|name| name == wanted), "{names:?}");
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
