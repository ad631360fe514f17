//! Prometheus: one text, served from a thread that no runtime can hold up.
//!
//! # Examples
//!
//! One line for a program that has no exporter yet:
//!
//! ```no_run
//! let exporter = shotclock::prometheus::install("127.0.0.1:9000".parse()?)?;
//! println!("{}", exporter.render());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that serves `/metrics` itself gives its handle, and renders here instead of there:
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
//! The distribution of all polls, `shotclock_poll_duration_seconds{watch}`, is a histogram with a
//! bucket at 1, 2 and 5 of each decade from 1 µs to 10 s, rendered from the counters of the watches
//! themselves and therefore exact. So are `shotclock_poll_busy_seconds_total{watch}` and
//! `shotclock_culprit_over_budget_seconds_total{watch,culprit}`. Everything else goes through the `metrics` facade.
//!
//! # Who may ask
//!
//! The listener authenticates no client: bind a loopback address, or one that only trusted clients reach.
//!
//! A browser on the same machine reaches a loopback address too, for any web page. Two things keep what is
//! answered from the page. The answers carry no `Access-Control-Allow-Origin`, so the browser lets no page of
//! another origin read them; what `Origin` or `Sec-Fetch-Site` say is not looked at, because not every client
//! sends them. And a page that has its own name resolve to this machine (DNS rebinding), so that its origin
//! would be that of the listener, gives that name in its requests, which are refused: the listener answers
//! requests for IP addresses, for `localhost` and the names below it, and for the names given to
//! [`Exporter::allow_host`]. A request of HTTP/1.0 may name no host. Whatever else is asked for gets the status
//! 421, or 400 if it is not clear for whom it is, and a line that says what to do.

#[cfg(all(
    any(test, fuzzing),
    not(any(shotclock_loom, miri)),
    target_os = "linux",
    target_arch = "x86_64",
    feature = "page",
    feature = "prometheus",
    feature = "testing"
))]
pub(crate) mod fuzzing;
mod host;
mod listener;
mod text;

use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "page")]
use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::formatting::sanitize_label_key;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::counts;
use crate::error::Error;
use crate::histogram::PUBLISHED_BOUNDS;
#[cfg(feature = "page")]
use crate::page::{Answer, Page};
use crate::publish;
#[cfg(feature = "page")]
use crate::watchdog::Watchdog;
use host::Hosts;
use listener::Listener;

/// Installs a recorder for the `metrics` facade, and serves `GET /metrics` on `address` from a
/// thread of its own, so that a runtime that is stuck is scraped all the same.
///
/// It may come before or after a watchdog is built. Port 0 takes any free port, which
/// [`local_addr`](Exporter::local_addr) tells. The listener lives as long as the process.
///
/// It authenticates no client: bind a loopback address, or one that only trusted clients reach. It answers
/// requests for IP addresses, for `localhost`, and for the names given to [`Exporter::allow_host`]: a Prometheus
/// that scrapes by another name needs that call. The module says why. Each
/// connection is for one request; one that is silent, too long or not read is closed, so that clients
/// can hold neither the thread nor its memory.
///
/// # Errors
///
/// If the address cannot be listened on ([`Error::is_address_in_use`]), if another recorder was
/// installed first ([`Error::is_recorder_taken`]), or if the thread cannot be started. In the first
/// case no recorder is installed, in the second nothing listens.
pub fn install(address: SocketAddr) -> Result<Exporter, Error> {
    let listener = Listener::bind(address)?;
    let handle = builder().install_recorder();
    Exporter::new(handle.map_err(|_| Error::recorder_taken())?).serve_on(listener)
}

/// A builder of `metrics-exporter-prometheus` that knows the buckets of this crate's histograms, for
/// those who want to set up more than [`install`] does.
///
/// It sets no buckets for anybody else's.
#[expect(
    clippy::missing_panics_doc,
    reason = "only an empty list of bounds is refused"
)]
pub fn builder() -> PrometheusBuilder {
    let bounds = PUBLISHED_BOUNDS.map(|nanos| nanos as f64 / 1e9);
    let mut builder = PrometheusBuilder::new();
    for name in publish::HISTOGRAMS {
        let metric = Matcher::Full(name.to_owned());
        builder = (builder.set_buckets_for_metric(metric, &bounds))
            .expect("the list of bounds is not empty");
    }
    builder
}

