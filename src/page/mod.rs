//! Floor 7: what a watchdog knows, on one page (feature `page`).
//!
//! [`Page`] takes the path of a request and gives the bytes of an answer, so that it can be mounted in any
//! server; with the feature `axum`, [`router`] is one for axum. The page is whole in itself: no script or
//! font of others, light and dark, and it asks for [`State`] once a second.
//!
//! # Who may see it
//!
//! Nothing mounts it unless you do. It shows the names of watches, functions, files and sockets of the
//! program, and stacks (the crate's section on security says how to leave those out): mount it where only those who run the service get to, on a port of its own
//! (`prometheus::Exporter` and `page` together serve it beside `/metrics`, on loopback if you say so), or
//! behind what authenticates your administrators.
//!
//! A server of your own that has it, with `router` or with [`Page::answer`], answers for whatever
//! host it is asked for. Where it listens on loopback or in a private network without authentication, have
//! it look at the `Host` of a request: a web page that has its own name resolve to that address (DNS rebinding)
//! reads the page otherwise. The listener of `prometheus::Exporter` does that.
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

/// The page of one watchdog. A handle, which is cheap to clone.
#[derive(Clone, Debug)]
pub struct Page {
    watchdog: Watchdog,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// 200 or 404.
    pub status: u16,
    /// For the header `content-type`.
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
    /// The page of that watchdog.
    pub fn new(watchdog: &Watchdog) -> Self {
        Self {
            watchdog: watchdog.clone(),
        }
    }

    /// What to answer to a `GET` of `path`, which is what comes after where the page is mounted:
    ///
    /// | path | answer |
    /// |---|---|
    /// | empty or `/` | the page |
    /// | `/state.json` | [`State`] |
    /// | `/stacks.folded` | the culprits, for flame-graph tools ([`Culprits::folded`](crate::report::Culprits::folded)) |
    /// | `/flight.json` | the last minutes, for Perfetto ([`Watchdog::flight_record`]) |
    ///
    /// Anything else is not found. What functions are called is looked up here, which may take long the
    /// first time: in async code, call it on a thread that may block.
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

    /// What the page shows at this moment.
    pub fn state(&self) -> State {
        State::of(&self.watchdog)
    }

    fn json(&self) -> Vec<u8> {
        // Nothing in there can fail: no map has a key that is not a string.
        serde_json::to_vec(&self.state()).unwrap_or_default()
    }
}
