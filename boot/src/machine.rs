//! The PC that QEMU is to be, as its arguments.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::accel::Accelerator;
use crate::artifact::Firmware;
use crate::error::Error;
use crate::firmware::Ovmf;
use crate::size::Size;

/// QEMU's own limit (`MAX_NODES`).
const MAX_NODES: u32 = 128;

/// From here on the 40 bits of physical address that `-cpu max` has in software
/// emulation get short: RAM and the 64-bit PCI window must fit. Bytes.
const MANY_PHYS_BITS_FROM: u64 = 512 << 30;

/// Where COM1 goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Serial {
    /// To QEMU's stdout.
    #[default]
    Stdout,
    /// To a person's terminal, with QEMU's monitor (Ctrl-A C) and its exit
    /// (Ctrl-A X) on it, and to a file.
    Terminal {
        /// The file.
        log: PathBuf,
    },
    /// The machine has none.
    None,
}

/// A Linux kernel for QEMU itself to load, without a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectBoot {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initrd: PathBuf,
    /// Its command line.
    pub command_line: String,
}

/// A NUMA node that is not an even share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NumaNode {
    /// Its RAM; none for a node with processors only.
    pub memory: Option<Size>,
    /// Its first and last processor, by number; none for a node with memory only.
    pub cpus: Option<(u32, u32)>,
    /// How far other nodes are: node, distance. If there is one, QEMU wants one for each two
    /// nodes, from either.
    pub distances: Vec<(u32, u32)>,
}

/// Nodes that are no even shares, as `cpus=0/memory=512M,cpus=1-2/memory=1G`: node by node, with
/// `to1=31` for the distance to node 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NumaShape(pub Vec<NumaNode>);

impl FromStr for NumaShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let node = |text: &str| {
            let mut node = NumaNode::default();
            for part in text.split(',') {
                match part.split_once('=') {
                    Some(("memory", size)) => node.memory = Some(size.parse()?),
                    Some(("cpus", range)) => {
                        let (first, last) = range.split_once('-').unwrap_or((range, range));
                        let number = |text: &str| text.parse::<u32>().ok();
                        let cpus = number(first).zip(number(last)).filter(|(a, b)| a <= b);
                        node.cpus = Some(cpus.ok_or_else(|| {
                            format!("`{range}` are no processors; write them like 0 or 0-3")
                        })?);
                    }
                    Some((to, distance)) if to.starts_with("to") => {
                        let numbers = to[2..].parse().ok().zip(distance.parse().ok());
                        node.distances.push(numbers.ok_or_else(|| {
                            format!("`{part}` is no distance; write it like to1=31")
                        })?);
                    }
                    _ => {
                        return Err(format!(
                            "`{part}` is none of memory=SIZE, cpus=A-B and toNODE=DISTANCE; nodes are separated by /, as in cpus=0/memory=512M,cpus=1"
                        ));
                    }
                }
            }
            Ok(node)
        };
        text.split('/')
            .map(node)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// How the disk with the image is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bus {
    /// SATA.
    #[default]
    Ahci,
    /// A USB stick on an xHCI controller.
    Usb,
}

/// A machine. [`Machine::new`] has the defaults of the command line.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Raw disk image to boot from; it is never written to.
    pub disk: PathBuf,
    /// How the disk is connected.
    pub bus: Bus,
    /// A kernel to start in place of what is on the disk; then there is no disk.
    pub direct: Option<DirectBoot>,
    /// Firmware to start it with.
    pub firmware: Firmware,
    /// UEFI firmware files; used with [`Firmware::Uefi`].
    pub ovmf: Ovmf,
    /// RAM of all nodes together.
    pub memory: Size,
    /// Processors.
    pub smp: u32,
    /// NUMA nodes; with 1, no NUMA information is given.
    pub nodes: u32,
    /// The nodes in place of `nodes` even ones, if there are any; RAM is theirs together.
    pub shape: NumaShape,
    /// QEMU's name of the processor, with its properties.
    pub cpu: String,
    /// Who executes the instructions.
    pub accelerator: Accelerator,
    /// Let software emulation run all processors on one thread, in turns.
    pub in_turns: bool,
    /// Let guest time count instructions. Only in software emulation.
    pub icount: bool,
    /// Command line by `fw_cfg`; `None` leaves it to the image.
    pub command_line: Option<String>,
    /// Where COM1 goes.
    pub serial: Serial,
    /// Pixels of the screen, width and height. UEFI takes the size that the screen
    /// prefers; our boot loader for BIOS takes the greatest up to 1280x720.
    pub screen: Option<(u32, u32)>,
    /// Show the screen in a window.
    pub display: bool,
    /// Wait for a debugger on TCP port 1234.
    pub gdb: bool,
    /// Socket of the machine protocol.
    pub qmp: Option<PathBuf>,
}

