//! Every task of a guarded runtime, watched by the hooks that tokio has under `--cfg tokio_unstable`.

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

/// One place where tasks of a guarded runtime are spawned: its address tells it.
type Place = (u64, *const Location<'static>);

/// What one thread knows of the tasks that it polls.
#[derive(Default)]
struct Tasks {
    /// One for each place: there are as many as the program has lines that spawn. It keeps the
    /// watchdog, as any watch does. What is of guards that are over goes when the thread polls for one of them
    /// again, or meets a new place.
    watches: HashMap<Place, Known>,
    /// Those in flight, outermost first: a task may run a runtime itself. `None` for one that began
    /// when the guard was gone already.
    in_flight: Vec<Option<TaskPoll>>,
}

struct Known {
    watch: Rc<Watch>,
    guarded: Weak<Guarded>,
}

impl Known {
    fn is_over(&self) -> bool {
        let guarded = self.guarded.upgrade();
        guarded.is_none_or(|guarded| guarded.has_ended())
    }
}

type TaskPoll = (Rc<Watch>, DetachedTimer);

thread_local! {
    static TASKS: RefCell<Tasks> = RefCell::default();
    /// The guard of which this thread is known to be a worker: a thread that never parks says so here.
    static KNOWN_TO: Cell<Option<u64>> = const { Cell::new(None) };
}

impl GuardHooks {
    /// To be called from `on_before_task_poll` of the runtime's builder, if that is set, and
    /// [`on_after_task_poll`](Self::on_after_task_poll) as well (`--cfg tokio_unstable`).
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

    /// To be called from `on_after_task_poll` of the runtime's builder.
    pub fn on_after_task_poll(&self, _: &TaskMeta<'_>) {
        let ended = with_tasks(|tasks| tasks.in_flight.pop());
        if let Some(Some(Some((watch, possession)))) = ended {
            catch_panic(|| possession.end(&watch));
        }
    }
}

/// Nothing of somebody else's runs in there. `None` when the thread's locals are gone already: then
/// nothing is polled on it any more.
fn with_tasks<T>(use_them: impl FnOnce(&mut Tasks) -> T) -> Option<T> {
    TASKS
        .try_with(|tasks| use_them(&mut tasks.borrow_mut()))
        .ok()
}

/// Forgets the places of guards that are over. Their watches are dropped after the thread's local was given
/// back: the last handle of a watchdog may be among them.
fn forget_ended() {
    let ended = with_tasks(|tasks| {
        let watches = std::mem::take(&mut tasks.watches).into_iter();
        let (ended, live) = watches.partition::<HashMap<_, _>, _>(|(_, known)| known.is_over());
        tasks.watches = live;
        ended
    });
    drop(ended);
}

fn begin(guarded: &Arc<Guarded>, place: &'static Location<'static>) -> Option<TaskPoll> {
    let key = (guarded.id, std::ptr::from_ref(place));
    let known = |tasks: &mut Tasks| tasks.watches.get(&key).map(|known| Rc::clone(&known.watch));
    let watch = with_tasks(known)?.unwrap_or_else(|| {
        forget_ended();
        let name = format!("{}:{}", place.file(), place.line());
        let watch = Rc::new(Watch::named(&guarded.watchdog, name));
        let known = Known {
            watch: Rc::clone(&watch),
            guarded: Arc::downgrade(guarded),
        };
        with_tasks(|tasks| tasks.watches.insert(key, known));
        watch
    });
    // The stack of the hook is not that of the poll.
    let possession = PollTimer::begin_at(&watch, place, Section::POLL, 0).loose();
    Some((watch, possession))
}
