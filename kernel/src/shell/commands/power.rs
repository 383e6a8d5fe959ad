//! `poweroff` and `reboot`.

use core::fmt::{self, Write as _};

use shell::{Command, Context, Status};

use crate::arch::x86_64::exit::{self, Verdict};

pub(super) struct PowerOff;

impl Command for PowerOff {
    fn name(&self) -> &'static str {
        "poweroff"
    }

    fn usage(&self) -> &'static str {
        "[STATUS]"
    }

    fn about(&self) -> &'static str {
        "end; STATUS 0 (pass) is QEMU's exit status 33, any other (fail) 35"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        match args.first().map_or(Ok(0_u8), |status| status.parse()) {
            Ok(0) => exit::end(Verdict::Pass),
            Ok(_) => exit::end(Verdict::Fail),
            Err(_) => {
                let status = args.first().unwrap_or(&"");
                writeln!(
                    context.io.err(),
                    "poweroff: {status}: numeric argument of 0 to 255 required"
                )?;
                Ok(2)
            }
        }
    }
}

pub(super) struct Reboot;

impl Command for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "start the machine again"
    }

    fn run(&self, _: &[&str], _: &mut Context<'_>) -> Result<Status, fmt::Error> {
        exit::reboot()
    }
}
