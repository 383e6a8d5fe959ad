//! A frame that is made when first needed and published once.
//!
//! Whoever needs it and finds none makes one, and offers it by a compare-exchange. One
//! offer is taken; the others' makers get the winner and give their own back. The
//! exchange releases what the maker wrote, every look acquires it: nobody sees the
//! frame's number before its content.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Pfn;

/// The word that is published through: an `AtomicU64`, or a model checker's stand-in,
/// so that what is checked is this code and no copy.
pub trait PublishCell {
    /// [`AtomicU64::load`].
    fn load(&self, order: Ordering) -> u64;

    /// [`AtomicU64::compare_exchange`].
    ///
    /// # Errors
    /// The value found, when it was not `current`.
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;
}

impl PublishCell for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(current, new, success, failure)
    }
}

/// What [`PublishOnce::get_or_publish`] found or did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// Somebody published this frame before.
    Found(Pfn),
    /// The caller's frame is the one.
    Mine(Pfn),
}

impl Published {
    /// The frame that all use.
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        match self {
            Self::Found(pfn) | Self::Mine(pfn) => pfn,
        }
    }
}

/// `pfn + 1` of a frame that does not change once published, or 0.
#[derive(Debug)]
pub struct PublishOnce<C = AtomicU64>(C);

impl PublishOnce {
    /// Nothing published.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Default for PublishOnce {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: PublishCell> PublishOnce<C> {
    /// Publishes through `cell`, which holds 0.
    pub const fn through(cell: C) -> Self {
        Self(cell)
    }

    /// The frame, if it has been published.
    pub fn get(&self) -> Option<Pfn> {
        // Acquire: pairs with the publication, so the frame's content is seen.
        match self.0.load(Ordering::Acquire) {
            0 => None,
            published => Some(Pfn::new(published - 1)),
        }
    }

    /// The published frame. If there is none, `make` makes one, complete; if another
    /// was faster meanwhile, `discard` takes it back.
    ///
    /// # Errors
    /// `make`'s.
    pub fn get_or_publish<E>(
        &self,
        make: impl FnOnce() -> Result<Pfn, E>,
        discard: impl FnOnce(Pfn),
    ) -> Result<Published, E> {
        if let Some(found) = self.get() {
            return Ok(Published::Found(found));
        }
        let mine = make()?;
        // Release: what `make` wrote is seen by whoever sees the number. Acquire, also
        // on failure: the loser goes on with what the winner wrote.
        let exchanged =
            self.0
                .compare_exchange(0, mine.as_u64() + 1, Ordering::AcqRel, Ordering::Acquire);
        match exchanged {
            Ok(_) => Ok(Published::Mine(mine)),
            Err(winner) => {
                discard(mine);
                Ok(Published::Found(Pfn::new(winner - 1)))
            }
        }
    }
}
