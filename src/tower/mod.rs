//! Watched services, in tower's own shape: [`WatchLayer`] makes a [`WatchService`] of a service, whose
//! calls are [`WatchFuture`]s (feature `tower`).
//!
//! A layer chooses the watch of a request ([`Choose`]: [`Always`] the same, or [`By`] a classifier), and
//! what becomes of a response ([`Finish`]: an HTTP body goes on being watched, in [`Whole`], or it is
//! passed on, in [`Plain`]). Nobody needs to name these: `WatchLayer::new` and `WatchLayer::by` do.

mod future;
mod layer;
mod make_watch;
mod response;
mod service;

pub use future::WatchFuture;
pub use layer::WatchLayer;
pub use make_watch::{Always, By, Choose};
pub use response::{Finish, Plain, Whole};
pub use service::WatchService;
