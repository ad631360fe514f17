//! What becomes of a response: an HTTP body goes on being watched.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

use crate::watch::Watch;
use crate::watched::Watched;

/// What becomes of a response of type `Response`: see [`Whole`] and [`Plain`].
#[diagnostic::on_unimplemented(
    message = "`WatchLayer` does not know whether `{Response}` has a body to be watched",
    note = "it knows `http::Response`, and the plain values of the standard library",
    note = "for any other response: `WatchLayer::new(&watch).plain()`"
)]
pub trait Finish<Response>: sealed::Sealed {
    /// What the watched service responds with.
    type Response;

    #[doc(hidden)]
    fn finish(
        response: Response,
        watch: &Watch,
        location: &'static Location<'static>,
    ) -> Self::Response;
}

mod sealed {
    pub trait Sealed {}
}

/// The body of an HTTP response is watched as well, to its end.
#[derive(Clone, Copy, Debug)]
pub struct Whole(());

/// Responses are passed on as they are, whatever they are.
#[derive(Clone, Copy, Debug)]
pub struct Plain(());

impl sealed::Sealed for Whole {}
impl sealed::Sealed for Plain {}

impl<B> Finish<http::Response<B>> for Whole {
    type Response = http::Response<Watched<B>>;

    fn finish(
        response: http::Response<B>,
        watch: &Watch,
        location: &'static Location<'static>,
    ) -> Self::Response {
        response.map(|body| Watched::new(body, watch.clone(), location))
    }
}

impl<Response> Finish<Response> for Plain {
    type Response = Response;

    fn finish(response: Response, _: &Watch, _: &'static Location<'static>) -> Response {
        response
    }
}

/// What has no body, and needs no `plain()`.
macro_rules! values {
    ($($value:ty),* $(,)?) => {
        $(
            impl Finish<$value> for Whole {
                type Response = $value;

                fn finish(value: $value, _: &Watch, _: &'static Location<'static>) -> $value {
                    value
                }
            }
        )*
    };
}

values! {
    (), bool, char, String, &'static str,
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
}

impl<T> Finish<Vec<T>> for Whole {
    type Response = Vec<T>;

    fn finish(values: Vec<T>, _: &Watch, _: &'static Location<'static>) -> Vec<T> {
        values
    }
}

/// A body whose polls are timed. What it says of itself beforehand, its size and whether it is at its
/// end, is passed on.
impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.poll_by(|body| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner().size_hint()
    }
}
