//! The builder of a lane.

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

/// Builds a [`Lane`]. [`Lane::builder`] makes it.
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

/// Returns the number of cores that this process may use.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

impl Lane {
    /// Makes the builder of a lane. The name is a label of its metrics.
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

    /// Sets the largest number of closures that run at once, at least 1.
    ///
    /// The default is the number of cores that this process may use ([`std::thread::available_parallelism`]), or the number
    /// of threads of the user's pool.
    ///
    /// Closures that compute on every core leave none for the runtime's workers. If its latency matters, leave a core free.
    /// `benches/lag.rs` measures a loop that sleeps for 1 ms, on two cores beside many closures. Its 99th percentile was 1.5
    /// times that of an idle runtime with a limit of one, and 2.6 times with a limit of two.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the largest number of queued closures. 0 is allowed. The default has no limit.
    ///
    /// Polls of [offloaded](crate::OffloadExt::offloaded) futures do not count, because a refused poll would never be
    /// repeated.
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Runs the closures on the user's rayon pool instead of tokio's blocking pool. The lane needs no runtime then.
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

    /// Runs the closures on a new rayon pool with as many threads as the limit, instead of tokio's blocking pool.
    ///
    /// The lane needs no runtime then. `rayon`'s parallel iterators in a closure use this pool.
    #[cfg(feature = "rayon")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rayon")))]
    pub fn rayon(mut self) -> Self {
        self.threads = Threads::Own;
        self
    }

    /// Carries context of the caller to the lane's threads, such as a task-local.
    ///
    /// The lane calls `hook` on the caller's thread, and its result around the work on the lane's thread. A lane may have
    /// several hooks. The first one is the outermost.
    ///
    /// # Panics
    ///
    /// A panic of `hook` reaches the caller. A panic of its result makes the closure
    /// [`OffloadError::Panicked`](crate::OffloadError::Panicked). If the result does not call the work, the lane calls it
    /// afterwards.
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

    /// Builds the lane. Lanes of one name share their metrics.
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
        // Without the metrics thread the lane works, but its metrics are missing.
        let _ = publish::start();
        let limit = self.limit.unwrap_or(threads);
        Ok(Lane {
            queue: Queue::new(limit, self.queue, backend, counts),
            hooks: self.hooks.into(),
        })
    }
}

impl Threads {
    /// Returns the pool, and the number of its threads.
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
                // Its threads run the program's closures, which may be watched and profiled.
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
