//! The bytes that a client sends to the listener.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::Input;
use crate::prometheus::listener::serve_connection;
use crate::prometheus::{Exporter, builder};
use crate::watchdog::Watchdog;

thread_local! {
    static SERVER: LazyCell<(Runtime, Exporter)> = LazyCell::new(server);
}

fn server() -> (Runtime, Exporter) {
    let runtime = Builder::new_current_thread().enable_time().build();
    let watchdog = Watchdog::builder().without_tracing();
    let watchdog = watchdog.stacks(crate::Stacks::Never).build();
    let exporter = Exporter::new(builder().build_recorder().handle());
    exporter.show_page(&watchdog.expect("a watchdog can be built"));
    exporter.allow_host(ALLOWED).expect("it is a name");
    (runtime.expect("a runtime can be built"), exporter)
}

/// Sends any bytes, or a request. The listener answers a request as documented, and no answer repeats a part of it.
pub fn http(data: &[u8]) {
    let mut input = Input::new(data);
    let chunk = 1 + usize::from(input.byte());
    if input.flag() {
        any(input.bytes(usize::MAX), chunk);
    } else {
        request(&mut input, chunk);
    }
}

fn any(sent: &[u8], chunk: usize) {
    let answered = converse_with(sent, chunk);
    if answered.is_empty() {
        return;
    }
    let answer = HttpAnswer::read(&answered);
    assert!(
        [200, 400, 404, 405, 414, 421, 431, 505].contains(&answer.status),
        "{}",
        answer.status
    );
    if answer.status >= 400 {
        let known = [
            "",
            "use GET or HEAD\n",
            "the metrics are at /metrics\n",
            "no such page\n",
            UNCLEAR,
            FOREIGN,
        ];
        let body = String::from_utf8_lossy(&answer.body);
        assert!(known.contains(&&*body), "{body:?}");
    }
}

const PATHS: [&str; 12] = [
    "/metrics",
    "/metrics/",
    "/",
    "/debug/shotclock",
    "/debug/shotclock/",
    "/debug/shotclock/state.json",
    "/debug/shotclock/stacks.folded",
    "/debug/shotclock/flight.json",
    "/debug/shotclockstate.json",
    "/debug/shotclock/../state.json",
    "/debug/shotclock/%2e%2e/",
    "/METRICS",
];
const METHODS: [&str; 8] = [
    "GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "get", "DELETE",
];

const ALLOWED: &str = "allowed.internal";
const UNCLEAR: &str = "send one Host header: a name or an IP address, and a port if you like\n";
const FOREIGN: &str = "this host name is not allowed here: use an IP address or localhost, \
                       or have the program call Exporter::allow_host\n";

/// Headers that name the host, and the status if the listener refuses it.
const HOSTS: [(&str, Option<u16>); 16] = [
    ("host: 127.0.0.1\r\n", None),
    ("Host: [::1]:9000\r\n", None),
    ("HOST: LocalHost.:9000\r\n", None),
    ("host: a.localhost\r\n", None),
    ("host: Allowed.Internal\r\n", None),
    ("host: evil.example\r\n", Some(421)),
    ("host: 127.0.0.1.evil.example\r\n", Some(421)),
    ("host: localhost.evil.example:9000\r\n", Some(421)),
    ("host: evil-localhost\r\n", Some(421)),
    ("host: evil.allowed.internal\r\n", Some(421)),
    ("host: localhost@evil.example\r\n", Some(400)),
    ("host: evil.example@localhost\r\n", Some(400)),
    ("host: localhost\r\nhost: evil.example\r\n", Some(400)),
    ("host: localhost, evil.example\r\n", Some(400)),
    ("host:\r\n", Some(400)),
    ("", Some(400)),
];

/// Starts of a target that names the host, and the status if the listener refuses it.
const AUTHORITIES: [(&str, Option<u16>); 8] = [
    ("", None),
    ("", None),
    ("", None),
    ("http://127.0.0.1:9000", None),
    ("http://[::1]", None),
    ("http://evil.example", Some(421)),
    ("http://localhost.evil.example:9000", Some(421)),
    ("http://localhost@evil.example", Some(400)),
];

/// Whether the listener answers for this host, by another parser.
fn is_ours(host: &str) -> bool {
    let Ok(url) = format!("http://{host}/").parse::<hyper::Uri>() else {
        return false;
    };
    let name = url.host().unwrap_or_default().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_localhost = name == "localhost" || name.ends_with(".localhost");
    is_localhost || name == ALLOWED || address.parse::<std::net::IpAddr>().is_ok()
}

