//! Mappings of huge pages, by hand: `mmap`, `touch`, `madvise`, `fork`, `munmap`.
//!
//! A mapping has a number, the lowest that is free, and lives until `munmap`. It stands
//! for a process of Linux that called `mmap` with `MAP_HUGETLB`: making it reserves, the
//! first touch of a place takes a huge page, and what a touch without one gets is SIGBUS.

mod options;
mod table;

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt::{self, Write as _};

use mm::hugetlb::{FaultError, Sharing, Slot};
use shell::{Command, Context, Shell, Status, kstrtoul};

use options::Options;
use table::{Map, Table};

/// Status of a program that a signal ended: 128 and the number of SIGBUS.
const STATUS_SIGBUS: Status = 135;
/// Status after words that make no sense.
const STATUS_USAGE: Status = 2;

/// The mappings, which all commands share.
type Shared = Rc<RefCell<Table>>;

pub(super) fn add_to(shell: &mut Shell<'_>) {
    let table = Shared::default();
    shell.add(MMap(Rc::clone(&table)));
    shell.add(Touch(Rc::clone(&table)));
    shell.add(MAdvise(Rc::clone(&table)));
    shell.add(Fork(Rc::clone(&table)));
    shell.add(MUnmap(table));
}

/// Says how `name` is used.
fn usage(command: &dyn Command, context: &mut Context<'_>) -> Result<Status, fmt::Error> {
    let (name, usage) = (command.name(), command.usage());
    writeln!(context.io.err(), "usage: {name} {usage}")?;
    Ok(STATUS_USAGE)
}

/// Says why `name` could not do it.
fn refuse(
    name: &str,
    why: impl fmt::Display,
    context: &mut Context<'_>,
) -> Result<Status, fmt::Error> {
    writeln!(context.io.err(), "{name}: {why}")?;
    Ok(1)
}

fn no_mapping(name: &str, id: &str, context: &mut Context<'_>) -> Result<Status, fmt::Error> {
    refuse(
        name,
        format_args!("{id}: no such mapping; mmap lists them"),
        context,
    )
}

fn index(word: &str) -> Option<usize> {
    usize::try_from(kstrtoul(word, 10).ok()?).ok()
}

/// Places that a word means: `3`, `0-4`, all without a word.
fn places(word: Option<&str>, len: usize) -> Option<core::ops::Range<usize>> {
    let Some(word) = word else {
        return Some(0..len);
    };
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (index(first)?, index(last)?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

struct MMap(Shared);

impl Command for MMap {
    fn name(&self) -> &'static str {
        "mmap"
    }

    fn usage(&self) -> &'static str {
        "[[hugetlb] SIZE COUNT [shared|private] [noreserve] [node N]]"
    }

    fn about(&self) -> &'static str {
        "map COUNT huge pages, or list the mappings"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let table = &mut *self.0.borrow_mut();
        if args.is_empty() {
            return list(table, context);
        }
        let options = match Options::parse(args) {
            Ok(options) => options,
            Err(why) => {
                writeln!(context.io.err(), "mmap: {why}")?;
                return Ok(STATUS_USAGE);
            }
        };
        match table.map(&options) {
            Ok(id) => writeln!(context.io.out(), "{id}")?,
            Err(why) => return refuse("mmap", why, context),
        }
        Ok(0)
    }
}

/// A line for each mapping: number, size, places, those present and those promised.
fn list(table: &Table, context: &mut Context<'_>) -> Result<Status, fmt::Error> {
    for (id, map) in table.iter() {
        let flags = map.flags();
        let present = |n: &usize| matches!(map.slot(*n), Some(Slot::Present(_)));
        write!(
            context.io.out(),
            "{id}: {} x {}, {}, {} present, {} reserved",
            map.len(),
            map.hstate().name(),
            match flags.sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
            },
            (0..map.len()).filter(present).count(),
            map.reserved(),
        )?;
        if let Some(placement) = flags.bound {
            write!(context.io.out(), ", node {}", placement.node())?;
        }
        writeln!(context.io.out())?;
    }
    Ok(0)
}

struct Touch(Shared);

impl Command for Touch {
    fn name(&self) -> &'static str {
        "touch"
    }

    fn usage(&self) -> &'static str {
        "[-w] ID [PLACE[-PLACE]]"
    }

    fn about(&self) -> &'static str {
        "read, or with -w write, the pages of a mapping, all or those named"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (write, args) = match args {
            ["-w", rest @ ..] => (true, rest),
            _ => (false, args),
        };
        on_places(self, &self.0, args, context, |map, n| {
            if write { map.write(n) } else { map.touch(n) }.map(|_| ())
        })
    }
}

/// Calls `each` with the places that `args` name, up to the first that fails.
fn on_places(
    command: &dyn Command,
    table: &Shared,
    args: &[&str],
    context: &mut Context<'_>,
    mut each: impl FnMut(&mut Map, usize) -> Result<(), FaultError>,
) -> Result<Status, fmt::Error> {
    let (id, word) = match *args {
        [id] => (id, None),
        [id, word] => (id, Some(word)),
        _ => return usage(command, context),
    };
    let table = &mut *table.borrow_mut();
    let Some(map) = index(id).and_then(|id| table.get_mut(id)) else {
        return no_mapping(command.name(), id, context);
    };
    let Some(places) = places(word, map.len()) else {
        return usage(command, context);
    };
    for n in places {
        match each(map, n) {
            Ok(()) => {}
            Err(FaultError::NoFolio | FaultError::HwPoison(_)) => {
                writeln!(context.io.err(), "Bus error")?;
                return Ok(STATUS_SIGBUS);
            }
            Err(FaultError::OutOfRange(n)) => {
                let why = format_args!("{n}: the mapping has {} places, from 0", map.len());
                return refuse(command.name(), why, context);
            }
        }
        if context.io.interrupted() {
            return Err(fmt::Error);
        }
    }
    Ok(0)
}

struct MAdvise(Shared);

impl Command for MAdvise {
    fn name(&self) -> &'static str {
        "madvise"
    }

    fn usage(&self) -> &'static str {
        "ID [PLACE[-PLACE]]"
    }

    fn about(&self) -> &'static str {
        "MADV_REMOVE: empty places of a mapping, all or those named"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        on_places(self, &self.0, args, context, Map::discard)
    }
}

struct Fork(Shared);

impl Command for Fork {
    fn name(&self) -> &'static str {
        "fork"
    }

    fn usage(&self) -> &'static str {
        "ID"
    }

    fn about(&self) -> &'static str {
        "a second mapping of a mapping's pages, as a child process has it"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let [word] = *args else {
            return usage(self, context);
        };
        let table = &mut *self.0.borrow_mut();
        match index(word).and_then(|id| table.fork(id)) {
            None => return no_mapping("fork", word, context),
            Some(Ok(child)) => writeln!(context.io.out(), "{child}")?,
            Some(Err(why)) => return refuse("fork", why, context),
        }
        Ok(0)
    }
}

struct MUnmap(Shared);

impl Command for MUnmap {
    fn name(&self) -> &'static str {
        "munmap"
    }

    fn usage(&self) -> &'static str {
        "ID..."
    }

    fn about(&self) -> &'static str {
        "give the pages of mappings back, and their reservations"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        if args.is_empty() {
            return usage(self, context);
        }
        let mut status = 0;
        for word in args {
            let table = &mut *self.0.borrow_mut();
            if !index(word).is_some_and(|id| table.unmap(id)) {
                status = no_mapping("munmap", word, context)?;
            }
        }
        Ok(status)
    }
}
