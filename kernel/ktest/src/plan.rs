//! The order of a run.

use crate::case::Case;
use crate::filter::Selection;

/// Most cases a program may have: the plan is built without an allocator.
pub const MAX_CASES: usize = 1024;

/// There are more than [`MAX_CASES`] cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany(
    /// How many there are.
    pub usize,
);

/// The cases of a run, sorted by suite, then name: the order of the registry is
/// that of the linker.
pub struct Plan<'a> {
    sorted: [Option<&'a Case>; MAX_CASES],
    len: usize,
}

/// The cases of one suite, in order.
#[derive(Clone, Copy, Debug)]
pub struct Suite<'p, 'a> {
    cases: &'p [Option<&'a Case>],
}

impl<'a> Plan<'a> {
    /// Those of `cases` that `keep` accepts.
    ///
    /// # Errors
    /// [`TooMany`], if `cases` has more than [`MAX_CASES`].
    pub fn new(cases: &'a [Case], keep: impl Fn(&Case) -> bool) -> Result<Self, TooMany> {
        if cases.len() > MAX_CASES {
            return Err(TooMany(cases.len()));
        }
        let mut plan = Self {
            sorted: [None; MAX_CASES],
            len: 0,
        };
        for case in cases.iter().filter(|case| keep(case)) {
            plan.sorted[plan.len] = Some(case);
            plan.len += 1;
        }
        plan.sorted[..plan.len]
            .sort_unstable_by_key(|case| case.map(|case| (case.suite, case.name)));
        Ok(plan)
    }

    /// Those of `cases` that `selection` selects.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn select(cases: &'a [Case], selection: Selection<'_>) -> Result<Self, TooMany> {
        Self::new(cases, |case| selection.selects(case))
    }

    /// Number of cases.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is to run.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The suites in order; none is empty.
    pub fn suites(&self) -> impl Iterator<Item = Suite<'_, 'a>> + Clone {
        self.sorted[..self.len]
            .chunk_by(|a, b| a.map(|case| case.suite) == b.map(|case| case.suite))
            .map(|cases| Suite { cases })
    }
}

impl core::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list()
            .entries(self.sorted[..self.len].iter().flatten())
            .finish()
    }
}

impl<'a> Suite<'_, 'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.cases
            .first()
            .copied()
            .flatten()
            .map_or("", |case| case.suite)
    }

    /// Number of cases.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there is no case in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Its cases in order.
    pub fn cases(&self) -> impl Iterator<Item = &'a Case> {
        self.cases.iter().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::case::Case;

    const fn case(suite: &'static str, name: &'static str) -> Case {
        Case {
            suite,
            name,
            manual: false,
            run: || Ok(()),
        }
    }

    #[test]
    fn sorts_by_suite_then_name() {
        let cases = [
            case("b", "y"),
            case("a", "z"),
            case("b", "x"),
            case("a", "a"),
        ];
        let plan = Plan::new(&cases, |_| true).unwrap();
        let order: Vec<(&str, Vec<&str>)> = plan
            .suites()
            .map(|s| (s.name(), s.cases().map(|c| c.name).collect()))
            .collect();
        assert_eq!(order, [("a", vec!["a", "z"]), ("b", vec!["x", "y"])]);
    }

    #[test]
    fn leaves_out_what_is_not_kept() {
        let cases = [case("b", "y"), case("a", "z")];
        let plan = Plan::new(&cases, |c| c.suite == "b").unwrap();
        assert_eq!(plan.len(), 1);
        assert_eq!(plan.suites().count(), 1);
        assert!(Plan::new(&cases, |_| false).unwrap().is_empty());
    }

    #[test]
    fn refuses_more_than_fit() {
        let many: Vec<Case> = (0..=super::MAX_CASES).map(|_| case("a", "b")).collect();
        assert_eq!(
            Plan::new(&many, |_| true).unwrap_err(),
            super::TooMany(super::MAX_CASES + 1)
        );
    }
}