impl Machine {
    /// A PC with 1 GiB, one processor, one node, and the image `disk`.
    #[must_use]
    pub fn new(disk: PathBuf, firmware: Firmware) -> Self {
        Self {
            disk,
            bus: Bus::default(),
            direct: None,
            firmware,
            ovmf: Ovmf::default(),
            memory: Size::mib(1024),
            smp: 1,
            nodes: 1,
            shape: NumaShape::default(),
            cpu: "max".to_owned(),
            accelerator: Accelerator::Tcg,
            in_turns: false,
            icount: false,
            command_line: None,
            serial: Serial::default(),
            screen: None,
            display: false,
            gdb: false,
            qmp: None,
        }
    }

    /// QEMU's arguments.
    ///
    /// # Errors
    /// [`Error::Usage`] for a machine that cannot be; the message says what would be right.
    pub fn arguments(&self) -> Result<Arguments, Error> {
        let mut arguments = Arguments::default();
        self.system(&mut arguments)?;
        self.memory(&mut arguments)?;
        self.storage(&mut arguments);
        self.consoles(&mut arguments);
        if let Some(text) = &self.command_line {
            if text.contains(|c: char| c.is_control()) {
                return Err(Error::Usage(
                    "the kernel command line must be one line without control characters"
                        .to_owned(),
                ));
            }
            arguments.pair(
                "-fw_cfg",
                format!("name=opt/org.tailfold/cmdline,string={}", escape(text)),
            );
        }
        Ok(arguments)
    }

    fn system(&self, arguments: &mut Arguments) -> Result<(), Error> {
        if self.icount && self.accelerator == Accelerator::Kvm {
            return Err(Error::Usage(
                "--icount counts instructions, which only software emulation can; \
                 leave out --accel or say --accel tcg"
                    .to_owned(),
            ));
        }
        if self.smp == 0 {
            return Err(Error::Usage("--smp must be at least 1".to_owned()));
        }
        arguments.flag("-nodefaults");
        arguments.flag("-no-user-config");
        // A triple fault must end the run, not start it again.
        arguments.flag("-no-reboot");
        let machine = if self.nodes == 1 && self.shape.0.is_empty() {
            "q35,memory-backend=m0"
        } else {
            "q35"
        };
        arguments.pair("-machine", machine);
        let threads = match self.accelerator {
            Accelerator::Tcg if self.in_turns => ",thread=single",
            _ => "",
        };
        arguments.pair("-accel", format!("{}{threads}", self.accelerator.name()));
        let mut cpu = self.cpu.clone();
        if self.memory.bytes() > MANY_PHYS_BITS_FROM && !cpu.contains("phys-bits") {
            cpu.push_str(",phys-bits=46");
        }
        arguments.pair("-cpu", cpu);
        arguments.pair("-smp", self.smp.to_string());
        if self.icount {
            arguments.pair("-icount", "shift=0,sleep=off");
        }
        if self.gdb {
            arguments.pair("-gdb", "tcp:127.0.0.1:1234");
            arguments.flag("-S");
        }
        if self.firmware == Firmware::Uefi {
            for (unit, file, mode) in [
                (0, &self.ovmf.code, "readonly=on"),
                (1, &self.ovmf.vars, "snapshot=on"),
            ] {
                let mut value =
                    OsString::from(format!("if=pflash,unit={unit},format=raw,{mode},file="));
                value.push(escape_path(file));
                arguments.pair("-drive", value);
            }
        }
        Ok(())
    }

