//! Stands in for `linux::capture` on platforms without captures, and without the feature `stacks`.

use std::convert::Infallible;
use std::time::Duration;

use super::Thread;
use super::capture::{Copied, NoCapture};

/// Returns 0: no signal requests a stack here.
#[cfg(target_os = "linux")]
pub(super) fn signal_of_captures() -> i32 {
    0
}

/// Has no values: nothing can make one.
pub(crate) struct Capturer {
    none: Infallible,
}

impl Capturer {
    pub(crate) fn install(_: i32) -> Result<Self, NoCapture> {
        Err(NoCapture::Unsupported)
    }

    pub(crate) fn signal(&self) -> i32 {
        match self.none {}
    }

    pub(crate) fn request(&mut self, _: &Thread, _: bool) -> Result<(), NoCapture> {
        match self.none {}
    }

    pub(crate) fn wait(&mut self, _: &Thread, _: Duration) -> Result<Copied, NoCapture> {
        match self.none {}
    }
}
