//! Serve the metrics for Prometheus from a thread of its own.
//!
//! A stuck runtime cannot hold up that thread, so a scrape still gets an answer.
//!
//! # Examples
//!
//! A program without an exporter needs one line:
//!
//! ```no_run
//! let exporter = shotclock::prometheus::install("127.0.0.1:9000".parse()?)?;
//! println!("{}", exporter.render());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that serves `/metrics` itself passes its handle, and calls [`Exporter::render`] instead of the handle's:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use shotclock::prometheus::{Exporter, builder};
//!
//! let handle = builder().add_global_label("zone", "a").install_recorder()?;
//! let exporter = Exporter::new(handle).global_label("zone", "a");
//! # let watchdog = shotclock::Watchdog::builder().build()?;
//! # drop(watchdog.watch("w").enter());
//! let text = exporter.render();
//! assert!(text.contains(r#"shotclock_poll_duration_seconds_count{zone="a",watch="w"} 1"#));
//! # Ok(())
//! # }
//! ```
//!
//! # Shapes
//!
//! `shotclock_poll_duration_seconds{watch}` is a histogram of all polls. It has a bucket at 1, 2 and 5 of each decade
//! from 1 µs to 10 s. The exporter renders it from the counters of the watches, so it is exact. The same holds for
//! `shotclock_poll_busy_seconds_total{watch}` and `shotclock_culprit_over_budget_seconds_total{watch,culprit}`.
//! All other metrics go through the `metrics` facade.
//!
//! # Access
//!
//! The listener authenticates no client. Bind a loopback address, or one that only trusted clients reach.
//!
//! A web page in a browser on the same machine can send requests to a loopback address too. Two rules keep the
//! answers from such a page:
//!
//! - No answer carries `Access-Control-Allow-Origin`, so the browser lets no page of another origin read it. The
//!   listener ignores `Origin` and `Sec-Fetch-Site`, because not every client sends them.
//! - The listener refuses requests for foreign host names. A page whose own name resolves to this machine (DNS
//!   rebinding) would share the listener's origin, but its requests carry that name.
//!
//! The listener answers requests for IP addresses, for `localhost` and names below it, and for the names passed to
//! [`Exporter::allow_host`]. A request of HTTP/1.0 may name no host. Other requests get status 421, or 400 if the
//! host is ambiguous, and a line that says what to do.

mod host;
pub(crate) mod listener;
pub(crate) mod text;

use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "page")]
use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::formatting::sanitize_label_key;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::counters;
use crate::error::Error;
use crate::histogram::PUBLISHED_BOUNDS_NANOS;
#[cfg(feature = "page")]
use crate::page::{Answer, Page};
use crate::publish;
#[cfg(feature = "page")]
use crate::watchdog::Watchdog;
use host::Hosts;
use listener::Listener;

/// Installs a recorder for the `metrics` facade, and serves `GET /metrics` on `address` from a thread of its own.
///
/// Call it before or after you build a watchdog. Port 0 takes any free port; [`local_addr`](Exporter::local_addr)
/// returns it. The listener lives as long as the process.
///
/// The listener authenticates no client: bind a loopback address, or one that only trusted clients reach. A
/// Prometheus that scrapes by a host name other than `localhost` needs [`Exporter::allow_host`]; [the module](self)
/// says why. Each connection serves one request. The listener closes a connection that is silent, too long or not
/// read, so clients can hold neither the thread nor its memory.
///
/// # Errors
///
/// Fails if the address cannot be bound ([`Error::is_address_in_use`]); no recorder is installed then. Fails if
/// another recorder was installed first ([`Error::is_recorder_taken`]); nothing listens then. Fails if the system
/// refuses a thread.
pub fn install(address: SocketAddr) -> Result<Exporter, Error> {
    let listener = Listener::bind(address)?;
    let handle = builder().install_recorder();
    Exporter::new(handle.map_err(|_| Error::recorder_taken())?).serve_on(listener)
}

/// Returns a builder of `metrics-exporter-prometheus` with the buckets of this crate's histograms.
///
/// Use it for a set-up beyond that of [`install`]. It sets no buckets for other histograms.
#[expect(
    clippy::missing_panics_doc,
    reason = "only an empty list of bounds is refused"
)]
pub fn builder() -> PrometheusBuilder {
    let bounds = PUBLISHED_BOUNDS_NANOS.map(|nanos| nanos as f64 / 1e9);
    let mut builder = PrometheusBuilder::new();
    for name in publish::HISTOGRAMS {
        let metric = Matcher::Full(name.to_owned());
        builder = (builder.set_buckets_for_metric(metric, &bounds))
            .expect("the list of bounds is not empty");
    }
    builder
}

