//! Floor 5: the wrapper of futures and streams, and the guard of synchronous sections.

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

/// Adds `.watched(&watch)` to futures and streams.
pub trait WatchExt: Sized {
    /// Times every poll of this future or stream, and its destructor, under `watch`.
    ///
    /// It allocates nothing, and adds two pointers to the size of the future. A report names the line of this call. In
    /// a function with `#[track_caller]` that is not `async`, the report names the line of that function's caller.
    ///
    /// The watchdog logs a slow poll inside the `tracing` span that is current *around* the watched future. So write
    /// `.watched(&watch).instrument(span)`, in this order.
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
    /// The wrapper is as cancel safe as the wrapped future.
    ///
    /// # Non-guarantees
    ///
    /// The time between polls, in the runtime's queue or until a socket is ready, is not part of a poll. The duration
    /// of a poll is wall-clock time, so it contains the time in which the operating system did not run the thread.
    #[track_caller]
    fn watched(self, watch: &Watch) -> Watched<Self> {
        Watched::new(self, watch.clone(), Location::caller())
    }
}

impl<T> WatchExt for T {}

pin_project! {
    /// Times the polls of a future or stream. [`WatchExt::watched`] makes it.
    ///
    /// It is a `Future` if the wrapped value is one, and a `Stream` if that is one.
    #[must_use = "futures and streams do nothing unless they are polled"]
    pub struct Watched<T> {
        #[pin]
        inner: GuardedDrop<T, At>,
    }
}

/// The watch, and the line of the call of `watched`. The flag says whether the future is done.
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

    /// Makes a poll that is expected to be slow. Hands the worker's other tasks over first, if that is possible here.
    #[cold]
    #[inline(never)]
    fn contain<T>(&self, mut poll: impl FnMut() -> Poll<T>) -> Poll<T> {
        let permit = ContainmentPermit::acquire(&self.watch);
        self.watch.counters().expected_overrun.decay();
        let timer = match permit {
            Some(_) => self.begin(Section::CONTAINED),
            None => self.begin(Section::POLL),
        };
        let polled = match permit {
            Some(permit) => permit.poll(&self.watch, poll),
            None => poll(),
        };
        timer.end();
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
        let timer = at.begin(Section::POLL);
        let polled = poll(inner);
        timer.end();
        polled
    }

    /// Returns the wrapped value.
    pub fn inner(&self) -> &T {
        self.inner.get()
    }

    /// Returns the wrapped value, mutably.
    pub fn inner_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// Returns the wrapped value, pinned and mutable.
    pub fn inner_pin_mut(self: Pin<&mut Self>) -> Pin<&mut T> {
        self.project().inner.split().1
    }

    /// Returns the wrapped value, pinned.
    pub fn inner_pin_ref(self: Pin<&Self>) -> Pin<&T> {
        self.project_ref().inner.get_pin_ref()
    }

    /// Returns the wrapped value by value. The watch does not time its destructor then.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }

    /// Returns the watch that times it.
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
    /// Times a synchronous section of code like a poll, until the guard is dropped.
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
    /// The guard is for code without `.await`. Held across one, in a watched future, the section ends with the poll.
    /// The histogram then has the time until the guard was dropped, but no report and no busy time has it.
    ///
    /// Drop the guards of one thread in the reverse of their order. Otherwise the time in which two overlap is in the
    /// busy time of both. A leaked guard stays in flight until the poll around it returns or the thread ends.
    #[inline(always)]
    #[track_caller]
    #[must_use = "the section ends where the guard is dropped"]
    pub fn enter(&self) -> Entered<'_> {
        Entered {
            timer: Some(PollTimer::begin(self, Location::caller(), Section::ENTERED)),
            was_panicking: std::thread::panicking(),
            not_send: PhantomData,
        }
    }
}

/// Times a synchronous section of code until it is dropped. [`Watch::enter`] makes it.
pub struct Entered<'w> {
    timer: Option<PollTimer<'w>>,
    was_panicking: bool,
    /// The section belongs to the thread where it began.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking() && !self.was_panicking;
        match self.timer.take() {
            Some(timer) if !panicked => timer.end(),
            timer => drop(timer),
        }
    }
}

impl fmt::Debug for Entered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}
