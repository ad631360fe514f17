//! Lists functions that repeat a system call after a signal cut it short, so their callers do not notice.
//!
//! Each is listed with its call. A function is on the list only if the compiler cannot inline code of the program into
//! it: none is generic, and none takes a closure. Other functions of std, such as the generic ones around a thread's
//! closure, may contain code of the program that takes `EINTR` for a failure.
//!
//! Some functions are not on the list because they return early: std's receive and send with a timeout, `File::lock`,
//! and `io::copy` between descriptors (`copy_file_range`, `sendfile`, `splice`). So do C's `sleep`, `usleep`,
//! `nanosleep`, `sem_timedwait`, `poll`, `select` and `epoll_wait`.
//!
//! Others need no list because the kernel repeats the call: untimed locks, `Child::wait`, `JoinHandle::join`, and C's
//! `sem_wait`, `system` and `pthread_join`.

/// A kind of system call that a signal may cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A sleep.
    Sleep,
    /// A wait for a word of memory, with a timeout.
    Futex,
    /// `poll` or `ppoll`.
    Poll,
    /// `fsync` or `fdatasync`.
    Sync,
    Truncate,
    ChangeMode,
    /// An `accept` on a socket with a timeout.
    Accept,
    /// A write. It may have written a part, and then returns its length.
    Write,
}

/// Functions of Rust, by their path without generics and trait. `*` stands for any number of segments, because the
/// releases of std since 1.85 have a function in different modules.
const OF_RUST: [(&str, Call); 55] = [
    ("std::thread::*::sleep", Call::Sleep),
    ("std::thread::*::sleep_ms", Call::Sleep),
    ("std::thread::*::sleep_until", Call::Sleep),
    ("std::sys::*::sleep", Call::Sleep),
    ("std::sys::*::sleep_until", Call::Sleep),
    ("std::thread::*::park_timeout", Call::Futex),
    ("std::thread::*::park_timeout_ms", Call::Futex),
    ("std::sys::*::Parker::park_timeout", Call::Futex),
    ("std::sys::*::Condvar::wait_timeout", Call::Futex),
    ("std::sys::*::Condvar::wait_optional_timeout", Call::Futex),
    ("std::sys::*::futex_wait", Call::Futex),
    (
        "parking_lot_core::thread_parker::*::ThreadParker::futex_wait",
        Call::Futex,
    ),
    (
        "parking_lot_core::thread_parker::*::ThreadParker::park_until",
        Call::Futex,
    ),
    (
        "parking_lot::condvar::Condvar::wait_until_internal",
        Call::Futex,
    ),
    ("parking_lot::raw_mutex::RawMutex::lock_slow", Call::Futex),
    (
        "parking_lot::raw_rwlock::RawRwLock::lock_exclusive_slow",
        Call::Futex,
    ),
    (
        "parking_lot::raw_rwlock::RawRwLock::lock_shared_slow",
        Call::Futex,
    ),
    (
        "parking_lot::raw_rwlock::RawRwLock::lock_upgradable_slow",
        Call::Futex,
    ),
    (
        "parking_lot::raw_rwlock::RawRwLock::upgrade_slow",
        Call::Futex,
    ),
    (
        "parking_lot::raw_rwlock::RawRwLock::wait_for_readers",
        Call::Futex,
    ),
    ("std::process::Command::output", Call::Poll),
    ("std::process::Child::wait_with_output", Call::Poll),
    ("std::sys::*::output", Call::Poll),
    ("std::sys::*::wait_with_output", Call::Poll),
    ("std::sys::*::read_output", Call::Poll),
    ("std::sys::*::read2", Call::Poll),
    ("std::net::tcp::TcpStream::connect_timeout", Call::Poll),
    ("std::sys::*::connect_timeout", Call::Poll),
    ("std::fs::File::sync_all", Call::Sync),
    ("std::fs::File::sync_data", Call::Sync),
    ("std::sys::*::File::fsync", Call::Sync),
    ("std::sys::*::File::datasync", Call::Sync),
    ("std::sys::*::os_fsync", Call::Sync),
    ("std::sys::*::os_datasync", Call::Sync),
    ("std::fs::File::set_len", Call::Truncate),
    ("std::sys::*::File::truncate", Call::Truncate),
    ("std::fs::File::set_permissions", Call::ChangeMode),
    ("std::sys::*::File::set_permissions", Call::ChangeMode),
    ("std::net::tcp::TcpListener::accept", Call::Accept),
    (
        "std::os::unix::net::listener::UnixListener::accept",
        Call::Accept,
    ),
    ("std::sys::*::accept", Call::Accept),
    // These may return a shorter length, which `Write::write` allows at any time. `write_all` then continues.
    ("std::net::tcp::TcpStream::write", Call::Write),
    ("std::net::tcp::TcpStream::write_vectored", Call::Write),
    ("std::os::unix::net::stream::UnixStream::write", Call::Write),
    (
        "std::os::unix::net::stream::UnixStream::write_vectored",
        Call::Write,
    ),
    ("std::process::ChildStdin::write", Call::Write),
    ("std::process::ChildStdin::write_vectored", Call::Write),
    ("std::io::pipe::PipeWriter::write", Call::Write),
    ("std::io::pipe::PipeWriter::write_vectored", Call::Write),
    ("std::fs::File::write", Call::Write),
    ("std::fs::File::write_vectored", Call::Write),
    ("std::io::stdio::StdoutRaw::write_all", Call::Write),
    ("std::io::stdio::StderrRaw::write_all", Call::Write),
    ("std::sys::*::write", Call::Write),
    ("std::sys::*::write_all", Call::Write),
];

