//! The ways in which a poll can end, and the time of destructors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use super::*;
use crate::WatchExt as _;

fn quietly<T>(f: impl FnOnce() -> T) -> std::thread::Result<T> {
    catch_unwind(AssertUnwindSafe(f))
}

#[test]
fn poll_that_panics_is_counted() {
    let scene = Scene::new();
    let (outer, inner) = (scene.watch("outer"), scene.watch("inner"));
    let panics = poll_fn(|_| -> Poll<()> {
        scene.pass(4 * MS);
        panic!("in poll")
    });
    let outcome = quietly(|| run(async { panics.watched(&inner).await }.watched(&outer)));
    assert!(outcome.is_err());
    for watch in [&outer, &inner] {
        let stats = watch.stats();
        assert_eq!(
            (stats.polls, stats.panicked_polls, stats.in_flight),
            (1, 1, 0)
        );
        assert_eq!(stats.longest, 4 * MS);
    }
    // The slot is as before: the next poll has no outer poll.
    run(scene.takes(20 * MS).watched(&outer));
    let reports = scene.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].path.is_empty());
    assert_eq!(outer.stats().panicked_polls, 1);
}

#[test]
fn slow_poll_that_panics_is_reported() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    let panics = poll_fn(|_| -> Poll<()> {
        scene.pass(40 * MS);
        panic!("in a slow poll")
    });
    assert!(quietly(|| run(panics.watched(&watch))).is_err());
    assert_eq!(scene.reports().len(), 1);
    assert_eq!(
        (watch.stats().slow_polls, watch.stats().panicked_polls),
        (1, 1)
    );
}

#[test]
fn fast_destructor_is_busy_time_and_no_poll() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    let guard = SlowToDrop(&scene, 3 * MS);
    drop(async { drop(guard) }.watched(&watch));
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.busy), (0, 3 * MS));
    assert!(scene.reports().is_empty());
}

#[test]
fn slow_destructor_is_reported_as_drop() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    let guard = SlowToDrop(&scene, 30 * MS);
    drop(async { drop(guard) }.watched(&watch));
    let reports = scene.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].kind, crate::report::SectionKind::Drop);
    assert!(reports[0].hint().contains("destructor"));
    let stats = watch.stats();
    assert_eq!(
        (stats.polls, stats.slow_polls, stats.longest),
        (1, 1, 30 * MS)
    );
}

#[test]
fn fast_destructor_under_a_tiny_budget_is_not_slow() {
    let scene = Scene::new();
    let watch = scene.watch("w").with_budget(Duration::ZERO);
    let micros = Duration::from_micros;
    for (time, slow) in [(micros(10), 0), (micros(11), 1)] {
        let guard = SlowToDrop(&scene, time);
        drop(async { drop(guard) }.watched(&watch));
        assert_eq!(watch.stats().slow_polls, slow);
    }
}

#[test]
fn destructor_of_a_finished_future_is_slow_from_ten_milliseconds() {
    struct Done<'s>(#[expect(dead_code)] SlowToDrop<'s>);
    impl Future for Done<'_> {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    let scene = Scene::new();
    let watch = scene.watch("w").with_budget(MS);
    for (time, slow) in [(10 * MS, 0), (11 * MS, 1)] {
        run(Done(SlowToDrop(&scene, time)).watched(&watch));
        assert_eq!(watch.stats().slow_polls, slow);
    }
    assert_eq!(watch.stats().busy, 21 * MS);
    assert_eq!(scene.reports()[0].kind, crate::report::SectionKind::Drop);
}

#[test]
fn future_dropped_half_way_counts_its_polls() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    let mut future = Box::pin(
        async {
            let _guard = SlowToDrop(&scene, 2 * MS);
            scene.pass(MS);
            std::future::pending::<()>().await;
        }
        .watched(&watch),
    );
    assert!(poll_once(future.as_mut()).is_pending());
    assert!(poll_once(future.as_mut()).is_pending());
    drop(future);
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.busy, stats.in_flight), (2, 3 * MS, 0));
}

