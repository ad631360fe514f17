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
        let why = "the process was forked when a watchdog had been built already";
        Self::thread("shotclock-watch", io::Error::other(why))
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

    /// A setting of a builder has a value that means nothing.
    pub fn is_invalid_setting(&self) -> bool {
        matches!(self.kind, Kind::Setting { .. })
    }

    /// One of the crate's own threads could not be started.
    pub fn is_thread_refused(&self) -> bool {
        matches!(self.kind, Kind::Thread { .. })
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
            Kind::NoRuntime { source } => write!(f, "not called inside a runtime: {source}"),
            Kind::Thread { name, source } => {
                write!(f, "the thread {name} could not be started: {source}")
            }
            Kind::Listen { address, source } => {
                write!(f, "no listener on {address}: {source}")
            }
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
            Kind::Setting { .. } | Kind::RecorderTaken => None,
        }
    }
}
