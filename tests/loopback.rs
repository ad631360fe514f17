//! The crate listens only on the addresses that the program passes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use shotclock::Watchdog;
use shotclock::page::{Page, router};
use shotclock::prometheus::{self, Exporter};

/// Returns the inode numbers of this process's sockets.
fn sockets() -> HashSet<String> {
    let number = |entry: std::io::Result<fs::DirEntry>| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        let number = target.to_str()?.strip_prefix("socket:[")?;
        Some(number.trim_end_matches(']').to_owned())
    };
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors.filter_map(number).collect()
}

/// Parses an address as the kernel writes it: words of 32 bits in machine order.
fn ip(hex: &str) -> IpAddr {
    let word = |n: usize| u32::from_str_radix(&hex[n * 8..][..8], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 8)
        .flat_map(|n| word(n).to_ne_bytes())
        .collect();
    match <[u8; 4]>::try_from(&*bytes) {
        Ok(bytes) => Ipv4Addr::from(bytes).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).into(),
    }
}

/// Returns the addresses on which this process listens. The kernel may list one twice while its tables change.
fn listening() -> BTreeSet<SocketAddr> {
    const LISTENS: &str = "0A";
    let ours = sockets();
    let mut addresses = BTreeSet::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields[3] == LISTENS && ours.contains(fields[9]) {
                let (address, port) = fields[1].split_once(':').unwrap();
                let port = u16::from_str_radix(port, 16).unwrap();
                addresses.insert(SocketAddr::new(ip(address), port));
            }
        }
    }
    addresses
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn listener_binds_the_given_address_only() {
    let watchdog = Watchdog::builder().build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = watchdog.guard("main", runtime.handle());
    let page = Page::new(&watchdog);
    assert_eq!(page.answer("/").status, 200);
    let _router: axum::Router = router(&watchdog);
    let recorder = prometheus::builder().install_recorder().unwrap();
    let exporter = Exporter::new(recorder);
    exporter.show_page(&watchdog);
    assert!(exporter.render().contains("shotclock_"));
    drop(watchdog.watch("w").enter());
    watchdog.publish_metrics();
    assert_eq!(listening(), BTreeSet::new());

    // The test can fail.
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let Ok(socket) = TcpListener::bind(everywhere) else {
            println!("SKIPPED in part: {everywhere} is not to be had here");
            continue;
        };
        assert_eq!(listening(), [socket.local_addr().unwrap()].into());
    }

    let exporter = exporter.serve("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = exporter.local_addr().unwrap();
    assert!(address.ip().is_loopback());
    assert_eq!(listening(), [address].into());
    for path in ["/metrics", "/debug/shotclock/state.json"] {
        let answer = ask(address, path).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Another address of this machine, at the same port.
    let other = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), address.port());
    let refused = ask(other, "/metrics").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(listening(), [address].into());
}

/// Returns the IPv4 addresses in a text.
fn addresses(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.trim_matches('.').parse().ok())
}

/// The examples and scripts listen on loopback only.
#[test]
fn examples_bind_loopback_addresses() {
    let of_text = |text: &str| addresses(text).map(|ip| ip.to_string()).collect::<Vec<_>>();
    assert_eq!(of_text("on 0.0.0.0:80."), ["0.0.0.0"], "it would be seen");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = fs::read_dir(root.join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path());
    let documents =
        ["README.md", "src/lib.rs", "src/prometheus/mod.rs"].map(|name| root.join(name));
    let mut found = 0;
    for file in examples.filter(|path| path.is_file()).chain(documents) {
        for ip in addresses(&fs::read_to_string(&file).unwrap()) {
            assert!(ip.is_loopback(), "{ip} in {}", file.display());
            found += 1;
        }
    }
    assert!(found >= 4, "the service has two, and the README as well");
}
