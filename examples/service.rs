//! A web service whose routes are watched one by one: half of them are mistakes, and half of them
//! are the same work done well.
//!
//! ```text
//! cargo run --release --example service -- --addr 127.0.0.1:3000 --metrics-addr 127.0.0.1:9000
//! ```
//!
//! Open the printed address. The service logs a slow poll to stderr inside the span of its request. The statistics are at
//! `/stats`, on the page `/debug/shotclock`, and at the metrics address for Prometheus. `/live` is for the supervisor, and
//! `/ready` for the load balancer. Ctrl-C ends the service.
//!
//! What to copy: [`Watches`] and [`watch_request`].

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, Response};
use axum::routing::{MethodRouter, get};
use clap::Parser;
use sha2::{Digest as _, Sha256};
use shotclock::{Status, Watch, WatchExt as _, Watchdog};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument as _, info_span};
use tracing_subscriber::EnvFilter;

/// A service with mistakes in it, watched by shotclock.
#[derive(Parser)]
struct Args {
    /// Where the service listens
    #[arg(long, default_value = "127.0.0.1:3000")]
    addr: SocketAddr,
    /// Where Prometheus finds /metrics
    #[arg(long, default_value = "127.0.0.1:9000")]
    metrics_addr: SocketAddr,
    /// Hand the other requests over to another thread before what is expected to hold a worker up
    #[arg(long)]
    contain: bool,
}

/// How long requests may go on after ctrl-c.
const GRACE: Duration = Duration::from_secs(5);
/// How long what is left may take after that.
const LAST_CALL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("service: {error}");
            // An error of shotclock's says what failed, and its source why.
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut builder = Watchdog::builder();
    if args.contain {
        builder = builder.contain();
    }
    let watchdog = builder.build()?;
    // By hand and not by `#[tokio::main]`, whose end waits for the blocking pool without a limit.
    let runtime = Runtime::new()?;
    let _guard = watchdog.guard("main", runtime.handle());
    let listener = runtime
        .block_on(TcpListener::bind(args.addr))
        .map_err(|error| format!("--addr: no listener on {}: {error}", args.addr))?;
    let exporter = shotclock::prometheus::install(args.metrics_addr)?;
    // The same page as at /debug/shotclock, from a thread that answers while the runtime is stuck.
    exporter.show_page(&watchdog);
    let metrics_addr = exporter.local_addr().unwrap_or(args.metrics_addr);

    let file = TempFile::new()?;
    println!("service: http://{}/", listener.local_addr()?);
    println!("metrics: http://{metrics_addr}/metrics");
    println!("watchdog: http://{metrics_addr}/debug/shotclock");
    let app = router(&watchdog, metrics_addr, file.path.clone());
    let served = runtime.block_on(serve(listener, app));

    runtime.shutdown_timeout(LAST_CALL);
    watchdog.flush(LAST_CALL);
    println!("{}", watchdog.snapshot());
    Ok(served?)
}

/// Serves until ctrl-c, and then until the requests that are under way have ended. A client that
/// never ends its request would hold that up for ever, so there is a limit, and a second ctrl-c.
async fn serve(listener: TcpListener, app: Router) -> io::Result<()> {
    let out_of_patience = async {
        interrupted().await;
        tokio::select! {
            () = sleep(GRACE) => {}
            () = interrupted() => {}
        }
    };
    tokio::select! {
        served = axum::serve(listener, app).with_graceful_shutdown(interrupted()) => served,
        () = out_of_patience => {
            tracing::warn!("some connections were still open");
            Ok(())
        }
    }
}

async fn interrupted() {
    // If the signal cannot be listened to, the system's way to end the process still works.
    if tokio::signal::ctrl_c().await.is_err() {
        pending().await
    }
}

// Watching -----------------------------------------------------------------------------------------

/// The watch of each route, looked up once: `Watchdog::watch` takes a lock and allocates.
struct Watches {
    by_route: HashMap<&'static str, Watch>,
    unmatched: Watch,
}

