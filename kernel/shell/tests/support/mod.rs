//! A terminal that understands what a VT100 does and nothing else, and a machine for the
//! shell.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part of it"
)]

pub(crate) mod terminal;

use core::cell::RefCell;
use std::rc::Rc;

use shell::{Errno, Files, Host, Shell, kstrtoul, sysctl_ulong};

/// A host that keeps what is printed, with a clock that goes only in `idle`.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) printed: String,
    pub(crate) micros: u64,
    /// Ctrl-C comes when so many line breaks have been printed, or so many microseconds
    /// have passed.
    pub(crate) interrupt_after_lines: Option<usize>,
    pub(crate) interrupt_at: Option<u64>,
    /// Or when somebody has looked for it so many times.
    pub(crate) interrupt_after_looks: Option<usize>,
    pub(crate) log: String,
}

impl Host for Fake {
    fn print(&mut self, text: &str) {
        self.printed.push_str(text);
    }

    fn interrupted(&mut self) -> bool {
        if let Some(looks) = &mut self.interrupt_after_looks {
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                self.interrupt_after_looks = None;
                return true;
            }
        }
        let lines = self.printed.matches('\n').count();
        if self.interrupt_after_lines.is_some_and(|n| lines >= n) {
            self.interrupt_after_lines = None;
            return true;
        }
        if self.interrupt_at.is_some_and(|at| self.micros >= at) {
            self.interrupt_at = None;
            return true;
        }
        false
    }

    fn micros(&mut self) -> u64 {
        self.micros
    }

    fn idle(&mut self) {
        self.micros += 1000;
        assert!(self.micros < 1_000_000_000, "nothing ends the wait");
    }

    fn log(&mut self) -> String {
        self.log.clone()
    }
}

/// What the files of [`files`] show and take.
#[derive(Default, Debug)]
pub(crate) struct State {
    pub(crate) nr_hugepages: u64,
    pub(crate) per_node: [u64; 2],
    pub(crate) demoted: Vec<u64>,
    /// Every write to a file that takes one, as it came.
    pub(crate) written: Vec<String>,
}

pub(crate) type Shared = Rc<RefCell<State>>;

/// Files as the kernel has them, over a state that tests can see.
pub(crate) fn files(state: &Shared) -> Files<'static> {
    let mut files = Files::new();
    files.parameter("node", |each| (0..2).for_each(each));
    files.parameter("kb", |each| [2048, 1_048_576].into_iter().for_each(each));
    files.read_only("/proc/cmdline", |_, out| {
        Ok(writeln!(out, "selftest=off init=shell")?)
    });
    files.read_only("/proc/meminfo", |_, out| {
        Ok(out.write_str(
            "MemTotal:        8242104 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n",
        )?)
    });
    files.read_only("/proc/many", |_, out| {
        for n in 0..100_000 {
            writeln!(out, "line {n}")?;
        }
        Ok(())
    });
    let (show, store) = (state.clone(), state.clone());
    files.read_write(
        "/proc/sys/vm/nr_hugepages",
        move |_, out| Ok(writeln!(out, "{}", show.borrow().nr_hugepages)?),
        move |_, text| {
            let mut state = store.borrow_mut();
            state.written.push(text.into());
            state.nr_hugepages = sysctl_ulong(text)?;
            Ok(())
        },
    );
    files.read_only("/proc/sys/vm/fixed", |_, out| Ok(writeln!(out, "1")?));
    let (show, store) = (state.clone(), state.clone());
    files.read_write(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-{kb}kB/nr_hugepages",
        move |at, out| {
            let &[node, kb] = at else {
                return Err(Errno::ENOENT);
            };
            let n = show.borrow().per_node[usize::try_from(node).unwrap()];
            Ok(writeln!(out, "{}", n * 2048 / kb)?)
        },
        move |at, text| {
            let &[node, _] = at else {
                return Err(Errno::ENOENT);
            };
            let n = kstrtoul(text, 10)?;
            if n > 1000 {
                return Err(Errno::ENOMEM);
            }
            store.borrow_mut().per_node[usize::try_from(node).unwrap()] = n;
            Ok(())
        },
    );
    files.read_only("/sys/devices/system/node/online", |_, out| {
        Ok(writeln!(out, "0-1")?)
    });
    let store = state.clone();
    files.write_only(
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/demote",
        move |_, text| {
            let n = kstrtoul(text, 10)?;
            store.borrow_mut().demoted.push(n);
            Ok(())
        },
    );
    files.read_only(
        "/sys/kernel/mm/hugepages/hugepages-{kb}kB/free_hugepages",
        |at, out| Ok(writeln!(out, "{}", at[0])?),
    );
    files
}

/// A shell over [`files`], with its state.
pub(crate) fn shell() -> (Shell<'static>, Shared) {
    let state = Shared::default();
    (Shell::new(files(&state)), state)
}

/// What one line prints in a new shell.
pub(crate) fn output(line: &str) -> String {
    let mut host = Fake::default();
    shell().0.run_line(line, &mut host);
    host.printed
}