#[test]
fn destructor_that_panics_is_counted() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let scene = Scene::new();
    let watch = scene.watch("w");
    let bomb = Bomb;
    let future = async { drop(bomb) }.watched(&watch);
    assert!(quietly(|| drop(future)).is_err());
    let stats = watch.stats();
    assert_eq!(
        (stats.polls, stats.panicked_polls, stats.in_flight),
        (1, 1, 0)
    );
    run(scene.takes(MS).watched(&watch));
    assert_eq!(watch.stats().polls, 2);
}

#[test]
fn drop_inside_a_poll_lowers_the_outer_self_time() {
    let scene = Scene::new();
    let (outer, inner) = (scene.watch("outer"), scene.watch("inner"));
    let guard = SlowToDrop(&scene, 5 * MS);
    let child = async { drop(guard) }.watched(&inner);
    run(async { drop(child) }.watched(&outer));
    assert_eq!(outer.stats().busy, Duration::ZERO);
    assert_eq!(inner.stats().busy, 5 * MS);
}

#[test]
fn entered_section_counts_like_a_poll() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    {
        let _entered = watch.enter();
        assert_eq!(watch.stats().in_flight, 1);
        scene.pass(7 * MS);
        assert_eq!(watch.stats().oldest_in_flight, Some(7 * MS));
        scene.pass(7 * MS);
    }
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.slow_polls, stats.in_flight), (1, 1, 0));
    let reports = scene.reports();
    assert_eq!(reports[0].kind, crate::report::SectionKind::Entered);
    assert!(reports[0].location.file().ends_with("endings.rs"));
}

#[test]
fn panic_inside_an_entered_section_is_counted() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    let outcome = quietly(|| {
        let _entered = watch.enter();
        panic!("entered");
    });
    assert!(outcome.is_err());
    assert_eq!((watch.stats().polls, watch.stats().panicked_polls), (1, 1));
}

#[test]
fn enter_during_an_unwinding_counts_no_panic() {
    struct EntersOnDrop<'w>(&'w Watch);
    impl Drop for EntersOnDrop<'_> {
        fn drop(&mut self) {
            drop(self.0.enter());
        }
    }
    let scene = Scene::new();
    let watch = scene.watch("w");
    let outcome = quietly(|| {
        let _guard = EntersOnDrop(&watch);
        panic!("elsewhere");
    });
    assert!(outcome.is_err());
    assert_eq!((watch.stats().polls, watch.stats().panicked_polls), (1, 0));
}

#[test]
fn guard_held_across_an_await_charges_no_poll() {
    let scene = Scene::new();
    let (task, section) = (scene.watch("task"), scene.watch("section"));
    let mut future = Box::pin(
        async {
            let _entered = section.enter();
            let mut first = true;
            poll_fn(|_| {
                if std::mem::take(&mut first) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
        }
        .watched(&task),
    );
    assert!(poll_once(future.as_mut()).is_pending());
    assert_eq!(section.stats().in_flight, 0);
    scene.pass(60_000 * MS);
    assert!(poll_once(future.as_mut()).is_ready());
    assert!(scene.reports().is_empty());
    assert_eq!(
        (section.stats().polls, section.stats().busy),
        (1, Duration::ZERO)
    );
    assert_eq!((task.stats().polls, task.stats().in_flight), (2, 0));
}

#[test]
fn stream_is_timed_by_item() {
    use futures_core::Stream;

    struct Countdown<'s>(&'s Scene, u32);
    impl Stream for Countdown<'_> {
        type Item = u32;
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            self.0.pass(MS);
            self.1 = self.1.saturating_sub(1);
            Poll::Ready((self.1 > 0).then_some(self.1))
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.1 as usize, Some(self.1 as usize))
        }
    }

    let scene = Scene::new();
    let watch = scene.watch("stream");
    let mut stream = Box::pin(Countdown(&scene, 4).watched(&watch));
    assert_eq!(stream.size_hint(), (4, Some(4)));
    let mut items = Vec::new();
    while let Some(item) = run(poll_fn(|cx| stream.as_mut().poll_next(cx))) {
        items.push(item);
    }
    assert_eq!(items, [3, 2, 1]);
    assert_eq!((watch.stats().polls, watch.stats().busy), (4, 4 * MS));
    assert_eq!(stream.inner().1, 0);
    assert_eq!(stream.watch().name(), "stream");
}

