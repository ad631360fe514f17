//! Hostile or faulty clients of the listener. It still answers the others, and its memory and descriptors are bounded.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod heap;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use shotclock::Watchdog;
use shotclock::prometheus::{self, Exporter};

/// The longest wait for an expected event.
const PATIENCE: Duration = Duration::from_secs(120);

/// Many more connections than the listener has open at once.
const MANY: usize = 500;

/// One test at a time, because memory and descriptors belong to the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address() -> SocketAddr {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    let install = || prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap();
    EXPORTER.get_or_init(install).local_addr().unwrap()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Returns all that the listener sends until it closes the connection.
fn rest_of(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        let hung_up = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(hung_up.contains(&error.kind()), "{error}");
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn ask(request: &[u8]) -> String {
    let mut stream = connect();
    // The listener may close the connection before all is sent.
    let _ = stream.write_all(request);
    rest_of(stream)
}

fn assert_scraped() {
    let text = ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Opens connections, sends something on each, and keeps them open.
fn open_with(said: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect();
        let _ = stream.write_all(said);
        stream
    };
    (0..MANY).map(open).collect()
}

#[test]
fn scrape_beside_500_unfinished_requests_is_answered() {
    let _alone = alone();
    assert_scraped();
    let before = descriptors();
    for said in [
        &b""[..],
        b"GET /metr",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ",
    ] {
        let mut silent = open_with(said);
        assert_scraped();
        let theirs = descriptors() - before - silent.len();
        assert!(
            theirs <= 20,
            "{theirs} connections are open at the listener"
        );
        // Byte by byte, one connection after the other.
        for stream in &mut silent {
            let _ = stream.write_all(b"a");
        }
        assert_scraped();
    }
}

#[test]
fn silent_client_is_disconnected() {
    let _alone = alone();
    let (silent, mut half) = (connect(), connect());
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ")
        .unwrap();
    for stream in [silent, half] {
        let answer = rest_of(stream);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
}

#[test]
fn answered_client_is_disconnected() {
    let _alone = alone();
    // The client does not close its end, and requests keep-alive.
    let answer = ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[test]
fn pipelined_requests_get_one_answer() {
    let _alone = alone();
    let answer = ask(&b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000));
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    assert_scraped();
}

#[test]
fn endless_request_takes_no_memory() {
    let _alone = alone();
    assert_scraped();
    let endless = |head: &[u8]| {
        let mut request = head.to_vec();
        request.resize(8 << 20, b'a');
        // The request itself is allocated before and after.
        let grew = heap::growth(|| {
            for _ in 0..8 {
                let answer = ask(&request);
                let is_refused = ["HTTP/1.1 4", ""]
                    .iter()
                    .any(|start| answer.starts_with(start));
                assert!(is_refused && !answer.contains(" 200 "), "{answer}");
            }
        });
        println!("{grew} bytes");
        assert!(
            grew < 1 << 20,
            "{grew} bytes for {:?}",
            String::from_utf8_lossy(head)
        );
    };
    endless(b"GET /");
    endless(b"GET /metrics HTTP/1.1\r\nX: ");
    endless(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n");
    let many_headers = [
        &b"GET /metrics HTTP/1.1\r\n"[..],
        &b"X: y\r\n".repeat(1_000),
    ]
    .concat();
    assert!(!ask(&many_headers).contains(" 200 "));
    assert_scraped();
}

/// Clients that request much and never read it. Each response waits in memory, up to the limit of connections.
#[test]
fn clients_that_do_not_read_take_bounded_memory() {
    let _alone = alone();
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watches: Vec<_> = (0..900)
        .map(|n| watchdog.watch(format!("some name of a watch, number {n}")))
        .collect();
    let answer = ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").len();
    assert!(
        answer > 2 << 20,
        "{answer} bytes fit into the buffers of sockets"
    );
    let mut clients = Vec::new();
    let grew = heap::growth(|| {
        // Each takes the listener's thread for the time of a response.
        for _ in 0..40 {
            let mut stream = connect();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            // So that the listener answers it, and does not only queue it.
            stream.read_exact(&mut [0; 12]).unwrap();
            clients.push(stream);
        }
        let (text, whole) = (
            ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            answer,
        );
        assert!(text.len() > whole / 2, "{} of {whole} bytes", text.len());
    });
    println!("{grew} bytes, answers of {answer}");
    // The open ones, and a few in transit.
    assert!(grew < 24 * answer, "{grew} bytes, answers of {answer}");
    drop(watches);
}