/// The expected status, and the body where it never changes.
fn expected(method: &str, path: &str, refusal: Option<u16>) -> (u16, Option<&'static str>) {
    match refusal {
        Some(400) => return (400, Some(UNCLEAR)),
        Some(status) => return (status, Some(FOREIGN)),
        None => {}
    }
    if !["GET", "HEAD"].contains(&method) {
        return (405, Some("use GET or HEAD\n"));
    }
    match path.strip_prefix("/debug/shotclock") {
        _ if path == "/metrics" => (200, None),
        None => (404, Some("the metrics are at /metrics\n")),
        Some("" | "/" | "/state.json" | "/stacks.folded" | "/flight.json") => (200, None),
        Some(_) => (404, Some("no such page\n")),
    }
}

fn request(input: &mut Input<'_>, chunk: usize) {
    let method = METHODS[input.below(METHODS.len())];
    let path = PATHS[input.below(PATHS.len())];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "%/.-_=&+;:@!$'()*,~".contains(c);
    let plain: String = input.name().chars().filter(|c| is_plain(*c)).collect();
    let path = match input.below(3) {
        0 => format!("{path}{plain}"),
        _ => path.to_owned(),
    };
    let query = if input.flag() {
        format!("?{plain}")
    } else {
        String::new()
    };
    let header = input.name().replace(|c: char| c.is_control(), "");
    let (host, of_host) = HOSTS[input.below(HOSTS.len())];
    let (authority, of_authority) = AUTHORITIES[input.below(AUTHORITIES.len())];
    let is_absent = host.is_empty() && !authority.is_empty();
    // A repeated header decides first, then the target, then the header.
    let is_twice = host.matches("host:").count() > 1;
    let refusal = match of_host {
        Some(400) if is_twice => of_host,
        Some(400) if is_absent => of_authority,
        _ => of_authority.or(of_host),
    };
    let sent = format!(
        "{method} {authority}{path}{query} HTTP/1.1\r\n{host}x-any: {header}\r\nconnection: close\r\n\r\n"
    );
    let (status, body) = expected(method, &path, refusal);
    let answer = HttpAnswer::read(&converse_with(sent.as_bytes(), chunk));
    assert_eq!(answer.status, status, "{sent:?}");
    let has_body = method != "HEAD";
    let len = answer.headers.get("content-length");
    // An answer to HEAD may leave out the length of an empty body.
    let len = len.map(|len| len.parse().expect("a number"));
    match has_body {
        true => assert_eq!(Some(answer.body.len()), len, "{sent:?}"),
        false => assert_eq!(answer.body, b"", "{sent:?}"),
    }
    if let (Some(body), true) = (body, has_body) {
        assert_eq!(answer.body, body.as_bytes(), "{sent:?}");
    }
    // The listener answers a request with any host only if that host is its own.
    let any = input.name().replace(|c: char| c.is_control(), "");
    let sent = format!("GET / HTTP/1.1\r\nhost: {any}\r\n\r\n");
    let answered = converse_with(sent.as_bytes(), chunk);
    let is_refused = [400, 421].contains(&HttpAnswer::read(&answered).status);
    assert!(is_refused || is_ours(any.trim()), "{sent:?}");
    if path.ends_with(".json") && status == 200 && method == "GET" {
        let json = serde_json::from_slice::<serde_json::Value>(&answer.body);
        assert!(json.is_ok_and(|json| json.is_object()));
    }
}

/// The first answer of a connection.
struct HttpAnswer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl HttpAnswer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.expect("a head that ends");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
        assert!(
            words
                .next()
                .is_some_and(|version| version.starts_with("HTTP/1."))
        );
        let status = words.next().and_then(|status| status.parse().ok());
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").expect("a header has a value");
            (name.to_owned(), value.to_owned())
        });
        Self {
            status: status.expect("a status"),
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }
}

/// Sends the bytes, and collects the answers until the listener closes the connection.
fn converse_with(sent: &[u8], chunk: usize) -> Vec<u8> {
    let mut wire = Wire {
        sent,
        chunk,
        answered: Vec::new(),
    };
    SERVER.with(|server| {
        let (runtime, exporter) = &**server;
        let has_asked = Arc::default();
        runtime.block_on(serve_connection(&mut wire, exporter.clone(), has_asked));
    });
    wire.answered
}

/// A connection whose client has sent everything and then closed its side.
struct Wire<'d> {
    sent: &'d [u8],
    /// Bytes that arrive at a time.
    chunk: usize,
    answered: Vec<u8>,
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.chunk.min(self.sent.len()).min(into.remaining());
        let (now, later) = self.sent.split_at(len);
        into.put_slice(now);
        self.sent = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
