//! The thread that answers scrapes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::Exporter;
use crate::error::Error;

const NAME: &str = "shotclock-http";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
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
        let thread = std::thread::Builder::new().name(NAME.to_owned()).spawn(run);
        thread.map_err(|error| Error::thread(NAME, error))?;
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
    loop {
        match socket.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, exporter.clone()))),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn converse(stream: TcpStream, exporter: Exporter) {
    let answer = service_fn(move |request| {
        let response = answer(&request, &exporter);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A client that goes away in the middle is its own affair.
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}

fn answer(request: &Request<Incoming>, exporter: &Exporter) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(request.method(), &Method::GET | &Method::HEAD) {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET here\n");
        let headers = refused.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if path == "/metrics" {
        return respond(StatusCode::OK, TEXT, exporter.render());
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
