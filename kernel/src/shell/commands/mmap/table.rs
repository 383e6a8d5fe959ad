//! The mappings that there are, by number.

use alloc::vec::Vec;

use mm::hugetlb::{Mapping, Slot};

use super::options::Options;
use crate::metal::Metal;
use crate::state::MM;

/// A mapping that keeps its own places.
pub(super) type Map = Mapping<'static, Metal, Vec<Slot>>;

/// The mappings; numbers start at 0, and one that is free is given again.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Option<Map>>);

impl Table {
    /// Those that there are, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Map)> {
        let all = self.0.iter().enumerate();
        all.filter_map(|(id, map)| Some((id, map.as_ref()?)))
    }

    pub(super) fn get_mut(&mut self, id: usize) -> Option<&mut Map> {
        self.0.get_mut(id)?.as_mut()
    }

    /// Makes a mapping; its number, or `None` if there is no memory for it or too few
    /// huge pages.
    pub(super) fn map(&mut self, options: &Options) -> Option<usize> {
        let slots = empty(options.count)?;
        let (h, flags) = (options.h, options.flags);
        let hugetlb = &MM.hugetlb;
        let map = hugetlb.map_own(&Metal, MM.backing(), h, flags, slots);
        self.insert(map.ok()?)
    }

    /// A child of mapping `id`; its number, or `None` if there is no memory for it.
    pub(super) fn fork(&mut self, id: usize) -> Option<usize> {
        let parent = self.get_mut(id)?;
        let child = parent.fork_own(empty(parent.len())?);
        self.insert(child)
    }

    /// Drops mapping `id`; whether there was one.
    pub(super) fn unmap(&mut self, id: usize) -> bool {
        let place = self.0.get_mut(id);
        place.and_then(Option::take).is_some()
    }

    fn insert(&mut self, map: Map) -> Option<usize> {
        let id = self.0.iter().position(Option::is_none);
        let id = id.unwrap_or(self.0.len());
        if id == self.0.len() {
            self.0.try_reserve(1).ok()?;
            self.0.push(None);
        }
        self.0[id] = Some(map);
        Some(id)
    }
}

/// So many places, if the heap has room for them.
fn empty(count: usize) -> Option<Vec<Slot>> {
    let mut slots = Vec::new();
    slots.try_reserve_exact(count).ok()?;
    slots.resize(count, Slot::Empty);
    Some(slots)
}
