//! Linux as a guest: its first file system, and its command line.

use super::bench;
use super::console::Shell;
use super::cpio::Archive;
use super::debian::{Package, Parts};
use crate::error::Error;
use crate::machine::DirectBoot;

/// What the shell says when it waits for a line.
const PROMPT: &str = "linux# ";

/// Words that every Linux gets: the console, nothing on it but emergencies, an end of QEMU
/// on a panic, and huge pages with their struct pages folded.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 hugetlb_free_vmemmap=on";

/// The first program: file systems, and a shell on the serial port. A shell on a terminal
/// without echo has no line editor, so that all it writes is prompts and output. If it
/// ends, so does the machine. A process that does nothing but hold memory is the one to be
/// killed when there is none left; else it would be the shell, and Linux would panic. With
/// `alone=1` on the command line there is none, and the shell is the first program itself.
const INIT: &str = "\
#!/bin/busybox sh
exec 2>/dev/null
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t debugfs debugfs /sys/kernel/debug
mount -t tmpfs -o size=100% tmpfs /tmp
if [ -z \"$alone\" ]; then
(head -c 48m /dev/zero; : >/tmp/held; exec sleep 1000000) | tail -c 48m >/dev/null &
echo 1000 > /proc/$!/oom_score_adj
for i in $(seq 200); do [ -e /tmp/held ] && break; usleep 50000; done
rm /tmp/held
fi
stty -F /dev/ttyS0 -echo -onlcr
export PS1='linux# '
exec </dev/ttyS0 >/dev/ttyS0 2>&1
[ -n \"$alone\" ] && exec setsid -c sh -i
setsid -c sh -i
poweroff -f
";

/// Linux's shell on the serial port.
pub const SHELL: Shell = Shell {
    name: "Linux",
    prompt: PROMPT,
    echoes: false,
};

/// A Linux to boot.
#[derive(Clone, Debug)]
pub struct Linux {
    /// Kernel and first file system, with the words that every Linux gets.
    pub boot: DirectBoot,
    /// Which it is.
    pub package: Package,
}

/// Writes the first file system of `parts` beside its busybox.
///
/// # Errors
/// [`Error::Io`].
pub fn prepare(parts: Parts) -> Result<Linux, Error> {
    let busybox = std::fs::read(&parts.busybox)
        .map_err(Error::io(format!("reading {}", parts.busybox.display())))?;
    let initrd = parts.busybox.with_file_name("initramfs.cpio");
    // Written beside and renamed: a guest may be starting from the old one.
    let scratch = initrd.with_file_name(format!("initramfs.{}", std::process::id()));
    std::fs::write(&scratch, initramfs(&busybox))
        .and_then(|()| std::fs::rename(&scratch, &initrd))
        .map_err(Error::io(format!("writing {}", initrd.display())))?;
    Ok(Linux {
        boot: DirectBoot {
            kernel: parts.kernel,
            initrd,
            command_line: COMMAND_LINE.to_owned(),
        },
        package: parts.package,
    })
}

fn initramfs(busybox: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", (5, 1));
    archive.program("bin/busybox", busybox);
    archive.program("init", INIT.as_bytes());
    archive.program("bench", bench::PROGRAM.as_bytes());
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::{INIT, PROMPT};

    #[test]
    fn the_prompt_is_the_one_that_is_waited_for() {
        assert!(INIT.contains(&format!("PS1='{PROMPT}'")));
    }
}
