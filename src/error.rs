//! Floor 0: the crate's error.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::runtime::TryCurrentError;

/// What can go wrong while something is being set up. Nothing in this crate fails later than that.
///
/// # Design
///
/// One opaque type with predicates: a caller mostly prints it, and sometimes asks one question (is
/// the port taken?). What it says can grow without breaking anybody.
///
/// `Display` says what failed, and [`source`](std::error::Error::source) gives the error of the runtime or of
/// the operating system behind it: whoever prints both has each once. `Debug`, which `main` prints, has both in it.
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
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
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
            kind: Kind::NoRuntime { source },
        }
    }

    pub(crate) fn setting(name: &'static str, why: &'static str) -> Self {
        Self {
            kind: Kind::Setting { name, why },
        }
    }

    pub(crate) fn thread(name: &str, source: io::Error) -> Self {
        Self {
            kind: Kind::Thread {
                name: name.to_owned(),
                source,
            },
        }
    }

    /// The threads of the crate run in the parent, and would have to be started anew.
    pub(crate) fn forked() -> Self {
        Self { kind: Kind::Forked }
    }

    #[cfg(feature = "prometheus")]
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> Self {
        Self {
            kind: Kind::Listen { address, source },
        }
    }

    #[cfg(feature = "prometheus")]
    pub(crate) fn recorder_taken() -> Self {
        Self {
            kind: Kind::RecorderTaken,
        }
    }

    /// The error and its source in one line, for a log that prints no sources.
    pub(crate) fn whole(&self) -> String {
        let source = std::error::Error::source(self);
        source.map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }

    /// A setting of a builder has a value that means nothing.
    pub fn is_invalid_setting(&self) -> bool {
        matches!(self.kind, Kind::Setting { .. })
    }

    /// One of the crate's own threads could not be started.
    pub fn is_thread_refused(&self) -> bool {
        matches!(self.kind, Kind::Thread { .. } | Kind::Forked)
    }

    /// The address of a listener is in use already.
    pub fn is_address_in_use(&self) -> bool {
        matches!(&self.kind, Kind::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    /// Another `metrics` recorder was installed first.
    pub fn is_recorder_taken(&self) -> bool {
        matches!(self.kind, Kind::RecorderTaken)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Setting { name, why } => write!(f, "the setting `{name}` {why}"),
            Kind::NoRuntime { .. } => f.write_str("not called inside a runtime"),
            Kind::Thread { name, .. } => write!(f, "the thread {name} could not be started"),
            Kind::Forked => f.write_str(
                "no thread is started: the process was forked when a watchdog had been built already",
            ),
            Kind::Listen { address, .. } => write!(f, "no listener on {address}"),
            Kind::RecorderTaken => f.write_str(
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
            Kind::Thread { source, .. } | Kind::Listen { source, .. } => Some(source),
            Kind::NoRuntime { source } => Some(source),
            Kind::Setting { .. } | Kind::Forked | Kind::RecorderTaken => None,
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
            Kind::Setting {
                name: "budget",
                why: "must not be 0",
            },
            Kind::NoRuntime {
                source: outside.expect_err("there is no runtime here"),
            },
            Kind::Thread {
                name: "shotclock-watch".to_owned(),
                source: system(),
            },
            Kind::Forked,
            Kind::Listen {
                address: ([127, 0, 0, 1], 9_000).into(),
                source: system(),
            },
            Kind::RecorderTaken,
        ];
        kinds.map(|kind| Error { kind }).into()
    }

    #[test]
    fn error_printed_with_its_sources_says_each_once() {
        let errors = every();
        for error in &errors {
            let said = error.to_string();
            let source = error.source().map(ToString::to_string);
            match &source {
                Some(source) => {
                    assert!(!said.contains(&**source), "{said:?} has {source:?} in it");
                    assert_eq!(error.whole(), format!("{said}: {source}"));
                }
                None => assert_eq!(error.whole(), said),
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
