//! Where descriptors come from: a slab cache for each kind.
//!
//! ```text
//! byte    0        8      16     24          32       64
//!         +--------+------+------+-----------+--------+----------+----------+---
//! frame   | mark + | next | prev | free list | in use | object 0 | object 1 |
//!         |  kind  |      |      |           |        |          |          |
//!         +--------+------+------+-----------+--------+----------+----------+---
//! ```
//!
//! All state is in the frames. A frame is on the list of those with room or of those
//! without; a free object's link lies where a used one has its pfn, and its count is 0.
//!
//! MD-3: an object keeps its kind while a reader may look at it. A reader that has no
//! reference yet has interrupts off; a frame goes back only after every CPU has had
//! them on, or answered from where they were off: one round ([`grace_period`]).

use super::descriptor::{COUNTS, Kind, NO_COUNTS};
use super::ledger::Totals;
use mm::addr::{Order, PAGE_SIZE, Pfn, PhysAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;

/// In a frame's first word, above the kind.
const MARK: u64 = 0x6d65_6d64_6573_6300;
const NEXT: u64 = 8;
const PREV: u64 = 16;
const FREE: u64 = 24;
const USED: u64 = 32;
/// Of the first object; a multiple of 16.
const OBJECTS: u64 = 64;

/// Of the link in a free object, and of the mark that says that it is free.
const LINK: u64 = 16;
const STATE: u64 = 24;
pub(super) const FREED: u64 = 0x6f62_6a20_6672_6565;

/// The kind of the objects in the frame that `at` lies in.
pub(super) fn kind_of<M: Machine>(m: &M, at: PhysAddr) -> Option<Kind> {
    let word = m.read_phys(at.pfn().phys());
    Kind::ALL
        .into_iter()
        .find(|kind| MARK | *kind as u64 == word)
}

/// How many objects of `kind` a frame has.
pub(crate) const fn capacity(kind: Kind) -> u64 {
    (PAGE_SIZE - OBJECTS) / kind.size()
}

/// Waits until no reader holds what it found before.
fn grace_period<M: Machine>(m: &M, totals: &mut Totals) {
    totals.grace_periods += 1;
    m.on_each_cpu(&|| {});
}

/// The cache of one kind. Used under the map's lock.
#[derive(Debug)]
#[doc(alias = "kmem_cache")]
pub(crate) struct Cache {
    kind: Kind,
    /// First frame with room, and first without.
    partial: Option<Pfn>,
    full: Option<Pfn>,
}

impl Cache {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            partial: None,
            full: None,
        }
    }

    /// The frames, those with room first. For the audit.
    pub(super) const fn lists(&self) -> [Option<Pfn>; 2] {
        [self.partial, self.full]
    }

    /// An object, its count 0; or `None` if there is no frame for more.
    #[doc(alias = "kmem_cache_alloc")]
    pub(crate) fn alloc<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        placement: Placement,
        totals: &mut Totals,
    ) -> Option<PhysAddr> {
        let frame = match self.partial {
            Some(frame) => frame,
            None => self.grow(m, frames, placement, totals)?,
        };
        let header = frame.phys();
        let object = PhysAddr::new(m.read_phys(header.offset(FREE)));
        assert!(
            m.read_phys(object.offset(STATE)) == FREED,
            "BUG: memdesc: the free object at {object:?} was written to"
        );
        let next = m.read_phys(object.offset(LINK));
        m.write_phys(header.offset(FREE), next);
        m.write_phys(header.offset(USED), m.read_phys(header.offset(USED)) + 1);
        if next == 0 {
            unlink(m, &mut self.partial, frame);
            link(m, &mut self.full, frame);
        }
        m.write_phys(object.offset(STATE), 0);
        totals.descriptors[self.kind as usize] += 1;
        Some(object)
    }

    /// Takes an object back. A frame that is empty then goes back, too, unless it is
    /// the only one with room.
    ///
    /// # Panics
    /// If the object is not one of this cache, is free already, or has a count.
    #[doc(alias = "kmem_cache_free")]
    pub(crate) fn free<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        object: PhysAddr,
        totals: &mut Totals,
    ) {
        let frame = object.pfn();
        let header = frame.phys();
        let offset = (object.as_u64() % PAGE_SIZE).wrapping_sub(OBJECTS);
        assert!(
            kind_of(m, object) == Some(self.kind) && offset.is_multiple_of(self.kind.size()),
            "BUG: memdesc: {object:?} is no {:?} descriptor",
            self.kind
        );
        assert!(
            m.read_phys(object.offset(STATE)) != FREED,
            "BUG: memdesc: double free of the {:?} descriptor at {object:?}",
            self.kind
        );
        let counts = m.read_phys(object.offset(COUNTS));
        assert!(
            counts & u64::from(u32::MAX) == 0,
            "BUG: memdesc: free of the {:?} descriptor at {object:?}, whose counts are {counts:#x}",
            self.kind
        );
        let next = m.read_phys(header.offset(FREE));
        if next == 0 {
            unlink(m, &mut self.full, frame);
            link(m, &mut self.partial, frame);
        }
        m.write_phys(object.offset(LINK), next);
        m.write_phys(object.offset(STATE), FREED);
        m.write_phys(header.offset(FREE), object.as_u64());
        let used = m.read_phys(header.offset(USED)) - 1;
        m.write_phys(header.offset(USED), used);
        totals.descriptors[self.kind as usize] -= 1;
        let others = self.partial != Some(frame) || m.read_phys(header.offset(NEXT)) != 0;
        if used == 0 && others {
            self.shrink(m, frames, frame, totals);
        }
    }

    /// Gives every frame back. Objects still in use go with them: no reader is left.
    #[doc(alias = "kmem_cache_destroy")]
    pub(crate) fn destroy<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        totals: &mut Totals,
    ) {
        if self.partial.is_some() || self.full.is_some() {
            grace_period(m, totals);
        }
        while let Some(frame) = self.partial.or(self.full) {
            let list = if self.partial.is_some() {
                &mut self.partial
            } else {
                &mut self.full
            };
            unlink(m, list, frame);
            let (used, _) = header(m, frame);
            totals.descriptors[self.kind as usize] -= used;
            totals.descriptor_frames -= 1;
            frames.free(m, frame, Order::PAGE);
        }
    }

    fn grow<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        placement: Placement,
        totals: &mut Totals,
    ) -> Option<Pfn> {
        let frame = frames.alloc(m, Order::PAGE, placement)?;
        let header = frame.phys();
        m.fill_words(header, 0, PAGE_SIZE / 8);
        m.write_phys(header, MARK | self.kind as u64);
        let mut next = 0;
        for n in (0..capacity(self.kind)).rev() {
            let object = header.offset(OBJECTS + n * self.kind.size());
            m.write_phys(object.offset(COUNTS), NO_COUNTS);
            m.write_phys(object.offset(LINK), next);
            m.write_phys(object.offset(STATE), FREED);
            next = object.as_u64();
        }
        m.write_phys(header.offset(FREE), next);
        link(m, &mut self.partial, frame);
        totals.descriptor_frames += 1;
        Some(frame)
    }

    fn shrink<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        frame: Pfn,
        totals: &mut Totals,
    ) {
        unlink(m, &mut self.partial, frame);
        grace_period(m, totals);
        totals.descriptor_frames -= 1;
        frames.free(m, frame, Order::PAGE);
    }
}

