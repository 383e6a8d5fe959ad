//! The in-kernel suites on the host's real processor: each CPU a thread.

use native::{World, WorldBuilder};

macro_rules! host {
    ($from:tt::$suite:ident: $($case:ident),* $(,)?) => {
        mod $suite {
            $(
                #[test]
                fn $case() {
                    let world = super::world();
                    let env = world.env();
                    match suites::tidy(&env, || $from::$suite::$case(&env)) {
                        Ok(()) => world.check(),
                        Err(ktest::Stop::Failed(failure)) => panic!("{failure}"),
                        Err(ktest::Stop::Skipped(reason)) => {
                            assert!(
                                super::MAY_SKIP.contains(&stringify!($case)),
                                "skipped: {reason}"
                            );
                            println!("skipped: {reason}");
                        }
                    }
                }
            )*
        }
    };
}

/// Two nodes with a hole between them, and on the second 2 GiB free in one piece.
fn world() -> World {
    boot(World::builder().ram(0, 1, 2304).ram(1, 3072, 7168).cpus(4))
}

fn boot(builder: WorldBuilder) -> World {
    builder.boot().unwrap_or_else(|why| panic!("{why}"))
}

const MAY_SKIP: &[&str] = &[
    // Too small; `large` has them.
    "order_19",
    "order_20",
    "order_21",
    "order_22",
    // No command line here: QEMU and the emulated machine boot with one.
    "goes_and_comes_back",
    "one_frame_is_its_own",
];

suites::for_each_suite!(host);
lab_cases::for_each_suite!(host);

/// 16 GiB in one piece: the host gives memory only for what is touched, the memmap.
mod large {
    use native::World;

    fn world() -> World {
        super::boot(World::builder().ram(0, 1, 33 << 10))
    }

    const MAY_SKIP: &[&str] = &[];

    host! { suites::gigantic: order_19, order_20, order_21, order_22 }
}
