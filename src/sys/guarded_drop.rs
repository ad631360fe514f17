//! A pinned value whose destructor runs inside a guard.

use std::fmt;
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
            let entered = this.around.enter();
            // SAFETY: `inner` is dropped here and nowhere else: this is the destructor, it runs
            // once, and no other method hands out the `ManuallyDrop` itself. The value does not
            // move (it is dropped through the pinned place it lived in), which is what pinning
            // asks of a destructor.
            unsafe { ManuallyDrop::drop(this.inner.get_unchecked_mut()) }
            G::leave(entered);
        }
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
    pub(crate) fn split(self: Pin<&mut Self>) -> (&G, Pin<&mut T>) {
        let this = self.project();
        // SAFETY: a structural projection: `inner` is pinned whenever `self` is, `ManuallyDrop`
        // is a transparent wrapper, and nothing moves the value out before its destructor.
        let inner = unsafe { this.inner.map_unchecked_mut(|inner| &mut **inner) };
        (this.around, inner)
    }
}

impl<T: fmt::Debug, G: Enter + fmt::Debug> fmt::Debug for GuardedDrop<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedDrop")
            .field("around", &self.around)
            .field("inner", &*self.inner)
            .finish()
    }
}