/// Renders the text for Prometheus: the recorder's metrics, and then those of the watches' own counters.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    pub(crate) labels: Vec<(String, String)>,
    local_addr: Option<SocketAddr>,
    /// Shared with the listener.
    hosts: Hosts,
    /// Shared with the listener.
    #[cfg(feature = "page")]
    page: Arc<OnceLock<Page>>,
}

impl Exporter {
    /// Makes an exporter for a recorder that is installed already.
    ///
    /// Make the recorder from [`builder`]: otherwise the durations of slow polls come as summaries.
    pub fn new(handle: PrometheusHandle) -> Self {
        Self {
            handle,
            labels: Vec::new(),
            local_addr: None,
            hosts: Hosts::default(),
            #[cfg(feature = "page")]
            page: Arc::default(),
        }
    }

    /// Allows requests for the host `name`, at any port: for instance `app` or `metrics.internal`.
    ///
    /// Call it before or after [`serve`](Self::serve) or [`install`]. IP addresses and `localhost` are always
    /// allowed; [the module](self) says why other names are not.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let exporter = shotclock::prometheus::install("127.0.0.1:9000".parse()?)?;
    /// exporter.allow_host("metrics.internal")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if `name` is no host name in ASCII without scheme, port and path ([`Error::is_invalid_setting`]).
    pub fn allow_host(&self, name: &str) -> Result<(), Error> {
        self.hosts.allow(name)
    }

    /// Serves the debug page of a watchdog at `/debug/shotclock` as well (features `prometheus` and `page`).
    ///
    /// The listener's own thread answers, so the page works while the runtime is stuck. The first call decides which
    /// watchdog is shown. Every client that may scrape can read the page; [`page`](crate::page) says what it shows.
    #[cfg(feature = "page")]
    pub fn show_page(&self, watchdog: &Watchdog) {
        self.page.get_or_init(|| Page::new(watchdog));
    }

    /// Returns the debug page's response, if the page is served and `path` is one of its paths.
    #[cfg(feature = "page")]
    fn page_answer(&self, path: &str) -> Option<Answer> {
        let path = path.strip_prefix("/debug/shotclock")?;
        Some(self.page.get()?.answer(path))
    }

    /// Adds a label to all metrics that this exporter renders from the watches' counters.
    ///
    /// The handle does not reveal the global labels of its builder, so pass them here again. A second value for one
    /// name replaces the first. The names `watch`, `le` and `culprit` and the empty name are ignored. A character
    /// that a label name cannot have becomes an underscore.
    #[must_use]
    pub fn global_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = sanitize_label_key(&name.into());
        if !["", "watch", "le", "culprit"].contains(&&*name) {
            self.labels.retain(|(known, _)| *known != name);
            self.labels.push((name, value.into()));
        }
        self
    }

    /// Serves `GET /metrics` on `address` from a thread of its own, for the life of the process.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be bound ([`Error::is_address_in_use`]), or if the system refuses a thread.
    pub fn serve(self, address: SocketAddr) -> Result<Self, Error> {
        self.serve_on(Listener::bind(address)?)
    }

    fn serve_on(mut self, listener: Listener) -> Result<Self, Error> {
        self.local_addr = Some(listener.local_addr());
        listener.serve(self.clone())?;
        Ok(self)
    }

    /// Returns the address of the listener, if this exporter has one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// Renders the whole text now, in the Prometheus text format 0.0.4.
    ///
    /// This method publishes to the facade first, so the metrics from the facade and from the watches agree.
    pub fn render(&self) -> String {
        let (sums, mut text) = publish::publish_and(|| self.handle.render());
        if !publish::buckets_are_counters() {
            text::write(&mut text, &sums, &counters::culprits(), &self.labels);
        }
        text
    }

    /// Aggregates the recorded samples, so that the memory of `metrics-exporter-prometheus` does not grow.
    ///
    /// [`render`](Self::render) and the listener of [`install`] do this too. If you serve the text in another way,
    /// call it every few seconds. Use these methods instead of the handle's own. The exporter may lose a sample that
    /// is recorded while it aggregates; during these calls the crate records none.
    pub fn run_upkeep(&self) {
        publish::between_batches(|| self.handle.run_upkeep());
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("labels", &self.labels)
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}
