//! Many schedules of one story.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::plan::{Plan, Steps, Strategy};
use super::runner::{run, text};

/// Where the plan of one schedule to be replayed is looked for.
const VARIABLE: &str = "TAILFOLD_SEED";

/// What is run under many schedules.
pub trait Story {
    /// The state that all CPUs share, made anew for each schedule.
    type State;

    /// CPUs that take part.
    fn cpus(&self) -> usize;

    /// Makes the state. `random` belongs to the schedule.
    fn begin(&self, random: &mut fastrand::Rng) -> Self::State;

    /// What `cpu` does. `random` is its own.
    fn act(&self, state: &Self::State, cpu: usize, random: &mut fastrand::Rng);

    /// What must hold when all are done.
    fn end(&self, state: Self::State);
}

/// How many schedules were run, and what they took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Explored {
    /// Schedules.
    pub schedules: u64,
    /// Points of all of them.
    pub points: u64,
    /// Switches of all of them.
    pub switches: u64,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            schedules,
            points,
            switches,
        } = self;
        write!(
            f,
            "{schedules} schedules, {points} points, {switches} switches"
        )
    }
}

/// A schedule under which a story fails.
#[derive(Clone, Debug)]
pub struct Found {
    /// The plan.
    pub plan: Plan,
    /// How many schedules it took to find it, this one included.
    pub nth: u64,
    /// What went wrong.
    pub text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, nth, text } = self;
        write!(f, "schedule {nth}, {plan}: {text}")
    }
}

fn once<S: Story>(story: &S, plan: Plan) -> Result<Steps, String> {
    let dice = |salt: u64| fastrand::Rng::with_seed(plan.seed.wrapping_mul(64).wrapping_add(salt));
    // Cloned numbers, not a shared generator: what a CPU draws does not hang on when.
    let run_it = || {
        let state = story.begin(&mut dice(63));
        let work = |cpu: usize| story.act(&state, cpu, &mut dice(cpu as u64));
        let steps = run(story.cpus(), plan, &work).map_err(|failure| failure.to_string())?;
        story.end(state);
        Ok(steps)
    };
    catch_unwind(AssertUnwindSafe(run_it))
        .unwrap_or_else(|payload| Err(format!("afterwards: {}", text(payload.as_ref()))))
}

/// Runs `story` under up to `schedules` schedules, half of them random, half with
/// priorities.
///
/// # Errors
/// The first that fails.
pub fn search<S: Story>(story: &S, schedules: u64) -> Result<Explored, Found> {
    let mut total = Explored::default();
    // The longest so far.
    let mut horizon = Steps::default();
    for seed in 0..schedules {
        let strategy = if seed % 2 == 0 {
            Strategy::Random
        } else {
            Strategy::Pct {
                accesses: horizon.accesses,
                events: horizon.events,
            }
        };
        let plan = Plan { strategy, seed };
        let steps = once(story, plan).map_err(|text| Found {
            plan,
            nth: seed + 1,
            text,
        })?;
        horizon.accesses = horizon.accesses.max(steps.accesses);
        horizon.events = horizon.events.max(steps.events);
        total.schedules += 1;
        total.points += steps.points;
        total.switches += steps.switches;
    }
    Ok(total)
}

/// [`search`] that must find nothing. With `TAILFOLD_SEED` set, runs that one schedule
/// instead. `name` is the test's.
///
/// # Panics
/// With what went wrong, and a line that says how to see it again.
pub fn explore<S: Story>(name: &str, story: &S, schedules: u64) -> Explored {
    let found = match std::env::var(VARIABLE) {
        Ok(plan) => {
            let plan: Plan = plan
                .parse()
                .unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
            once(story, plan)
                .map(|steps| Explored {
                    schedules: 1,
                    points: steps.points,
                    switches: steps.switches,
                })
                .map_err(|text| Found { plan, nth: 1, text })
        }
        Err(_) => search(story, schedules),
    };
    found.unwrap_or_else(|Found { plan, nth, text }| {
        // Which package's tests these are is cargo's to know.
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "testkit".to_owned());
        panic!(
            "{text}\nschedule {nth} failed; replay: {VARIABLE}={plan} cargo test -p {package} --test schedules {name}"
        )
    })
}