    fn memory(&self, arguments: &mut Arguments) -> Result<(), Error> {
        if !self.shape.0.is_empty() {
            return self.shaped_memory(arguments);
        }
        if self.nodes == 0 || self.nodes > MAX_NODES {
            return Err(Error::Usage(format!(
                "--nodes {} is not between 1 and {MAX_NODES}",
                self.nodes
            )));
        }
        let Some(parts) = self.memory.split(self.nodes) else {
            return Err(Error::Usage(format!(
                "--memory {} is not whole MiB, at least one for each of {} nodes",
                self.memory, self.nodes
            )));
        };
        arguments.pair("-m", format!("size={}", self.memory));
        for (node, size) in (0..self.nodes).zip(parts) {
            // reserve=off: a guest may have more than the host as long as it
            // does not touch it.
            arguments.pair(
                "-object",
                format!("memory-backend-ram,id=m{node},size={size},reserve=off"),
            );
            if self.nodes > 1 {
                arguments.pair(
                    "-numa",
                    format!("node,nodeid={node},memdev=m{node}{}", self.cpus_of(node)),
                );
            }
        }
        Ok(())
    }

    fn shaped_memory(&self, arguments: &mut Arguments) -> Result<(), Error> {
        let nodes = &self.shape.0;
        let total = nodes.iter().filter_map(|node| node.memory);
        let total = Size::new(total.map(Size::bytes).sum());
        if total.bytes() == 0 {
            return Err(Error::Usage(
                "--numa: no node has memory; give one memory=SIZE".to_owned(),
            ));
        }
        let beyond = nodes.iter().filter_map(|node| node.cpus);
        if let Some((_, last)) = beyond
            .max_by_key(|(_, last)| *last)
            .filter(|(_, last)| *last >= self.smp)
        {
            return Err(Error::Usage(format!(
                "--numa: there is no processor {last} of --smp {}",
                self.smp
            )));
        }
        arguments.pair("-m", format!("size={total}"));
        for (id, node) in nodes.iter().enumerate() {
            let mut value = format!("node,nodeid={id}");
            if let Some(size) = node.memory {
                arguments.pair(
                    "-object",
                    format!("memory-backend-ram,id=m{id},size={size},reserve=off"),
                );
                value.push_str(&format!(",memdev=m{id}"));
            }
            if let Some((first, last)) = node.cpus {
                value.push_str(&format!(",cpus={first}-{last}"));
            }
            arguments.pair("-numa", value);
        }
        for (id, node) in nodes.iter().enumerate() {
            for (other, distance) in &node.distances {
                let value = format!("dist,src={id},dst={other},val={distance}");
                arguments.pair("-numa", value);
            }
        }
        Ok(())
    }

    /// `,cpus=A-B` for the processors of `node`; nothing, if it has none.
    fn cpus_of(&self, node: u32) -> String {
        // Rounded up: with fewer processors than nodes, the first node has one.
        let bound =
            |node: u32| (u64::from(node) * u64::from(self.smp)).div_ceil(u64::from(self.nodes));
        let (first, end) = (bound(node), bound(node + 1));
        if first == end {
            String::new()
        } else {
            format!(",cpus={first}-{}", end - 1)
        }
    }

    fn storage(&self, arguments: &mut Arguments) {
        if let Some(direct) = &self.direct {
            arguments.pair("-kernel", &direct.kernel);
            arguments.pair("-initrd", escape_path(&direct.initrd));
            arguments.pair("-append", &direct.command_line);
            return;
        }
        let mut drive = OsString::from("if=none,id=disk,format=raw,snapshot=on,file=");
        drive.push(escape_path(&self.disk));
        arguments.pair("-drive", drive);
        match self.bus {
            Bus::Ahci => arguments.pair("-device", "ide-hd,drive=disk,bus=ide.0,bootindex=0"),
            Bus::Usb => {
                arguments.pair("-device", "qemu-xhci");
                arguments.pair("-device", "usb-storage,drive=disk,bootindex=0");
            }
        }
    }