impl Watches {
    fn new(watchdog: &Watchdog, routes: &[Route]) -> Self {
        let watch = |route: &Route| (route.path, watchdog.watch(route.path));
        Self {
            by_route: routes.iter().map(watch).collect(),
            unmatched: watchdog.watch("unmatched"),
        }
    }

    /// By the route and not by the path: `/users/{id}` is one watch, however many users there are,
    /// and what matches no route cannot make new ones.
    fn of(&self, route: Option<&MatchedPath>) -> &Watch {
        route
            .and_then(|route| self.by_route.get(route.as_str()))
            .unwrap_or(&self.unmatched)
    }
}

/// Watches a request under its route. The span is around the watch, so that a warning tells which
/// request it was.
async fn watch_request(
    State(watches): State<Arc<Watches>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let span = info_span!(
        "request",
        id = NEXT_ID.fetch_add(1, Relaxed),
        method = %request.method(),
        path = request.uri().path(),
    );
    next.run(request)
        .watched(watches.of(route.as_ref()))
        .instrument(span)
        .await
}

// Routes -------------------------------------------------------------------------------------------

struct Route {
    path: &'static str,
    /// For the index page.
    what: &'static str,
    handler: MethodRouter<Arc<App>>,
}

struct App {
    watchdog: Watchdog,
    index: String,
    file: PathBuf,
}

fn router(watchdog: &Watchdog, metrics_addr: SocketAddr, file: PathBuf) -> Router {
    let routes = routes();
    let watches = Arc::new(Watches::new(watchdog, &routes));
    let app = Arc::new(App {
        watchdog: watchdog.clone(),
        index: index_page(&routes, metrics_addr),
        file,
    });
    routes
        .into_iter()
        .fold(Router::new(), |router, route| {
            router.route(route.path, route.handler)
        })
        // After the routes, because it covers only what is there already; and not `route_layer`,
        // which would leave out what matches none of them.
        .layer(from_fn_with_state(watches, watch_request))
        .with_state(app)
        // For whoever comes by, because this is an example: see `shotclock::page`.
        .nest("/debug/shotclock", shotclock::page::router(watchdog))
}

fn routes() -> Vec<Route> {
    let route = |path, what, handler| Route {
        path,
        what,
        handler,
    };
    vec![
        route("/", "this page", get(index)),
        route("/hello", "waits 1 ms, as it should", get(hello)),
        route(
            "/sleep/blocking",
            "mistake: std::thread::sleep",
            get(sleep_blocking),
        ),
        route("/sleep/async", "tokio::time::sleep", get(sleep_async)),
        route(
            "/stuck",
            "mistake that lasts: 8 s, or ?seconds=n",
            get(stuck),
        ),
        route("/file/blocking", "mistake: std::fs", get(file_blocking)),
        route("/file/async", "tokio::fs, piece by piece", get(file_async)),
        route(
            "/hash/blocking",
            "mistake: SHA-256 in one go",
            get(hash_blocking),
        ),
        route(
            "/hash/yielding",
            "the same with shotclock::yield_every",
            get(hash_yielding),
        ),
        route(
            "/hash/offloaded",
            "the same with shotclock::offload",
            get(hash_offloaded),
        ),
        route("/stats", "what the watchdog has counted", get(stats)),
        route("/live", "is a poll stuck for good?", get(live)),
        route("/ready", "is a poll stuck at this moment?", get(ready)),
    ]
}

/// An answer, or what went wrong.
type Answer = Result<String, (StatusCode, String)>;

fn failed(error: impl Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

async fn index(State(app): State<Arc<App>>) -> Html<String> {
    Html(app.index.clone())
}

async fn hello() -> &'static str {
    sleep(Duration::from_millis(1)).await;
    "hello\n"
}

async fn stats(State(app): State<Arc<App>>) -> String {
    format!("{}\n", app.watchdog.snapshot())
}

/// A poll that is stalled for longer will not end.
const FOR_GOOD: Duration = Duration::from_secs(30);