/// Generic functions of std with type arguments from std, by their whole names.
const OF_STD_ALONE: [(&str, Call); 2] = [
    (
        "<std::io::buffered::bufwriter::BufWriter<std::io::stdio::StdoutRaw>>::flush_buf",
        Call::Write,
    ),
    (
        "<std::io::default_write_fmt::Adapter<std::sys::stdio::unix::Stderr> as core::fmt::Write>::write_str",
        Call::Write,
    ),
];

/// Functions that the C library exports. A function of the library that they call may make the system call.
const OF_C: [(&str, Call); 16] = [
    // The resolver polls the socket to its name server.
    ("getaddrinfo", Call::Poll),
    ("gethostbyname", Call::Poll),
    ("gethostbyname_r", Call::Poll),
    ("gethostbyname2", Call::Poll),
    ("gethostbyname2_r", Call::Poll),
    ("gethostbyaddr", Call::Poll),
    ("gethostbyaddr_r", Call::Poll),
    ("getnameinfo", Call::Poll),
    // POSIX: these never return `EINTR`.
    ("pthread_cond_timedwait", Call::Futex),
    ("pthread_cond_clockwait", Call::Futex),
    ("pthread_mutex_timedlock", Call::Futex),
    ("pthread_mutex_clocklock", Call::Futex),
    ("pthread_rwlock_timedrdlock", Call::Futex),
    ("pthread_rwlock_timedwrlock", Call::Futex),
    ("pthread_rwlock_clockrdlock", Call::Futex),
    ("pthread_rwlock_clockwrlock", Call::Futex),
];

/// Returns the call that a function of Rust repeats, by its demangled name.
pub(super) fn call_of_rust(name: &str) -> Option<Call> {
    let alone = OF_STD_ALONE.iter().find(|(listed, _)| *listed == name);
    let call = alone.or_else(|| {
        let path = path(name)?;
        OF_RUST.iter().find(|(pattern, _)| matches(pattern, &path))
    });
    Some(call?.1)
}

/// Returns the call that a function of the C library repeats, by its symbol.
pub(super) fn call_of_c(symbol: &str) -> Option<Call> {
    let listed = OF_C.iter().find(|(listed, _)| *listed == symbol);
    Some(listed?.1)
}

