//! How property tests run.

use proptest::test_runner::{Config, RngSeed};

/// Returns the settings for `cases` histories, or another input each, that are the same in every
/// run, so that a red build is a change's fault. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` look for
/// new ones.
#[must_use]
pub fn same_in_every_run(cases: u32) -> Config {
    same_from(0x7a11_f01d, cases)
}

/// As [`same_in_every_run`], for one of several tests that share a body: each has a `seed`.
#[must_use]
pub fn same_from(seed: u64, cases: u32) -> Config {
    let asked = std::env::var("PROPTEST_RNG_SEED");
    let asked = asked.ok().and_then(|seed| seed.parse().ok());
    Config {
        cases,
        max_shrink_iters: 400,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(asked.unwrap_or(seed)),
        ..Config::default()
    }
}
