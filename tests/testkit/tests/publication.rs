//! The publication of a shared tail page under `loom`: every interleaving, and every
//! value that a weakly ordered memory may return. The code is `mm`'s own; only the
//! atomic word is loom's. Two more tests weaken it and must fail.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64};
use mm::addr::Pfn;
use mm::vmemmap::{PublishCell, PublishOnce};

/// CPUs that make the page; one more only looks.
const MAKERS: usize = 2;
/// What a filled frame holds.
const FILLED: u64 = 0x7a11;

/// loom's word, with the orderings that are asked for, or with none at all.
struct Word {
    word: AtomicU64,
    relaxed: bool,
}

impl Word {
    fn weaken(&self, order: Ordering) -> Ordering {
        if self.relaxed {
            Ordering::Relaxed
        } else {
            order
        }
    }
}

impl PublishCell for Word {
    fn load(&self, order: Ordering) -> u64 {
        self.word.load(self.weaken(order))
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        let (success, failure) = (self.weaken(success), self.weaken(failure));
        self.word.compare_exchange(current, new, success, failure)
    }
}

/// A frame. loom reports an access to `content` that is not ordered after another
/// CPU's write to it.
struct Frame {
    content: UnsafeCell<u64>,
    taken: AtomicBool,
}

impl Frame {
    #[expect(unsafe_code, reason = "loom's cell hands out raw pointers")]
    fn fill(&self) {
        self.content.with_mut(|content| {
            // SAFETY: loom checks that nobody else is at it (N-4).
            unsafe { *content = FILLED }
        });
    }

    #[expect(unsafe_code, reason = "loom's cell hands out raw pointers")]
    fn read(&self) -> u64 {
        self.content.with(|content| {
            // SAFETY: loom checks that nobody writes to it (N-4).
            unsafe { *content }
        })
    }
}

struct World {
    tail: PublishOnce<Word>,
    /// One for each maker.
    frames: [Frame; MAKERS],
}

impl World {
    fn new(relaxed: bool) -> Self {
        let frame = |_| Frame {
            content: UnsafeCell::new(0),
            taken: AtomicBool::new(false),
        };
        let word = AtomicU64::new(0);
        Self {
            tail: PublishOnce::through(Word { word, relaxed }),
            frames: [0; MAKERS].map(frame),
        }
    }

    fn frame(&self, pfn: Pfn) -> &Frame {
        let n = usize::try_from(pfn.as_u64()).expect("below MAKERS");
        &self.frames[n]
    }

    /// What `Vmemmap::shared_tail` does, by CPU `n`; `keep`: the loser's frame is not
    /// given back.
    fn make(&self, n: usize, keep: bool) -> Pfn {
        let pfn = Pfn::new(n as u64);
        let make = || {
            self.frame(pfn).taken.store(true, Ordering::Relaxed);
            self.frame(pfn).fill();
            Ok::<_, ()>(pfn)
        };
        let discard = |mine| {
            let kept = keep || mine != pfn;
            self.frame(mine).taken.store(kept, Ordering::Relaxed);
        };
        let published = self.tail.get_or_publish(make, discard);
        let tail = published.expect("`make` does not fail").pfn();
        assert_eq!(self.frame(tail).read(), FILLED, "seen before it was filled");
        tail
    }

    fn look(&self) {
        if let Some(tail) = self.tail.get() {
            assert_eq!(self.frame(tail).read(), FILLED, "seen before it was filled");
        }
    }
}

/// Two CPUs make the page at once, a third looks; all interleavings.
fn model(relaxed: bool, keep: bool) {
    loom::model(move || {
        let world = Arc::new(World::new(relaxed));
        let makers = [0, 1].map(|n| {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.make(n, keep))
        });
        world.look();
        let made = makers.map(|maker| maker.join().expect("no panic"));
        assert_eq!(made[0], made[1], "all use one page");
        for (n, frame) in world.frames.iter().enumerate() {
            let taken = frame.taken.load(Ordering::Relaxed);
            let used = Pfn::new(n as u64) == made[0];
            assert_eq!(taken, used, "frame {n} is taken, or used: not both");
        }
    });
}

#[test]
fn content_is_seen_with_the_number_and_the_loser_gives_back() {
    model(false, false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_orderings_it_is_noticed() {
    model(true, false);
}

#[test]
#[should_panic(expected = "frame 1 is taken, or used")]
fn a_loser_that_keeps_its_frame_is_noticed() {
    model(false, true);
}
