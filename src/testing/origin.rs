//! The origin of a future: the name of its type, and the line where its code begins.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::stream::Stream;

use crate::stack::{Frame, function_at};

/// Names the origin of a future or stream. `Display` prints its type, and its line if there is debug information.
///
/// It is public only because a hidden trait uses it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub(super) name: &'static str,
    poll: usize,
}

type PollOf<T, Output> = fn(Pin<&mut T>, &mut Context<'_>) -> Poll<Output>;

impl Origin {
    pub(super) fn of_future<F: Future>() -> Self {
        let poll: PollOf<F, F::Output> = F::poll;
        Self::new::<F>(poll as *const ())
    }

    pub(super) fn of_stream<S: Stream>() -> Self {
        let poll: PollOf<S, Option<S::Item>> = S::poll_next;
        Self::new::<S>(poll as *const ())
    }

    fn new<T>(poll: *const ()) -> Self {
        Self {
            name: std::any::type_name::<T>(),
            poll: poll as usize,
        }
    }

    /// Returns the poll function, if it is one of the program. The function of a library's type says nothing about the
    /// origin.
    fn function(&self) -> Option<Frame> {
        function_at(self.poll).filter(|function| !function.is_foreign())
    }
}

/// The printed part of a name. The names of combinators are longer than a reader needs.
const MAX_NAME_CHARS: usize = 160;

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.char_indices().nth(MAX_NAME_CHARS) {
            Some((end, _)) => write!(f, "{} …", &self.name[..end])?,
            None => f.write_str(self.name)?,
        }
        match self.function().and_then(|function| function.place()) {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}
