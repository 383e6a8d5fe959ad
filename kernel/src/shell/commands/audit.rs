//! `audit`: whether tables, struct pages and ledger agree.

use core::fmt::{self, Write as _};

use ktest::Stop;
use shell::{Command, Context, Status};

use crate::state;

pub(super) struct Audit;

impl Command for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "check page tables and struct pages against the ledger"
    }

    fn run(&self, _: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        match suites::vmemmap_audit::run(&state::env()) {
            Ok(report) => {
                writeln!(context.io.out(), "{report}")?;
                Ok(Status::from(!report.is_ok()))
            }
            Err(Stop::Skipped(why)) => {
                writeln!(context.io.err(), "audit: {}", why.as_str())?;
                Ok(1)
            }
            Err(Stop::Failed(failure)) => {
                writeln!(context.io.err(), "audit: {failure}")?;
                Ok(1)
            }
        }
    }
}
