//! Ways to hold a thread.

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use super::announcer::Announcer;

/// System calls that failed because of a signal.
pub(crate) static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

/// A requested stall: its kind and length.
#[derive(Clone, Copy)]
pub(crate) struct Stall {
    pub(crate) manner: Manner,
    pub(crate) time: Duration,
}

impl Stall {
    /// Announces the stall, and holds the thread in a poll of `watch`, or outside of every watch.
    pub(crate) fn happen(self, watch: Option<&str>, announcer: &Announcer) {
        let how = format!("{:?} for {:?}", self.manner, self.time);
        announcer.stall(watch, how, || self.manner.hold(self.time));
    }
}

/// The action of the thread during the stall.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manner {
    Sleep,
    Compute,
    /// Waits for another thread.
    Wait,
    /// Reads from a silent socket.
    Read,
}

impl Manner {
    /// Not inlined, so that stacks have its name.
    #[inline(never)]
    fn hold(self, time: Duration) {
        match self {
            Self::Sleep => std::thread::sleep(time),
            Self::Compute => compute(time),
            Self::Wait => wait(time),
            Self::Read => read(time),
        }
    }
}

/// Computes until this thread has used that much processor time.
pub(crate) fn compute(time: Duration) {
    let end = cpu_time() + time;
    while cpu_time() < end {
        std::hint::black_box((0..1_000_u64).fold(7, |sum, n| sum ^ n.wrapping_mul(sum)));
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn wait(time: Duration) {
    let (_never_sends, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

/// Neither std nor the kernel restarts a `read` that a signal interrupted, because the socket has a timeout.
fn read(time: Duration) {
    let read = || {
        let (mut socket, _silent) = UnixStream::pair()?;
        socket.set_read_timeout(Some(time))?;
        socket.read(&mut [0])
    };
    if read().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
        INTERRUPTED.fetch_add(1, Relaxed);
    }
}
