//! Answers scrapes, on a thread of its own.
//!
//! A client that reaches the port can open connections, send nothing, or never read the answer. So the listener
//! bounds everything: one request a connection, the length of a request, the life and the number of connections.
//! At the limit, it closes a connection without a request before one that reads its answer. It answers only
//! requests for hosts that no web page can have ([`Hosts`](super::host::Hosts)).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use super::Exporter;
use crate::background_thread;
use crate::error::Error;

const THREAD_NAME: &str = "shotclock-http";
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The time in which a client must send its request. A scraper needs milliseconds; slow links get seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest life of a connection: the time in which a client must read its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The most connections at once. Each may hold an answer in memory, and takes a file descriptor from the service.
const MAX_CONNECTIONS: usize = 16;
/// The longest request: twice the usual limit of servers (8 KiB).
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// The interval at which the exporter aggregates samples: its own default.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a failed `accept`, for instance when no file descriptor is left: no busy loop until one is.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A bound socket.
///
/// The listener's thread makes its runtime, not the caller. A caller may be in async code, where tokio forbids to drop
/// a runtime, and each error drops the parts that exist.
pub(super) struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds at once, so that the caller gets an error if the port is taken.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bind = || {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|error| Error::listen(address, error))
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn serve(self, exporter: Exporter) -> Result<(), Error> {
        let Self { socket, address } = self;
        let (started, starts) = mpsc::channel();
        let run = move || match start(socket) {
            Ok((runtime, socket)) => {
                let _ = started.send(Ok(()));
                runtime.block_on(async {
                    tokio::spawn(upkeep(exporter.clone()));
                    accept(socket, exporter).await;
                });
            }
            Err(error) => drop(started.send(Err(error))),
        };
        background_thread::spawn(THREAD_NAME, run)?;
        let started = starts
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        started.map_err(|error| Error::listen(address, error))
    }
}

fn start(socket: std::net::TcpListener) -> io::Result<(Runtime, TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let socket = {
        let _entered = runtime.enter();
        TcpListener::from_std(socket)?
    };
    Ok((runtime, socket))
}

async fn accept(socket: TcpListener, exporter: Exporter) {
    let mut open = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                make_room(&mut open);
                let has_request = Arc::<AtomicBool>::default();
                let task = serve_connection(stream, exporter.clone(), Arc::clone(&has_request));
                let task = tokio::spawn(task).abort_handle();
                open.push_back(Connection { task, has_request });
                // Lets the new task read a request that has arrived already, before the next connection.
                tokio::task::yield_now().await;
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

/// A connection that is open, or was.
struct Connection {
    task: AbortHandle,
    has_request: Arc<AtomicBool>,
}

/// At the limit of connections, closes the oldest one without a request, or else the oldest one.
fn make_room(open: &mut VecDeque<Connection>) {
    open.retain(|connection| !connection.task.is_finished());
    if open.len() >= MAX_CONNECTIONS {
        let is_silent = |connection: &Connection| !connection.has_request.load(Relaxed);
        let which = open.iter().position(is_silent).unwrap_or(0);
        if let Some(connection) = open.remove(which) {
            connection.task.abort();
        }
    }
}

pub(crate) async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    exporter: Exporter,
    has_request: Arc<AtomicBool>,
) {
    let answer = service_fn(move |request| {
        has_request.store(true, Relaxed);
        let response = answer(&request, &exporter);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT);
    http.keep_alive(false).max_buf_size(MAX_REQUEST_BYTES);
    // A client may close its sending side after the request, and still waits for the answer.
    http.half_close(true);
    // An error means that the client went away, which needs no action.
    let connection = http.serve_connection(TokioIo::new(stream), answer);
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

fn answer<B>(request: &Request<B>, exporter: &Exporter) -> Response<Full<Bytes>> {
    if let Err(refusal) = exporter.hosts.admit(request) {
        return respond(refusal.status(), TEXT_TYPE, refusal.text());
    }
    let path = request.uri().path();
    if !matches!(request.method(), &Method::GET | &Method::HEAD) {
        let mut refused = respond(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT_TYPE,
            "use GET or HEAD\n",
        );
        let headers = refused.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if path == "/metrics" {
        // Drops the spare capacity: the text may wait for its reader.
        let text = exporter.render().into_boxed_str().into_boxed_bytes();
        return respond(StatusCode::OK, TEXT_TYPE, text);
    }
    #[cfg(feature = "page")]
    if let Some(answer) = exporter.page_answer(path) {
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        return respond(status, answer.content_type, answer.body);
    }
    respond(
        StatusCode::NOT_FOUND,
        TEXT_TYPE,
        "the metrics are at /metrics\n",
    )
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn upkeep(exporter: Exporter) {
    let mut every = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        every.tick().await;
        exporter.run_upkeep();
    }
}
