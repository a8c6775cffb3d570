//! A connection whose thread panics.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::client::Client;
use super::live::Live;
use crate::config::Config;
use crate::deliver::{Store, Sync};
use crate::metrics::Metrics;
use crate::net::listen::Peer;
use crate::net::socket::Socket;
use crate::settings::Settings;
use crate::state::{ServerState, load};
use crate::throttle::Throttle;

/// F14: its client gets 421, and the panic goes on to the pool.
#[test]
fn a_panic_is_answered() {
    let args = ["--listen", "smtp:/nowhere", "--trust", "unix"].map(Into::into);
    let config = Config::new(&Settings::read(&args, |_| None).unwrap(), &[]).unwrap();
    let state = ServerState::new(
        Arc::new(load(&config).unwrap()),
        Store::new("mx.test", Sync::None, 0),
        config.timeout,
        false,
        config.trust.clone(),
        Metrics::new(false),
        Throttle::new(None),
    );
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let live = Live::new(Socket::Unix(ours));
    theirs.write_all(b"XCLIENT NAME=a.test\r\n").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let served = catch_unwind(AssertUnwindSafe(|| {
        let client = Client::new(&Peer::Unix(None));
        super::serve(&state, &live, client, 0, &mut |_| panic!("on purpose"));
    }));
    assert!(served.is_err());
    drop(live);
    let mut said = String::new();
    theirs.read_to_string(&mut said).unwrap();
    let last = "\r\n421 4.3.0 Internal error, closing the connection\r\n";
    assert!(said.starts_with("220 ") && said.ends_with(last), "{said}");
}
