//! What kind of stretch of code is timed.

use std::fmt;

/// What kind of stretch of code was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// One call of `Future::poll` or `Stream::poll_next`.
    Poll,
    /// The destructor of a watched future or stream.
    Drop,
    /// A poll that was expected to be slow, and before which the worker's other tasks were handed to
    /// another thread ([`Watch::contained`](crate::Watch::contained)).
    Contained,
    /// The life of the guard that [`Watch::enter`](crate::Watch::enter) gives.
    Entered,
    /// A poll that a test audits (feature `testing`).
    Audited,
}

const BITS: u32 = 4;
const MASK: u64 = (1 << (BITS - 1)) - 1;

/// Set in the number of a poll that read no clock: it began at or after its start, which is a tick.
pub(super) const BY_TICKS: u64 = 1 << (BITS - 1);

impl Kind {
    /// The id of a watch and the kind, in one number.
    #[inline]
    pub(super) fn tag(self, watch: u64) -> u64 {
        watch << BITS | self as u64
    }

    pub(super) fn watch_of(tag: u64) -> u64 {
        tag >> BITS
    }

    /// Whether it is a call of a poll function, of a watch's.
    pub(super) fn is_poll(self) -> bool {
        matches!(self, Kind::Poll | Kind::Contained)
    }

    pub(super) fn of(tag: u64) -> Self {
        match tag & MASK {
            0 => Kind::Poll,
            1 => Kind::Drop,
            2 => Kind::Contained,
            3 => Kind::Entered,
            _ => Kind::Audited,
        }
    }

    /// Whether it is looked at and leaves no trace in the books: it is charged_inside for all of its time, and
    /// excuses nothing around it.
    pub(crate) fn is_off_the_books(self) -> bool {
        self == Kind::Audited
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Poll => "poll",
            Kind::Drop => "drop",
            Kind::Contained => "contained poll",
            Kind::Entered => "entered stretch",
            Kind::Audited => "audited poll",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(Kind, &str); 5] = [
        (Kind::Poll, "poll"),
        (Kind::Drop, "drop"),
        (Kind::Contained, "contained poll"),
        (Kind::Entered, "entered stretch"),
        (Kind::Audited, "audited poll"),
    ];

    #[test]
    fn watch_and_kind_share_a_number() {
        for (kind, _) in NAMES {
            let tag = kind.tag(1_234_567);
            assert_eq!((Kind::watch_of(tag), Kind::of(tag)), (1_234_567, kind));
        }
    }

    #[test]
    fn reports_call_it_by_its_name() {
        for (kind, name) in NAMES {
            assert_eq!(kind.to_string(), name);
        }
    }
}
