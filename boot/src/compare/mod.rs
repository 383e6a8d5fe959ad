//! Side by side with the real thing: boots Debian's Linux and Tailfold in the same
//! machine, types the same script at both shells, and compares what comes of each line.

pub mod bench;
pub mod command;
pub mod console;
pub mod cpio;
pub mod debian;
pub mod guest;
pub mod linux;
pub mod report;
pub mod rule;
pub mod script;
pub mod verdict;
pub mod wording;

use std::path::PathBuf;

use self::console::{Outcome, Shell};
use self::guest::Guest;
use self::linux::Linux;
use self::report::Report;
use self::script::{Script, Side};
use self::verdict::{Row, judge};
use crate::accel::Accelerator;
use crate::artifact::Firmware;
use crate::error::Error;
use crate::machine::Machine;
use crate::size::Size;
use crate::workspace::Workspace;

/// RAM of a script that does not say.
const MEMORY: Size = Size::mib(2048);

/// Where the scripts are, in the checkout.
pub const SCRIPTS: &str = "tests/compare";

/// Tailfold's shell on the serial port.
pub const TAILFOLD_SHELL: Shell = Shell {
    name: "Tailfold",
    prompt: "tailfold# ",
    echoes: true,
};

/// Words that every Tailfold gets: as [`linux`]'s, and no self-tests.
const TAILFOLD_COMMAND_LINE: &str = "hugetlb_free_vmemmap=on selftest=off init=shell";

/// What is compared, and in which machine.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The checkout.
    pub workspace: Workspace,
    /// Linux, unless only Tailfold is typed at.
    pub linux: Option<Linux>,
    /// Tailfold's image for BIOS, unless only Linux is typed at.
    pub tailfold: Option<PathBuf>,
    /// Who executes the instructions.
    pub accelerator: Accelerator,
    /// In place of what the script says.
    pub memory: Option<Size>,
    /// In place of what the script says.
    pub nodes: Option<u32>,
    /// In place of what the script says.
    pub smp: Option<u32>,
}

/// What came of a line on one side, and the kernel's log meanwhile.
struct Answer {
    outcome: Outcome,
    log: Vec<String>,
}

impl Comparison {
    /// Runs `script` on both sides, one after the other.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn run(&self, script: &Script) -> Result<Report, Error> {
        let mut answers = [None, None];
        for (side, answers) in Side::ALL.into_iter().zip(&mut answers) {
            let shell = match side {
                Side::Linux => linux::SHELL,
                Side::Tailfold => TAILFOLD_SHELL,
            };
            if let Some(machine) = self.machine(side, script) {
                *answers = Some(self.answers(&machine, side, shell, script)?);
            }
        }
        let mut rows: Vec<Row> = Vec::new();
        let version = self.linux.as_ref();
        let version = version.and_then(|linux| linux.package.linux_version());
        for (n, step) in script.steps.iter().enumerate() {
            let mut outcomes = [None, None];
            let mut logs = [Vec::new(), Vec::new()];
            for (side, answers) in answers.iter_mut().enumerate() {
                if let Some(answer) = answers.as_mut().and_then(|all| all[n].take()) {
                    (outcomes[side], logs[side]) = (Some(answer.outcome), answer.log);
                }
            }
            let step = step.for_linux(version);
            rows.push(Row {
                verdict: judge(&step, &outcomes, &rows, version),
                step,
                outcomes,
                logs,
            });
        }
        Ok(Report {
            script: script.name.clone(),
            heading: self.heading(script),
            rows,
        })
    }

    /// The machine of one side, if it takes part.
    fn machine(&self, side: Side, script: &Script) -> Option<Machine> {
        let mut machine = Machine::new(PathBuf::new(), Firmware::Bios);
        let append = |words: &str| format!("{words} {}", script.append).trim_end().to_owned();
        match side {
            Side::Linux => {
                let mut boot = self.linux.as_ref()?.boot.clone();
                boot.command_line = append(&boot.command_line);
                machine.direct = Some(boot);
                // Linux patches its code while other processors run it. On threads of their own,
                // one of QEMU's may meet the breakpoint after it is gone, and Linux 7.3 dies of it.
                machine.in_turns = true;
            }
            Side::Tailfold => {
                machine.disk.clone_from(self.tailfold.as_ref()?);
                machine.command_line = Some(append(TAILFOLD_COMMAND_LINE));
            }
        }
        machine.accelerator = self.accelerator;
        (machine.memory, machine.nodes, machine.smp) = self.shape(script);
        machine.shape.clone_from(&script.numa);
        Some(machine)
    }

    fn shape(&self, script: &Script) -> (Size, u32, u32) {
        (
            self.memory.or(script.memory).unwrap_or(MEMORY),
            self.nodes.or(script.nodes).unwrap_or(1),
            self.smp.or(script.smp).unwrap_or(1),
        )
    }

    fn heading(&self, script: &Script) -> String {
        let (memory, nodes, smp) = self.shape(script);
        let linux = self.linux.as_ref().map_or_else(String::new, |linux| {
            format!("Linux {}, ", linux.package.version)
        });
        format!("{linux}{memory}, nodes: {nodes}, processors: {smp}")
    }

    /// What comes of each line on one side; nothing for lines that are for the other.
    fn answers(
        &self,
        machine: &Machine,
        side: Side,
        shell: Shell,
        script: &Script,
    ) -> Result<Vec<Option<Answer>>, Error> {
        let log = self.workspace.target_dir("compare")?;
        let log = log.join(format!("{}.{}.log", script.name, side.name()));
        let mut guest = Guest::boot(machine, shell, &log)?;
        let index = usize::from(side == Side::Tailfold);
        let steps = script.steps.iter().map(|step| {
            let line = step.lines[index].as_ref()?;
            let outcome = guest.console.run(line, step.limit);
            let log = guest.console.take_log();
            Some(Answer { outcome, log })
        });
        Ok(steps.collect())
    }
}
