//! Every self-test body, on the emulated machine: two CPUs that speculate, two
//! nodes, 4 GiB, and freed frames that bite.

use testkit::World;

/// A machine like a small two-node PC, with a hole.
fn world() -> World {
    let world = World::builder().ram(0, 1, 2048).ram(1, 3072, 5120).boot();
    world.speculate(0.05, 1);
    world
}

macro_rules! host {
    ($suite:ident: $($case:ident),* $(,)?) => {
        mod $suite {
            $(
                #[test]
                fn $case() {
                    let world = super::world();
                    match suites::$suite::$case(&world.env()) {
                        Ok(()) => world.check(),
                        Err(ktest::Stop::Failed(failure)) => panic!("{failure}"),
                        // What this machine is too small for runs in QEMU.
                        Err(ktest::Stop::Skipped(reason)) => {
                            assert!(
                                MAY_SKIP.contains(&stringify!($case)),
                                "skipped: {reason}"
                            );
                            println!("skipped: {reason}");
                        }
                    }
                }
            )*
            const MAY_SKIP: &[&str] = &["order_19", "order_20", "order_21", "order_22"];
        }
    };
}

suites::for_each_suite!(host);
