//! Watched services for tower (feature `tower`).
//!
//! [`WatchLayer`] wraps a service in a [`WatchService`], whose calls return [`WatchFuture`]s. `WatchLayer::new` and
//! `WatchLayer::by` select the type parameters. These types are private: they select the watch of a request, and wrap
//! the body of a response. `WatchLayer` and `WatchService<S>` without them name the layer of `WatchLayer::new`.

mod future;
mod layer;
mod response;
mod select_watch;
mod service;

pub use future::WatchFuture;
pub use layer::WatchLayer;
pub use service::WatchService;
