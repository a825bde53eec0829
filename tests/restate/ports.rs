//! Ports for servers that are restarted on the same port.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the system gives to connections. So no connection takes such a port while its server is dead.
const FIRST: u16 = 18_000;
const COUNT: u16 = 12_000;

/// Returns a port that is not in use. Each is given once to a process. Two processes begin at different ports.
pub(crate) fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = process::id().wrapping_mul(37) as u16 % COUNT;
    (0..COUNT)
        .map(|_| FIRST + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of twelve thousand ports is free")
}
