//! Cases and what comes of them.

use alloc::boxed::Box;
use core::fmt;

use linkme::distributed_slice;

use crate::text::Text;

/// Every case of the program, in no particular order.
#[distributed_slice]
pub static CASES: [Case];

/// One self-test.
#[derive(Debug)]
pub struct Case {
    /// What it belongs to, as `subsystem_area`.
    pub suite: &'static str,
    /// Its name within the suite.
    pub name: &'static str,
    /// Runs only when its suite is named without wildcards: for cases that
    /// fail, or end the program, on purpose.
    pub manual: bool,
    /// The body.
    pub run: fn() -> Outcome,
}

/// What the body of a case returns.
pub type Outcome = Result<(), Stop>;

/// Why a body stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// A check did not hold.
    Failed(Box<Failure>),
    /// The case cannot run here, and why.
    Skipped(Box<Text<160>>),
}

impl Stop {
    /// A failure at a place in the source, as `fail!` reports it.
    #[must_use]
    pub fn failed(file: &'static str, line: u32, message: fmt::Arguments<'_>) -> Self {
        Self::Failed(Box::new(Failure {
            file,
            line,
            message: Text::of(message),
        }))
    }

    /// A skip with its reason, as `skip!` reports it.
    #[must_use]
    pub fn skipped(reason: fmt::Arguments<'_>) -> Self {
        Self::Skipped(Box::new(Text::of(reason)))
    }
}

/// A check that did not hold, and where it stands.
#[derive(Debug)]
pub struct Failure {
    /// Source file.
    pub file: &'static str,
    /// Line in it, from 1.
    pub line: u32,
    /// What was expected and what was found.
    pub message: Text<400>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.message, self.file, self.line)
    }
}

/// Registers the functions in it as cases of a suite.
///
/// A body ends early by `check!`, `check_eq!`, `skip!`, or `?` on a
/// `Result<_, Stop>`. With `manual = true` behind the suite the cases run only
/// when the suite is named without wildcards.
#[macro_export]
macro_rules! ktest {
    (suite = $suite:ident; $($rest:tt)*) => {
        $crate::ktest! { @each $suite false; $($rest)* }
    };
    (suite = $suite:ident, manual = true; $($rest:tt)*) => {
        $crate::ktest! { @each $suite true; $($rest)* }
    };
    (@each $suite:ident $manual:literal; $(
        $(#[$attr:meta])* fn $name:ident() $body:block
    )*) => { $(
        // A block of its own, so that two suites may use the same name.
        const _: () = {
            $(#[$attr])*
            fn $name() -> $crate::Outcome {
                #[expect(
                    clippy::allow_attributes,
                    reason = "whether a body stops early is not known here"
                )]
                #[allow(unreachable_code, reason = "a body may always stop early")]
                {
                    $body
                    Ok(())
                }
            }
            #[expect(unsafe_code, reason = "names the linker section of the registry")]
            #[$crate::linkme::distributed_slice($crate::CASES)]
            #[linkme(crate = $crate::linkme)]
            static CASE: $crate::Case = $crate::Case {
                suite: stringify!($suite),
                name: stringify!($name),
                manual: $manual,
                run: $name,
            };
        };
    )* };
}

/// Ends the case as failed unless the condition holds. A format string and its
/// arguments may follow, to say what was found.
#[macro_export]
macro_rules! check {
    ($cond:expr $(,)?) => {
        $crate::check!($cond, "expected {}", stringify!($cond))
    };
    ($cond:expr, $($arg:tt)+) => {{
        if let Some(stop) = $crate::trip(file!(), line!()) {
            return Err(stop);
        }
        if !$cond {
            $crate::fail!($($arg)+);
        }
    }};
}

/// Ends the case as failed unless both sides are equal; prints both.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr $(,)?) => {
        $crate::check_eq!($left, $right, "{} == {}", stringify!($left), stringify!($right))
    };
    ($left:expr, $right:expr, $($arg:tt)+) => {{
        if let Some(stop) = $crate::trip(file!(), line!()) {
            return Err(stop);
        }
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    $crate::fail!(
                        "{}: left is {left:?}, right is {right:?}",
                        format_args!($($arg)+)
                    );
                }
            }
        }
    }};
}

/// Ends the case as failed.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)+) => {
        return Err($crate::Stop::failed(file!(), line!(), format_args!($($arg)+)))
    };
}

/// Ends the case as skipped; the reason is not optional.
#[macro_export]
macro_rules! skip {
    ($($arg:tt)+) => {
        return Err($crate::Stop::skipped(format_args!($($arg)+)))
    };
}

/// Prints a diagnostic line that belongs to the running case.
#[macro_export]
macro_rules! diag {
    ($out:expr, $($arg:tt)+) => {
        $crate::diagnostic($out, format_args!($($arg)+))
    };
}
