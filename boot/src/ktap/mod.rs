//! Reading KTAP version 1 out of a serial log (kernel document `dev-tools/ktap`).
//!
//! Results are nested by suite, two spaces a level. The reader is strict where a
//! lost or doubled line could pass for success (plans, numbers, names, parents,
//! totals), and deaf to everything else on the console.

mod line;
mod parse;

pub use parse::{bail_out, parse};

/// How a case ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// `ok`.
    Passed,
    /// `not ok`.
    Failed,
    /// `ok … # SKIP`.
    Skipped,
}

/// One case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Name of the suite; of nested ones, joined by `:`. Empty without a suite.
    pub suite: String,
    /// Name of the case.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Reason behind `# SKIP` or another directive.
    pub reason: String,
    /// The `#` lines in front of its result.
    pub diagnostics: Vec<String>,
}

impl Case {
    /// `suite:name`, as `selftest=` takes it.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.suite.is_empty() {
            self.name.clone()
        } else {
            format!("{}:{}", self.suite, self.name)
        }
    }
}

/// What a log says.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Report {
    /// Every case, in order.
    pub cases: Vec<Case>,
    /// The reason behind `Bail out!`.
    pub bail_out: Option<String>,
    /// What is missing or contradictory; empty for a complete plan.
    pub problems: Vec<String>,
}

impl Report {
    /// Number of cases that ended with `status`.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.cases
            .iter()
            .filter(|case| case.status == status)
            .count()
    }
}
