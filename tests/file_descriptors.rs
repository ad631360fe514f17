//! A process without free file descriptors, so it can open no file in `/proc` and accept no connection. The test has its own
//! process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "a descriptor is had as a number")]

mod common;
mod lacking;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use common::stacks;
use lacking::{set_limit, stuck, watchdog};
use rustix::process::Resource;
use shotclock::Cause;
use shotclock::prometheus;

/// A socket with its descriptor.
fn unconnected() -> OwnedFd {
    // SAFETY: numbers only. A new descriptor has no other owner.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert!(socket >= 0);
        OwnedFd::from_raw_fd(socket)
    }
}

fn connected(socket: OwnedFd, to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else {
        panic!("{to} is not of the protocol")
    };
    // SAFETY: zeros are an address, of no protocol; it is there for the time of the call.
    unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_port = to.port().to_be();
        address.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        let length = size_of_val(&address) as libc::socklen_t;
        let connected = libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length);
        assert_eq!(connected, 0);
    }
    socket.into()
}

/// While `/proc` cannot be opened, reports lack its facts. Afterwards they have them.
#[test]
fn polls_without_file_descriptors_are_reported() {
    let (watchdog, reports) = watchdog();
    assert!(stacks(&watchdog).works());
    let served = prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = unconnected();
    let highest = File::open("/dev/null").unwrap();
    set_limit(Resource::Nofile, 0);
    let refused = File::open("/dev/null").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    // The kernel accepts the connection, and the listener cannot.
    let mut client = connected(client, served.local_addr().unwrap());
    client
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    for polls in 1..=3 {
        let (running, finished) = stuck(&watchdog, &reports);
        for slow in [&running, &finished] {
            println!("{slow}");
            assert!(
                matches!(slow.cause, Cause::Unknown | Cause::Blocked(_)),
                "{slow}"
            );
            assert_eq!(slow.split, None, "the scheduler's account cannot be read");
        }
        let stats = watchdog.watch("stuck").stats();
        assert_eq!((stats.polls, stats.slow_polls), (polls, polls));
    }
    set_limit(Resource::Nofile, 1_024);
    drop(highest);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("shotclock_slow_polls_total{watch=\"stuck\""),
        "{answer}"
    );
    // The first scan may come before there is a sample to compare with.
    while stuck(&watchdog, &reports).1.split.is_none() {}
    let (running, _) = stuck(&watchdog, &reports);
    assert!(
        matches!(running.cause, Cause::Blocked(call) if call.name.is_some()),
        "{running}"
    );
}
