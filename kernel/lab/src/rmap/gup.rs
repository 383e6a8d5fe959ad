//! Pins and references that are found through a page table (GUP).

use super::alloc::Pages;
use super::error::VmError;
use super::fields::Field;
use super::kind::page_kind;
use super::policy::Pin;
use mm::machine::Machine;
use mm::page::Page;

/// References that a pin of a folio of order 0 is worth.
pub const GUP_PIN_COUNTING_BIAS: u32 = 1 << 10;

impl<M: Machine> Pages<'_, M> {
    /// Pins `page`, for somebody who will write to its content, by the way of its kind.
    ///
    /// # Errors
    /// [`VmError::GupRefused`], or as [`Pages::get_page`].
    #[doc(alias = "FOLL_PIN")]
    #[doc(alias = "try_grab_folio")]
    pub fn pin(&self, page: Page) -> Result<(), VmError> {
        let (head, pin) = self.pin_of(page)?;
        match pin {
            Pin::Pincount => {
                self.add_refs(head, 1)?;
                Field::Pincount.add(self.m, head, 1);
                Ok(())
            }
            Pin::Bias => self.add_refs(head, GUP_PIN_COUNTING_BIAS),
            Pin::Plain => self.add_refs(head, 1),
            Pin::Refuse => Err(self.refusal(page)),
        }
    }

    /// Drops a pin; whether that freed the page.
    ///
    /// # Errors
    /// [`VmError::NotPinned`], or as [`Pages::put_page`].
    #[doc(alias = "unpin_user_page")]
    #[doc(alias = "gup_put_folio")]
    pub fn unpin(&self, page: Page) -> Result<bool, VmError> {
        let (head, pin) = self.pin_of(page)?;
        match pin {
            Pin::Pincount => {
                if Field::Pincount.load(self.m, head) == 0 {
                    return Err(VmError::NotPinned(page));
                }
                Field::Pincount.add(self.m, head, u32::MAX);
                self.drop_refs(head, 1)
            }
            Pin::Bias if head.ref_count(self.m) < GUP_PIN_COUNTING_BIAS => {
                Err(VmError::NotPinned(page))
            }
            Pin::Bias => self.drop_refs(head, GUP_PIN_COUNTING_BIAS),
            Pin::Plain => self.drop_refs(head, 1),
            Pin::Refuse => Err(self.refusal(page)),
        }
    }

    /// Takes a reference on `page` for somebody who found it in a page table.
    ///
    /// # Errors
    /// As [`Pages::pin`].
    #[doc(alias = "FOLL_GET")]
    pub fn get(&self, page: Page) -> Result<(), VmError> {
        let (kind, head) = page_kind(self.m, self.policy(), page);
        if self.policy().may_get(kind) {
            self.add_refs(head, 1)
        } else {
            Err(VmError::GupRefused(page, kind, self.policy()))
        }
    }

    /// Whether what `page` belongs to may be pinned: for order 0 that is a guess, since
    /// very many references look the same. `None` if a pin would not show.
    #[doc(alias = "folio_maybe_dma_pinned")]
    pub fn maybe_pinned(&self, page: Page) -> Option<bool> {
        let (head, pin) = self.pin_of(page).ok()?;
        match pin {
            Pin::Pincount => Some(Field::Pincount.load(self.m, head) > 0),
            Pin::Bias => Some(head.ref_count(self.m) >= GUP_PIN_COUNTING_BIAS),
            Pin::Plain | Pin::Refuse => None,
        }
    }

    fn pin_of(&self, page: Page) -> Result<(Page, Pin), VmError> {
        let (kind, head) = page_kind(self.m, self.policy(), page);
        if head.ref_count(self.m) == 0 {
            return Err(VmError::NoReference(head));
        }
        Ok((head, self.policy().pin(kind, head.is_head(self.m))))
    }

    fn refusal(&self, page: Page) -> VmError {
        VmError::GupRefused(page, self.kind(page), self.policy())
    }
}
