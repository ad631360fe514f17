//! Runs the destructor of a pinned value inside a guard.

use std::mem::{ManuallyDrop, needs_drop};
use std::pin::Pin;

use pin_project_lite::pin_project;

/// Makes the guard that is held while a neighbouring value is dropped.
pub(crate) trait Enter {
    type Guard<'a>
    where
        Self: 'a;

    fn enter(&self) -> Self::Guard<'_>;

    /// Ends the guard after a drop without a panic. After a panic, the guard is dropped instead.
    fn leave(guard: Self::Guard<'_>);
}

pin_project! {
    /// Drops `inner` in place while `around` is entered, if `inner` has a destructor.
    ///
    /// The order of fields alone cannot do this, because `around` acts before and after the inner destructor.
    pub(crate) struct GuardedDrop<T, G: Enter> {
        around: G,
        #[pin]
        inner: ManuallyDrop<T>,
    }

    impl<T, G: Enter> PinnedDrop for GuardedDrop<T, G> {
        fn drop(this: Pin<&mut Self>) {
            if !needs_drop::<T>() {
                return;
            }
            let this = this.project();
            // Made first: if `enter` panics, unwinding still drops the value, as pinning demands. Otherwise a waiter
            // or timer that is linked into a list would be freed while the list still holds it.
            let inner = DropInPlace(this.inner);
            let entered = this.around.enter();
            drop(inner);
            G::leave(entered);
        }
    }
}

/// Drops the value that it points to. Only the destructor of [`GuardedDrop`] makes one, once.
struct DropInPlace<'p, T>(Pin<&'p mut ManuallyDrop<T>>);

impl<T> Drop for DropInPlace<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: only this line drops `inner` of a `GuardedDrop`: only its destructor makes a `DropInPlace`, it runs
        // once, and no other method gives out the `ManuallyDrop` itself. The value does not move: it is dropped
        // through its pinned place, as pinning demands of a destructor.
        unsafe { ManuallyDrop::drop(self.0.as_mut().get_unchecked_mut()) }
    }
}

impl<T, G: Enter> GuardedDrop<T, G> {
    pub(crate) fn new(inner: T, around: G) -> Self {
        Self {
            around,
            inner: ManuallyDrop::new(inner),
        }
    }

    pub(crate) fn around(&self) -> &G {
        &self.around
    }

    pub(crate) fn get(&self) -> &T {
        &self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Returns the pinned value.
    pub(crate) fn get_pin_ref(self: Pin<&Self>) -> Pin<&T> {
        // SAFETY: a structural projection, as in `split`.
        unsafe { self.project_ref().inner.map_unchecked(|inner| &**inner) }
    }

    /// Returns the value, without its guard.
    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so `inner` is moved out once and `around` is dropped once. The caller owns the
        // value, so it is not pinned.
        unsafe {
            let inner = ManuallyDrop::take(&mut this.inner);
            std::ptr::drop_in_place(&mut this.around);
            inner
        }
    }

    /// Returns `around` and the pinned value.
    #[inline]
    pub(crate) fn split(self: Pin<&mut Self>) -> (&mut G, Pin<&mut T>) {
        let this = self.project();
        // SAFETY: a structural projection: `inner` is pinned whenever `self` is, `ManuallyDrop` is a transparent wrapper,
        // and no method moves a pinned value out.
        let inner = unsafe { this.inner.map_unchecked_mut(|inner| &mut **inner) };
        (this.around, inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::marker::PhantomPinned;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    thread_local! {
        static LOG: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    fn log(line: &'static str) {
        LOG.with_borrow_mut(|log| log.push(line));
    }

    fn logged() -> Vec<&'static str> {
        LOG.take()
    }

    /// Panics where the variant says.
    #[derive(PartialEq)]
    enum DropGuard {
        NeverPanics,
        PanicsOnEntry,
        PanicsOnLeaving,
    }

    struct Entered {
        panics: bool,
    }

    impl Enter for DropGuard {
        type Guard<'a> = Entered;

        fn enter(&self) -> Entered {
            log("enter");
            assert!(*self != DropGuard::PanicsOnEntry, "on entry");
            Entered {
                panics: *self == DropGuard::PanicsOnLeaving,
            }
        }

        fn leave(guard: Entered) {
            log("leave");
            let panics = guard.panics;
            std::mem::forget(guard);
            assert!(!panics, "on leaving");
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            log("unwound");
        }
    }

    /// Points to itself, so that Miri detects a move.
    struct Inner {
        text: String,
        own_address: *const Inner,
        panics: bool,
        _pinned: PhantomPinned,
    }

    impl Drop for Inner {
        fn drop(&mut self) {
            assert!(self.own_address.is_null() || std::ptr::eq(self.own_address, self));
            log("drop");
            assert!(!self.panics, "{}", self.text);
        }
    }

    fn guarded(panics: bool) -> Pin<Box<GuardedDrop<Inner, DropGuard>>> {
        guarded_by(DropGuard::NeverPanics, panics)
    }

    fn guarded_by(around: DropGuard, panics: bool) -> Pin<Box<GuardedDrop<Inner, DropGuard>>> {
        let inner = Inner {
            text: "a destructor".to_owned(),
            own_address: std::ptr::null(),
            panics,
            _pinned: PhantomPinned,
        };
        let mut guarded = Box::pin(GuardedDrop::new(inner, around));
        let (_, inner) = guarded.as_mut().split();
        let address = std::ptr::from_ref(&*inner);
        // SAFETY: this writes a field and moves nothing.
        unsafe { inner.get_unchecked_mut() }.own_address = address;
        guarded
    }

    #[test]
    fn drop_enters_and_leaves_around_the_destructor() {
        let guarded = guarded(false);
        assert_eq!(guarded.get().text, "a destructor");
        drop(guarded);
        assert_eq!(logged(), ["enter", "drop", "leave"]);
    }

    #[test]
    fn drop_that_panics_drops_the_guard() {
        let guarded = guarded(true);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guarded))).is_err());
        assert_eq!(logged(), ["enter", "drop", "unwound"]);
    }

    #[test]
    fn enter_that_panics_drops_the_value_once() {
        let guarded = guarded_by(DropGuard::PanicsOnEntry, false);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guarded))).is_err());
        assert_eq!(logged(), ["enter", "drop"]);
    }

    #[test]
    fn leave_that_panics_drops_the_value_once() {
        let guarded = guarded_by(DropGuard::PanicsOnLeaving, false);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guarded))).is_err());
        assert_eq!(logged(), ["enter", "drop", "leave"]);
    }

    #[test]
    fn into_inner_enters_nothing_and_drops_each_part_once() {
        struct CountsDrops(&'static str);

        impl Drop for CountsDrops {
            fn drop(&mut self) {
                log(self.0);
            }
        }

        impl Enter for CountsDrops {
            type Guard<'a> = ();

            fn enter(&self) {
                log("enter");
            }

            fn leave((): ()) {}
        }

        let guarded = Box::pin(GuardedDrop::new(
            CountsDrops("inner"),
            CountsDrops("around"),
        ));
        assert_eq!(guarded.as_ref().get_pin_ref().0, "inner");
        drop(guarded);
        assert_eq!(logged(), ["enter", "inner", "around"]);
        let inner = GuardedDrop::new(CountsDrops("inner"), CountsDrops("around")).into_inner();
        assert_eq!(logged(), ["around"]);
        drop(inner);
        assert_eq!(logged(), ["inner"]);
    }

    #[test]
    fn drop_of_a_type_without_destructor_enters_nothing() {
        drop(GuardedDrop::new(7, DropGuard::NeverPanics));
        assert!(logged().is_empty());
    }
}
