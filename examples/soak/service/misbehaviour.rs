//! Routes that hold their thread. The service announces each stall before it begins; the watchdog must report each
//! once.

use std::future::pending;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::VISITOR;
use super::app::{App, Route};
use super::stall::{Manner, Stall};

pub(super) fn routes() -> Vec<Route> {
    vec![
        (IN_HANDLER, get(in_handler)),
        (IN_DESTRUCTOR, get(in_destructor)),
        ("/stall/nested/{manner}", get(nested)),
        ("/stall/contained/{manner}", get(contained)),
        ("/stall/task/{manner}", get(in_task)),
        ("/stall/panic/{manner}", get(before_panic)),
        ("/stall/visitor/{manner}", get(on_visitor)),
        ("/stall/unwatched/{manner}", get(unwatched)),
    ]
}

const IN_HANDLER: &str = "/stall/handler/{manner}";
const IN_DESTRUCTOR: &str = "/stall/destructor/{manner}";

/// The app, the kind of the stall, and its length.
type StallRequest = (State<Arc<App>>, Path<Manner>, Query<Millis>);

#[derive(Deserialize)]
struct Millis {
    millis: u64,
}

fn read((State(app), Path(manner), Query(Millis { millis })): StallRequest) -> (Arc<App>, Stall) {
    let time = Duration::from_millis(millis);
    (app, Stall { manner, time })
}

/// Stalls in a poll that the layer watches, the first or the second.
async fn in_handler(request: StallRequest) {
    let (app, stall) = read(request);
    if stall.time.as_millis() % 2 == 0 {
        yield_now().await;
    }
    stall.happen(Some(&app.path(IN_HANDLER)), &app.announcer);
}

/// Stalls in a destructor after the client cancels the request.
async fn in_destructor(request: StallRequest) {
    let (app, stall) = read(request);
    let _late = Late { app, stall };
    pending().await
}

struct Late {
    app: Arc<App>,
    stall: Stall,
}

impl Drop for Late {
    fn drop(&mut self) {
        let watch = self.app.path(IN_DESTRUCTOR);
        self.stall.happen(Some(&watch), &self.app.announcer);
    }
}

/// Stalls in an inner poll. The inner poll is charged, and the outer one is not.
async fn nested(request: StallRequest) {
    let (app, stall) = read(request);
    let spot = &app.spots.nested;
    spot.watch(async { app.stall_in(spot, stall) }).await;
}

async fn contained(request: StallRequest) {
    let (app, stall) = read(request);
    let spot = &app.spots.contained;
    spot.watch(async { app.stall_in(spot, stall) }).await;
}

async fn in_task(request: StallRequest) -> StatusCode {
    let (app, stall) = read(request);
    let inside = Arc::clone(&app);
    let task = async move {
        yield_now().await;
        inside.stall_in(&inside.spots.task, stall);
        yield_now().await;
    };
    let ended = tokio::spawn(app.spots.task.watch(task)).await;
    done_if(ended.is_ok())
}

/// Stalls a task whose poll then panics.
async fn before_panic(request: StallRequest) -> StatusCode {
    let (app, stall) = read(request);
    let inside = Arc::clone(&app);
    let task = async move {
        inside.stall_in(&inside.spots.panic, stall);
        std::panic::resume_unwind(Box::new("on purpose"));
    };
    let ended: Result<(), _> = tokio::spawn(app.spots.panic.watch(task)).await;
    done_if(ended.is_err_and(|error| error.is_panic()))
}

/// Stalls outside of every watch: only the runtime's guard can report it.
async fn unwatched(request: StallRequest) -> StatusCode {
    let (app, stall) = read(request);
    let task = async move { stall.happen(None, &app.announcer) };
    done_if(tokio::spawn(task).await.is_ok())
}

/// Stalls on a runtime that exists for this one request.
async fn on_visitor(request: StallRequest) -> StatusCode {
    let (app, stall) = read(request);
    let (gone, is_gone) = oneshot::channel();
    thread::spawn(move || {
        let visited = visit(&app, stall);
        let _ = gone.send(visited.is_ok());
    });
    done_if(is_gone.await == Ok(true))
}

/// Starts a runtime of either kind.
fn visit(app: &Arc<App>, stall: Stall) -> crate::Result<()> {
    let mut builder = match stall.time.as_millis() % 2 {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let _guard = app.watchdog.guard(VISITOR, runtime.handle());
    let inside = Arc::clone(app);
    let task = async move {
        yield_now().await;
        inside.stall_in(&inside.spots.visitor, stall);
        yield_now().await;
    };
    let task = app.spots.visitor.watch(task);
    Ok(runtime.block_on(async { tokio::spawn(task).await })?)
}

fn done_if(done: bool) -> StatusCode {
    match done {
        true => StatusCode::OK,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
