//! The kind of code that a watch timed.

use std::fmt;

/// Says which kind of code a watch timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SectionKind {
    /// One call of `Future::poll` or `Stream::poll_next`.
    Poll,
    /// The destructor of a watched future or stream.
    Drop,
    /// A poll that was expected to be slow. Before it, the worker's other tasks were handed to another thread
    /// ([`Watch::contained`](crate::Watch::contained)).
    Contained,
    /// The life of a guard from [`Watch::enter`](crate::Watch::enter).
    Entered,
    /// A poll that a test audits (feature `testing`).
    Audited,
}

impl SectionKind {
    /// Returns whether the code is a call of a poll function of a watched future.
    pub(crate) fn is_poll(self) -> bool {
        matches!(self, SectionKind::Poll | SectionKind::Contained)
    }

    /// Returns whether the section leaves no trace in statistics and health.
    ///
    /// Such a section is charged with all of its time, and excuses nothing around it.
    pub(crate) fn is_uncounted(self) -> bool {
        self == SectionKind::Audited
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SectionKind::Poll => "poll",
            SectionKind::Drop => "drop",
            SectionKind::Contained => "contained poll",
            SectionKind::Entered => "entered section",
            SectionKind::Audited => "audited poll",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_each_kind() {
        for (kind, name) in [
            (SectionKind::Poll, "poll"),
            (SectionKind::Drop, "drop"),
            (SectionKind::Contained, "contained poll"),
            (SectionKind::Entered, "entered section"),
            (SectionKind::Audited, "audited poll"),
        ] {
            assert_eq!(kind.to_string(), name);
        }
    }
}
