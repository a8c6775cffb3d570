//! Look-ups without an answer.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{Error, Resolver, Servers};
use super::pair;

#[test]
fn a_missing_server_is_a_temporary_error() {
    let (udp, tcp) = pair();
    let gone = Servers {
        addresses: vec![udp.local_addr().unwrap()],
        attempts: 1,
        ..Servers::default()
    };
    drop((udp, tcp));
    let resolver = Resolver::new(Path::new("/nonexistent"), gone);
    assert!(matches!(
        resolver.mx("example.org"),
        Err(Error::Temporary(_))
    ));
}

/// Each try has what is left of the time: the next one begins when it is over.
#[test]
fn a_look_up_has_a_limit() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let servers = Servers {
        addresses: vec![silent.local_addr().unwrap()],
        attempts: 5,
        timeout: Duration::from_secs(3_600),
        ..Servers::default()
    };
    let mut resolver = Resolver::new(Path::new("/nonexistent"), servers);
    resolver.end = Some(Instant::now() + Duration::from_millis(20));
    let found = resolver.addresses("mx.example.org");
    assert!(matches!(found, Err(Error::Temporary(_))), "{found:?}");
}
