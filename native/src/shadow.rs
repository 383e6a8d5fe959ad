//! The TLB: what of the page tables this process has mapped.
//!
//! An entry is made when a page is touched (`fill`), is then used without a look at the
//! tables, and goes when it is flushed. A flush maps what the tables say by now for as much
//! as the entry covered, so that whoever had used the page need not fault again.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use mm::addr::{PAGE_SIZE, VirtAddr};
use mm::paging::{Entry, PteFlags};

use crate::host::HostError;
use crate::window::Window;

/// Where a run of addresses leads, and whether writes are allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Target {
    phys: u64,
    writable: bool,
}

impl Target {
    const fn offset(self, bytes: u64) -> Self {
        Self {
            phys: self.phys + bytes,
            writable: self.writable,
        }
    }
}

/// A cached translation: that of one leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Translation {
    /// Bytes that the leaf maps.
    span: u64,
    /// Survives a load of CR3.
    global: bool,
    target: Target,
}

/// What a table walk finds, by address.
pub(crate) type Walk<'a> = &'a dyn Fn(VirtAddr) -> Entry;

/// What touching a page comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// It is mapped now: try again.
    Mapped,
    /// Nothing is there.
    NotPresent,
    /// It may not be written.
    ReadOnly,
}

/// The translations of one [`Window`].
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    /// By the address at which the leaf starts; they do not overlap.
    entries: BTreeMap<u64, Translation>,
    /// Read-only pages mapped writable while write protection is off.
    opened: Vec<u64>,
}

/// Where entries are mapped, and from what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) window: &'a Window,
    pub(crate) ram: BorrowedFd<'a>,
}

impl Place<'_> {
    fn show(&self, at: u64, bytes: u64, to: Option<Target>) -> Result<(), HostError> {
        match to {
            Some(to) => self.window.map(at, bytes, self.ram, to.phys, to.writable),
            None => self.window.hide(at, bytes),
        }
    }
}

/// The leaf in `entry`, and where it starts.
fn translation(at: u64, entry: Entry) -> Option<(u64, Translation)> {
    let span = entry.level.span();
    entry.is_leaf().then(|| {
        let target = Target {
            phys: entry.pte.pfn().phys().as_u64(),
            writable: entry.pte.flags().contains(PteFlags::WRITABLE),
        };
        let global = entry.pte.flags().contains(PteFlags::GLOBAL);
        let found = Translation {
            span,
            global,
            target,
        };
        (at & !(span - 1), found)
    })
}

impl Shadow {
    /// The cached translation of `at`.
    fn at(&self, at: u64) -> Option<(u64, Translation)> {
        let (start, found) = self.entries.range(..=at).next_back()?;
        (at - start < found.span).then_some((*start, *found))
    }

    /// The page at `at` was touched, and the host said no.
    pub(crate) fn touch(
        &mut self,
        place: Place<'_>,
        walk: Walk<'_>,
        at: u64,
        write: bool,
        protect: bool,
    ) -> Result<Touch, HostError> {
        let found = match self.at(at) {
            Some((_, found)) => Some(found),
            None => self.fill(place, walk, at)?,
        };
        let Some(found) = found else {
            return Ok(Touch::NotPresent);
        };
        if !write || found.target.writable {
            return Ok(Touch::Mapped);
        }
        if protect {
            return Ok(Touch::ReadOnly);
        }
        self.open(place, at & !(PAGE_SIZE - 1))?;
        Ok(Touch::Mapped)
    }

    /// Caches what the tables say of `at`, if they say anything. Entries in the way go,
    /// as a processor may let any entry go at any time.
    fn fill(
        &mut self,
        place: Place<'_>,
        walk: Walk<'_>,
        at: u64,
    ) -> Result<Option<Translation>, HostError> {
        let Some((start, new)) = translation(at, walk(VirtAddr::new(at))) else {
            return Ok(None);
        };
        let inside: Vec<u64> = self.inside(start, start + new.span).collect();
        for old in inside {
            self.entries.remove(&old);
        }
        place.show(start, new.span, Some(new.target))?;
        self.entries.insert(start, new);
        Ok(Some(new))
    }

