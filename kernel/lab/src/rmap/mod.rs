//! A compound page is not a folio: kinds of allocations, what maps them, who counts it.
//!
//! A folio is what user mode maps and pins, and has fields to count that
//! (`fields.rs`). Drivers allocate compound pages that are not meant as folios and
//! map them into user mode all the same: af_packet, io_uring and sg do. What should
//! happen then is an open question on the list; each answer is a [`Policy`] here.
//!
//! [`Pages`] allocates, tells kinds apart and takes back; [`AddressSpace`] maps. The
//! tables are in no CPU's CR3. A mapping holds a reference, and the rmap counts it if
//! the kind is one that counts.
//!
//! What each policy does with a compound page that is no folio, of four pages, all of
//! them inserted (`tests/rmap.rs` of testkit does it and compares):
//!
//! | | Today | Rfc | NotRmappable | SubClass | NotAFolio(PlainReference) | NotAFolio(Fail) | OrderZeroOnly |
//! |---|---|---|---|---|---|---|---|
//! | `page_kind` | folio | compound page | compound page | compound page | compound page | compound page | compound page |
//! | `page_folio` | its head | its head | its head | its head | none | none | its head |
//! | `vm_insert_pages` | counted | counted, WARN | not counted | not counted | not counted | not counted | EINVAL |
//! | `folio_mapcount` then | 4 | 5 | none | none | none | none | - |
//! | `vm_normal_page` | the page | the page | the page | the page | the page | the page | - |
//! | `vm_normal_folio` | its head | its head | its head | its head | none | none | - |
//! | `get_user_page` | reference | reference | reference | reference | reference | EFAULT | - |
//! | `pin_user_page` | `_pincount` | `_pincount` | EFAULT | `_pincount` | reference | EFAULT | - |
//! | map count left at free | bad page | freed | freed | freed | freed | freed | freed |
//! | `_pincount` left at free | bad page | freed | freed | bad page | freed | freed | freed |
//!
//! And with a single page that is no folio:
//!
//! | | Today | Rfc | NotRmappable | SubClass | NotAFolio(PlainReference) | NotAFolio(Fail) | OrderZeroOnly |
//! |---|---|---|---|---|---|---|---|
//! | `page_kind` | folio | folio | bare page | folio | bare page | bare page | folio |
//! | `page_folio` | its head | its head | its head | its head | none | none | its head |
//! | `vm_insert_pages` | counted | counted | not counted | counted | not counted | not counted | counted |
//! | `folio_mapcount` then | 1 | 1 | none | 1 | none | none | 1 |
//! | `vm_normal_page` | the page | the page | the page | the page | the page | the page | the page |
//! | `vm_normal_folio` | its head | its head | its head | its head | none | none | its head |
//! | `get_user_page` | reference | reference | reference | reference | reference | EFAULT | reference |
//! | `pin_user_page` | 1024 references | 1024 references | 1024 references | 1024 references | reference | EFAULT | 1024 references |
//! | map count left at free | bad page | bad page | bad page | bad page | bad page | bad page | bad page |
//!
//! What the tables come to:
//!
//! - `Rfc` breaks drivers that worked: the rmap is run on fields that nobody
//!   initialised, it warns, and the map count is one too many. What the driver keeps
//!   in those bytes is changed while the page is mapped or pinned.
//! - `NotRmappable` touches nothing, but user mode's buffers can no longer be pinned.
//!   It is a page type in *every* page, which a driver's own type displaces, which
//!   `vm_insert_pages` must not take for a type like others, and which has to be
//!   cleared from every tail before the block can be folded (INV-2).
//! - `SubClass` breaks nothing and costs `_pincount`. Single pages are counted still.
//!   `page_folio` and `vm_normal_folio` go on calling it a folio, which is just what is
//!   objected to on the list.
//! - `NotAFolio` with plain references breaks nothing; that a page is pinned cannot be
//!   told any more. With GUP that fails, direct I/O from such a buffer is refused.
//! - `OrderZeroOnly` refuses all three drivers until they split what they allocate
//!   ([`Pages::split_page`]), when each page is counted as a folio of order 0, or map
//!   frames ([`AddressSpace::remap_pfn_range`]), when nothing is counted.

mod alloc;
mod counts;
mod error;
mod fields;
mod freeing;
mod gup;
mod insert;
mod kind;
mod policy;
mod space;
mod walk;

pub use alloc::{Gfp, Pages};
pub use error::VmError;
pub use fields::{ENTIRELY_MAPPED, FOLIO_PAGES_MAPPED, FolioFields, page_mapcount};
pub use gup::GUP_PIN_COUNTING_BIAS;
pub use kind::{PageKind, page_kind};
pub use policy::{Gup, Policy};
pub use space::{AddressSpace, Leaf, USER_END};
pub use walk::{KindCounts, Smaps};
