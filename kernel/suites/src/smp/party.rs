//! A case that runs on every CPU at once: they meet, and the first failure counts.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ktest::{Outcome, Stop, fail};
use mm::machine::Machine;

/// All CPUs at work on one case.
pub(super) struct Party<'a, M: Machine> {
    m: &'a M,
    /// How often a CPU has come to [`Party::meet`].
    arrived: AtomicUsize,
    /// One of them has stopped before its end, so nobody need wait for it.
    broken: AtomicBool,
    first: spin::Mutex<Option<(usize, Stop)>>,
}

/// Tells the others, also when a CPU of a host test leaves by a panic.
struct Leaving<'a> {
    broken: &'a AtomicBool,
    well: bool,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if !self.well {
            // Release: pairs with the acquire of whoever waits.
            self.broken.store(true, Ordering::Release);
        }
    }
}

impl<'a, M: Machine> Party<'a, M> {
    /// Runs `work(party, cpu)` on every CPU; the first failure or skip of any, with the
    /// CPU's number.
    pub(super) fn run(m: &'a M, work: impl Fn(&Self, usize) -> Outcome + Sync) -> Outcome {
        let party = Self {
            m,
            arrived: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            first: spin::Mutex::new(None),
        };
        m.run_on_each(&|cpu| {
            let mut leaving = Leaving {
                broken: &party.broken,
                well: false,
            };
            match work(&party, cpu) {
                Ok(()) => leaving.well = true,
                Err(stop) => {
                    party.first.lock().get_or_insert((cpu, stop));
                }
            }
        });
        match party.first.into_inner() {
            None => Ok(()),
            Some((cpu, Stop::Failed(failure))) => Err(Stop::failed(
                failure.file,
                failure.line,
                format_args!("CPU {cpu}: {}", failure.message),
            )),
            Some((_, skipped)) => Err(skipped),
        }
    }

    /// Whether some CPU has stopped before its end.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Waits until all CPUs are here.
    pub(super) fn meet(&self) -> Outcome {
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let all = arrived.next_multiple_of(self.m.cpus());
        self.wait("the other CPUs of a self-test", || {
            self.arrived.load(Ordering::Acquire) >= all
        })
    }

    /// Waits until `done`.
    pub(super) fn wait(&self, what: &str, done: impl Fn() -> bool) -> Outcome {
        self.m.wait_until(what, &mut || done() || self.is_broken());
        if !done() {
            fail!("left alone: another CPU stopped first");
        }
        self.m.touch_watchdog();
        Ok(())
    }
}
