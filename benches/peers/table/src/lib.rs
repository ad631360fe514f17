//! What the two programs of the table share: `contender` is one way to watch polls, in a process of its
//! own; `table` has all of them run in turns and prints what they cost.

mod contender;
mod contenders;
mod workload;

pub use contender::Contender;
pub use contenders::{names, serve};
pub use workload::Workload;
