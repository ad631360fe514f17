//! A waker that counts wake-ups.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Wake, Waker};

/// Makes a counting waker for a task.
#[derive(Default)]
pub(super) struct CountingWaker {
    wake_ups: Arc<AtomicU64>,
    /// The task's waker, and the counting one for it.
    latest: Option<(Waker, Waker)>,
}

struct CountingWake {
    wake_ups: Arc<AtomicU64>,
    task: Waker,
}

impl Wake for CountingWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_ups.fetch_add(1, Relaxed);
        self.task.wake_by_ref();
    }
}

impl CountingWaker {
    /// Returns the waker to poll with. It stays the same while the task's waker does, because a future may compare wakers.
    pub(super) fn waker(&mut self, task: &Waker) -> Waker {
        match &self.latest {
            Some((latest, counted)) if latest.will_wake(task) => counted.clone(),
            _ => {
                let counted = Waker::from(Arc::new(CountingWake {
                    wake_ups: Arc::clone(&self.wake_ups),
                    task: task.clone(),
                }));
                self.latest = Some((task.clone(), counted.clone()));
                counted
            }
        }
    }

    pub(super) fn wake_ups(&self) -> u64 {
        self.wake_ups.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Task(AtomicU64);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn wake_is_counted_and_reaches_the_task() {
        let tasks = [(); 2].map(|()| Arc::new(Task(AtomicU64::new(0))));
        let wakers = tasks.clone().map(Waker::from);
        let mut counting = CountingWaker::default();
        let first = counting.waker(&wakers[0]);
        assert!(first.will_wake(&counting.waker(&wakers[0])));
        first.wake_by_ref();
        let second = counting.waker(&wakers[1]);
        second.wake();
        first.wake();
        assert_eq!(counting.wake_ups(), 3);
        assert_eq!(tasks.map(|task| task.0.load(Relaxed)), [2, 1]);
    }
}
