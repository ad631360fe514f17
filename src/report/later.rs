//! Polls that have ended and cannot be judged before the sentinel has looked: see
//! [`Judge::Later`](crate::watch::Judge). Where the sentinel is held up, its ticker judges them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use crate::contain::contain;
use crate::witness::TICKER;

type Job = Box<dyn FnOnce() + Send>;

/// So many wait at most; one that finds no place is judged at once, by what is known.
const CAPACITY: usize = 256;

static WAITING: LazyLock<ArrayQueue<Job>> = LazyLock::new(|| ArrayQueue::new(CAPACITY));
/// Those in the queue and the one that is being done.
static UNDONE: AtomicUsize = AtomicUsize::new(0);

pub(super) fn leave(job: Job) {
    UNDONE.fetch_add(1, SeqCst);
    if let Err(job) = WAITING.push(job) {
        run(job);
    } else if TICKER.has_no_timer() {
        // It stands in if the sentinel does not come, for which it must be up.
        TICKER.wake();
    }
}

fn run(job: Job) {
    contain(job);
    UNDONE.fetch_sub(1, SeqCst);
}

/// Does what was left. The sentinel calls it after each look, and the ticker if the sentinel is held up; it
/// says whether there was anything.
pub(crate) fn run_all() -> bool {
    let mut any = false;
    for _ in 0..CAPACITY {
        let Some(job) = WAITING.pop() else { break };
        run(job);
        any = true;
    }
    any
}

/// Waits until nothing is left. The sentinel comes every few milliseconds while there is.
pub(super) fn wait(deadline: Option<Instant>) -> bool {
    while UNDONE.load(SeqCst) > 0 {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