    fn inside(&self, start: u64, end: u64) -> impl Iterator<Item = u64> + '_ {
        self.entries.range(start..end).map(|(at, _)| *at)
    }

    /// INVLPG: drops the translation of `at`, whatever its size.
    pub(crate) fn flush_page(
        &mut self,
        place: Place<'_>,
        walk: Walk<'_>,
        at: u64,
    ) -> Result<(), HostError> {
        let Some((start, old)) = self.at(at) else {
            return Ok(());
        };
        let mut pending = Pending::new(place);
        self.renew(walk, start, old, &mut pending)?;
        pending.finish()
    }

    /// Drops all translations; global ones only if `global` says so.
    pub(crate) fn flush_all(
        &mut self,
        place: Place<'_>,
        walk: Walk<'_>,
        global: bool,
    ) -> Result<(), HostError> {
        let mut pending = Pending::new(place);
        let mut from = 0;
        while let Some((start, old)) = self.entries.range(from..).next().map(|(a, t)| (*a, *t)) {
            if global || !old.global {
                self.renew(walk, start, old, &mut pending)?;
            }
            from = start + old.span;
        }
        pending.finish()
    }

    /// Replaces the entry at `start` by what the tables say of its range.
    fn renew(
        &mut self,
        walk: Walk<'_>,
        start: u64,
        old: Translation,
        pending: &mut Pending<'_>,
    ) -> Result<(), HostError> {
        let end = start + old.span;
        let mut at = start;
        let mut kept = false;
        while at < end {
            let entry = walk(VirtAddr::new(at));
            let was = old.target.offset(at - start);
            // To the end of what the entry, present or not, is about.
            let next = ((at | (entry.level.span() - 1)) + 1).min(end);
            match translation(at, entry) {
                Some((leaf, new)) if leaf == start && new == old => kept = true,
                // A larger leaf than the one that is flushed: it is cached when touched.
                Some((_, new)) if new.span > old.span => pending.push(at, next - at, None)?,
                Some((_, new)) => {
                    if at == start {
                        self.entries.remove(&start);
                    }
                    self.entries.insert(at, new);
                    if new.target != was {
                        pending.push(at, next - at, Some(new.target))?;
                    }
                    kept |= at == start;
                }
                None => pending.push(at, next - at, None)?,
            }
            at = next;
        }
        if !kept {
            self.entries.remove(&start);
        }
        Ok(())
    }

    /// Lets writes through to a read-only page until [`Shadow::close`].
    fn open(&mut self, place: Place<'_>, page: u64) -> Result<(), HostError> {
        let Some((start, found)) = self.at(page) else {
            return Ok(());
        };
        let mut target = found.target.offset(page - start);
        target.writable = true;
        self.opened.push(page);
        place.show(page, PAGE_SIZE, Some(target))
    }

    /// Takes back what [`Shadow::open`] did.
    pub(crate) fn close(&mut self, place: Place<'_>) -> Result<(), HostError> {
        while let Some(page) = self.opened.pop() {
            let found = self.at(page);
            let target = found.map(|(start, found)| found.target.offset(page - start));
            place.show(page, PAGE_SIZE, target)?;
        }
        Ok(())
    }

    /// Cached translations.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Neighbouring changes, made one by one system call.
struct Pending<'a> {
    place: Place<'a>,
    run: Option<(u64, u64, Option<Target>)>,
}

impl<'a> Pending<'a> {
    const fn new(place: Place<'a>) -> Self {
        Self { place, run: None }
    }

    fn push(&mut self, at: u64, bytes: u64, to: Option<Target>) -> Result<(), HostError> {
        if let Some((start, length, target)) = &mut self.run
            && *start + *length == at
            && target.map(|target| target.offset(*length)) == to
        {
            *length += bytes;
            return Ok(());
        }
        if let Some((start, length, target)) = self.run.replace((at, bytes, to)) {
            self.place.show(start, length, target)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), HostError> {
        match self.run {
            Some((at, bytes, to)) => self.place.show(at, bytes, to),
            None => Ok(()),
        }
    }
}
