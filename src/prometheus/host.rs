//! For which hosts the listener answers.
//!
//! A web page can have its own name resolve to the address of this machine (DNS rebinding). The browser takes
//! what is answered for the page's own then, and lets the page read it. What gives it away is the name, which
//! the browser puts into each request and no page can change. So a request is answered if it was addressed to
//! an IP address, to localhost, or to a name that the program allowed: none of them is that of a page.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::header::HOST;
use hyper::{Request, StatusCode, Version};

use crate::error::Error;

/// The longest name that DNS has, in bytes.
const LONGEST_NAME: usize = 253;

/// The names that are allowed besides addresses and localhost. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Hosts {
    allowed: Arc<Mutex<BTreeSet<String>>>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refusal {
    /// It does not say for which host it is, or not clearly.
    Unclear,
    /// It is for another host.
    Foreign,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::Unclear => StatusCode::BAD_REQUEST,
            Refusal::Foreign => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    /// What to do.
    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::Unclear => {
                "send one Host header: a name or an IP address, and a port if you like\n"
            }
            Refusal::Foreign => {
                "this host name is not allowed here: use an IP address or localhost, \
                 or have the program call Exporter::allow_host\n"
            }
        }
    }
}

impl Hosts {
    pub(super) fn allow(&self, name: &str) -> Result<(), Error> {
        let name = normalized(name).ok_or_else(|| {
            let why = "must be the name of a host, in ASCII, without scheme, port and path";
            Error::setting("allow_host", why)
        })?;
        self.lock().insert(name);
        Ok(())
    }

    /// Whether a request is answered, by every host that it names: that of an absolute target (as a proxy sends
    /// it) and that of its header. HTTP/1.0 need not name any, and no browser speaks it.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let target = request
            .uri()
            .authority()
            .map(|authority| authority.as_str());
        let mut headers = request.headers().get_all(HOST).iter();
        let header = headers.next().map(|value| value.to_str());
        let header = header.transpose().map_err(|_| Refusal::Unclear)?;
        let is_named = target.is_some() || header.is_some();
        if headers.next().is_some() || !is_named && request.version() > Version::HTTP_10 {
            return Err(Refusal::Unclear);
        }
        let mut named = target.into_iter().chain(header);
        named.try_for_each(|authority| self.admit_authority(authority))
    }

    fn admit_authority(&self, authority: &str) -> Result<(), Refusal> {
        match host_of(authority) {
            Some(Host::Address) => Ok(()),
            Some(Host::Name(name)) if is_localhost(&name) || self.lock().contains(&name) => Ok(()),
            Some(Host::Name(_)) => Err(Refusal::Foreign),
            None => Err(Refusal::Unclear),
        }
    }

    /// Nothing panics while it holds this lock; if it ever did, the names would still be whole.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host, without its port.