/// Renders the text for Prometheus: what is in the recorder, followed by what is rendered from the
/// watches.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    labels: Vec<(String, String)>,
    local_addr: Option<SocketAddr>,
    /// Shared with the listener.
    hosts: Hosts,
    /// As well.
    #[cfg(feature = "page")]
    page: Arc<OnceLock<Page>>,
}

impl Exporter {
    /// For a recorder that was installed already. Best made from [`builder`]: without it the
    /// durations of slow polls come as summaries.
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

    /// Has the listener answer requests for a host of that name as well, at any port: `app`, or
    /// `metrics.internal`. It may come before or after [`serve`](Self::serve) and [`install`]. IP addresses and
    /// `localhost` need no leave; [the module](self) says why other names do.
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
    /// If it is not the name of a host ([`Error::is_invalid_setting`]): without scheme, port and path, and in
    /// ASCII, as DNS has it.
    pub fn allow_host(&self, name: &str) -> Result<(), Error> {
        self.hosts.allow(name)
    }

    /// Has the listener answer with the page of a watchdog as well, at `/debug/shotclock`: from its own
    /// thread, so while the runtime is stuck too (features `prometheus` and `page`). The first watchdog is
    /// the one that is shown.
    ///
    /// Whoever may scrape sees it then: [`page`](crate::page) says what that is.
    #[cfg(feature = "page")]
    pub fn show_page(&self, watchdog: &Watchdog) {
        self.page.get_or_init(|| Page::new(watchdog));
    }

    /// What the page answers, if it is shown and the path is one of its.
    #[cfg(feature = "page")]
    fn page_answer(&self, path: &str) -> Option<Answer> {
        let path = path.strip_prefix("/debug/shotclock")?;
        Some(self.page.get()?.answer(path))
    }

    /// Adds a label to everything that is rendered from the watches. The handle does not tell which
    /// global labels its builder was given, so they are given here once more. The same name again
    /// replaces its value; `watch`, `le` and `culprit` are taken, and passed over, as an empty one is.
    /// What may not be in the name of a label becomes an underscore.
    #[must_use]
    pub fn global_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = sanitize_label_key(&name.into());
        if !["", "watch", "le", "culprit"].contains(&&*name) {
            self.labels.retain(|(known, _)| *known != name);
            self.labels.push((name, value.into()));
        }
        self
    }

    /// Serves `GET /metrics` on `address` from a thread of its own, for as long as the process lives.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on ([`Error::is_address_in_use`]), or if the thread cannot
    /// be started.
    pub fn serve(self, address: SocketAddr) -> Result<Self, Error> {
        self.serve_on(Listener::bind(address)?)
    }

    fn serve_on(mut self, listener: Listener) -> Result<Self, Error> {
        self.local_addr = Some(listener.local_addr());
        listener.serve(self.clone())?;
        Ok(self)
    }

    /// The address that is listened on, if this exporter serves its text itself.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// The whole text, in the Prometheus text format 0.0.4, as of now.
    ///
    /// It publishes first, so that what comes through the facade and what comes from the watches
    /// agree.
    pub fn render(&self) -> String {
        let (sums, mut text) = publish::publish_and(|| self.handle.render());
        if !publish::buckets_are_counters() {
            text::write(&mut text, &sums, &counts::culprits(), &self.labels);
        }
        text
    }

    /// Takes up what was recorded since, as `metrics-exporter-prometheus` asks for from time to
    /// time so that its memory does not grow. [`render`](Self::render) does it too, and so does the
    /// listener of [`install`]: who serves the text otherwise calls it where scrapes may stay away. Call
    /// these two, and not the handle's own: an exporter may lose a duration that is recorded at the moment
    /// at which it takes up those before, and this crate records none then.
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