    fn consoles(&self, arguments: &mut Arguments) {
        // The screen, also when nobody looks at it: the kernel draws on it.
        let screen = self.screen.map(|(width, height)| {
            let memory = Size::of_screen(width, height).max(Size::mib(16));
            let memory = memory.bytes() >> 20;
            format!(",xres={width},yres={height},vgamem_mb={memory}")
        });
        arguments.pair("-device", format!("VGA{}", screen.unwrap_or_default()));
        if !self.display {
            arguments.pair("-display", "none");
        }
        match &self.serial {
            Serial::Stdout => {
                arguments.pair("-serial", "stdio");
                arguments.pair("-monitor", "none");
            }
            Serial::Terminal { log } => {
                let mut value = OsString::from("stdio,id=com1,mux=on,signal=off,logfile=");
                value.push(escape_path(log));
                arguments.pair("-chardev", value);
                arguments.pair("-serial", "chardev:com1");
                arguments.pair("-mon", "chardev=com1");
            }
            Serial::None => {
                arguments.pair("-serial", "none");
                arguments.pair("-monitor", "none");
            }
        }
        if let Some(socket) = &self.qmp {
            let mut value = OsString::from("unix:");
            value.push(escape_path(socket));
            value.push(",server=on,wait=off");
            arguments.pair("-qmp", value);
        }
        arguments.pair("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
    }
}

/// QEMU's arguments. Shown, they are a command for a shell, an option a line.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Arguments(Vec<Vec<OsString>>);

impl Arguments {
    /// Adds `flag`, a word of QEMU or the value of the word before.
    pub fn flag(&mut self, flag: &str) {
        self.0.push(vec![flag.into()]);
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(vec![option.into(), value.into()]);
    }

    /// One by one, as a process takes them.
    pub fn iter(&self) -> impl Iterator<Item = &OsString> {
        self.0.iter().flatten()
    }

    /// The values of `option`, in order.
    pub fn values(&self, option: &str) -> impl Iterator<Item = &OsString> {
        self.0
            .iter()
            .filter(move |group| group.first().is_some_and(|first| first == option))
            .filter_map(|group| group.get(1))
    }
}

impl<'a> FromIterator<&'a str> for Arguments {
    /// Arguments of one's own, each on a line.
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        Self(words.into_iter().map(|word| vec![word.into()]).collect())
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, group) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(" \\\n    ")?;
            }
            for (n, argument) in group.iter().enumerate() {
                if n > 0 {
                    f.write_str(" ")?;
                }
                f.write_str(&quote(&argument.to_string_lossy()))?;
            }
        }
        Ok(())
    }
}

