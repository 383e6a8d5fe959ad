//! The scheduler itself: it repeats itself, and it knows when nothing goes on.

use std::cell::Cell;

use mm::addr::{Pfn, PfnRange};
use mm::machine::{Memory as _, Processors as _};
use testkit::schedule::{Failure, Plan, Story, Strategy, run};
use testkit::{EmulatedMachine, Sabotage};

use crate::story::UnderReaders;

const RANDOM: Plan = Plan {
    strategy: Strategy::Random,
    seed: 5,
};

fn machine(cpus: usize) -> EmulatedMachine {
    let ram = PfnRange::new(Pfn::new(0), Pfn::new(16));
    EmulatedMachine::builder().ram(ram).cpus(cpus).build()
}

/// Everything that happens, by CPU and in order, in one schedule.
fn trace(plan: Plan) -> Vec<testkit::Event> {
    let story = UnderReaders {
        order: 7,
        split: false,
        multi_hit: None,
        sabotage: Sabotage::None,
    };
    let s = story.begin(&mut fastrand::Rng::with_seed(1));
    s.w.m.record_events(true);
    let mut events = Vec::new();
    let work = |cpu| story.act(&s, cpu, &mut fastrand::Rng::with_seed(cpu as u64));
    run(3, plan, &work).expect("an honest machine");
    events.append(&mut s.w.m.take_events());
    events
}

#[test]
fn the_same_plan_is_the_same_schedule() {
    let pct = Strategy::Pct {
        accesses: 4000,
        events: 300,
    };
    for strategy in [Strategy::Random, pct] {
        let seeds = [1, 2, 3, 4].map(|seed| trace(Plan { strategy, seed }));
        for (n, first) in seeds.iter().enumerate() {
            let seed = n as u64 + 1;
            assert!(*first == trace(Plan { strategy, seed }), "seed {seed}");
        }
        assert!(seeds.iter().any(|trace| *trace != seeds[0]), "{strategy:?}");
    }
}

#[test]
fn plans_are_written_and_read() {
    for text in ["random:17", "pct:4000:300:18446744073709551615"] {
        let plan: Plan = text.parse().expect("a plan");
        assert_eq!(plan.to_string(), text);
    }
    for text in ["", "17", "random", "random:x", "pct:1:2", "pct:1:2:3:4"] {
        let error = text.parse::<Plan>().expect_err("no plan");
        assert!(error.contains("write random:SEED"), "{error}");
    }
}

#[test]
fn every_cpu_runs_and_is_who_it_is() {
    let m = machine(4);
    let seen = Cell::new(0);
    let work = |cpu| {
        for _ in 0..20 {
            m.read_phys(Pfn::new(0).phys());
            assert_eq!(m.this_cpu(), cpu);
        }
        seen.set(seen.get() | 1 << cpu);
    };
    let steps = run(4, RANDOM, &work).expect("nothing fails");
    assert_eq!(seen.get(), 0b1111);
    assert!(steps.switches > 4, "{steps:?}");
    assert_eq!(m.this_cpu(), 0);
}

/// A round waits for a CPU with interrupts off, and a CPU stands still while it
/// handles an interrupt.
#[test]
fn a_round_waits_for_interrupts_to_be_on() {
    let mut waited = 0;
    for seed in 0..50 {
        let m = machine(2);
        let critical = Cell::new(false);
        let was_off = Cell::new(false);
        let ended = Cell::new(false);
        let work = |cpu| {
            if cpu == 0 {
                m.wait_until("a critical part", &mut || critical.get() || ended.get());
                was_off.set(critical.get());
                // Not `Sync`, but all of it runs on this thread.
                let look = || assert!(m.this_cpu() == 0 || m.irq_is_on(1), "in a critical part");
                m.on_each_cpu(&look);
                return;
            }
            for _ in 0..8 {
                let irq = m.irq_save();
                critical.set(true);
                m.read_phys(Pfn::new(0).phys());
                m.read_phys(Pfn::new(0).phys());
                critical.set(false);
                m.irq_restore(irq);
            }
            ended.set(true);
        };
        let plan = Plan {
            strategy: Strategy::Random,
            seed,
        };
        run(2, plan, &work).expect("nothing fails");
        waited += u32::from(was_off.get());
    }
    assert!(
        waited > 25,
        "{waited} of 50 rounds began in a critical part"
    );
}

#[test]
fn a_deadlock_is_told() {
    let m = machine(2);
    let flushed = Cell::new(false);
    // CPU 1 waits, deaf, for a round that waits for CPU 1.
    let work = |cpu| {
        if cpu == 0 {
            m.wait_until("the deaf", &mut || !m.irq_is_on(1));
            m.on_each_cpu(&|| ());
            flushed.set(true);
        } else {
            let irq = m.irq_save();
            m.wait_until("the flush", &mut || flushed.get());
            m.irq_restore(irq);
        }
    };
    let failure = run(2, RANDOM, &work).expect_err("a deadlock");
    assert!(
        matches!(&failure, Failure::Deadlock { waiting } if *waiting == [0, 1]),
        "{failure}"
    );
}

#[test]
fn a_livelock_is_told() {
    let m = machine(2);
    let work = |cpu| {
        if cpu == 1 {
            loop {
                m.read_phys(Pfn::new(0).phys());
            }
        }
    };
    let failure = run(2, RANDOM, &work).expect_err("a livelock");
    assert!(
        matches!(&failure, Failure::Livelock { running } if *running == [1]),
        "{failure}"
    );
}

#[test]
fn a_panic_is_told_and_the_others_are_unwound() {
    struct Count<'a>(&'a Cell<u32>);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let m = machine(3);
    let unwound = Cell::new(0);
    let work = |cpu| {
        let _count = Count(&unwound);
        let irq = m.irq_save();
        loop {
            m.read_phys(Pfn::new(0).phys());
            assert!(cpu != 2 || unwound.get() > 0, "on purpose");
            if cpu == 3 {
                break;
            }
        }
        m.irq_restore(irq);
    };
    let failure = run(3, RANDOM, &work).expect_err("a panic");
    assert_eq!(failure.to_string(), "CPU 2: on purpose");
    assert_eq!(unwound.get(), 3);
    assert_eq!(m.this_cpu(), 0);
}
