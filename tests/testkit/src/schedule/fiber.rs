//! A CPU's work as a coroutine.
#![expect(
    unsafe_code,
    reason = "a coroutine that borrows, and the way back out of it from deep inside"
)]

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::point::Point;

/// How a fiber's work ended: well, or with a panic.
pub(super) type Outcome = Result<(), Box<dyn Any + Send>>;

thread_local! {
    /// The way out of the fiber that runs on this thread; null outside of any.
    static YIELDER: Cell<*const Yielder<u64, Point>> = const { Cell::new(ptr::null()) };
}

/// Work that stops at points and is resumed. Dropped half-way, it is unwound.
pub(super) struct Fiber<'a> {
    coroutine: Coroutine<u64, Point, Outcome>,
    /// What the work borrows.
    _work: PhantomData<&'a mut ()>,
}

impl<'a> Fiber<'a> {
    pub(super) fn new(work: impl FnOnce() + 'a) -> Self {
        let body = move |yielder: &Yielder<u64, Point>, _: u64| {
            YIELDER.set(yielder);
            catch_unwind(AssertUnwindSafe(work))
        };
        // SAFETY: what `work` borrows lives for 'a. `Fiber<'a>` has a `Drop` that
        // unwinds the work, so it cannot outlive 'a, and nobody forgets one (N-3).
        let coroutine = unsafe { Coroutine::with_stack_unchecked(DefaultStack::default(), body) };
        Self {
            coroutine,
            _work: PhantomData,
        }
    }

    /// Goes on until the next point, whose value `random` is; or to the end.
    pub(super) fn resume(&mut self, random: u64) -> CoroutineResult<Point, Outcome> {
        let result = self.coroutine.resume(random);
        YIELDER.set(ptr::null());
        result
    }
}

impl Drop for Fiber<'_> {
    fn drop(&mut self) {
        self.coroutine.force_unwind();
    }
}

/// Whether this is the inside of a fiber that can be stopped. One that unwinds
/// cannot: it would leave its panic behind in another's hands.
pub(super) fn is_running() -> bool {
    !YIELDER.get().is_null() && !std::thread::panicking()
}

/// Stops this fiber until it is resumed; with which random number. Call only while
/// [`is_running`].
pub(super) fn suspend(point: Point) -> u64 {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "not inside a fiber");
    // SAFETY: set by the fiber that runs on this thread, whose stack, and with it the
    // yielder, exists as long as it runs; `resume` clears it when it stops (N-3).
    let yielder_ref = unsafe { &*yielder };
    let random = yielder_ref.suspend(point);
    YIELDER.set(yielder);
    random
}
