//! Admits requests by the host that they name.
//!
//! The owner of a web page can make the page's own name resolve to this machine (DNS rebinding). Then the browser
//! takes our answers for the page's own, and lets the page read them. But the browser puts the name into each
//! request, and no page can change that. So the listener admits requests for IP addresses, for localhost, and for
//! names that the program allowed. None of these is the name of a page.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::header::HOST;
use hyper::{Request, StatusCode, Version};

use crate::error::Error;
use crate::sync::IgnorePoison as _;

/// The longest name of DNS (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// The host names that the program allowed. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Hosts {
    allowed: Arc<Mutex<BTreeSet<String>>>,
}

/// Why the listener refuses a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refusal {
    /// The request names no host, or names it ambiguously.
    Ambiguous,
    /// The request is for another host.
    Foreign,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::Ambiguous => StatusCode::BAD_REQUEST,
            Refusal::Foreign => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    /// Returns the line that tells the client what to do.
    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::Ambiguous => {
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

    /// Checks every host that a request names: in an absolute target, as proxies send it, and in its header.
    ///
    /// A request of HTTP/1.0 may name none; no browser speaks that version.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let target = request
            .uri()
            .authority()
            .map(|authority| authority.as_str());
        let mut headers = request.headers().get_all(HOST).iter();
        let header = headers.next().map(|value| value.to_str());
        let header = header.transpose().map_err(|_| Refusal::Ambiguous)?;
        let is_named = target.is_some() || header.is_some();
        if headers.next().is_some() || !is_named && request.version() > Version::HTTP_10 {
            return Err(Refusal::Ambiguous);
        }
        let mut named = target.into_iter().chain(header);
        named.try_for_each(|authority| self.admit_authority(authority))
    }

    fn admit_authority(&self, authority: &str) -> Result<(), Refusal> {
        match host_of(authority) {
            Some(Host::Address) => Ok(()),
            Some(Host::Name(name)) if is_localhost(&name) || self.lock().contains(&name) => Ok(()),
            Some(Host::Name(_)) => Err(Refusal::Foreign),
            None => Err(Refusal::Ambiguous),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.allowed.lock().ignore_poison()
    }
}

/// A host, without its port.
#[derive(Debug, PartialEq)]
enum Host {
    Address,
    /// In lower case, without a final dot.
    Name(String),
}

/// Parses `host`, `host:port`, `[address]` or `[address]:port`.
///
/// Returns `None` for anything else: a user name, a list, an IPv6 address without brackets.
fn host_of(authority: &str) -> Option<Host> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            // A zone names a network interface of the client, so it plays no part here.
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

/// Returns whether `port` is empty, a colon, or a colon and a port number.
fn is_port(port: &str) -> bool {
    let number = match port.strip_prefix(':') {
        Some(number) => number,
        None => return port.is_empty(),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (number.is_empty() || number.parse::<u16>().is_ok())
}

/// Returns the canonical spelling of a host name, or `None` if it is not a host name.
fn normalized(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_plain);
    let is_name = name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label);
    is_name.then(|| name.to_ascii_lowercase())
}

/// Returns whether a name always means this machine and has no owner (RFC 6761, section 6.3).
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
    fn request_for_an_address_localhost_or_an_allowed_name_is_admitted() {
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
            // `hyper` refuses some of these as a target, before the listener sees them.
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
    fn request_with_an_ambiguous_host_is_refused() {
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
            assert_eq!(admitted(&hosts, head), Err(Refusal::Ambiguous), "{head:?}");
        }
    }

    #[test]
    fn allow_of_an_invalid_name_is_an_error() {
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
