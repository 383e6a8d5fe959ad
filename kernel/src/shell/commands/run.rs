//! `selftest` and `bench`.

use core::fmt::{self, Write as _};

use ktest::Selection;
use shell::{Command, Context, Status};

use super::printed;
use crate::{bench, selftest};

pub(super) struct SelfTest;

impl Command for SelfTest {
    fn name(&self) -> &'static str {
        "selftest"
    }

    fn usage(&self) -> &'static str {
        "[GLOB[,GLOB]... | list]"
    }

    fn about(&self) -> &'static str {
        "run self-tests, all or those named; KTAP"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let ([] | [_]) = args else {
            writeln!(context.io.err(), "selftest: too many arguments")?;
            return Ok(2);
        };
        let selection = Selection::parse(args.first().unwrap_or(&"on"));
        let run = printed(context, || selftest::run(selection))?;
        Ok(run.map_or(0, |run| Status::from(!run.totals.is_pass())))
    }
}

pub(super) struct Bench;

impl Command for Bench {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn usage(&self) -> &'static str {
        "[GLOB[,GLOB]... | instructions | time | list]"
    }

    fn about(&self) -> &'static str {
        "measure what things cost, by groups; those that count instructions if none is named"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let ([] | [_]) = args else {
            writeln!(context.io.err(), "bench: too many arguments")?;
            return Ok(2);
        };
        let groups = args.first().unwrap_or(&"instructions");
        match printed(context, || bench::run(groups))? {
            Ok(()) => Ok(0),
            Err(pattern) => {
                writeln!(
                    context.io.err(),
                    "bench: {pattern}: no such group; see bench list"
                )?;
                Ok(2)
            }
        }
    }

    fn complete(&self, _: &str, each: &mut dyn FnMut(&str)) {
        bench::names().for_each(each);
    }
}
