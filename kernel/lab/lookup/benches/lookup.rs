//! Criterion's view of the same loops, at three working sets: in the caches of one core,
//! about as large as the last-level cache, and past it.

use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lookup::{Bench, Chain, Scenario, memory_that_fits};

const WORKING_SETS: [(&str, u64); 3] = [("64MiB", 1 << 14), ("2GiB", 1 << 19), ("16GiB", 1 << 22)];

fn lookups(c: &mut Criterion) {
    let (gib, why) = memory_that_fits(16).unwrap_or_else(|why| panic!("{why}"));
    if let Some(why) = why {
        println!("16 GiB: {why}; measuring {gib} GiB");
    }
    for scenario in Scenario::ALL {
        if !["head", "random-tail", "mixed"].contains(&scenario.name) {
            continue;
        }
        let bench = Bench::new(scenario.population, gib).unwrap_or_else(|why| panic!("{why}"));
        let names: Vec<_> = bench.names().collect();
        for (label, frames) in WORKING_SETS {
            if frames > gib << 18 {
                continue;
            }
            for chain in Chain::ALL {
                let title = format!("{} {} {label}", scenario.name, chain.name());
                let mut group = c.benchmark_group(title);
                for (n, name) in names.iter().enumerate() {
                    group.bench_function(BenchmarkId::from_parameter(name), |b| {
                        bench.run(n, scenario.pattern, Chain::Independent, frames, frames, 0);
                        b.iter_custom(|lookups| {
                            let from = Instant::now();
                            bench.run(n, scenario.pattern, chain, frames, lookups, 1);
                            from.elapsed()
                        });
                    });
                }
                group.finish();
            }
        }
    }
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(400));
    targets = lookups
}
criterion_main!(all);
