//! Floor 7: shows the state of a watchdog on a debug page (feature `page`).
//!
//! [`Page`] takes the path of a request and returns the bytes of a response, so any server can mount it. With the feature
//! `axum`, [`router`] is a router for axum. The page loads no script or font from elsewhere, has a light and a dark theme, and
//! requests [`State`] once a second.
//!
//! # Who may see it
//!
//! The page is only served if the program mounts it. It shows the names of watches, functions, files and sockets, and stacks.
//! The crate's section on security says how to leave these out. Mount the page where only operators of the service have
//! access: behind authentication, or on a separate port. `prometheus::Exporter` can serve it beside `/metrics`, for example on
//! loopback.
//!
//! With `router` or [`Page::answer`], your server answers requests for any host. On loopback, or in a private network without
//! authentication, check the `Host` of each request. Otherwise a web page whose own name resolves to that address (DNS
//! rebinding) can read the debug page. The listener of `prometheus::Exporter` makes this check.
//!
//! # Examples
//!
//! ```
//! use shotclock::Watchdog;
//! use shotclock::page::Page;
//!
//! let watchdog = Watchdog::builder().build()?;
//! let page = Page::new(&watchdog);
//!
//! let answer = page.answer("/");
//! assert_eq!((answer.status, answer.content_type), (200, "text/html; charset=utf-8"));
//! assert_eq!(page.answer("/state.json").content_type, "application/json");
//! # Ok::<(), shotclock::Error>(())
//! ```

mod flight;
#[cfg(feature = "axum")]
mod router;
mod state;

#[cfg(feature = "axum")]
pub use router::router;
pub use state::{LaneState, PollState, RecentState, RuntimeState, State, ThreadState};

use crate::watchdog::Watchdog;

const HTML: &str = include_str!("page.html");

/// Serves the debug page of one watchdog. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Page {
    watchdog: Watchdog,
}

/// Holds a response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// 200 or 404.
    pub status: u16,
    /// The value of the header `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn ok(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            content_type,
            body: body.into(),
        }
    }
}

impl Page {
    /// Makes the page of a watchdog.
    pub fn new(watchdog: &Watchdog) -> Self {
        Self {
            watchdog: watchdog.clone(),
        }
    }

    /// Returns the response to a `GET` of `path`, relative to the place where the page is mounted:
    ///
    /// | path | answer |
    /// |---|---|
    /// | empty or `/` | the page |
    /// | `/state.json` | [`State`] |
    /// | `/stacks.folded` | the culprits, for flame-graph tools ([`Culprits::folded`](crate::report::Culprits::folded)) |
    /// | `/flight.json` | the last minutes, for Perfetto ([`Watchdog::flight_record`]) |
    ///
    /// Other paths are not found. The first call may take long, because it looks up the names of functions. In async code,
    /// call it on a thread that may block.
    pub fn answer(&self, path: &str) -> Answer {
        const JSON: &str = "application/json";
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "" | "/" => Answer::ok("text/html; charset=utf-8", HTML),
            "/state.json" => Answer::ok(JSON, self.json()),
            "/stacks.folded" => Answer::ok(TEXT, self.watchdog.culprits().folded()),
            "/flight.json" => Answer::ok(JSON, self.watchdog.flight_record()),
            _ => Answer {
                status: 404,
                ..Answer::ok(TEXT, "no such page\n")
            },
        }
    }

    /// Returns what the page shows now.
    pub fn state(&self) -> State {
        State::of(&self.watchdog)
    }

    fn json(&self) -> Vec<u8> {
        // Serialization cannot fail: all keys of maps are strings.
        serde_json::to_vec(&self.state()).unwrap_or_default()
    }
}
