//! Functions that make a system call again after a signal cut it short, so that their callers do not notice.
//!
//! Each is paired with the call. A function is on the list only if no code of the program's can be inlined into
//! it: none of them is generic, and none takes a closure. A function of std that is not on the list, such as the
//! generic ones around a thread's closure, may hold code of the program's that takes `EINTR` for a failure.
//!
//! Not on the list, because they return early instead: std's receiving and sending with a time-out, its
//! `File::lock`, its `io::copy` between descriptors (`copy_file_range`, `sendfile`, `splice`); C's `sleep`, `usleep`,
//! `nanosleep`, `sem_timedwait`, `poll`, `select`, `epoll_wait`. Not here, because the kernel makes the call again:
//! untimed locks, `Child::wait`, `JoinHandle::join`, C's `sem_wait`, `system` and `pthread_join`.

/// A kind of system call that may be cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Until time has passed.
    Sleep,
    /// For a word of memory, with a time limit.
    Futex,
    /// `poll` or `ppoll`.
    Poll,
    /// `fsync` or `fdatasync`.
    Sync,
    Truncate,
    ChangeMode,
    /// From a socket with a time-out.
    Accept,
    /// It may have written a part. It then returns how much.
    Write,
}

/// Functions of Rust, by the path without generics and without the trait. `*` is any number of segments: it covers
/// where the releases of std since 1.85 keep a function.
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
    // These return how much they have written, which `Write::write` allows at any time: `write_all` goes on.
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

/// Generic functions of std whose type arguments are std's own, by their whole names.
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

/// Functions that the C library exports. What they call inside of the library may make the system call.
const OF_C: [(&str, Call); 16] = [
    // The resolver asks a name server.
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

/// Which call a function of Rust makes again, by its name without the mangling.
pub(super) fn call_of_rust(name: &str) -> Option<Call> {
    let alone = OF_STD_ALONE.iter().find(|(listed, _)| *listed == name);
    let call = alone.or_else(|| {
        let path = path(name)?;
        OF_RUST.iter().find(|(pattern, _)| matches(pattern, &path))
    });
    Some(call?.1)
}

/// Which call a function of the C library makes again, by its symbol.
pub(super) fn call_of_c(symbol: &str) -> Option<Call> {
    let listed = OF_C.iter().find(|(listed, _)| *listed == symbol);
    Some(listed?.1)
}

/// The path of a function: of a method, that of its type, and its own name. `None` if a part of it is generic, or a
/// closure, so that it may hold the program's code.
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

    /// As `rustc-demangle` prints them, in both manglings and from several releases of std.
    #[test]
    fn call_of_rust_for_a_function_that_repeats_gives_its_call() {
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
    fn call_of_rust_for_what_may_hold_code_of_the_program_is_none() {
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
    fn call_of_c_is_known_for_what_never_returns_eintr_and_for_nothing_else() {
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

    /// A pattern that no name can match would be a hole in the list that no test shows.
    #[test]
    fn every_pattern_matches_the_name_that_it_stands_for() {
        for (pattern, call) in OF_RUST {
            let name = pattern.replace("*::", "some::module::");
            assert_eq!(call_of_rust(&name), Some(call), "{pattern}");
            let without = pattern.replace("*::", "");
            assert_eq!(call_of_rust(&without), Some(call), "{pattern}");
        }
    }
}
