//! Wraps the body of a response.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

use crate::watch::Watch;
use crate::watched::Watched;

/// Wraps a response. Public because `WatchService` is, but no other crate can name it.
#[diagnostic::on_unimplemented(
    message = "`WatchLayer` does not know whether `{Response}` has a body to watch",
    note = "it knows `http::Response`, and the plain values of the standard library",
    note = "for any other response: `WatchLayer::new(&watch).plain()`"
)]
pub trait WrapResponse<Response> {
    /// The response of the watched service.
    type Response;

    fn wrap(
        response: Response,
        watch: &Watch,
        location: &'static Location<'static>,
    ) -> Self::Response;
}

/// Watches the body of an HTTP response, to its end.
#[derive(Clone, Copy, Debug)]
pub struct WatchBody(());

/// Returns responses unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Unchanged(());

impl<B> WrapResponse<http::Response<B>> for WatchBody {
    type Response = http::Response<Watched<B>>;

    fn wrap(
        response: http::Response<B>,
        watch: &Watch,
        location: &'static Location<'static>,
    ) -> Self::Response {
        response.map(|body| Watched::new(body, watch.clone(), location))
    }
}

impl<Response> WrapResponse<Response> for Unchanged {
    type Response = Response;

    fn wrap(response: Response, _: &Watch, _: &'static Location<'static>) -> Response {
        response
    }
}

/// Implements the trait for types without a body, so they need no `plain()`.
macro_rules! values {
    ($($value:ty),* $(,)?) => {
        $(
            impl WrapResponse<$value> for WatchBody {
                type Response = $value;

                fn wrap(value: $value, _: &Watch, _: &'static Location<'static>) -> $value {
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

impl<T> WrapResponse<Vec<T>> for WatchBody {
    type Response = Vec<T>;

    fn wrap(values: Vec<T>, _: &Watch, _: &'static Location<'static>) -> Vec<T> {
        values
    }
}

/// Times the polls of a body. Its size hint and its end are those of the inner body.
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
