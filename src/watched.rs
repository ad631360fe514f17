//! Floor 5: the wrappers that users hold, and the guard.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::future::FusedFuture;
use futures_core::stream::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::containment::{self, ContainmentPermit};
use crate::poll_timer::{PollTimer, Section};
use crate::sys::{Enter, FlaggedRef, GuardedDrop};
use crate::watch::Watch;

/// `.watched(&watch)` for futures and streams.
pub trait WatchExt: Sized {
    /// Times every poll of this future or stream, and its destructor, under `watch`.
    ///
    /// Wrapping allocates nothing and adds two pointers to the size of the future. Where it is
    /// called is what a report names as the location; a function that calls it for others passes
    /// their line on if it is `#[track_caller]` (and not `async`).
    ///
    /// A slow poll is logged inside the `tracing` span that is current *around* the watched future:
    /// write `.watched(&watch).instrument(span)`, in this order.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{WatchExt as _, Watchdog};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), shotclock::Error> {
    /// let watchdog = Watchdog::builder().build()?;
    /// let requests = watchdog.watch("requests");
    ///
    /// let answer = tokio::spawn(async { 42 }.watched(&requests)).await;
    ///
    /// assert_eq!(answer.ok(), Some(42));
    /// assert_eq!(requests.stats().polls, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as what it wraps.
    ///
    /// # Non-guarantees
    ///
    /// What runs between polls (the queue of the runtime, the wait for a socket) is not timed. A
    /// poll is timed by the wall: a thread that the operating system does not run makes it longer.
    #[track_caller]
    fn watched(self, watch: &Watch) -> Watched<Self> {
        Watched::new(self, watch.clone(), Location::caller())
    }
}

impl<T> WatchExt for T {}

pin_project! {
    /// A future or stream whose polls are timed. Made by [`WatchExt::watched`].
    ///
    /// It is a `Future` if what it wraps is one, and a `Stream` if that is one.
    #[must_use = "futures and streams do nothing unless they are polled"]
    pub struct Watched<T> {
        #[pin]
        inner: GuardedDrop<T, At>,
    }
}

/// The watch, and the line where the wrapping was done, which is flagged when the future is done.
struct At {
    watch: Watch,
    location: FlaggedRef<Location<'static>>,
}

impl Enter for At {
    type Guard<'a> = PollTimer<'a>;

    #[inline(always)]
    fn enter(&self) -> PollTimer<'_> {
        self.begin(if self.location.is_flagged() {
            Section::DROP_DONE
        } else {
            Section::DROP
        })
    }

    fn leave(guard: PollTimer<'_>) {
        guard.end();
    }
}

impl At {
    #[inline(always)]
    fn begin(&self, section: Section) -> PollTimer<'_> {
        PollTimer::begin(&self.watch, self.location.get(), section)
    }

    /// A poll that is expected to be slow: the worker's other tasks are handed over first, if that is
    /// possible here.
    #[cold]
    #[inline(never)]
    fn contain<T>(&self, mut poll: impl FnMut() -> Poll<T>) -> Poll<T> {
        let place = ContainmentPermit::acquire(&self.watch);
        self.watch.counters().expected_overrun.decay();
        let possession = match place {
            Some(_) => self.begin(Section::CONTAINED),
            None => self.begin(Section::POLL),
        };
        let polled = match place {
            Some(place) => place.poll(&self.watch, poll),
            None => poll(),
        };
        possession.end();
        polled
    }
}

impl<T> Watched<T> {
    pub(crate) fn new(inner: T, watch: Watch, location: &'static Location<'static>) -> Self {
        let at = At {
            watch,
            location: FlaggedRef::new(location),
        };
        Self {
            inner: GuardedDrop::new(inner, at),
        }
    }

    /// Makes one poll. Inlined in every build, as everything between is: see [`PollTimer::begin`].
    #[inline(always)]
    pub(crate) fn poll_by<P>(
        self: Pin<&mut Self>,
        mut poll: impl FnMut(Pin<&mut T>) -> Poll<P>,
    ) -> Poll<P> {
        let (at, mut inner) = self.project().inner.split();
        if containment::pays(&at.watch) {
            return at.contain(|| poll(inner.as_mut()));
        }
        let possession = at.begin(Section::POLL);
        let polled = poll(inner);
        possession.end();
        polled
    }

    /// What was wrapped.
    pub fn inner(&self) -> &T {
        self.inner.get()
    }

    /// What was wrapped, to be changed in place.
    pub fn inner_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// What was wrapped, pinned as this is.
    pub fn inner_pin_mut(self: Pin<&mut Self>) -> Pin<&mut T> {
        self.project().inner.split().1
    }

    /// The watch under which it is timed.
    pub fn watch(&self) -> &Watch {
        &self.inner.around().watch
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.as_mut().poll_by(|future| future.poll(cx));
        if polled.is_ready() {
            self.project().inner.split().0.location.flag();
        }
        polled
    }
}

impl<S: Stream> Stream for Watched<S> {
    type Item = S::Item;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_by(|stream| stream.poll_next(cx))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner().size_hint()
    }
}

impl<F: FusedFuture> FusedFuture for Watched<F> {
    fn is_terminated(&self) -> bool {
        self.inner().is_terminated()
    }
}

impl<S: FusedStream> FusedStream for Watched<S> {
    fn is_terminated(&self) -> bool {
        self.inner().is_terminated()
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("watch", &self.watch().name())
            .field("inner", self.inner())
            .finish()
    }
}

impl Watch {
    /// Times a synchronous section of code as if it were a poll, until the guard is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use shotclock::Watchdog;
    /// # let watchdog = Watchdog::builder().build()?;
    /// let parse = watchdog.watch("parse");
    /// {
    ///     let _entered = parse.enter();
    ///     // … work that should stay short …
    /// }
    /// assert_eq!(parse.stats().polls, 1);
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    ///
    /// # Non-guarantees
    ///
    /// The guard is for code without `.await` in it. Held across one, in a watched future, the
    /// section counts as ended where the poll ended: it is in the histogram with the time until the
    /// guard was dropped, but it is never reported and adds nothing to the busy time. Guards of one
    /// thread that are not dropped in the reverse of the order in which they were made count, but
    /// what overlaps is in the busy time of both. A guard that is leaked stays in flight until the
    /// poll around it returns or the thread ends.
    #[inline(always)]
    #[track_caller]
    #[must_use = "the section ends where the guard is dropped"]
    pub fn enter(&self) -> Entered<'_> {
        Entered {
            possession: Some(PollTimer::begin(self, Location::caller(), Section::ENTERED)),
            was_panicking: std::thread::panicking(),
            not_send: PhantomData,
        }
    }
}

/// A synchronous section of code that is being timed. Made by [`Watch::enter`].
pub struct Entered<'w> {
    possession: Option<PollTimer<'w>>,
    was_panicking: bool,
    /// The section belongs to the thread where it began.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking() && !self.was_panicking;
        match self.possession.take() {
            Some(possession) if !panicked => possession.end(),
            possession => drop(possession),
        }
    }
}

impl fmt::Debug for Entered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}
