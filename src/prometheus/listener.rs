//! The thread that answers scrapes.
//!
//! Whoever reaches the port can open connections, and say nothing on them, or never read the answer. So
//! one connection is for one request, a request is short, a connection does not last, and there are few
//! at a time: where there is no room, one that has not asked yet goes before one that is being answered.
//! And a request is answered only if it is for a host that no web page can be ([`Hosts`](super::host::Hosts)).

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
use crate::error::Error;
use crate::service;

const NAME: &str = "shotclock-http";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last, which is how long a client may take to read its answer.
const LIFETIME: Duration = Duration::from_secs(30);
/// So many connections are open at once. Each may keep an answer in memory, and a descriptor of those
/// that the service needs as well.
const CONNECTIONS: usize = 16;
/// So long may a request be: twice what is usual elsewhere.
const LONGEST_REQUEST: usize = 16 * 1024;
const UPKEEP: Duration = Duration::from_secs(5);
/// How long to wait when a connection cannot be accepted, as when file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
///
/// The runtime that will serve it is made on its thread and not here: a caller may be in async code,
/// where no runtime can be dropped, and every error drops what there is.
pub(super) struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds at once, so that a port that is taken is an error here and not a log line later.
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
        service::spawn(NAME, run)?;
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
    let mut open = VecDeque::with_capacity(CONNECTIONS);
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                make_room(&mut open);
                let has_asked = Arc::<AtomicBool>::default();
                let task = converse(stream, exporter.clone(), Arc::clone(&has_asked));
                let task = tokio::spawn(task).abort_handle();
                open.push_back(Conversation { task, has_asked });
                // So that a request that is there already is seen before further ones come.
                tokio::task::yield_now().await;
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A connection that is open, or was.
struct Conversation {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

/// Ends the oldest conversation in which nothing was asked yet, or else the oldest, if there are as many
/// as there may be.
fn make_room(open: &mut VecDeque<Conversation>) {
    open.retain(|conversation| !conversation.task.is_finished());
    if open.len() >= CONNECTIONS {
        let is_silent = |conversation: &Conversation| !conversation.has_asked.load(Relaxed);
        let which = open.iter().position(is_silent).unwrap_or(0);
        if let Some(conversation) = open.remove(which) {
            conversation.task.abort();
        }
    }
}

pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    exporter: Exporter,
    has_asked: Arc<AtomicBool>,
) {
    let answer = service_fn(move |request| {
        has_asked.store(true, Relaxed);
        let response = answer(&request, &exporter);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.keep_alive(false).max_buf_size(LONGEST_REQUEST);
    // Who has said everything and closes that side still waits for the answer.
    http.half_close(true);
    // A client that goes away in the middle is its own affair.
    let conversation = http.serve_connection(TokioIo::new(stream), answer);
    let _ = tokio::time::timeout(LIFETIME, conversation).await;
}

fn answer<B>(request: &Request<B>, exporter: &Exporter) -> Response<Full<Bytes>> {
    if let Err(refusal) = exporter.hosts.admit(request) {
        return respond(refusal.status(), TEXT, refusal.text());
    }
    let path = request.uri().path();
    if !matches!(request.method(), &Method::GET | &Method::HEAD) {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET here\n");
        let headers = refused.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if path == "/metrics" {
        // Without the room that the text was given to grow: it may have to wait for its reader.
        let text = exporter.render().into_boxed_str().into_boxed_bytes();
        return respond(StatusCode::OK, TEXT, text);
    }
    #[cfg(feature = "page")]
    if let Some(answer) = exporter.page_answer(path) {
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        return respond(status, answer.content_type, answer.body);
    }
    respond(StatusCode::NOT_FOUND, TEXT, "the metrics are at /metrics\n")
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn upkeep(exporter: Exporter) {
    let mut every = tokio::time::interval(UPKEEP);
    loop {
        every.tick().await;
        exporter.run_upkeep();
    }
}
