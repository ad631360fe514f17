//! What `scripts/end-to-end` sends requests to: the route `/hello` of the example service, or a TCP echo, each
//! bare, watched or guarded. Prints its port, and serves until it is killed.
//!
//! The middleware around `/hello` and its span are there in all three, because the span is the service's own: what
//! is compared is the watch.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use shotclock::{Timing, Watch, WatchExt as _, Watchdog};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tracing::{Instrument as _, info_span};

/// Under what it is served.
#[derive(Clone, Copy)]
enum Mode {
    Bare,
    Watched(Timing),
    Guarded,
}

const MODES: &[(&str, Mode)] = &[
    ("bare", Mode::Bare),
    ("exact", Mode::Watched(Timing::Exact)),
    ("ticked", Mode::Watched(Timing::Ticked)),
    ("guarded", Mode::Guarded),
];

async fn hello() -> &'static str {
    sleep(Duration::from_millis(1)).await;
    "hello\n"
}

async fn around_a_request(
    State(watch): State<Option<Watch>>,
    request: Request,
    next: Next,
) -> Response {
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    let response = next.run(request);
    match &watch {
        Some(watch) => response.watched(watch).instrument(span).await,
        None => response.instrument(span).await,
    }
}

async fn serve_hello(listener: TcpListener, watch: Option<Watch>) -> io::Result<()> {
    let routes = Router::new().route("/hello", get(hello));
    let service = routes.layer(from_fn_with_state(watch, around_a_request));
    axum::serve(listener, service).await
}

/// Sends back what comes, until nothing comes any more.
async fn echo(mut connection: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    loop {
        let length = connection.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..length]).await?;
    }
}

async fn serve_echo(listener: TcpListener, watch: Option<Watch>) -> io::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        match &watch {
            Some(watch) => drop(tokio::spawn(echo(connection).watched(watch))),
            None => drop(tokio::spawn(echo(connection))),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().collect();
    let [_, service, mode] = &args[..] else {
        return Err("usage: served hello|echo bare|exact|ticked|guarded".into());
    };
    let mode = MODES.iter().find(|(name, _)| name == mode);
    let (_, mode) = mode.ok_or("there is no such mode")?;

    let runtime = Runtime::new()?;
    let build = |timing| Watchdog::builder().timing(timing).build();
    let watch = match mode {
        Mode::Watched(timing) => Some(build(*timing)?.watch("served")),
        Mode::Bare | Mode::Guarded => None,
    };
    let _guard = match mode {
        Mode::Guarded => Some(build(Timing::Exact)?.guard("served", runtime.handle())),
        Mode::Bare | Mode::Watched(_) => None,
    };
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?.port());
        match service.as_str() {
            "echo" => serve_echo(listener, watch).await?,
            _ => serve_hello(listener, watch).await?,
        }
        Ok(())
    })
}
