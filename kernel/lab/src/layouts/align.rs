//! How large a folio may be before its tails miss their head: found by trying.

use super::error::LayoutError;
use super::map::Map;
use super::model::Model;
use mm::addr::{Order, Pfn};
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::page::encoding::{Encoding, PageShape};

/// Below this many pages every tail is looked at.
const ALL: u64 = 2048;

/// The tails of a folio of `order` that a trial looks at: all of a small one, of a large
/// one the first 128, the last, and 1024 between.
pub fn samples(order: Order) -> impl Iterator<Item = u64> {
    let pages = order.pages();
    let stride = if pages <= ALL { 1 } else { (pages / 1024) | 1 };
    let mut next = Some(1);
    let after = move |n: u64| {
        let step = if n < 128 { 1 } else { stride };
        match n + step {
            _ if n + 1 >= pages => None,
            far if far >= pages => Some(pages - 1),
            near => Some(near),
        }
    };
    core::iter::from_fn(move || {
        let n = next.filter(|&n| n < pages)?;
        next = after(n);
        Some(n)
    })
}

impl<E: Encoding, S: PageShape, Mo: Model> Map<E, S, Mo> {
    /// The lowest order of which a folio in this map has tails that do not find their
    /// head, if there is one among those that fit in it. The limit that
    /// [`Map::prep_compound`] keeps to is not looked at. No folio is in the map.
    ///
    /// # Errors
    /// [`LayoutError::NoMemory`].
    #[doc(alias = "MAX_FOLIO_VMEMMAP_ALIGN")]
    pub fn first_failing_order<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
    ) -> Result<Option<Order>, LayoutError> {
        for order in Order::range_inclusive(Order::of(1), Order::MAX) {
            let mask = order.pages() - 1;
            let first = Pfn::new((self.spec.range.start.as_u64() + mask) & !mask);
            if self.check_block(first, order).is_err() {
                break;
            }
            if !self.finds_its_head(m, frames, first, order)? {
                return Ok(Some(order));
            }
        }
        Ok(None)
    }

    /// Makes as much of a folio as the trial needs, looks, and takes it apart again.
    fn finds_its_head<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<bool, LayoutError> {
        let info = self.block_info(m, frames, first, order)?;
        self.set_head(m, first, &info);
        for n in samples(order) {
            self.set_word(m, first.offset(n), E::tail::<S>(&info));
        }
        let home = info.descriptor.unwrap_or(info.head);
        let finds = |n| self.page_folio(m, self.page(m, first.offset(n))) == Some(home);
        let all = samples(order).all(finds);
        for n in samples(order) {
            self.set_word(m, first.offset(n), 0);
        }
        self.unset_head(m, first);
        self.give(m, frames, info.descriptor);
        Ok(all)
    }
}
