//! Floor 0: the crate's error.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::runtime::TryCurrentError;

/// Reports a failed set-up. After the set-up, nothing in this crate fails.
///
/// # Design
///
/// The type is opaque and has predicates. A caller mostly prints it, and sometimes asks one question, for instance
/// whether the port is in use. So its contents can grow without a breaking change.
///
/// `Display` says what failed. [`source`](std::error::Error::source) returns the error of the runtime or the operating
/// system, which `Display` leaves out. `Debug`, which `main` prints, contains both.
///
/// # Examples
///
/// ```
/// use shotclock::Watchdog;
/// use std::time::Duration;
///
/// let error = Watchdog::builder().budget(Duration::ZERO).build().unwrap_err();
/// assert!(error.is_invalid_setting());
/// assert!(error.to_string().contains("budget"));
/// ```
pub struct Error {
    kind: ErrorKind,
}

#[derive(Debug)]
enum ErrorKind {
    Setting {
        name: &'static str,
        why: &'static str,
    },
    NoRuntime {
        source: TryCurrentError,
    },
    Thread {
        name: String,
        source: io::Error,
    },
    Forked,
    #[cfg_attr(not(feature = "prometheus"), expect(dead_code))]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[cfg_attr(not(feature = "prometheus"), expect(dead_code))]
    RecorderTaken,
}

impl Error {
    pub(crate) fn no_runtime(source: TryCurrentError) -> Self {
        Self {
            kind: ErrorKind::NoRuntime { source },
        }
    }

    pub(crate) fn setting(name: &'static str, why: &'static str) -> Self {
        Self {
            kind: ErrorKind::Setting { name, why },
        }
    }

    pub(crate) fn thread(name: &str, source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Thread {
                name: name.to_owned(),
                source,
            },
        }
    }

    /// Makes the error of a forked child: the threads exist in the parent only.
    pub(crate) fn forked() -> Self {
        Self {
            kind: ErrorKind::Forked,
        }
    }

    #[cfg(feature = "prometheus")]
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Listen { address, source },
        }
    }

    #[cfg(feature = "prometheus")]
    pub(crate) fn recorder_taken() -> Self {
        Self {
            kind: ErrorKind::RecorderTaken,
        }
    }

    /// Returns the error and its source in one line, for a log that prints no sources.
    pub(crate) fn with_source(&self) -> String {
        let source = std::error::Error::source(self);
        source.map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }

    /// Returns whether a builder's setting was out of range.
    pub fn is_invalid_setting(&self) -> bool {
        matches!(self.kind, ErrorKind::Setting { .. })
    }

    /// Returns whether the system refused one of the crate's threads, or the process is the child of a fork.
    pub fn is_thread_refused(&self) -> bool {
        matches!(self.kind, ErrorKind::Thread { .. } | ErrorKind::Forked)
    }

    /// Returns whether the address of a listener was in use.
    pub fn is_address_in_use(&self) -> bool {
        matches!(&self.kind, ErrorKind::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    /// Returns whether another `metrics` recorder was installed first.
    pub fn is_recorder_taken(&self) -> bool {
        matches!(self.kind, ErrorKind::RecorderTaken)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Setting { name, why } => write!(f, "the setting `{name}` {why}"),
            ErrorKind::NoRuntime { .. } => f.write_str("no tokio runtime here: call it inside one"),
            ErrorKind::Thread { name, .. } => write!(f, "the system refused to start the thread {name}"),
            ErrorKind::Forked => f.write_str(
                "this process is the child of a fork, and its parent had a watchdog: build the watchdog after the fork",
            ),
            ErrorKind::Listen { address, .. } => write!(f, "cannot listen on {address}"),
            ErrorKind::RecorderTaken => f.write_str(
                "another metrics recorder is installed already: \
                 start from shotclock::prometheus::builder() where it is built, \
                 or give its handle to shotclock::prometheus::Exporter::new",
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.kind, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Thread { source, .. } | ErrorKind::Listen { source, .. } => Some(source),
            ErrorKind::NoRuntime { source } => Some(source),
            ErrorKind::Setting { .. } | ErrorKind::Forked | ErrorKind::RecorderTaken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn every() -> Vec<Error> {
        let system = || io::Error::other("what the system says");
        let outside = tokio::runtime::Handle::try_current();
        let kinds = [
            ErrorKind::Setting {
                name: "budget",
                why: "must not be 0",
            },
            ErrorKind::NoRuntime {
                source: outside.expect_err("there is no runtime here"),
            },
            ErrorKind::Thread {
                name: "shotclock-watch".to_owned(),
                source: system(),
            },
            ErrorKind::Forked,
            ErrorKind::Listen {
                address: ([127, 0, 0, 1], 9_000).into(),
                source: system(),
            },
            ErrorKind::RecorderTaken,
        ];
        kinds.map(|kind| Error { kind }).into()
    }

    #[test]
    fn display_leaves_out_the_source() {
        let errors = every();
        for error in &errors {
            let said = error.to_string();
            let source = error.source().map(ToString::to_string);
            match &source {
                Some(source) => {
                    assert!(!said.contains(&**source), "{said:?} has {source:?} in it");
                    assert_eq!(error.with_source(), format!("{said}: {source}"));
                }
                None => assert_eq!(error.with_source(), said),
            }
            // What `main` prints when it returns it.
            let source = error.source().map(|source| format!("{source:?}"));
            assert!(format!("{error:?}").contains(&source.unwrap_or_default()));
        }
        assert_eq!(
            errors
                .iter()
                .filter(|error| error.source().is_some())
                .count(),
            3
        );
    }
}
