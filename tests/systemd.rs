//! The heartbeat for systemd, with a notification socket.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{self, BufRead as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shotclock::{Watchdog, systemd};

/// The longest wait for an expected message, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn watchdog() -> Watchdog {
    Watchdog::builder().without_tracing().build().unwrap()
}

#[test]
fn heartbeat_without_systemd_starts_no_thread() {
    let heartbeat = systemd::start(&watchdog()).unwrap();
    assert!(!heartbeat.is_active());
}

/// Runs the service. Each line of its input begins or ends a stall.
#[test]
#[ignore = "the test below runs it in a process of its own, as systemd would"]
fn service() {
    let watchdog = watchdog();
    let heartbeat = systemd::start(&watchdog).unwrap();
    assert!(heartbeat.is_active());
    let watch = watchdog.watch("w");
    let mut stuck = None;
    for line in io::stdin().lock().lines() {
        match &*line.unwrap() {
            "stuck" => stuck = Some(watch.enter()),
            _ => drop(stuck.take()),
        }
    }
    drop(heartbeat);
}

struct Systemd {
    socket: UnixDatagram,
    service: Child,
    path: std::path::PathBuf,
}

impl Systemd {
    fn start() -> Self {
        let path = std::env::temp_dir().join(format!("shotclock-{}.notify", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let service = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service", "--ignored"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "400000")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self {
            socket,
            service: service.unwrap(),
            path,
        }
    }

    fn hear(&self) -> String {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message).unwrap();
        let message = std::str::from_utf8(&message[..length]).unwrap();
        message.trim_end().to_owned()
    }

    /// Receives until a message with this begin.
    fn hear_until(&self, beginning: &str) -> String {
        loop {
            let message = self.hear();
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.service.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.service.stdin.take());
        let _ = self.service.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn heartbeat_stops_during_a_stall() {
    let mut systemd = Systemd::start();
    assert_eq!(systemd.hear(), "STATUS=responsive");
    assert_eq!(systemd.hear(), "WATCHDOG=1");
    assert_eq!(systemd.hear(), "WATCHDOG=1");
    systemd.tell("stuck");
    let status = systemd.hear_until("STATUS=");
    assert!(
        status.starts_with("STATUS=1 stalled, the oldest for "),
        "{status}"
    );
    for _ in 0..3 {
        let message = systemd.hear();
        assert!(message.starts_with("STATUS=1 stalled"), "{message}");
    }
    systemd.tell("no longer");
    assert_eq!(systemd.hear_until("STATUS=r"), "STATUS=responsive");
    assert_eq!(systemd.hear(), "WATCHDOG=1");
}