/// Returns the path of a function. For a method, it is the path of its type and its name.
///
/// `None` if a part is generic or a closure, because such a function may contain code of the program.
///
/// The two manglings write a method as `Type::f` and `<Type>::f`, and both write one of a trait as
/// `<Type as Trait>::f`.
fn path(name: &str) -> Option<String> {
    let path = match name.strip_prefix('<') {
        None => name.to_owned(),
        Some(rest) => {
            let (of, function) = rest.split_once(">::")?;
            let of = of.split_once(" as ").map_or(of, |(of, _)| of);
            let of = of.strip_prefix('&').unwrap_or(of);
            format!("{}::{function}", of.strip_prefix("mut ").unwrap_or(of))
        }
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    path.chars().all(is_plain).then_some(path)
}

fn matches(pattern: &str, path: &str) -> bool {
    let Some((crate_path, function)) = pattern.split_once("*::") else {
        return pattern == path;
    };
    let rest = path.strip_prefix(crate_path);
    rest.and_then(|rest| rest.strip_suffix(function))
        .is_some_and(|between| between.is_empty() || between.ends_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are those of `rustc-demangle`, in both manglings and from several releases of std.
    #[test]
    fn call_of_rust_of_a_repeating_function_is_its_call() {
        for (name, call) in [
            ("std::thread::sleep", Call::Sleep),
            ("std::thread::functions::sleep", Call::Sleep),
            ("std::thread::functions::sleep_until", Call::Sleep),
            ("std::sys::pal::unix::thread::Thread::sleep", Call::Sleep),
            ("<std::sys::pal::unix::thread::Thread>::sleep", Call::Sleep),
            ("std::sys::thread::unix::sleep", Call::Sleep),
            ("std::thread::park_timeout", Call::Futex),
            ("<std::thread::thread::Thread>::park_timeout", Call::Futex),
            ("std::thread::Thread::park_timeout", Call::Futex),
            ("std::sys::pal::unix::futex::futex_wait", Call::Futex),
            (
                "std::sys::sync::thread_parking::futex::Parker::park_timeout",
                Call::Futex,
            ),
            (
                "<std::sys::sync::condvar::futex::Condvar>::wait_optional_timeout",
                Call::Futex,
            ),
            (
                "<parking_lot_core::thread_parker::imp::ThreadParker as parking_lot_core::thread_parker::ThreadParkerT>::park_until",
                Call::Futex,
            ),
            (
                "parking_lot_core::thread_parker::imp::ThreadParker::futex_wait",
                Call::Futex,
            ),
            ("parking_lot::raw_mutex::RawMutex::lock_slow", Call::Futex),
            ("std::sys::process::unix::common::read_output", Call::Poll),
            ("std::sys::pal::unix::pipe::read2", Call::Poll),
            ("<std::process::Command>::output", Call::Poll),
            ("<std::net::tcp::TcpStream>::connect_timeout", Call::Poll),
            ("<std::fs::File>::sync_all", Call::Sync),
            ("std::sys::fs::unix::File::fsync::os_fsync", Call::Sync),
            ("<std::fs::File>::set_len", Call::Truncate),
            ("<std::fs::File>::set_permissions", Call::ChangeMode),
            ("<std::net::tcp::TcpListener>::accept", Call::Accept),
            (
                "<&std::net::tcp::TcpStream as std::io::Write>::write",
                Call::Write,
            ),
            (
                "<std::sys::net::connection::socket::unix::Socket>::write",
                Call::Write,
            ),
            (
                "<std::io::stdio::StdoutRaw as std::io::Write>::write_all",
                Call::Write,
            ),
            (
                "<std::io::buffered::bufwriter::BufWriter<std::io::stdio::StdoutRaw>>::flush_buf",
                Call::Write,
            ),
        ] {
            assert_eq!(call_of_rust(name), Some(call), "{name}");
        }
    }

    #[test]
    fn call_of_rust_of_a_function_with_code_of_the_program_is_none() {
        for name in [
            "std::sys::backtrace::__rust_begin_short_backtrace",
            "std::sys::backtrace::__rust_begin_short_backtrace::<app::main::{closure#0}, ()>",
            "std::thread::Builder::spawn_unchecked_::{{closure}}",
            "std::thread::local::LocalKey<T>::with",
            "<std::thread::local::LocalKey<u32>>::with::<app::sleep, ()>",
            "std::sync::mpmc::list::Channel<T>::recv",
            "std::sync::mpmc::context::Context::with::{{closure}}",
            "<std::sys::sync::once::futex::Once>::call",
            "std::panicking::try",
            "std::panic::catch_unwind",
            "std::rt::lang_start_internal",
            "std::thread::scoped::scope",
            "std::io::default_write_all",
            "<std::io::buffered::bufwriter::BufWriter<app::Slow>>::flush_buf",
            "<app::Sleep as std::sys::X>::sleep",
            "<std::sys::X<app::Y> as app::Z>::sleep",
            "parking_lot_core::parking_lot::park",
            "parking_lot::raw_rwlock::RawRwLock::lock_common",
            "app::std::thread::sleep",
            "app::sleep",
            "std::thread::sleep_monitor",
            "std::threads::sleep",
            "stdx::thread::sleep",
            "std::fs::File::lock",
            "std::sys::io::kernel_copy::linux::sendfile_splice",
            "",
            "<",
        ] {
            assert_eq!(call_of_rust(name), None, "{name}");
        }
    }

    #[test]
    fn call_of_c_is_known_only_for_functions_that_never_return_eintr() {
        assert_eq!(call_of_c("getaddrinfo"), Some(Call::Poll));
        assert_eq!(call_of_c("pthread_cond_timedwait"), Some(Call::Futex));
        for symbol in [
            "poll",
            "usleep",
            "sleep",
            "nanosleep",
            "sem_timedwait",
            "sem_wait",
            "system",
            "select",
            "syscall",
            "getaddrinfo_a",
        ] {
            assert_eq!(call_of_c(symbol), None, "{symbol}");
        }
    }

    /// Without this test, a pattern that matches no name would stay unnoticed.
    #[test]
    fn call_of_rust_of_each_pattern_is_its_call() {
        for (pattern, call) in OF_RUST {
            let name = pattern.replace("*::", "some::module::");
            assert_eq!(call_of_rust(&name), Some(call), "{pattern}");
            let without = pattern.replace("*::", "");
            assert_eq!(call_of_rust(&without), Some(call), "{pattern}");
        }
    }
}