#[derive(Debug, PartialEq)]
enum Host {
    Address,
    /// In small letters, without a dot at its end.
    Name(String),
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`. `None` for anything else: a user name
/// before it, a list, an IPv6 address without brackets.
fn host_of(authority: &str) -> Option<Host> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            // A zone names an interface of the client's.
            let address = address.split('%').next()?;
            address.parse::<Ipv6Addr>().ok()?;
            (Host::Address, port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            let name = normalized(name)?;
            let host = match name.parse::<Ipv4Addr>() {
                Ok(_) => Host::Address,
                Err(_) => Host::Name(name),
            };
            (host, port)
        }
    };
    is_port(port).then_some(host)
}

/// A colon and a number, or nothing; the number may be left out.
fn is_port(port: &str) -> bool {
    let number = match port.strip_prefix(':') {
        Some(number) => number,
        None => return port.is_empty(),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (number.is_empty() || number.parse::<u16>().is_ok())
}

/// A name as all spellings of it are compared. `None` if it is none.
fn normalized(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_plain);
    let is_name = name.len() <= LONGEST_NAME && name.split('.').all(is_label);
    is_name.then(|| name.to_ascii_lowercase())
}

/// Whether a name is of this machine by its definition, so that it has no owner (RFC 6761).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(hosts: &Hosts, head: &str) -> Result<(), Refusal> {
        let mut lines = head.lines();
        let mut words = lines.next().unwrap().split(' ');
        let target = words.next().unwrap();
        let version = match words.next() {
            Some("1.0") => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        let mut request = Request::builder().uri(target).version(version);
        for host in lines {
            request = request.header(HOST, host);
        }
        hosts.admit(&request.body(()).unwrap())
    }

    #[test]
    fn request_for_an_address_or_localhost_or_an_allowed_name_is_admitted() {
        let hosts = Hosts::default();
        hosts.allow("Metrics.Internal.").unwrap();
        for host in [
            "127.0.0.1",
            "127.0.0.1:9000",
            "10.1.2.3.",
            "0.0.0.0:1",
            "[::1]",
            "[::1]:9000",
            "[FE80::1%eth0]:9000",
            "[::ffff:127.0.0.1]",
            "localhost",
            "LOCALHOST.:9000",
            "app.localhost",
            "metrics.internal",
            "METRICS.internal.:9000",
            "localhost:",
        ] {
            assert_eq!(
                admitted(&hosts, &format!("/metrics\n{host}")),
                Ok(()),
                "{host}"
            );
            let proxied = format!("http://{host}/metrics\n{host}");
            // The library refuses some of these as a target, before anything is answered.
            if format!("http://{host}/").parse::<hyper::Uri>().is_ok() {
                assert_eq!(admitted(&hosts, &proxied), Ok(()), "{host}");
            }
        }
        assert_eq!(admitted(&hosts, "/metrics 1.0"), Ok(()));
        assert_eq!(admitted(&hosts, "http://[::1]/metrics"), Ok(()));
    }

    #[test]
    fn request_for_another_host_is_refused_as_foreign() {
        let hosts = Hosts::default();
        hosts.allow("metrics.internal").unwrap();
        for host in [
            "evil.example",
            "evil.example:9000",
            "h",
            "localhost.evil.example",
            "evil-localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1.evil.example.",
            "metrics.internal.evil.example",
            "evil.metrics.internal",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
        ] {
            let refused = Err(Refusal::Foreign);
            assert_eq!(
                admitted(&hosts, &format!("/metrics\n{host}")),
                refused,
                "{host}"
            );
            assert_eq!(
                admitted(&hosts, &format!("/metrics 1.0\n{host}")),
                refused,
                "{host}"
            );
            assert_eq!(
                admitted(&hosts, &format!("http://{host}/metrics\nlocalhost")),
                refused,
                "{host}"
            );
            assert_eq!(
                admitted(&hosts, &format!("http://localhost/metrics\n{host}")),
                refused,
                "{host}"
            );
        }
    }

    #[test]
    fn request_that_names_no_host_clearly_is_refused() {
        let hosts = Hosts::default();
        for head in [
            "/metrics",
            "/metrics\n127.0.0.1\n127.0.0.1",
            "/metrics\n127.0.0.1\nevil.example",
            "/metrics\n127.0.0.1, evil.example",
            "/metrics\nevil.example@127.0.0.1",
            "/metrics\n127.0.0.1@evil.example",
            "/metrics\nlocalhost:80@evil.example",
            "/metrics\n[::1]evil.example",
            "/metrics\n[evil.example]",
            "/metrics\n[::1",
            "/metrics\n::1",
            "/metrics\nlocalhost:99999",
            "/metrics\nlocalhost:+80",
            "/metrics\nlocalhost:80:80",
            "/metrics\nlocalhost/",
            "/metrics\nlocalhost..",
            "/metrics\n.localhost",
            "/metrics\n..localhost",
            "/metrics\n.",
            "/metrics\nlocalhost\u{e9}",
            "http://evil.example@127.0.0.1/metrics\n127.0.0.1",
            "http://127.0.0.1/metrics\n127.0.0.1\n127.0.0.1",
        ] {
            assert_eq!(admitted(&hosts, head), Err(Refusal::Unclear), "{head:?}");
        }
    }

    #[test]
    fn allow_of_what_is_no_name_is_an_error() {
        let hosts = Hosts::default();
        for name in [
            "",
            ".",
            "http://a",
            "a:9000",
            "a/b",
            "*.a",
            "a b",
            "caf\u{e9}",
            "[::1]",
        ] {
            let error = hosts.allow(name).unwrap_err();
            assert!(error.is_invalid_setting() && error.to_string().contains("allow_host"));
        }
        assert!(hosts.lock().is_empty());
    }
}