/// The frame that the link at `at` leads to.
pub(super) fn neighbour<M: Machine>(m: &M, at: PhysAddr) -> Option<Pfn> {
    let raw = m.read_phys(at);
    (raw != 0).then(|| PhysAddr::new(raw).pfn())
}

/// The frame behind `frame` on its list. For the audit.
pub(super) fn next<M: Machine>(m: &M, frame: Pfn) -> Option<Pfn> {
    neighbour(m, frame.phys().offset(NEXT))
}

/// Objects in use, and the first free one, as the frame's header has it.
pub(super) fn header<M: Machine>(m: &M, frame: Pfn) -> (u64, u64) {
    let read = |at| m.read_phys(frame.phys().offset(at));
    (read(USED), read(FREE))
}

fn link<M: Machine>(m: &M, list: &mut Option<Pfn>, frame: Pfn) {
    let raw = |pfn: Option<Pfn>| pfn.map_or(0, |pfn| pfn.phys().as_u64());
    m.write_phys(frame.phys().offset(NEXT), raw(*list));
    m.write_phys(frame.phys().offset(PREV), 0);
    if let Some(second) = *list {
        m.write_phys(second.phys().offset(PREV), frame.phys().as_u64());
    }
    *list = Some(frame);
}

fn unlink<M: Machine>(m: &M, list: &mut Option<Pfn>, frame: Pfn) {
    let (at_next, at_prev) = (frame.phys().offset(NEXT), frame.phys().offset(PREV));
    let (next, prev) = (m.read_phys(at_next), m.read_phys(at_prev));
    if next != 0 {
        m.write_phys(PhysAddr::new(next).offset(PREV), prev);
    }
    if prev == 0 {
        *list = neighbour(m, at_next);
    } else {
        m.write_phys(PhysAddr::new(prev).offset(NEXT), next);
    }
}
