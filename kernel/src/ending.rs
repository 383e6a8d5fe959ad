//! The end of boot: the verdict, where it can be seen, and what `init=` says.

use params::{Init, Options};

use crate::arch::x86_64::exit::{self, Verdict};
use crate::arch::x86_64::{cpu, irq};
use crate::console::Level;
use crate::selftest::Run;
use crate::{bench, log, report, shell, soak, state};

/// Shows the result and does what `init=` says. `tested` is what came of the
/// self-tests, if they ran.
pub(crate) fn end(options: Options<'_>, tested: Option<Run>) -> ! {
    let soaked = (options.init == Init::Soak).then(|| soak::run(options.soak));
    let verdict = match &tested {
        Some(run) if !run.totals.is_pass() => Verdict::Fail,
        Some(_) | None => soaked.unwrap_or(Verdict::Pass),
    };
    let (level, text) = match (verdict, &tested) {
        (_, None) if soaked.is_none() => (Level::Info, "self-tests did not run"),
        (Verdict::Pass, _) => (Level::Info, "PASS"),
        (Verdict::Fail, _) => (Level::Warn, "FAIL"),
    };
    report::print_last_page(tested.as_ref(), (level, format_args!("Tailfold: {text}")));
    match options.init {
        Init::Shell => shell::run(state::script()),
        Init::Halt => {
            log!("init=halt: idle, with everything in place");
            irq::halt_forever()
        }
        Init::Poweroff | Init::Soak if cpu::features().hypervisor => exit::end(verdict),
        Init::Poweroff | Init::Soak => {
            log!("no hypervisor to end; switch the machine off");
            shell::stay()
        }
        Init::Bench => {
            let measured = bench::run(options.bench);
            if let Err(pattern) = measured {
                bench::complain(format_args!(
                    "bench={pattern}: no such group; see bench=list"
                ));
            }
            exit::end(if measured.is_ok() {
                verdict
            } else {
                Verdict::Fail
            })
        }
    }
}
