//! The set-up of a lane.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZero;
#[cfg(feature = "rayon")]
use std::sync::Arc;
use std::thread::available_parallelism;

use super::backend::Backend;
use super::context::{Around, Hook};
use super::lane::Lane;
use super::queue::Queue;
use crate::counters::lane_counters;
use crate::error::Error;
use crate::publish;
#[cfg(feature = "rayon")]
use crate::sys::{Unblocked, with_signals_blocked};

/// The set-up of a [`Lane`]. Made by [`Lane::builder`].
#[must_use = "a builder does nothing before `build`"]
pub struct LaneBuilder {
    name: Cow<'static, str>,
    limit: Option<usize>,
    queue: Option<usize>,
    threads: Threads,
    hooks: Vec<Hook>,
}

enum Threads {
    Tokio,
    #[cfg(feature = "rayon")]
    Own,
    #[cfg(feature = "rayon")]
    Rayon(Arc<rayon::ThreadPool>),
}

/// As many as the machine lends cores to this process.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

impl Lane {
    /// Starts the set-up of a lane. The name is a label of its metrics.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> LaneBuilder {
        LaneBuilder::new(name.into())
    }
}

impl LaneBuilder {
    fn new(name: Cow<'static, str>) -> Self {
        Self {
            name,
            limit: None,
            queue: None,
            threads: Threads::Tokio,
            hooks: Vec::new(),
        }
    }

    /// How many closures run at once; at least 1. Unless it is set: as many as the machine lends cores
    /// to this process ([`std::thread::available_parallelism`]), or as the user's own pool has threads.
    ///
    /// Closures that compute on every core leave none for the runtime's workers. Where its latency counts,
    /// leave a core free: on two cores, beside a flood of closures, the 99th percentile of a loop that
    /// sleeps for 1 ms was then 1.5 times that of an idle runtime, and 2.6 times with a limit of two
    /// (`benches/lag.rs`).
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How many closures may wait; 0 is allowed. Unless it is set, any number.
    ///
    /// Polls of futures that are [offloaded](crate::OffloadExt::offloaded) are not counted here: one
    /// that was refused would never wake up.
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Runs the closures on a rayon pool of the user's, instead of tokio's blocking pool. It needs no
    /// runtime then.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::Lane;
    /// use std::sync::Arc;
    ///
    /// let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build()?);
    /// let lane = Lane::builder("matrices").rayon_pool(pool).build()?;
    /// assert_eq!(lane.limit(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "rayon")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rayon")))]
    pub fn rayon_pool(mut self, pool: Arc<rayon::ThreadPool>) -> Self {
        self.threads = Threads::Rayon(pool);
        self
    }

    /// Runs the closures on a rayon pool of the lane's own, with as many threads as its limit, instead
    /// of tokio's blocking pool. It needs no runtime then. `rayon`'s parallel iterators in a closure
    /// use this pool.
    #[cfg(feature = "rayon")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rayon")))]
    pub fn rayon(mut self) -> Self {
        self.threads = Threads::Own;
        self
    }

    /// Carries something of the caller's over to the lane's threads, as a task-local: `hook` is called
    /// where something is offloaded, and what it returns is called around it on the lane's thread.
    /// Any number of them; the first is the outermost.
    ///
    /// A hook that panics where it is called panics at the caller's; one that panics around a closure
    /// makes it [`OffloadError::Panicked`](crate::OffloadError::Panicked). What a hook does not call is
    /// called after it.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::Lane;
    ///
    /// tokio::task_local! {
    ///     static TENANT: u32;
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let lane = Lane::builder("reports")
    ///     .carry(|| {
    ///         let tenant = TENANT.try_with(|tenant| *tenant);
    ///         move |work: &mut dyn FnMut()| match tenant {
    ///             Ok(tenant) => TENANT.sync_scope(tenant, work),
    ///             Err(_) => work(),
    ///         }
    ///     })
    ///     .build()?;
    ///
    /// let tenant = TENANT.scope(7, lane.run(|| TENANT.get())).await?;
    ///
    /// assert_eq!(tenant, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn carry<H, A>(mut self, hook: H) -> Self
    where
        H: Fn() -> A + Send + Sync + 'static,
        A: Fn(&mut dyn FnMut()) + Send + Sync + 'static,
    {
        let boxed = move || Box::new(hook()) as Around;
        self.hooks.push(std::sync::Arc::new(boxed));
        self
    }

    /// Builds the lane.
    ///
    /// Lanes of one name count into the same metrics.
    ///
    /// # Errors
    ///
    /// If the limit is 0, or the threads of a pool cannot be started.
    pub fn build(self) -> Result<Lane, Error> {
        if self.limit == Some(0) {
            return Err(Error::setting("limit", "must be at least 1"));
        }
        let (backend, threads) = self.threads.start(&self.name, self.limit)?;
        let counts = lane_counters(&self.name);
        // Without its thread the lane still works; only its figures are not seen.
        let _ = publish::start();
        let limit = self.limit.unwrap_or(threads);
        Ok(Lane {
            queue: Queue::new(limit, self.queue, backend, counts),
            hooks: self.hooks.into(),
        })
    }
}

impl Threads {
    /// The pool, and how many threads it is meant to have.
    fn start(self, name: &str, limit: Option<usize>) -> Result<(Backend, usize), Error> {
        let _ = (name, limit);
        Ok(match self {
            Threads::Tokio => (Backend::Tokio, cores()),
            #[cfg(feature = "rayon")]
            Threads::Rayon(pool) => {
                let threads = pool.current_num_threads();
                (Backend::Rayon(pool), threads)
            }
            #[cfg(feature = "rayon")]
            Threads::Own => {
                let threads = limit.unwrap_or_else(cores);
                let prefix = name.to_owned();
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(move |number| format!("{prefix}-{number}"));
                // Its threads run closures of the program's, which may be watched and profiled.
                let unblocked = Unblocked::CapturesAndProfile;
                let pool = with_signals_blocked(unblocked, || pool.build())
                    .map_err(|error| Error::thread(name, std::io::Error::other(error)))?;
                (Backend::Rayon(Arc::new(pool)), threads)
            }
        })
    }
}

impl fmt::Debug for LaneBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneBuilder")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("queue", &self.queue)
            .field("hooks", &self.hooks.len())
            .finish_non_exhaustive()
    }
}
