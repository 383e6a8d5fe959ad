//! The mappings that there are, by number.

use alloc::vec::Vec;
use core::fmt;

use mm::hugetlb::{Mapping, Slot};
use shell::Errno;

use super::options::Options;
use crate::metal::Metal;
use crate::state::MM;

/// A mapping that keeps its own places.
pub(super) type Map = Mapping<'static, Metal, Vec<Slot>>;

/// Places of all mappings together. They and [`MAX_MAPPINGS`] take about a quarter of the
/// kernel's heap (4 MiB), whose end would be a panic in whoever allocates next.
const MAX_PLACES: usize = 65_536;

/// Mappings at a time.
#[doc(alias = "sysctl_max_map_count")]
const MAX_MAPPINGS: usize = 1024;

/// Why there is no mapping. To user mode all of it is `ENOMEM`, as in Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Too few huge pages for the promise, or no room on the heap.
    NoMemory,
    /// So many of [`MAX_PLACES`] are taken, and what is left is too little.
    Places(usize),
    /// There are [`MAX_MAPPINGS`].
    Mappings,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Errno::ENOMEM.fmt(f)?;
        match self {
            Self::NoMemory => Ok(()),
            Self::Places(taken) => write!(
                f,
                ": all mappings together may have {MAX_PLACES} places, {taken} are taken"
            ),
            Self::Mappings => write!(f, ": there may be {MAX_MAPPINGS} mappings at a time"),
        }
    }
}

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

    /// Makes a mapping; its number.
    ///
    /// # Errors
    /// [`Refused`]: nothing is changed then.
    pub(super) fn map(&mut self, options: &Options) -> Result<usize, Refused> {
        let slots = self.empty(options.count)?;
        let (h, flags) = (options.h, options.flags);
        let hugetlb = &MM.hugetlb;
        let map = hugetlb.map_own(&Metal, MM.backing(), h, flags, slots);
        self.insert(map.map_err(|_| Refused::NoMemory)?)
    }

    /// A child of mapping `id`; its number, or `None` if there is no such mapping.
    ///
    /// # Errors
    /// [`Refused`]: nothing is changed then.
    pub(super) fn fork(&mut self, id: usize) -> Option<Result<usize, Refused>> {
        let len = self.get_mut(id)?.len();
        let slots = match self.empty(len) {
            Ok(slots) => slots,
            Err(why) => return Some(Err(why)),
        };
        let child = self.get_mut(id)?.fork_own(slots);
        Some(self.insert(child))
    }

    /// Drops mapping `id`; whether there was one.
    pub(super) fn unmap(&mut self, id: usize) -> bool {
        let place = self.0.get_mut(id);
        place.and_then(Option::take).is_some()
    }

    /// So many places, if there may be so many more and the heap has room for them.
    fn empty(&self, count: usize) -> Result<Vec<Slot>, Refused> {
        if self.iter().count() >= MAX_MAPPINGS {
            return Err(Refused::Mappings);
        }
        let taken = self.iter().map(|(_, map)| map.len()).sum();
        if count > MAX_PLACES.saturating_sub(taken) {
            return Err(Refused::Places(taken));
        }
        let mut slots = Vec::new();
        let room = slots.try_reserve_exact(count);
        room.map_err(|_| Refused::NoMemory)?;
        slots.resize(count, Slot::Empty);
        Ok(slots)
    }

    fn insert(&mut self, map: Map) -> Result<usize, Refused> {
        let id = self.0.iter().position(Option::is_none);
        let id = id.unwrap_or(self.0.len());
        if id == self.0.len() {
            self.0.try_reserve(1).map_err(|_| Refused::NoMemory)?;
            self.0.push(None);
        }
        self.0[id] = Some(map);
        Ok(id)
    }
}
