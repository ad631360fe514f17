//! A pinned value whose destructor runs inside a guard.

use std::mem::{ManuallyDrop, needs_drop};
use std::pin::Pin;

use pin_project_lite::pin_project;

/// Something that can be entered while a neighbouring value is dropped.
pub(crate) trait Enter {
    type Guard<'a>
    where
        Self: 'a;

    fn enter(&self) -> Self::Guard<'_>;

    /// The end without a panic; after a panic the guard is dropped instead.
    fn leave(guard: Self::Guard<'_>);
}

pin_project! {
    /// `inner`, which is dropped in place while `around` is entered, if there is anything to drop.
    ///
    /// The order of fields alone cannot do this: whatever is to happen before the inner destructor
    /// and after it needs `around` both times.
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
            // Made first: if `enter` panics, unwinding still drops the value. Pinning promises that,
            // and what is linked into a list (a waiter, a timer) would be freed while it is still in it.
            let inner = DropInPlace(this.inner);
            let entered = this.around.enter();
            drop(inner);
            G::leave(entered);
        }
    }
}

/// Drops what it points at. Made only by the destructor of [`GuardedDrop`], once.
struct DropInPlace<'p, T>(Pin<&'p mut ManuallyDrop<T>>);

impl<T> Drop for DropInPlace<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `inner` of a `GuardedDrop` is dropped here and nowhere else: only its destructor
        // makes one of these, it runs once, and no other method hands out the `ManuallyDrop` itself.
        // The value does not move (it is dropped through the pinned place it lived in), which is what
        // pinning asks of a destructor.
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

    /// The guard's owner beside the pinned value.
    #[inline]
    pub(crate) fn split(self: Pin<&mut Self>) -> (&mut G, Pin<&mut T>) {
        let this = self.project();
        // SAFETY: a structural projection: `inner` is pinned whenever `self` is, `ManuallyDrop`
        // is a transparent wrapper, and nothing moves the value out before its destructor.
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

    /// It panics where it says so.
    #[derive(PartialEq)]
    enum Around {
        Whole,
        PanicsOnEntry,
        PanicsOnLeaving,
    }

    struct Entered {
        panics: bool,
    }

    impl Enter for Around {
        type Guard<'a> = Entered;

        fn enter(&self) -> Entered {
            log("enter");
            assert!(*self != Around::PanicsOnEntry, "on entry");
            Entered {
                panics: *self == Around::PanicsOnLeaving,
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

    /// Points at itself, so that Miri sees it if it is ever moved.
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

    fn guarded(panics: bool) -> Pin<Box<GuardedDrop<Inner, Around>>> {
        guarded_by(Around::Whole, panics)
    }

    fn guarded_by(around: Around, panics: bool) -> Pin<Box<GuardedDrop<Inner, Around>>> {
        let inner = Inner {
            text: "a destructor".to_owned(),
            own_address: std::ptr::null(),
            panics,
            _pinned: PhantomPinned,
        };
        let mut guarded = Box::pin(GuardedDrop::new(inner, around));
        let (_, inner) = guarded.as_mut().split();
        let address = std::ptr::from_ref(&*inner);
        // SAFETY: a field is written; nothing is moved.
        unsafe { inner.get_unchecked_mut() }.own_address = address;
        guarded
    }

    #[test]
    fn the_guard_is_around_the_destructor() {
        let guarded = guarded(false);
        assert_eq!(guarded.get().text, "a destructor");
        drop(guarded);
        assert_eq!(logged(), ["enter", "drop", "leave"]);
    }

    #[test]
    fn a_destructor_that_panics_drops_the_guard() {
        let guarded = guarded(true);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guarded))).is_err());
        assert_eq!(logged(), ["enter", "drop", "unwound"]);
    }

    #[test]
    fn enter_that_panics_drops_the_value_once() {
        let guarded = guarded_by(Around::PanicsOnEntry, false);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guarded))).is_err());
        assert_eq!(logged(), ["enter", "drop"]);
    }

    #[test]
    fn leave_that_panics_drops_the_value_once() {
        let guarded = guarded_by(Around::PanicsOnLeaving, false);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guarded))).is_err());
        assert_eq!(logged(), ["enter", "drop", "leave"]);
    }

    #[test]
    fn without_a_destructor_nothing_is_entered() {
        drop(GuardedDrop::new(7, Around::Whole));
        assert!(logged().is_empty());
    }
}
