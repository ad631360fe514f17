//! The error of an offloaded closure.

use std::any::Any;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use crate::counters::LaneCounters;
use crate::sync::IgnorePoison as _;

/// Says why an offloaded closure has no result.
///
/// # Examples
///
/// ```
/// use shotclock::OffloadError;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # std::panic::set_hook(Box::new(|_| ()));
/// match shotclock::offload(|| panic!("no such page")).await {
///     Ok(()) => unreachable!(),
///     Err(OffloadError::Panicked(panic)) => assert_eq!(panic.message(), Some("no such page")),
///     Err(other) => eprintln!("{other}"),
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum OffloadError {
    /// The closure panicked.
    Panicked(PanicPayload),
    /// The queue was full ([`Lane::try_run`](crate::Lane::try_run)).
    #[non_exhaustive]
    QueueFull {
        /// The name of the lane.
        lane: Arc<str>,
    },
    /// The closure was queued at a call of [`Lane::cancel_all`](crate::Lane::cancel_all).
    #[non_exhaustive]
    Cancelled {
        /// The name of the lane.
        lane: Arc<str>,
    },
    /// The lane was closed, or the runtime shut down or could start no thread, before the closure ran.
    #[non_exhaustive]
    Closed {
        /// The name of the lane.
        lane: Arc<str>,
    },
    /// The calling thread is in no tokio runtime, so there is no pool for the closure.
    #[non_exhaustive]
    NoRuntime {
        /// The name of the lane.
        lane: Arc<str>,
    },
}

impl OffloadError {
    /// Returns the name of the closure's lane.
    pub fn lane(&self) -> &str {
        match self {
            OffloadError::Panicked(panic) => &panic.lane,
            OffloadError::QueueFull { lane }
            | OffloadError::Cancelled { lane }
            | OffloadError::Closed { lane }
            | OffloadError::NoRuntime { lane } => lane,
        }
    }

    pub(super) fn panicked(lane: &LaneCounters, payload: Box<dyn Any + Send>) -> Self {
        lane.panics.fetch_add(1, Relaxed);
        OffloadError::Panicked(PanicPayload::new(Arc::clone(&lane.name), payload))
    }
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lane = self.lane();
        match self {
            OffloadError::Panicked(panic) => match panic.message() {
                Some(message) => write!(f, "a closure on the lane {lane:?} panicked: {message}"),
                None => write!(f, "a closure on the lane {lane:?} panicked"),
            },
            OffloadError::QueueFull { .. } => write!(f, "the queue of the lane {lane:?} is full"),
            OffloadError::Cancelled { .. } => {
                write!(f, "a queued closure of the lane {lane:?} was cancelled")
            }
            OffloadError::Closed { .. } => write!(
                f,
                "the lane {lane:?} was closed, or its runtime shut down or could start no thread, \
                 before a closure ran there"
            ),
            OffloadError::NoRuntime { .. } => write!(
                f,
                "no tokio runtime here: the lane {lane:?} runs closures on the blocking pool of the \
                 caller's runtime"
            ),
        }
    }
}

impl std::error::Error for OffloadError {}

/// Holds the payload of a closure's panic.
pub struct PanicPayload {
    lane: Arc<str>,
    /// The lock makes it `Sync`, so that the error fits into every error type. No code locks it.
    payload: Mutex<Box<dyn Any + Send>>,
    message: Option<String>,
}

impl PanicPayload {
    fn new(lane: Arc<str>, payload: Box<dyn Any + Send>) -> Self {
        let message = (payload.downcast_ref::<&str>().copied())
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            lane,
            message: message.map(str::to_owned),
            payload: Mutex::new(payload),
        }
    }

    /// Returns the message, if the payload is a text, as from `panic!`.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the payload, as [`std::panic::catch_unwind`] does.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.into_inner().ignore_poison()
    }

    /// Continues the panic in the caller, as if the caller had called the closure.
    ///
    /// # Panics
    ///
    /// Always, with the closure's payload. The panic hook is not called a second time.
    pub fn resume(self) -> ! {
        std::panic::resume_unwind(self.into_payload())
    }
}

impl fmt::Debug for PanicPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PanicPayload")
            .field("lane", &self.lane)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}
