//! Every self-test body, on the emulated machine: two CPUs that speculate, two
//! nodes, 4 GiB, and freed frames that bite. Those about several CPUs on four, too.

use testkit::World;

/// A machine like a small two-node PC, with a hole, and RAM up to `end` MiB.
fn world(cpus: usize, end: u64) -> World {
    let world = World::builder()
        .ram(0, 1, 2048)
        .ram(1, 3072, end)
        .cpus(cpus)
        .boot();
    world.speculate(0.05, 1);
    world
}

macro_rules! host {
    ($from:tt::$suite:ident: $($case:ident),* $(,)?) => {
        mod $suite {
            $(
                #[test]
                fn $case() {
                    let world = crate::world(super::CPUS, super::END);
                    let env = world.env();
                    match suites::tidy(&env, || $from::$suite::$case(&env)) {
                        Ok(()) => world.check(),
                        Err(ktest::Stop::Failed(failure)) => panic!("{failure}"),
                        // What this machine is too small for runs in QEMU.
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

const CPUS: usize = 2;
const END: u64 = 5120;
const MAY_SKIP: &[&str] = &[
    "order_19",
    "order_20",
    "order_21",
    "order_22",
    "blocks_of_1g",
    // No command line here; `boot_folded` has machines that boot with one.
    "goes_and_comes_back",
    "one_frame_is_its_own",
];

suites::for_each_suite!(host);
lab_cases::for_each_suite!(host);

mod four_cpus {
    const CPUS: usize = 4;
    /// So that 2 GiB are free in one piece.
    const END: u64 = 6144;
    const MAY_SKIP: &[&str] = &[];

    suites::for_each_smp_suite!(host);
}
