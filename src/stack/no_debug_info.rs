//! Stands in for `debug_info` where no stack can be captured: no address has a name.

use super::Step;
use super::symbols::Frame;

pub(super) fn look_up(_: &Step) -> Vec<Frame> {
    Vec::new()
}

pub(super) fn forget() {}