#[test]
fn guard_beyond_the_slot_of_its_thread_counts() {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<crate::Entered<'static>>> =
            const { std::cell::RefCell::new(None) };
    }
    let scene = Scene::new();
    let watch: &'static Watch = Box::leak(Box::new(scene.watch("w")));
    for _ in 0..8 {
        // Registered before the thread-local of the slot, so destroyed after it.
        let keep = || {
            KEPT.with_borrow_mut(|kept| *kept = None);
            KEPT.set(Some(watch.enter()));
        };
        std::thread::spawn(keep).join().unwrap();
    }
    assert_eq!((watch.stats().polls, watch.stats().in_flight), (8, 0));
}

#[test]
fn guard_beyond_the_slot_of_its_thread_leaves_the_next_owner_alone() {
    use std::sync::Barrier;

    /// Destroyed after the slot was returned.
    struct Kept<'t>(Option<crate::Entered<'static>>, &'t Barrier);
    impl Drop for Kept<'_> {
        fn drop(&mut self) {
            self.1.wait();
            self.1.wait();
            self.0 = None;
        }
    }
    thread_local! {
        static KEPT: std::cell::RefCell<Option<Kept<'static>>> = const { std::cell::RefCell::new(None) };
    }
    let scene = Scene::new();
    let watch: &'static Watch = Box::leak(Box::new(scene.watch("first")));
    let next = scene.watch("next");
    for _ in 0..8 {
        let keeper: &'static Barrier = Box::leak(Box::new(Barrier::new(2)));
        let first = std::thread::spawn(move || {
            KEPT.with_borrow_mut(|kept| *kept = None);
            KEPT.set(Some(Kept(Some(watch.enter()), keeper)));
        });
        keeper.wait();
        // This thread most likely gets the slot that has just become free.
        let (begun, ended) = (&Barrier::new(2), &Barrier::new(2));
        std::thread::scope(|threads| {
            let second = threads.spawn(|| {
                let _guard = next.enter();
                begun.wait();
                ended.wait();
                next.stats().in_flight
            });
            begun.wait();
            scene.pass(11 * MS);
            keeper.wait();
            first.join().unwrap();
            ended.wait();
            assert_eq!(second.join().unwrap(), 1);
        });
    }
    assert_eq!((watch.stats().slow_polls, next.stats().slow_polls), (8, 8));
}

#[test]
fn poll_on_an_ending_thread_counts() {
    struct PollsLast(Watch);
    impl Drop for PollsLast {
        fn drop(&mut self) {
            run(std::future::ready(()).watched(&self.0));
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<PollsLast>> = const { std::cell::RefCell::new(None) };
    }
    let scene = Scene::new();
    let watch = scene.watch("w");
    for _ in 0..8 {
        let (early, late) = (watch.clone(), watch.clone());
        // The order in which the two thread-locals are destroyed does not matter.
        let thread = std::thread::spawn(move || {
            LAST.set(Some(PollsLast(late)));
            run(std::future::ready(()).watched(&early));
        });
        thread.join().unwrap();
    }
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.in_flight), (16, 0));
}

#[test]
fn slow_poll_without_a_slot_is_counted() {
    struct PollsLast(Watch, std::sync::Arc<crate::clock::MockTime>, Duration);
    impl Drop for PollsLast {
        fn drop(&mut self) {
            let Self(watch, time, takes) = self;
            run(async { time.increment(*takes) }.watched(watch));
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<PollsLast>> = const { std::cell::RefCell::new(None) };
    }
    let scene = Scene::new();
    let watch = scene.watch("w");
    for (takes, slow_polls) in [(1, 0), (10, 0), (11, 1)] {
        let last = PollsLast(watch.clone(), scene.time.clone(), takes * MS);
        // Thread-locals are destroyed in the reverse order, so the slot's is first.
        let thread = std::thread::spawn(move || {
            let watch = last.0.clone();
            LAST.set(Some(last));
            run(std::future::ready(()).watched(&watch));
        });
        thread.join().unwrap();
        assert_eq!(watch.stats().slow_polls, slow_polls, "of {takes} ms");
    }
}
