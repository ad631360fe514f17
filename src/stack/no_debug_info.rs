//! Replaces `debug_info` on platforms without captures: no address has a name.

use super::RawFrame;
use super::symbols::Frame;

pub(super) fn look_up(_: &RawFrame) -> Vec<Frame> {
    Vec::new()
}

pub(super) fn forget() {}