/// For who restarts the service: stuck polls come and go, and only one that stays is a reason. If all
/// workers are stuck there is no answer, which says the same.
async fn live(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let health = app.watchdog.health();
    let is_live = health.oldest_stall.is_none_or(|stall| stall < FOR_GOOD);
    (status(is_live), format!("{health}\n"))
}

/// For who sends requests: while anything is stuck, another instance answers sooner.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let health = app.watchdog.health();
    (
        status(health.status == Status::Responsive),
        format!("{health}\n"),
    )
}

fn status(is_well: bool) -> StatusCode {
    match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

const PAUSE: Duration = Duration::from_millis(50);

async fn sleep_blocking() -> &'static str {
    std::thread::sleep(PAUSE);
    "slept, and held up whoever shares the worker\n"
}

async fn stuck(Query(asked): Query<HashMap<String, u64>>) -> &'static str {
    let seconds = asked.get("seconds").copied().unwrap_or(8).min(60);
    std::thread::sleep(Duration::from_secs(seconds));
    "slept for as long as to be noticed\n"
}

async fn sleep_async() -> &'static str {
    sleep(PAUSE).await;
    "slept\n"
}

async fn file_blocking(State(app): State<Arc<App>>) -> Answer {
    let bytes = std::fs::read(&app.file).map_err(failed)?;
    Ok(format!("{} bytes\n", bytes.len()))
}

/// In pieces: `tokio::fs::read` would keep the whole file in memory for each request at once, and
/// to give so much back takes the worker milliseconds too.
async fn file_async(State(app): State<Arc<App>>) -> Answer {
    let length = length_in_pieces(&app.file).await.map_err(failed)?;
    Ok(format!("{length} bytes\n"))
}

async fn length_in_pieces(path: &Path) -> io::Result<usize> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut piece = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut piece).await? {
            0 => return Ok(length),
            read => length += read,
        }
    }
}

/// 32 MiB in all, in pieces that take some tens of microseconds each.
const PIECES: usize = 2_048;
const PIECE: [u8; 16 << 10] = [7; 16 << 10];
/// This number of parts takes well under a millisecond in a release build, and about one in a debug build.
const YIELD_EVERY: u64 = 4;

fn hash() -> String {
    let mut hasher = Sha256::new();
    for _ in 0..PIECES {
        hasher.update(PIECE);
    }
    hex(hasher)
}

async fn hash_blocking() -> String {
    hash()
}

async fn hash_yielding() -> String {
    let mut hasher = Sha256::new();
    let mut pace = shotclock::yield_every(YIELD_EVERY);
    for _ in 0..PIECES {
        hasher.update(PIECE);
        pace.tick().await;
    }
    hex(hasher)
}

async fn hash_offloaded() -> Answer {
    shotclock::offload(hash).await.map_err(failed)
}

fn hex(hasher: Sha256) -> String {
    format!("{:x}\n", hasher.finalize())
}

fn index_page(routes: &[Route], metrics_addr: SocketAddr) -> String {
    let rows: String = routes
        .iter()
        .map(|Route { path, what, .. }| {
            format!("<tr><td><a href=\"{path}\">{path}</a><td>{what}\n")
        })
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>shotclock</title>\n\
         <style>body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem }} \
         td {{ padding-right: 2rem }}</style>\n\
         <h1>A service under shotclock</h1>\n\
         <p>Follow a mistake, and read the warning where the service runs.\n\
         <table>\n{rows}</table>\n\
         <p>Prometheus: <a href=\"http://{metrics_addr}/metrics\">http://{metrics_addr}/metrics</a>\n"
    )
}

// A file to read -----------------------------------------------------------------------------------

/// A file that is gone when this is dropped.
struct TempFile {
    path: PathBuf,
}

impl TempFile {
    /// Large, because the system keeps it in memory, where 64 MiB take some tens of milliseconds.
    const SIZE: usize = 64 << 20;

    fn new() -> io::Result<Self> {
        let name = format!("shotclock-service-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Before it is written: a disk that is full leaves half a file.
        let file = Self { path };
        std::fs::write(&file.path, vec![b'.'; Self::SIZE])?;
        Ok(file)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the file stays behind");
        }
    }
}