/// `text` as one word of a shell.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `text` as a value among QEMU's comma-separated properties.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn escape_path(path: &Path) -> OsString {
    match path.to_str() {
        Some(text) => escape(text).into(),
        // A comma in a name that is no UTF-8 as well: QEMU will name the file.
        None => path.as_os_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::{DirectBoot, Machine, NumaShape, Serial, quote};
    use crate::accel::Accelerator;
    use crate::artifact::Firmware;
    use crate::size::Size;

    fn machine() -> Machine {
        Machine::new(PathBuf::from("/x/y,z.img"), Firmware::Bios)
    }

    fn values(machine: &Machine, option: &str) -> Vec<String> {
        machine
            .arguments()
            .unwrap()
            .values(option)
            .map(|value| value.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn one_node_says_nothing_of_numa() {
        let machine = machine();
        assert_eq!(values(&machine, "-numa"), Vec::<String>::new());
        assert_eq!(values(&machine, "-machine"), ["q35,memory-backend=m0"]);
        assert_eq!(
            values(&machine, "-object"),
            ["memory-backend-ram,id=m0,size=1G,reserve=off"]
        );
    }

    #[test]
    fn nodes_share_memory_and_processors() {
        let mut machine = machine();
        (machine.nodes, machine.smp) = (3, 4);
        assert_eq!(
            values(&machine, "-numa"),
            [
                "node,nodeid=0,memdev=m0,cpus=0-1",
                "node,nodeid=1,memdev=m1,cpus=2-2",
                "node,nodeid=2,memdev=m2,cpus=3-3",
            ]
        );
        machine.smp = 1;
        assert_eq!(
            values(&machine, "-numa")[0],
            "node,nodeid=0,memdev=m0,cpus=0-0"
        );
        assert_eq!(values(&machine, "-numa")[2], "node,nodeid=2,memdev=m2");
    }

    #[test]
    fn nodes_need_not_be_even() {
        let mut machine = machine();
        machine.smp = 3;
        machine.shape = "cpus=0/memory=512M,cpus=1-2/memory=1G".parse().unwrap();
        assert_eq!(values(&machine, "-m"), ["size=1536M"]);
        assert_eq!(
            values(&machine, "-numa"),
            [
                "node,nodeid=0,cpus=0-0",
                "node,nodeid=1,memdev=m1,cpus=1-2",
                "node,nodeid=2,memdev=m2",
            ]
        );
        machine.smp = 2;
        let why = machine.arguments().unwrap_err().to_string();
        assert!(why.contains("no processor 2 of --smp 2"), "{why}");
        machine.shape = "cpus=0/cpus=1".parse().unwrap();
        let why = machine.arguments().unwrap_err().to_string();
        assert!(why.contains("no node has memory"), "{why}");
        machine.shape = "cpus=0,to1=31/memory=1G,to0=12".parse().unwrap();
        assert_eq!(
            values(&machine, "-numa")[2..],
            ["dist,src=0,dst=1,val=31", "dist,src=1,dst=0,val=12"]
        );
        for text in [
            "", "cpus", "cpus=2-1", "cpus=a", "memory=x", "ram=1G", "to=1", "to1=", "tox=31",
        ] {
            assert!(text.parse::<NumaShape>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_kernel_of_its_own_needs_no_disk() {
        let mut machine = machine();
        let words = "console=ttyS0 hugepages=0:64,1:192";
        machine.direct = Some(DirectBoot {
            kernel: PathBuf::from("/x/vmlinuz"),
            initrd: PathBuf::from("/x/y,z.cpio"),
            command_line: words.to_owned(),
        });
        assert_eq!(values(&machine, "-kernel"), ["/x/vmlinuz"]);
        // Several files are separated by commas here, and nowhere else.
        assert_eq!(values(&machine, "-initrd"), ["/x/y,,z.cpio"]);
        assert_eq!(values(&machine, "-append"), [words]);
        assert_eq!(values(&machine, "-drive"), Vec::<String>::new());
    }

    #[test]
    fn a_comma_is_no_end_of_a_value() {
        let mut machine = machine();
        machine.command_line = Some("selftest=a,b init=halt".to_owned());
        assert_eq!(
            values(&machine, "-fw_cfg"),
            ["name=opt/org.tailfold/cmdline,string=selftest=a,,b init=halt"]
        );
        assert!(values(&machine, "-drive")[0].ends_with("file=/x/y,,z.img"));
    }

    #[test]
    fn much_memory_needs_many_address_bits() {
        let mut machine = machine();
        machine.memory = Size::mib(1 << 20);
        assert_eq!(values(&machine, "-cpu"), ["max,phys-bits=46"]);
        machine.cpu = "max,phys-bits=48".to_owned();
        assert_eq!(values(&machine, "-cpu"), ["max,phys-bits=48"]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |change: fn(&mut Machine)| {
            let mut machine = machine();
            change(&mut machine);
            machine.arguments().unwrap_err().to_string()
        };
        assert!(refused(|m| m.nodes = 0).contains("--nodes 0"));
        assert!(refused(|m| m.nodes = 129).contains("--nodes 129"));
        assert!(refused(|m| m.smp = 0).contains("--smp"));
        assert!(refused(|m| m.memory = Size::new(4096)).contains("--memory 4K"));
        assert!(refused(|m| m.command_line = Some("a\nb".to_owned())).contains("one line"));
        assert!(
            refused(|m| (m.icount, m.accelerator) = (true, Accelerator::Kvm)).contains("--icount")
        );
    }

    #[test]
    fn a_large_screen_has_the_memory_it_needs() {
        let mut machine = machine();
        machine.screen = Some((800, 600));
        assert_eq!(
            values(&machine, "-device")[1],
            "VGA,xres=800,yres=600,vgamem_mb=16"
        );
        machine.screen = Some((3840, 2160));
        assert_eq!(
            values(&machine, "-device")[1],
            "VGA,xres=3840,yres=2160,vgamem_mb=32"
        );
    }

    #[test]
    fn a_pc_may_have_no_serial_port() {
        let mut machine = machine();
        machine.serial = Serial::None;
        assert_eq!(values(&machine, "-serial"), ["none"]);
    }

    #[test]
    fn quoted_words_are_the_same_words_to_a_shell() {
        assert_eq!(quote("a=b,c"), "a=b,c");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    proptest! {
        #[test]
        fn every_processor_is_on_one_node(nodes in 2u32..=128, smp in 1u32..300) {
            let mut machine = machine();
            (machine.nodes, machine.smp) = (nodes, smp);
            let mut next = 0;
            for value in values(&machine, "-numa") {
                if let Some((_, range)) = value.split_once("cpus=") {
                    let (first, last) = range.split_once('-').unwrap();
                    prop_assert_eq!(first.parse::<u32>().unwrap(), next);
                    next = last.parse::<u32>().unwrap() + 1;
                }
            }
            prop_assert_eq!(next, smp);
        }
    }
}
