//! Every self-test body, on the emulated machine: one CPU, two nodes, 4 GiB.

use testkit::World;

/// A machine like a small two-node PC, with a hole.
fn world() -> World {
    World::new(&[(1, 2047, 0), (3072, 2048, 1)], |builder| builder)
}

macro_rules! host {
    ($suite:ident: $($case:ident),* $(,)?) => {
        mod $suite {
            $(
                #[test]
                fn $case() {
                    let world = super::world();
                    match suites::$suite::$case(&world.env()) {
                        Ok(()) => {}
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
