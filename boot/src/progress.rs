//! How far a long piece of work is: a bar on a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Crates that the boot loader 0.11.15 compiles for its five stages together,
/// counted. Only the bar's length depends on it.
const BOOT_LOADER_CRATES: u64 = 111;

/// Lines of the output that an error message repeats.
const TAIL_LINES: usize = 40;

/// Follows the build of the boot loader by what cargo says.
#[derive(Debug)]
pub struct BootLoaderProgress {
    started: Instant,
    tail: VecDeque<String>,
    bar: Option<ProgressBar>,
    stages: u32,
}

impl Default for BootLoaderProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl BootLoaderProgress {
    /// Shows nothing until something is compiled.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            tail: VecDeque::new(),
            bar: None,
            stages: 0,
        }
    }

    /// Takes one line of `cargo build -vv`.
    pub fn line(&mut self, line: &str) {
        let Some(inner) = line.strip_prefix("[bootloader ") else {
            // Commands and what is fresh: of no use to anyone here.
            let word = line.trim_start();
            if !(word.starts_with("Running `") || word.starts_with("Fresh ")) {
                self.keep(line);
            }
            return;
        };
        self.keep(line);
        let words = inner.split_once(']').map_or("", |(_, words)| words.trim());
        if let Some(name) = words.strip_prefix("Compiling ") {
            let bar = self.bar();
            bar.inc(1);
            bar.set_message(name.to_owned());
        } else if words.starts_with("Installed package") {
            self.stages += 1;
            if self.bar().is_hidden() {
                eprintln!(
                    "boot loader: stage {} of 5 done after {} s",
                    self.stages,
                    self.started.elapsed().as_secs()
                );
            }
        }
    }

    /// Ends the showing; gives the last lines, for an error message.
    #[must_use]
    pub fn finish(self) -> String {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        Vec::from(self.tail).join("\n")
    }

    fn keep(&mut self, line: &str) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    fn bar(&mut self) -> &ProgressBar {
        self.bar.get_or_insert_with(|| {
            eprintln!("compiling the boot loader: once for this checkout, 2 to 5 minutes");
            let bar = ProgressBar::new(BOOT_LOADER_CRATES);
            bar.set_style(style(
                "{spinner} boot loader [{bar:30}] {elapsed_precise} {wide_msg}",
            ));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        })
    }
}

/// A bar over `bytes` bytes of `what`; on anything but a terminal, one line.
#[must_use]
pub fn bytes(what: &str, bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what}: {bytes} bytes");
    }
    let bar = ProgressBar::new(bytes);
    bar.set_style(style(
        "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    ));
    bar.set_message(what.to_owned());
    bar
}

fn style(template: &str) -> ProgressStyle {
    // A template is a constant of this file; a wrong one still shows a bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::{BootLoaderProgress, TAIL_LINES};

    #[test]
    fn counts_only_the_boot_loaders_crates() {
        let mut progress = BootLoaderProgress::new();
        progress.line("       Fresh libc v0.2.191");
        progress.line("   Compiling anyhow v1.0.104");
        assert!(progress.bar.is_none());
        progress.line("[bootloader 0.11.15]    Compiling core v0.0.0 (/usr/lib)");
        progress.line("[bootloader 0.11.15]    Installed package `x` (executable `x`)");
        assert_eq!(progress.bar.as_ref().map(|bar| bar.position()), Some(1));
        assert_eq!(progress.stages, 1);
    }

    #[test]
    fn keeps_the_last_lines_for_the_error() {
        let mut progress = BootLoaderProgress::new();
        for n in 0..100 {
            progress.line(&format!("error {n}"));
        }
        progress.line("     Running `rustc --crate-name x`");
        let tail = progress.finish();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("error 99"), "{tail}");
    }
}
