//! Watches each task of a guarded runtime, by the hooks of tokio under `--cfg tokio_unstable`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use tokio::runtime::TaskMeta;

use super::guard::GuardHooks;
use crate::catch_panic::catch_panic;
use crate::poll_timer::{DetachedTimer, PollTimer, Section};
use crate::runtime::Guarded;
use crate::watch::Watch;

/// The guard of a runtime, and a source location where tasks are spawned.
type SpawnSite = (u64, *const Location<'static>);

/// The tasks that one thread polls.
#[derive(Default)]
struct Tasks {
    /// One watch for each line that spawns. A watch keeps its watchdog. The thread removes the watches of ended guards
    /// when it polls for one of them again, or meets a new line.
    watches: HashMap<SpawnSite, SiteWatch>,
    /// The task polls in flight, outermost first: a task may run a runtime itself. `None` for a poll that began after the
    /// end of the guard.
    in_flight: Vec<Option<TaskPoll>>,
}

struct SiteWatch {
    watch: Rc<Watch>,
    guarded: Weak<Guarded>,
}

impl SiteWatch {
    fn has_ended(&self) -> bool {
        let guarded = self.guarded.upgrade();
        guarded.is_none_or(|guarded| guarded.has_ended())
    }
}

type TaskPoll = (Rc<Watch>, DetachedTimer);

thread_local! {
    static TASKS: RefCell<Tasks> = RefCell::default();
    /// The guard that knows this thread as a worker. A thread that never parks registers here.
    static KNOWN_TO: Cell<Option<u64>> = const { Cell::new(None) };
}

impl GuardHooks {
    /// Begins the timing of a task's poll. Call it from the builder's `on_before_task_poll` (`--cfg tokio_unstable`).
    ///
    /// Call [`on_after_task_poll`](Self::on_after_task_poll) from its counterpart.
    pub fn on_before_task_poll(&self, task: &TaskMeta<'_>) {
        let guarded = self.guarded.as_ref().filter(|guarded| !guarded.has_ended());
        if let Some(guarded) = guarded {
            if KNOWN_TO.replace(Some(guarded.id)) != Some(guarded.id) {
                self.on_thread_park();
            }
        } else if KNOWN_TO.take().is_some() {
            catch_panic(forget_ended);
        }
        let begin = |guarded| catch_panic(|| begin(guarded, task.spawned_at()));
        let begun = guarded.and_then(begin).flatten();
        with_tasks(|tasks| tasks.in_flight.push(begun));
    }

    /// Ends the timing of a task's poll. Call it from the builder's `on_after_task_poll` (`--cfg tokio_unstable`).
    pub fn on_after_task_poll(&self, _: &TaskMeta<'_>) {
        let ended = with_tasks(|tasks| tasks.in_flight.pop());
        if let Some(Some(Some((watch, timer)))) = ended {
            catch_panic(|| timer.end(&watch));
        }
    }
}

/// Runs no foreign code. `None` after the destruction of the thread's locals, when the thread polls nothing any more.
fn with_tasks<T>(use_them: impl FnOnce(&mut Tasks) -> T) -> Option<T> {
    TASKS
        .try_with(|tasks| use_them(&mut tasks.borrow_mut()))
        .ok()
}

/// Removes the watches of ended guards.
///
/// Drops them after the borrow of the thread's local, because the last handle of a watchdog may be among them.
fn forget_ended() {
    let ended = with_tasks(|tasks| {
        let watches = std::mem::take(&mut tasks.watches).into_iter();
        let (ended, live) = watches.partition::<HashMap<_, _>, _>(|(_, known)| known.has_ended());
        tasks.watches = live;
        ended
    });
    drop(ended);
}

fn begin(guarded: &Arc<Guarded>, location: &'static Location<'static>) -> Option<TaskPoll> {
    let key = (guarded.id, std::ptr::from_ref(location));
    let known = |tasks: &mut Tasks| tasks.watches.get(&key).map(|known| Rc::clone(&known.watch));
    let watch = with_tasks(known)?.unwrap_or_else(|| {
        forget_ended();
        let name = format!("{}:{}", location.file(), location.line());
        let watch = Rc::new(Watch::named(&guarded.watchdog, name));
        let known = SiteWatch {
            watch: Rc::clone(&watch),
            guarded: Arc::downgrade(guarded),
        };
        with_tasks(|tasks| tasks.watches.insert(key, known));
        watch
    });
    // The hook's stack pointer is not that of the poll.
    let timer = PollTimer::begin_at(&watch, location, Section::POLL, 0).detach();
    Some((watch, timer))
}
